"""Frames wait for the telemetry of their instant, and no longer than they may."""

from __future__ import annotations

import random

import pytest

from onboard.pairing import Pairing
from onboard.records import Reason, Telemetry
from onboard.telemetry import TelemetryBuffer

MS = 1_000_000
LEVEL = (1.0, 0.0, 0.0, 0.0)


@pytest.fixture
def buffer() -> TelemetryBuffer:
    return TelemetryBuffer(max_age_ns=250 * MS)


def told(buffer: TelemetryBuffer, at_ms: int, height_m: float = 100.0) -> None:
    buffer.add_attitude(at_ms * MS, LEVEL)
    buffer.add_height(at_ms * MS, height_m)


def test_a_frame_waits_until_telemetry_has_passed_it(buffer: TelemetryBuffer) -> None:
    pairing: Pairing[str] = Pairing(buffer, wait_ns=1000 * MS)
    told(buffer, 0, height_m=100.0)
    pairing.frame(50 * MS, arrived_at_ns=60 * MS, payload="frame")
    assert list(pairing.ready(60 * MS)) == []
    told(buffer, 100, height_m=110.0)
    [(captured_at_ns, payload, telemetry)] = pairing.ready(110 * MS)
    assert (captured_at_ns, payload, len(pairing)) == (50 * MS, "frame", 0)
    assert isinstance(telemetry, Telemetry)
    assert telemetry.height_above_ground_m == pytest.approx(105.0)


def test_a_frame_does_not_wait_longer_than_allowed(buffer: TelemetryBuffer) -> None:
    pairing: Pairing[str] = Pairing(buffer, wait_ns=1000 * MS)
    pairing.frame(50 * MS, arrived_at_ns=60 * MS, payload="frame")
    assert list(pairing.ready(1060 * MS)) == []
    assert list(pairing.ready(1061 * MS)) == [(50 * MS, "frame", Reason.NO_TELEMETRY)]


def test_waiting_is_measured_by_arrival_and_not_by_capture(buffer: TelemetryBuffer) -> None:
    """The two clocks have nothing to do with each other: a drone's camera may count from its own boot."""
    pairing: Pairing[str] = Pairing(buffer, wait_ns=10 * MS)
    pairing.frame(10**18, arrived_at_ns=5 * MS, payload="frame")
    assert list(pairing.ready(15 * MS)) == []
    assert [payload for _, payload, _ in pairing.ready(16 * MS)] == ["frame"]


def test_frames_leave_in_order_of_capture(buffer: TelemetryBuffer) -> None:
    pairing: Pairing[str] = Pairing(buffer, wait_ns=1000 * MS)
    for captured_ms, name in ((30, "c"), (10, "a"), (20, "b")):
        pairing.frame(captured_ms * MS, arrived_at_ns=40 * MS, payload=name)
    told(buffer, 20)
    assert [payload for _, payload, _ in pairing.ready(40 * MS)] == ["a", "b"]
    assert [payload for _, payload, _ in pairing.rest()] == ["c"]


def test_payloads_of_one_capture_time_are_never_compared(buffer: TelemetryBuffer) -> None:
    pairing: Pairing[dict[str, int]] = Pairing(buffer, wait_ns=0)
    pairing.frame(10 * MS, 10 * MS, {"first": 1})
    pairing.frame(10 * MS, 10 * MS, {"second": 2})
    assert [payload for _, payload, _ in pairing.rest()] == [{"first": 1}, {"second": 2}]


def test_telemetry_that_comes_while_a_frame_is_worked_on_serves_the_next_one(buffer: TelemetryBuffer) -> None:
    pairing: Pairing[str] = Pairing(buffer, wait_ns=1000 * MS)
    told(buffer, 10)
    for captured_ms in (5, 10, 15):
        pairing.frame(captured_ms * MS, 20 * MS, f"{captured_ms}")
    leaving = pairing.ready(20 * MS)
    assert next(leaving)[1] == "5"
    told(buffer, 20)
    assert [payload for _, payload, _ in leaving] == ["10", "15"]


@pytest.mark.parametrize("seed", range(5))
def test_every_frame_leaves_once_however_the_messages_are_mixed(seed: int, buffer: TelemetryBuffer) -> None:
    rng = random.Random(seed)
    pairing: Pairing[int] = Pairing(buffer, wait_ns=100 * MS)
    left: list[int] = []
    for at_ms in range(0, 5000, 10):
        if rng.random() < 0.7:
            told(buffer, at_ms - rng.randrange(40))
        if rng.random() < 0.3:
            pairing.frame((at_ms - rng.randrange(80)) * MS, at_ms * MS, at_ms)
        left += [payload for _, payload, _ in pairing.ready(at_ms * MS)]
        assert len(pairing) <= 20  # 100 ms of arrivals, and those of equal age
    frames_in = len(left) + len(pairing)
    left += [payload for _, payload, _ in pairing.rest()]
    assert len(left) == len(set(left)) == frames_in > 100
