"""Results appear whole or not at all: made beside the folder, then renamed into it."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onboard.errors import PilotageError

SUMMARY, FIXES, REPORT, CONFIG, RECEIVED = "summary.json", "fixes.csv", "report.html", "config.yaml", "received.csv"
ESTIMATE_TUM, TRUTH_TUM, KML, MCAP = "estimate.tum", "truth.tum", "estimate.kml", "results.mcap"
OURS = (SUMMARY, FIXES, REPORT, CONFIG, RECEIVED, ESTIMATE_TUM, TRUTH_TUM, KML, MCAP)
INDEX = "index.html"  # of many flights, with a SUMMARY of its own beside it


class OutputError(PilotageError):
    """A folder that results cannot be written to."""


@contextmanager
def staged(out_dir: Path | str) -> Iterator[Path]:
    """A folder beside `out_dir` to write `OURS` into; a clean end moves them there, an exception leaves no trace.

    What else lies in `out_dir` stays. An earlier result's files are replaced, its summary.json first removed and
    the new one moved last: a folder that has one has the files that belong to it. What a killed replay left
    beside it is cleared away. Raises OutputError where the folder cannot be made, or holds the results of many.
    """
    out_dir = Path(out_dir).absolute()
    stage = out_dir.with_name(f".{out_dir.name}.partial-{os.getpid()}")
    if out_dir.exists() and not out_dir.is_dir():
        raise OutputError("output is no folder", out_dir, "a folder, there or not yet there", "give another --out")
    if (out_dir / INDEX).exists() and (out_dir / SUMMARY).exists() and not (out_dir / FIXES).exists():
        raise OutputError(
            "the overview of many flights lies in", out_dir, "a folder for the results of one", "give another --out"
        )
    try:
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        _clear_left_overs(out_dir)
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir()
    except OSError as error:
        raise OutputError(
            "cannot write results", f"{out_dir} ({error.strerror})", "a folder that can be written"
        ) from error
    try:
        yield stage
        _move(stage, out_dir)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _clear_left_overs(out_dir: Path) -> None:
    """Stages whose process is gone."""
    for left in out_dir.parent.glob(f".{glob.escape(out_dir.name)}.partial-*"):
        process = left.name.rpartition("-")[2]
        if process.isdigit() and not _is_alive(int(process)):
            shutil.rmtree(left, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _move(stage: Path, out_dir: Path) -> None:
    if not out_dir.exists():
        os.replace(stage, out_dir)
        return
    (out_dir / SUMMARY).unlink(missing_ok=True)
    for name in reversed(OURS):
        if (stage / name).exists():
            os.replace(stage / name, out_dir / name)
        else:
            (out_dir / name).unlink(missing_ok=True)
