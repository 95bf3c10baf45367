"""Many flights, one after the other: a folder for each, an overview of all, the worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onboard.errors import FlightError, PilotageError
from onboard.replay import outputs
from onboard.replay.outputs import OutputError
from onboard.replay.pages import render, write_page
from onboard.replay.runs import read_run
from onboard.replay.score import CHI2_95, spread
from onboard.replay.summary import percent, plain, verdict, write_summary

_FIGURES = (
    "frames",
    "fixes",
    "availability",
    "false_fixes",
    "error_m",
    "ate_rmse_m",
    "coverage_95",
    "nees_mean",
    "found_within_8_m",
    "time_to_first_fix_s",
    "frame_ms",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one flight: its summary, or the problem in one line. `name` is that of its folder."""

    name: str
    summary: Mapping[str, Any] | None
    problem: str = ""


def replay_many(
    flights: Sequence[Path], out: Path, replay_one: Callable[[Path, str, Path], Mapping[str, Any]]
) -> list[Outcome]:
    """Replay each flight into its folder in `out` by `replay_one(flight, name, folder)`, then write the overview.

    A flight that cannot be read is an outcome like any other. Raises OutputError where `out` cannot take results.
    """
    _check_folder(out)
    names = run_names(flights)
    for stale in (outputs.SUMMARY, outputs.INDEX):  # while some flights are old and some new there is no overview
        (out / stale).unlink(missing_ok=True)
    outcomes = []
    for flight, name in zip(flights, names, strict=True):
        try:
            outcomes.append(Outcome(name, replay_one(flight, name, out / name)))
        except OutputError:
            raise
        except PilotageError as error:
            outcomes.append(Outcome(name, None, str(error)))
    write_overview(out, overview(outcomes, out))
    return outcomes


def run_names(flights: Sequence[Path]) -> list[str]:
    """A folder name for each flight, as short as tells them apart. FlightError where one is named twice."""
    paths = [flight.resolve() for flight in flights]
    twice = [path for path, n in Counter(paths).items() if n > 1]
    if twice:
        raise FlightError("a flight is named twice", twice[0], "each flight once")
    names = [path.stem if path.is_file() else path.name for path in paths]
    common = {name for name, n in Counter(map(str.lower, names)).items() if n > 1}
    names = [
        f"{path.parent.name}-{name}" if name.lower() in common else name
        for path, name in zip(paths, names, strict=True)
    ]
    taken: set[str] = set()
    for i, name in enumerate(names):
        number = 1
        while names[i].lower() in taken:
            number += 1
            names[i] = f"{name}-{number}"
        taken.add(names[i].lower())
    return names


def overview(outcomes: Sequence[Outcome], out: Path) -> dict[str, Any]:
    """summary.json of many flights: the worst first, then totals over all their frames."""
    flights = []
    for outcome in sorted(outcomes, key=_worst_first):
        told: dict[str, Any] = {"name": outcome.name, "problem": outcome.problem or None}
        if outcome.summary is not None:
            told["tone"], told["verdict"] = verdict(outcome.summary)
            told |= {key: outcome.summary.get(key) for key in _FIGURES}
        flights.append(told)
    return plain({"flights": flights, "totals": _totals(outcomes, out)}, 4)


def write_overview(out: Path, told: Mapping[str, Any]) -> None:
    """index.html, then summary.json, each beside and then renamed."""
    out.mkdir(parents=True, exist_ok=True)
    totals = told["totals"]
    page = render("index.html.j2", flights=told["flights"], totals=totals, sentence=sentence(totals), percent=percent)
    write_page(out / outputs.INDEX, page)
    write_summary(told, out / outputs.SUMMARY)


def sentence(totals: Mapping[str, Any]) -> str:
    """All flights in one sentence."""
    n, failed = totals["flights"], totals["failed"]
    words = f"{n - failed} of {n} flights replayed: {totals['frames']} frames, {totals['fixes']} fixes"
    if totals["error_m"] is not None:
        words += f", median error {totals['error_m']['median']:.1f} m, 95 % within {totals['error_m']['p95']:.1f} m"
    if totals["false_fixes"] is not None:
        words += f", {totals['false_fixes'] or 'no'} false fix{'' if totals['false_fixes'] == 1 else 'es'}"
    return words + "."


def _totals(outcomes: Sequence[Outcome], out: Path) -> dict[str, Any]:
    """Over the frames of all flights together, read from what was written."""
    done = [outcome for outcome in outcomes if outcome.summary is not None]
    summaries = [outcome.summary for outcome in done if outcome.summary is not None]
    runs = [read_run(out / outcome.name) for outcome in done]
    errors = np.concatenate([np.empty(0), *(run.error_m[np.isfinite(run.error_m)] for run in runs)])
    squared = np.concatenate([np.empty(0), *(run.mahalanobis2[~np.isnan(run.mahalanobis2)] for run in runs)])
    frames, fixes = (sum(s[key] for s in summaries) for key in ("frames", "fixes"))
    judged = [s["false_fixes"] for s in summaries if s["false_fixes"] is not None]
    found = spread(errors)
    return {
        "flights": len(outcomes),
        "failed": len(outcomes) - len(done),
        "frames": frames,
        "fixes": fixes,
        "availability": fixes / frames if frames else None,
        "false_fixes": sum(judged) if judged else None,
        "error_m": None if found is None else {"median": found.median, "p95": found.p95, "max": found.max},
        "ate_rmse_m": float(np.sqrt(np.mean(errors**2))) if errors.size else None,
        "coverage_95": float((squared <= CHI2_95).mean()) if squared.size else None,
    }


def _worst_first(outcome: Outcome) -> tuple[bool, int, bool, float, float, str]:
    """Not replayed, false fixes, no fix, large errors, few fixes."""
    if outcome.summary is None:
        return False, 0, False, 0.0, 0.0, outcome.name
    s = outcome.summary
    p95 = s["error_m"]["p95"] if s["error_m"] is not None else 0.0
    return True, -(s["false_fixes"] or 0), s["fixes"] > 0, -p95, s["availability"] or 0.0, outcome.name


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise OutputError("output is no folder", out, "a folder, there or not yet there", "give another --out")
    if (out / outputs.FIXES).exists():
        raise OutputError(
            "the results of one flight lie in", out, "a folder for the results of many", "give another --out"
        )
