"""The recorder: it never overwrites, never holds up the flight, and keeps what it was given in full."""

from __future__ import annotations

import csv
import dataclasses
import threading
from pathlib import Path

import pytest
import toy_world
from toy_live import PATIENCE_S, a_frame, a_step, an_item, wait_until

from onboard.flight import open_flight
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.live.cli import parse_mount
from onboard.live.recorder import Recorder, RecordError
from onboard.live.worker import FrameItem
from onboard.records import HeightReference, Reason, Telemetry


def test_a_recording_never_goes_into_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RecordError, match="--record is there already"):
        Recorder(tmp_path, toy_world.toy_camera(), BODY_FROM_CAMERA_DOWN, toy_world.PLACE)


def test_a_full_disk_ends_the_recording_and_not_the_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    recorder = Recorder(tmp_path / "log", toy_world.toy_camera(64, 48), BODY_FROM_CAMERA_DOWN, toy_world.PLACE)
    recorder.offer(an_item(1), a_frame(1), a_step(1))
    wait_until(lambda: recorder.status().stopped != "")
    for at_ns in range(2, 100):
        recorder.offer(an_item(at_ns), a_frame(at_ns), a_step(at_ns))
    recorder.close()
    assert recorder.status().written == 0
    assert [record.getMessage() for record in caplog.records].count(
        f"recording stopped: {tmp_path / 'log'}: No space left on device"
    ) == 1


def test_a_slow_disk_costs_frames_that_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, write = threading.Event(), Path.write_bytes

    def slow(path: Path, data: bytes) -> int:
        assert go.wait(PATIENCE_S)
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", slow)
    camera = toy_world.toy_camera(64, 48)
    with Recorder(tmp_path / "log", camera, BODY_FROM_CAMERA_DOWN, toy_world.PLACE) as recorder:
        for at_ns in range(50):
            recorder.offer(
                dataclasses.replace(an_item(at_ns), source=f"frames/{at_ns}.png"),
                a_frame(at_ns, camera),
                a_step(at_ns, None),
            )
        assert recorder.status().dropped >= 30
        go.set()
    status = recorder.status()
    assert status.written + status.dropped == 50
    assert open_flight(tmp_path / "log").frame_count == status.written


def test_stale_frames_and_left_out_ones_leave_no_image(tmp_path: Path) -> None:
    camera = toy_world.toy_camera(64, 48)
    with Recorder(tmp_path / "log", camera, BODY_FROM_CAMERA_DOWN, toy_world.PLACE, every=2) as recorder:
        for at_ns in range(10):
            item = dataclasses.replace(an_item(at_ns), source=f"frames/{at_ns}.png")
            recorder.offer(item, a_frame(at_ns, camera), a_step(at_ns, Reason.NO_TELEMETRY, item.source))
        recorder.offer(an_item(3), a_frame(3, camera), a_step(3, Reason.STALE_FRAME, "late"))
    flight = open_flight(tmp_path / "log")
    assert [item.captured_at_ns for item in flight.items()] == [0, 2, 4, 6, 8]
    assert {item.telemetry for item in flight.items()} == {Reason.NO_TELEMETRY}
    with (tmp_path / "log" / "fixes.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 11


def test_a_recording_keeps_the_mount_and_the_attitude_in_full(tmp_path: Path) -> None:
    camera, mount = toy_world.toy_camera(64, 48), parse_mount("3.5,-20.25,91.125")
    attitude = toy_world.quaternion(1.23456789, -2.3456789, 123.456789)
    told = Telemetry(5, attitude, 87.654321987654321, True, (1 / 3, -2 / 3, 0.1))
    unknown = dataclasses.replace(told, captured_at_ns=6, heading_known=False, velocity_ned_mps=None)
    with Recorder(tmp_path / "log", camera, mount, toy_world.PLACE) as recorder:
        for telemetry in (told, unknown):
            at_ns = telemetry.captured_at_ns
            recorder.offer(
                FrameItem(at_ns, f"frames/{at_ns}.png", None, telemetry), a_frame(at_ns, camera), a_step(at_ns)
            )
    flight = open_flight(tmp_path / "log")
    assert flight.body_from_camera.tobytes() == mount.tobytes()
    first, second = (item.telemetry for item in flight.items())
    assert first == dataclasses.replace(told, velocity_ned_mps=(1 / 3, -2 / 3, 0.0))  # down is not used, nor kept
    assert second == unknown


@pytest.mark.parametrize("home", [None, (47.123456789012345, -8.2)])
def test_a_recording_keeps_what_a_height_is_above(tmp_path: Path, home: tuple[float, float] | None) -> None:
    camera = toy_world.toy_camera(64, 48)
    told = Telemetry(5, (1.0, 0.0, 0.0, 0.0), 80 / 3, height_reference=HeightReference.HOME, home_deg=home)
    with Recorder(tmp_path / "log", camera, BODY_FROM_CAMERA_DOWN, toy_world.PLACE) as recorder:
        recorder.offer(FrameItem(5, "frames/5.png", None, told), a_frame(5, camera), a_step(5))
    assert [item.telemetry for item in open_flight(tmp_path / "log").items()] == [told]
