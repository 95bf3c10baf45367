"""`pilotage compare`: two replays of one flight, and what changed between them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from onboard.replay.compare import GREW_M, in_words, to_dict
from onboard.replay.compare import compare as compare_runs
from onboard.replay.runs import read_run


def compare(
    before: Annotated[Path, typer.Argument(metavar="RUN_A", help="The folder of a replay.")],
    after: Annotated[Path, typer.Argument(metavar="RUN_B", help="The folder of another replay of the same flight.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of words.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit status 1 where fixes.csv differs.")] = False,
    grew_m: Annotated[float, typer.Option(min=0.0, help="Tell of errors that grew by more than this.")] = GREW_M,
    frames: Annotated[int, typer.Option(min=0, help="Name at most so many frames of a kind.")] = 10,
) -> None:
    """Tell what changed between two replays of one flight: settings, figures, frames."""
    found = compare_runs(read_run(before), read_run(after), grew_m)
    if as_json:
        print(json.dumps(to_dict(found), indent=2, allow_nan=False))
    else:
        print("\n".join(in_words(found, frames)))
    if strict and not found.same_bytes:
        raise typer.Exit(1)
