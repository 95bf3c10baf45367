"""The command `pilotage fly`: its options, what it says, and what it cannot use."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import toy_world

from onboard.config import Config, load_config
from onboard.errors import ConfigError, PilotageError
from onboard.flight import open_flight
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.live.cli import fly, parse_mount, with_link
from onboard.records import Reason
from onboard.region import RegionMap
from onboard.track.velocity import when_live


def test_a_mount_turns_the_camera_from_looking_down() -> None:
    assert parse_mount("down") is BODY_FROM_CAMERA_DOWN
    ahead = parse_mount("0,30,0") @ [0, 0, 1]
    assert ahead == pytest.approx([math.sin(math.radians(30)), 0, math.cos(math.radians(30))])
    top_of_image = parse_mount("0,0,90") @ [0, -1, 0]
    assert top_of_image == pytest.approx([0, 1, 0])


@pytest.mark.parametrize("text", ["up", "1,2", "1,2,3,4", "nan,0,0", ""])
def test_a_mount_that_means_nothing_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="--mount"):
        parse_mount(text)


def test_the_command_line_goes_over_the_config_file() -> None:
    settings = with_link(Config(), "px4-gps", Path("key"))
    assert (settings.link.profile, settings.link.signing_key_file) == ("px4-gps", "key")
    assert with_link(Config(), None, None) == Config()


@pytest.fixture
def bench_options(
    images: Path,
    hand_map: RegionMap,
    hand_engine: toy_world.HandEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """What `pilotage fly` needs on a bench without a vehicle; the toy engine stands in for the shipped one."""
    monkeypatch.setattr("onboard.engine.open_engine", lambda model, settings: hand_engine)
    toy_world.toy_camera().to_yaml(tmp_path / "camera.yaml")
    return {
        "camera": f"file:{images}",
        "camera_model": tmp_path / "camera.yaml",
        "map_path": hand_map.path,
        "mavlink": "udpin:127.0.0.1:0",
        "mount": "down",
        "camera_rate_hz": 20.0,
    }


def test_the_command_flies_to_the_end_of_the_images(
    bench_options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fly(**bench_options, record=tmp_path / "log", start="37.5,140.99")
    said = capsys.readouterr().out
    assert "Frames: 15 taken" in said
    assert "No fix because: no_telemetry" in said
    assert "its delay parameter cannot be named" in said
    flight = open_flight(tmp_path / "log")
    assert {item.telemetry for item in flight.items()} == {Reason.NO_TELEMETRY}
    assert f"Recorded: {flight.frame_count} frames" in said
    told = json.loads((tmp_path / "log" / "recording.json").read_text())
    assert (told["start"], told["camera"], told["model"]["name"]) == ("37.5,140.99", "file", "hand")
    assert load_config(tmp_path / "log" / "config.yaml") == when_live(Config())


def test_the_command_tells_a_machine_in_lines_of_json(
    bench_options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fly(**bench_options, json=True)
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert lines
    assert lines[-1]["link"]["alive"] is False
    assert lines[-1]["state"] == "lost"
    assert "Frames: 15 taken" in said.err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"camera": "file:nowhere"}, "no video and no folder of images: nowhere"),
        ({"camera_rate_hz": 0.0}, "--camera-rate-hz: 0.0; expected 0.1 to 1000"),
        ({"record_every": 0}, "--record-every: 0"),
        ({"mount": "sideways"}, "--mount: 'sideways'"),
        ({"start": "1,2"}, "--start lies outside the map"),
        ({"profile": "telepathy"}, "telepathy"),
        ({"mavlink": "pigeon"}, "pigeon"),
    ],
)
def test_what_the_command_cannot_use_is_one_clear_line(
    bench_options: dict[str, Any], changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(PilotageError, match=message):
        fly(**bench_options | changed)
