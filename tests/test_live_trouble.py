"""A slow localizer, a signal, an error in a thread, telemetry that never comes; and what systemd is told."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
import toy_world
from toy_live import MS, PATIENCE_S, a_bench, a_step

from onboard.config import Config
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.live.recorder import Recorder
from onboard.live.status import FlyStatus
from onboard.live.supervise import StopOnSignal, notify
from onboard.records import Frame, Reason, Step, Telemetry


def no_fix(frame: Frame | None, telemetry: Telemetry | Reason, at_ns: int, source: str) -> Step:
    """A step that costs nothing."""
    return a_step(at_ns, source=source)


def test_nothing_is_lost_without_being_counted(images: Path, tmp_path: Path) -> None:
    """The localizer is much slower than the camera: it gets the newest frames, and the others are counted."""

    def slow(frame: Frame | None, telemetry: Telemetry | Reason, at_ns: int, source: str) -> Step:
        time.sleep(0.15)
        return a_step(at_ns, source=source)

    with Recorder(tmp_path / "log", toy_world.toy_camera(), BODY_FROM_CAMERA_DOWN, toy_world.PLACE) as recorder:
        bench = a_bench(slow, recorder, images)
        status = bench.run()
    worker = status.worker
    assert status.camera.ended
    assert status.camera.taken == status.camera.grabbed == worker.offered + status.overrun == 15
    assert worker.done + worker.dropped == worker.offered
    assert worker.dropped >= 3
    assert len(bench.companion.steps) == len(bench.given) == worker.done == sum(status.reasons.values())
    assert recorder.status().written + recorder.status().dropped == worker.done
    times_ns = [step.captured_at_ns for step in bench.companion.steps]
    assert times_ns == sorted(times_ns)
    assert bench.companion.steps[-1].captured_at_ns - times_ns[0] == 14 * 50 * MS  # the last one was not dropped


def test_a_signal_ends_the_flight_within_two_seconds(images: Path) -> None:
    bench = a_bench(no_fix, images=images)
    asked_s: list[float] = []

    def terminate(status: FlyStatus) -> None:
        if status.worker.done >= 3 and not asked_s:
            asked_s.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with StopOnSignal() as stop:
        status = bench.flyer.run(bench.camera, stop.event, terminate, period_s=0.02)
    assert time.monotonic() - asked_s[0] < 2.0
    assert 3 <= status.worker.done < 15
    assert signal.getsignal(signal.SIGTERM) is before
    assert not [t.name for t in threading.enumerate() if t.name in ("camera", "link", "localizer")]


def test_an_error_in_any_thread_ends_the_flight_with_that_error(images: Path) -> None:
    def broken(frame: object, telemetry: object, at_ns: int, source: str) -> Step:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        a_bench(broken, images=images).run()
    bench = a_bench(no_fix, images=images)
    bench.companion.broken = KeyError("the link")
    with pytest.raises(KeyError):
        bench.run()


def test_frames_without_telemetry_are_told_as_such_and_not_kept_waiting_for_ever(images: Path) -> None:
    bench = a_bench(no_fix, images=images)
    bench.companion.delay_ns = 10**18  # it never comes
    status = bench.run()
    assert {telemetry for _, telemetry in bench.given} == {Reason.NO_TELEMETRY}
    assert status.worker.done + status.worker.dropped == 15
    assert status.worker.latency_ms is not None
    assert Config().rectify.max_telemetry_age_ms <= status.worker.latency_ms[0] < 2000.0


def test_systemd_is_told_through_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(PATIENCE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert notify("READY=1")
        assert supervisor.recv(100) == b"READY=1"
    assert not notify("WATCHDOG=1")  # nobody listens any more
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not notify("READY=1")
