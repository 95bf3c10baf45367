"""The gate: a model that is as good passes, one that is worse is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("rasterio")

from export.check import Report, Row, Tolerances, _failures, check, print_report, read_tolerances
from export.heldout import held_out
from onboard.engine import SHIPPED_MODEL
from onboard.errors import ConfigError, EngineError
from onboard.frames import rotation_from_quaternion

PARENT = Row("FP32", "onnxruntime", 0.90, 0.95, 1.0, 4.0, (1.0, 1.0, 1.0), 9.0, 1.0, 1_000_000)
SMALL = dataclasses.replace(PARENT, name="INT8", cosine=(0.999, 0.999, 0.998), speedup=2.0, bytes=290_000)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The shipped file against its own weights, on drawn ground: three views, so that it takes seconds."""
    return check(SHIPPED_MODEL, data=tmp_path_factory.mktemp("no_data"), count=3, recall_count=4)


def test_the_gate_measures_all_three_precisions(report: Report) -> None:
    assert [row.name for row in report.rows] == ["FP32", "FP16", "INT8"]
    assert (report.views, report.recall_views) == (3, 4)
    assert "drawn" in report.ground
    for row in report.rows:
        assert row.ms > 0
        assert np.isfinite([row.median_m, row.p95_m, *row.cosine]).all()
        assert row.recall_at_1 <= row.recall_at_5


def test_the_shipped_model_finds_drawn_ground_in_metres(report: Report) -> None:
    assert all(row.median_m < 3.0 for row in report.rows)


def test_the_shipped_model_is_close_to_its_float_weights(report: Report) -> None:
    assert min(report.rows[2].cosine) > 0.99
    assert min(report.rows[1].cosine) > 0.9999


def test_a_model_as_good_as_its_parent_passes() -> None:
    assert _failures([PARENT, SMALL], Tolerances(int8_speedup=1.8)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recall_at_1": 0.88}, "R@1 0.88"),
        ({"recall_at_5": 0.93}, "R@5 0.93"),
        ({"median_m": 1.06}, "median m 1.06"),
        ({"p95_m": 9.0}, "95 % m 9"),
        ({"median_m": float("nan")}, "median m nan"),
        ({"cosine": (0.999, 0.97, 0.999)}, "cosine detail 0.97"),
        ({"bytes": 310_000}, "share of the float file 0.31"),
        ({"speedup": 1.5}, "times faster 1.5"),
    ],
)
def test_each_loss_beyond_its_tolerance_is_named(change: dict[str, object], said: str) -> None:
    worse = dataclasses.replace(SMALL, **change)
    (line,) = _failures([PARENT, worse], Tolerances(int8_speedup=1.8))
    assert line.startswith("INT8: " + said)


def test_a_slow_machine_fails_no_model_unless_asked() -> None:
    assert _failures([PARENT, dataclasses.replace(SMALL, speedup=0.5)], Tolerances()) == []


def test_the_table_shows_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(Report("somewhere", 7, 9, (PARENT, SMALL), ("INT8: R@1 0.1, expected >= 0.89",)))
    shown = capsys.readouterr().out
    assert "FP32" in shown
    assert "INT8: R@1 0.1" in shown
    assert "somewhere; 7 views" in shown
    assert "recall of 9" in shown


def test_tolerances_are_read_and_mistakes_named(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text("median_growth: 0.2\nint8_speedup: 1.8\n")
    assert read_tolerances(file) == Tolerances(median_growth=0.2, int8_speedup=1.8)
    assert read_tolerances(None) == Tolerances()
    for text, said in (("median: 1", "unknown tolerance: median"), ("median_growth: much", "median_growth: much")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_tolerances(file)
    with pytest.raises(ConfigError, match="no tolerances file"):
        read_tolerances(tmp_path / "absent.yaml")


def test_a_model_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x00" * 40)
    with pytest.raises(EngineError, match=r"unreadable model|not a Pilotage model"):
        check(tmp_path / "m.onnx", data=tmp_path)


def test_held_out_views_are_the_same_each_time_and_told_with_error(tmp_path: Path) -> None:
    one, other = (held_out(tmp_path, tmp_path, 3) for _ in range(2))
    for a, b in zip(one.views, other.views, strict=True):
        np.testing.assert_array_equal(a.frame.image_bgr, b.frame.image_bgr)
        assert a.place == b.place
    heights = [view.telemetry.height_above_ground_m for view in one.views]
    assert all(abs(h - 100) <= 6 for h in heights)
    assert len(set(heights)) == 3
    assert rotation_from_quaternion(one.views[0].telemetry.attitude_quat_wxyz)[2, 2] == pytest.approx(1)
