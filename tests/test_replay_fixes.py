"""The rows of fixes.csv: what stands in each, and that they come back as they were written."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from toy_replay import FRAME, flight_steps, make_step, rows_of

from onboard.replay.fixes import COLUMNS, FixesError, FixesWriter, FixRow, format_row, read_fixes, row_of


def test_a_row_is_written_in_fixed_decimals() -> None:
    numbers = 37.4900000001, -0.5, 1.0, -0.00001, 2.34567, 359.9996
    row = FixRow(1700000000500000000, "cam", "tracking", True, *numbers, "", 37.0, None)
    assert ",".join(format_row(row)) == (
        "1700000000500000000,cam,tracking,1,37.490000000,-0.500000000,1.0000,0.0000,2.3457,0.000,,37.000000000,,"
    )


def test_the_columns_are_those_that_others_read() -> None:
    assert ",".join(COLUMNS) == (
        "captured_at_ns,source,state,published,latitude_deg,longitude_deg,cov_ee_m2,cov_en_m2,cov_nn_m2,"
        "heading_deg,reason,best_latitude_deg,best_longitude_deg,rivals"
    )


def test_the_guesses_after_the_first_are_kept_to_a_tenth_of_a_millimetre(tmp_path: Path) -> None:
    step = make_step(0, (0, 0))
    row = row_of(dataclasses.replace(step, rivals_enu_m=(np.array([30.0, -7.0]), np.array([0.5, 900.0]))), FRAME)
    with FixesWriter(tmp_path / "fixes.csv") as writer:
        writer.write(row)
        writer.write(row_of(step, FRAME))
    one, other = read_fixes(tmp_path / "fixes.csv")
    np.testing.assert_allclose(one.rivals_enu_m(FRAME), [[30.0, -7.0], [0.5, 900.0]], atol=2e-4)
    assert other.rivals == ()


def test_a_file_from_before_the_rivals_is_read(tmp_path: Path) -> None:
    rows = rows_of(flight_steps())
    with FixesWriter(tmp_path / "fixes.csv") as writer:
        for row in rows:
            writer.write(row)
    lines = (tmp_path / "fixes.csv").read_text().splitlines()
    (tmp_path / "old.csv").write_text("\n".join(line.rsplit(",", 1)[0] for line in lines) + "\n")
    assert read_fixes(tmp_path / "old.csv") == read_fixes(tmp_path / "fixes.csv")


def test_a_refused_frame_has_a_reason_and_a_guess_but_no_position() -> None:
    row = row_of(flight_steps()[0], FRAME)
    assert (row.published, row.latitude_deg, row.cov_ee_m2, row.heading_deg) == (False, None, None, None)
    assert (row.reason, row.state) == ("weak_match", "lost")
    assert row.best_position_enu_m(FRAME) == pytest.approx([120, -100], abs=1e-5)


def test_a_heading_is_written_only_where_it_was_measured() -> None:
    assert row_of(make_step(0, (0, 0), heading_rad=-math.pi / 2), FRAME).heading_deg == pytest.approx(270)
    assert row_of(make_step(0, (0, 0)), FRAME).heading_deg is None


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = rows_of(flight_steps())
    with FixesWriter(tmp_path / "fixes.csv") as writer:
        for row in rows:
            writer.write(row)
    back = read_fixes(tmp_path / "fixes.csv")
    assert [format_row(row) for row in back] == [format_row(row) for row in rows]
    assert [p.name for p in tmp_path.iterdir()] == ["fixes.csv"]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AttributeError), FixesWriter(tmp_path / "fixes.csv") as writer:
        writer.write(None)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda text: text.replace("state", "mood", 1), lambda text: text + "x,y\n"])
def test_a_damaged_fixes_file_is_one_line_of_error(tmp_path: Path, damage) -> None:
    with FixesWriter(tmp_path / "fixes.csv") as writer:
        writer.write(rows_of(flight_steps())[5])
    (tmp_path / "fixes.csv").write_text(damage((tmp_path / "fixes.csv").read_text()))
    with pytest.raises(FixesError, match=r"fixes\.csv"):
        read_fixes(tmp_path / "fixes.csv")
