"""Results appear whole or not at all: made beside the folder, then renamed into it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onboard.errors import PilotageError

SUMMARY, FIXES, REPORT, CONFIG, RECEIVED = "summary.json", "fixes.csv", "report.html", "config.yaml", "received.csv"
OURS = (SUMMARY, FIXES, REPORT, CONFIG, RECEIVED)


class OutputError(PilotageError):
    """A folder that results cannot be written to."""


@contextmanager
def staged(out_dir: Path | str) -> Iterator[Path]:
    """A folder beside `out_dir` to write `OURS` into; a clean end moves them there, an exception leaves no trace.

    What else lies in `out_dir` stays. An earlier result's files are replaced, its summary.json first removed and
    the new one moved last: a folder that has one has the files that belong to it.
    Raises OutputError where the folder cannot be made.
    """
    out_dir = Path(out_dir).absolute()
    stage = out_dir.with_name(f".{out_dir.name}.partial-{os.getpid()}")
    if out_dir.exists() and not out_dir.is_dir():
        raise OutputError("output is no folder", out_dir, "a folder, there or not yet there", "give another --out")
    try:
        out_dir.parent.mkdir(parents=True, exist_ok=True)
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
