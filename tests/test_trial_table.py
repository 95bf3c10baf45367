"""The table of trials: a run that placed nothing is a row like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibration.trials.table import print_table
from onboard.errors import ConfigError

FOUND = {"frames": 4, "fixes": 2, "false_fixes": 1, "found_within_8_m": 1, "coverage_95": 0.5}
GUESSES = {f"best_guess_within_{metres}_m": metres // 3 for metres in (1, 8, 10)} | {
    "five_guesses_within_10_m": 2,
    "first_tile_covers": 3,
    "five_tiles_cover": 4,
}


def run(folder: Path, **summary: object) -> Path:
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_what_was_found_and_what_was_wrong_stand_in_a_row_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "220")
    some = run(tmp_path / "some", **FOUND, **GUESSES, error_m={"median": 1.25, "p95": 31.0, "max": 31.0})
    none = run(tmp_path / "none", **FOUND | {"fixes": 0, "coverage_95": None}, **GUESSES, error_m=None)
    print_table([some, none])
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    cells = "some, 4, 1 (25 %), 2, 1, 2 (50 %), 0 (0 %), 3 (75 %), 2 (50 %), 3 (75 %), 4 (100 %), 1.2, 31.0, 50 %"
    assert [cell.strip() for cell in rows[0]] == cells.split(", ")
    assert [cell.strip() for cell in rows[1]][-3:] == ["-", "-", "-"]


def test_a_folder_without_a_summary_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pilotage replay"):
        print_table([tmp_path])
