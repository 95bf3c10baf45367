"""Many flights in one go: a folder each, an overview, and none lost because another is broken."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_replay import FRAME, REGION, ToyFlight, ToyLocalizer, flight_steps, make_step

from onboard.errors import FlightError
from onboard.records import Reason, Step
from onboard.replay.cli import ended_by_sigterm
from onboard.replay.many import Outcome, replay_many, run_names, sentence
from onboard.replay.outputs import OURS, OutputError, staged
from onboard.replay.run import replay

ANCHOR = {"anchor_latitude_deg": FRAME.anchor_latitude_deg, "anchor_longitude_deg": FRAME.anchor_longitude_deg}
FLIGHTS: dict[str, list[Step] | None] = {
    "good": flight_steps(),
    "wrong": [*flight_steps(), make_step(21.0, (50.0, 0.0))],
    "broken": None,
    "silent": [make_step(k, None, reason=Reason.WEAK_MATCH) for k in range(5)],
}


def replay_one(flight: Path, name: str, folder: Path) -> dict[str, Any]:
    steps = FLIGHTS[flight.name]
    if steps is None:
        raise FlightError("broken recording", flight, "a whole one", "copy <it> again")
    return replay(ToyFlight(steps), ToyLocalizer(steps), REGION, folder, map_facts=ANCHOR)


def all_flights(tmp_path: Path) -> tuple[Path, list[Outcome]]:
    out = tmp_path / "runs"
    return out, replay_many([tmp_path / name for name in FLIGHTS], out, replay_one)


def test_a_broken_flight_does_not_lose_the_others(tmp_path: Path) -> None:
    out, outcomes = all_flights(tmp_path)
    assert {p.name for p in out.iterdir()} == {"good", "wrong", "silent", "index.html", "summary.json"}
    assert {p.name for p in (out / "good").iterdir()} == set(OURS) - {"received.csv"}
    assert [(o.name, bool(o.problem)) for o in outcomes] == [
        ("good", False),
        ("wrong", False),
        ("broken", True),
        ("silent", False),
    ]


def test_the_overview_names_the_worst_first_and_adds_all_up(tmp_path: Path) -> None:
    out, _ = all_flights(tmp_path)
    told = json.loads((out / "summary.json").read_text())
    assert [flight["name"] for flight in told["flights"]] == ["broken", "wrong", "silent", "good"]
    assert "copy <it> again" in told["flights"][0]["problem"]
    assert [flight.get("tone") for flight in told["flights"][1:]] == ["bad", "bad", "good"]
    totals = told["totals"]
    assert (totals["flights"], totals["failed"], totals["frames"], totals["fixes"]) == (4, 1, 86, 75)
    assert totals["false_fixes"] == 1
    errors = np.array([1.0] * 74 + [50.0])  # of all flights together, not a mean of medians
    assert totals["error_m"] == pytest.approx(
        {"median": 1.0, "p95": float(np.percentile(errors, 95)), "max": 50.0}, abs=1e-3
    )
    assert totals["ate_rmse_m"] == pytest.approx(float(np.sqrt(np.mean(errors**2))), abs=1e-3)
    assert totals["coverage_95"] == pytest.approx(74 / 75, abs=1e-4)
    assert sentence(totals).startswith("3 of 4 flights replayed: 86 frames, 75 fixes")
    assert "1 false fix." in sentence(totals)


class _Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for key, value in attrs if key in ("href", "src")]


def test_the_page_links_to_each_report_and_says_what_broke(tmp_path: Path) -> None:
    out, _ = all_flights(tmp_path)
    page = (out / "index.html").read_text()
    assert _Links(page).found == ["wrong/report.html", "silent/report.html", "good/report.html"]
    assert all((out / link).is_file() for link in _Links(page).found)
    assert "copy &lt;it&gt; again" in page


def test_without_any_truth_or_any_success_there_is_still_an_overview(tmp_path: Path) -> None:
    replay_many([tmp_path / "broken"], tmp_path / "runs", replay_one)
    totals = json.loads((tmp_path / "runs" / "summary.json").read_text())["totals"]
    assert (totals["failed"], totals["frames"], totals["error_m"], totals["availability"]) == (1, 0, None, None)


def test_flights_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    def made(*parts: str) -> Path:
        path = tmp_path.joinpath(*parts)
        path.mkdir(parents=True)
        return path

    monday, tuesday, other = made("monday", "bag"), made("tuesday", "Bag"), made("other")
    assert run_names([monday, tuesday, other]) == ["monday-bag", "tuesday-Bag", "other"]
    deep = made("far", "monday", "bag")
    assert run_names([monday, deep]) == ["monday-bag", "monday-bag-2"]
    file = tmp_path / "run.mcap"
    file.touch()
    assert run_names([file, other]) == ["run", "other"]
    with pytest.raises(FlightError, match="named twice"):
        run_names([monday, monday / ".." / "bag"])


def test_an_overview_does_not_lie_over_the_results_of_one_flight(tmp_path: Path) -> None:
    replay_one(tmp_path / "good", "good", tmp_path / "runs")
    before = {p.name: p.read_bytes() for p in (tmp_path / "runs").iterdir()}
    with pytest.raises(OutputError, match="one flight"):
        replay_many([tmp_path / "good"], tmp_path / "runs", replay_one)
    assert {p.name: p.read_bytes() for p in (tmp_path / "runs").iterdir()} == before


def test_the_results_of_one_flight_do_not_lie_over_an_overview(tmp_path: Path) -> None:
    out, _ = all_flights(tmp_path)
    before = (out / "summary.json").read_bytes()
    with pytest.raises(OutputError, match="overview"):
        replay_one(tmp_path / "good", "good", out)
    assert (out / "summary.json").read_bytes() == before


def test_a_replay_that_is_stopped_midway_leaves_whole_flights_and_no_overview(tmp_path: Path) -> None:
    out, _ = all_flights(tmp_path)

    def stopped(flight: Path, name: str, folder: Path) -> Mapping[str, Any]:
        if flight.name == "wrong":
            with staged(folder) as stage:
                (stage / "fixes.csv").write_text("half of it")
                raise KeyboardInterrupt
        return replay_one(flight, name, folder)

    before = (out / "wrong" / "fixes.csv").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        replay_many([tmp_path / "good", tmp_path / "wrong"], out, stopped)
    assert not (out / "summary.json").exists()
    assert not (out / "index.html").exists()
    assert (out / "wrong" / "fixes.csv").read_bytes() == before
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def test_what_a_killed_replay_left_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    process = os.fork()
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)  # gone: its number is nobody's
    dead, living = tmp_path / f".out.partial-{process}", tmp_path / f".out.partial-{os.getppid()}"
    for left in (dead, living):
        left.mkdir()
        (left / "fixes.csv").write_text("half of it")
    with staged(tmp_path / "out") as stage:
        (stage / "fixes.csv").write_text("whole")
    assert not dead.exists()
    assert living.exists()  # of another replay that still runs
    assert (tmp_path / "out" / "fixes.csv").read_text() == "whole"


def test_sigterm_ends_as_an_interrupt_does_and_only_there() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), ended_by_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
