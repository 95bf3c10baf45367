"""A replay from the first frame to its folder: what it writes, what it sends, and what it leaves when it breaks off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_replay import FRAME, REGION, ToyFlight, ToyLocalizer, flight_steps

from onboard.errors import ConfigError, FlightError
from onboard.records import Frame, State, Telemetry
from onboard.replay.fixes import read_fixes
from onboard.replay.outputs import OURS, OutputError, staged
from onboard.replay.run import Progress, replay
from onboard.replay.start import parse_start


def test_replay_writes_all_and_scores_what_it_wrote(tmp_path: Path) -> None:
    steps, progress = flight_steps(), []
    flight, localizer = ToyFlight(steps), ToyLocalizer(steps)
    summary = replay(flight, localizer, REGION, tmp_path / "out", on_progress=progress.append)
    assert {p.name for p in (tmp_path / "out").iterdir()} == set(OURS) - {"received.csv"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert (summary["frames"], summary["fixes"], summary["false_fixes"]) == (40, 37, 0)
    assert summary["error_m"]["median"] == 1.0
    assert summary["frame_ms"] is not None
    assert progress[-1] == Progress(40, 40, 37, State.TRACKING)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<figcaption>laid on the ground") == 6
    assert len(page) < 4_000_000


def test_the_localizer_is_shown_nothing_but_the_item(tmp_path: Path) -> None:
    steps = flight_steps()
    localizer = ToyLocalizer(steps)
    replay(ToyFlight(steps), localizer, REGION, tmp_path / "out")  # ToyFlight.truth asserts that it is called last
    for (frame, telemetry, captured_at_ns, source), step in zip(localizer.shown, steps, strict=True):
        assert (type(frame), type(telemetry), source) == (Frame, Telemetry, "toy")
        assert captured_at_ns == step.captured_at_ns


def test_the_same_replay_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        replay(ToyFlight(flight_steps()), ToyLocalizer(flight_steps()), REGION, tmp_path / name)
    assert (tmp_path / "a" / "fixes.csv").read_bytes() == (tmp_path / "b" / "fixes.csv").read_bytes()


def test_a_flight_that_breaks_off_leaves_the_earlier_result(tmp_path: Path) -> None:
    replay(ToyFlight(flight_steps()), ToyLocalizer(flight_steps()), REGION, tmp_path / "out")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    with pytest.raises(FlightError, match="truncated"):
        replay(ToyFlight(flight_steps(), 20), ToyLocalizer(flight_steps()), REGION, tmp_path / "out")
    with pytest.raises(FlightError, match="truncated"):
        replay(ToyFlight(flight_steps(), 20), ToyLocalizer(flight_steps()), REGION, tmp_path / "other")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_other_files_in_the_folder_stay_and_stale_results_go(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "flight.mcap").write_text("mine")
    (out / "received.csv").write_text("of an earlier replay")
    (out / "fixes.csv").write_text("of an earlier replay")
    replay(ToyFlight(flight_steps()), ToyLocalizer(flight_steps()), REGION, out)
    assert (out / "flight.mcap").read_text() == "mine"
    assert not (out / "received.csv").exists()
    assert len(read_fixes(out / "fixes.csv")) == 40


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="no folder"), staged(tmp_path / "out"):
        pass
    assert (tmp_path / "out").read_text() == "a file"


def test_what_is_sent_is_received_and_is_what_the_log_says(tmp_path: Path) -> None:
    from onboard.mavlink.peer.listener_process import ListenerProcess
    from onboard.mavlink.tell.link import MavlinkLink

    steps = flight_steps()
    with ListenerProcess("udpin:127.0.0.1:0", tmp_path / "heard.csv") as peer, MavlinkLink.open(peer.peer) as link:
        link.set_origin(FRAME.anchor_latitude_deg, FRAME.anchor_longitude_deg, 0.0, FRAME)
        summary = replay(ToyFlight(steps), ToyLocalizer(steps), REGION, tmp_path / "out", link=link, listener=peer)
    told = summary["mavlink"]
    assert told["sent"] == told["received"] > 37
    assert told["sent_by_message"]["ODOMETRY"] == 37
    assert told["verified"]["matched"] == 37
    assert (told["verified"]["missing"], told["verified"]["unexpected"], told["verified"]["differing"]) == (0, 0, 0)
    assert (tmp_path / "out" / "received.csv").is_file()


@pytest.mark.parametrize("text", ["", "37", "north,east", "95,10", "10,200", "nan,1", "1,2,3"])
def test_a_start_that_is_no_place_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="--start"):
        parse_start(text)


def test_a_start_is_latitude_then_longitude() -> None:
    assert parse_start("-33.5, 151.25") == (-33.5, 151.25)
    assert parse_start(None) is None
