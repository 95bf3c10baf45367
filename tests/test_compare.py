"""Two replays of one flight: what is told of the difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from toy_replay import FRAME, REGION, ToyFlight, ToyLocalizer, flight_steps, make_step
from typer.testing import CliRunner

from onboard.config import Config, SearchConfig
from onboard.records import Reason, Step
from onboard.replay.compare import CompareError, compare, in_words, to_dict
from onboard.replay.compare_cli import compare as command
from onboard.replay.run import replay
from onboard.replay.runs import RunError, read_run

APP = typer.Typer()
APP.command()(command)
ANCHOR = {"anchor_latitude_deg": FRAME.anchor_latitude_deg, "anchor_longitude_deg": FRAME.anchor_longitude_deg}


def run_of(path: Path, steps: list[Step], **more: Any) -> Path:
    replay(ToyFlight(steps), ToyLocalizer(steps), REGION, path, map_facts=ANCHOR, **more)
    return path


def other_steps() -> list[Step]:
    """As `flight_steps`, but frame 10 is refused, frame 2 is not, and frame 20 lies 12 m further off."""
    steps = flight_steps()
    steps[10] = make_step(5.0, None, reason=Reason.WEAK_MATCH)
    steps[2] = make_step(1.0, (2.0, 0.0))
    steps[20] = make_step(10.0, (13.0, 0.0), heading_rad=0.3)
    return steps


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return run_of(tmp_path / "a", flight_steps()), run_of(tmp_path / "b", other_steps())


def test_the_same_replay_twice_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    a, b = (run_of(tmp_path / name, flight_steps()) for name in "ab")
    found = compare(read_run(a), read_run(b))
    assert found.same_bytes
    assert (found.settings, found.changed, found.grown, found.first_difference) == ([], [], [], None)
    words = in_words(found)
    assert words[:3] == ["The fixes are the same, byte for byte.", "Settings: the same.", "Figures: the same."]


def test_frames_that_came_out_otherwise_are_named(runs: tuple[Path, Path]) -> None:
    found = compare(read_run(runs[0]), read_run(runs[1]))
    assert not found.same_bytes
    assert [(c.index, c.before, c.after) for c in found.changed] == [(2, "no_image", "fix"), (10, "fix", "weak_match")]
    assert found.outcomes == {("no_image", "fix"): 1, ("fix", "weak_match"): 1}
    (grown,) = found.grown
    assert (grown.index, grown.before, grown.after) == (20, "fix", "fix")
    assert (grown.error_before_m, grown.error_after_m) == pytest.approx((1.0, 13.0), abs=1e-3)
    assert found.first_difference is not None
    assert found.first_difference[0] == 2
    assert "published" in found.first_difference[1]
    words = "\n".join(in_words(found))
    assert "  10: fix -> weak_match, 1.0 m -> -" in words
    assert "  20: fix -> fix, 1.0 m -> 13.0 m" in words


def test_an_error_that_grew_by_less_is_not_told(runs: tuple[Path, Path]) -> None:
    assert compare(read_run(runs[0]), read_run(runs[1]), grew_m=12.5).grown == []


def test_figures_and_their_differences_are_told(runs: tuple[Path, Path]) -> None:
    found = compare(read_run(runs[0]), read_run(runs[1]))
    worst = next(metric for metric in found.metrics if metric.name == "error, worst")
    assert (worst.before, worst.after, worst.unit) == (1.0, 13.0, "m")
    assert "  error, worst: 1 -> 13 m (+12)" in in_words(found)


def test_changed_settings_are_named_by_their_keys(tmp_path: Path) -> None:
    a = run_of(tmp_path / "a", flight_steps(), model={"name": "old", "sha256": "1"})
    more = {"model": {"name": "new", "sha256": "2"}, "config": Config(search=SearchConfig(height_error=0.3))}
    b = run_of(tmp_path / "b", flight_steps(), independent=True, **more)
    found = compare(read_run(a), read_run(b))
    assert found.same_bytes
    changes = {change.key: (change.before, change.after) for change in found.settings}
    assert changes == {
        "config.search.height_error": (Config().search.height_error, 0.3),
        "model.name": ("old", "new"),
        "model.sha256": ("1", "2"),
        "flight.independent": (False, True),
    }


def test_frames_of_one_run_only_are_counted(tmp_path: Path) -> None:
    a, b = run_of(tmp_path / "a", flight_steps()), run_of(tmp_path / "b", flight_steps()[:30])
    found = compare(read_run(a), read_run(b))
    assert (found.only_before, found.only_after) == (10, 0)
    assert any("first run only: 10" in line for line in in_words(found))


def test_two_flights_are_not_compared(tmp_path: Path) -> None:
    a = run_of(tmp_path / "a", flight_steps())
    b = run_of(tmp_path / "b", [make_step(1000.25 + k, (1.0, 0.0)) for k in range(5)])
    with pytest.raises(CompareError, match="two different flights") as raised:
        compare(read_run(a), read_run(b))
    assert "\n" not in str(raised.value)


def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no results of a replay"):
        read_run(tmp_path)
    for content, words in (("{", "broken summary"), ("[]", "a JSON object"), ('{"flights": []}', "many flights")):
        (tmp_path / "summary.json").write_text(content)
        with pytest.raises(RunError, match=words) as raised:
            read_run(tmp_path)
        assert "\n" not in str(raised.value)


def test_the_exit_status_is_zero_unless_strict(runs: tuple[Path, Path]) -> None:
    a, b = map(str, runs)
    assert CliRunner().invoke(APP, [a, b]).exit_code == 0
    assert CliRunner().invoke(APP, [a, b, "--strict"]).exit_code == 1
    assert CliRunner().invoke(APP, [a, a, "--strict"]).exit_code == 0


def test_json_holds_what_the_words_say(runs: tuple[Path, Path]) -> None:
    a, b = map(str, runs)
    told = json.loads(CliRunner().invoke(APP, [a, b, "--json"]).stdout)
    assert told["same_bytes"] is False
    assert told["outcomes"] == [
        {"before": "no_image", "after": "fix", "frames": 1},
        {"before": "fix", "after": "weak_match", "frames": 1},
    ]
    assert told["first_difference"]["index"] == 2
    assert told["changed"][1]["error_after_m"] is None
    assert told == to_dict(compare(read_run(runs[0]), read_run(runs[1])))
