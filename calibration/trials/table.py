"""One row a run: what was found, what was refused, what was wrong."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from onboard.errors import ConfigError


def print_table(runs: list[Path]) -> None:
    """Reads summary.json of each folder. R@1m and R@10m are of first guesses, over all frames; R@5 10m: one of the
    first five is as near. "covers": the map's tile of the first guess, or of one of the first five, shows the place
    (UnifyGeo IV.B's hit rate)."""
    table = Table(
        "run",
        "frames",
        "found < 8 m",
        "published",
        "wrong",
        "first guess < 8 m",
        "R@1m",
        "R@10m",
        "R@5 10m",
        "covers",
        "covers@5",
        "median m",
        "p95 m",
        "in 95 %",
    )
    for run in runs:
        path = run / "summary.json"
        if not path.is_file():
            raise ConfigError("no summary", path, "an output folder of `pilotage replay`")
        s = json.loads(path.read_text())
        error = s["error_m"] or {"median": None, "p95": None}  # none where nothing was published
        table.add_row(
            run.name,
            str(s["frames"]),
            _share(s.get("found_within_8_m"), s["frames"]),
            str(s["fixes"]),
            str(s["false_fixes"]),
            *(_share(s.get(f"best_guess_within_{metres}_m"), s["frames"]) for metres in (8, 1, 10)),
            *(
                _share(s.get(k), s["frames"])
                for k in ("five_guesses_within_10_m", "first_tile_covers", "five_tiles_cover")
            ),
            *(("-" if error[k] is None else f"{error[k]:.1f}") for k in ("median", "p95")),
            "-" if s["coverage_95"] is None else f"{100 * s['coverage_95']:.0f} %",
        )
    Console().print(table)


def _share(count: int | None, frames: int) -> str:
    return "-" if count is None else f"{count} ({100 * count / max(frames, 1):.0f} %)"
