"""The worker: the newest frame wins, every frame is counted, an error reaches the owner."""

from __future__ import annotations

import threading

import pytest
from toy_live import MS, PATIENCE_S, a_frame, a_step, an_item, wait_until

from onboard.live.worker import Worker
from onboard.records import Frame, Reason, Step, Telemetry


class HeldSteps:
    """A step that waits to be let go, and keeps what it was called with."""

    def __init__(self) -> None:
        self.frames: list[Frame | None] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def step(self, frame: Frame | None, telemetry: Telemetry | Reason, at_ns: int, source: str) -> Step:
        self.begun.release()
        assert self.go.acquire(timeout=PATIENCE_S)
        self.frames.append(frame)
        return a_step(at_ns, source=source)


def test_the_newest_frame_wins_and_a_dropped_one_is_never_decoded() -> None:
    held, steps, decoded = HeldSteps(), [], []

    def decode(at_ns: int) -> Frame:
        decoded.append(at_ns)
        return a_frame(at_ns)

    with Worker(held.step, steps.append) as worker:
        worker.offer(an_item(1, lambda: decode(1)))
        assert held.begun.acquire(timeout=PATIENCE_S)
        for at_ns in (2, 3, 4):
            worker.offer(an_item(at_ns, lambda at_ns=at_ns: decode(at_ns)))
        held.go.release(2)
        wait_until(lambda: worker.status().done == 2)
        status = worker.status()
    assert [step.captured_at_ns for step in steps] == decoded == [1, 4]
    assert (status.offered, status.done, status.dropped) == (4, 2, 2)
    assert status.last is steps[-1]


def test_every_frame_is_worked_off_where_every_frame_counts() -> None:
    steps: list[Step] = []
    with Worker(lambda frame, told, at_ns, source: a_step(at_ns), steps.append, every_frame=True) as worker:
        for at_ns in range(200):
            assert worker.offer(an_item(at_ns))
    assert [step.captured_at_ns for step in steps] == list(range(200))
    assert worker.status().dropped == 0


def test_a_full_queue_makes_the_caller_wait() -> None:
    held = HeldSteps()
    worker = Worker(held.step, lambda step: None, every_frame=True)
    worker.start()
    offering = threading.Thread(target=lambda: [worker.offer(an_item(k)) for k in range(12)], daemon=True)
    offering.start()
    wait_until(lambda: worker.status().offered == 10)  # one in the step, eight that wait, one at the door
    offering.join(0.05)
    assert offering.is_alive()
    held.go.release(12)
    offering.join(PATIENCE_S)
    assert worker.stop(finish=True, timeout_s=PATIENCE_S)
    assert worker.status().done == 12


@pytest.mark.parametrize("every_frame", [False, True])
def test_an_error_in_a_step_reaches_the_owner(every_frame: bool) -> None:
    def broken(frame: object, telemetry: object, at_ns: int, source: str) -> Step:
        raise ZeroDivisionError("the engine is gone")

    worker = Worker(broken, lambda step: None, every_frame)
    worker.start()
    worker.offer(an_item(1))
    wait_until(lambda: worker.status().failed != "")
    assert worker.status().failed == "ZeroDivisionError: the engine is gone"
    with pytest.raises(ZeroDivisionError):
        worker.check()
    with pytest.raises(ZeroDivisionError):
        worker.offer(an_item(2))
    with pytest.raises(ZeroDivisionError):
        worker.stop()


def test_the_owners_own_error_is_not_hidden_by_the_workers() -> None:
    def broken(frame: object, telemetry: object, at_ns: int, source: str) -> Step:
        raise ZeroDivisionError

    def owner() -> None:
        with Worker(broken, lambda step: None) as worker:
            worker.offer(an_item(1))
            wait_until(lambda: worker.status().failed != "")
            raise KeyError("the owner's")

    with pytest.raises(KeyError):
        owner()


def test_a_stopped_worker_takes_nothing_more() -> None:
    worker = Worker(lambda frame, told, at_ns, source: a_step(at_ns), lambda step: None)
    worker.start()
    assert worker.stop(timeout_s=PATIENCE_S)
    assert not worker.offer(an_item(1))
    assert worker.status().dropped == 1


def test_rates_and_latencies_are_told_by_the_workers_clock() -> None:
    ticks = iter(range(0, 10_000))
    clock_ms = [0.0]

    def now_ns() -> int:
        next(ticks)
        return round(clock_ms[0] * MS)

    def slow(frame: object, telemetry: object, at_ns: int, source: str) -> Step:
        clock_ms[0] = at_ns / MS + 80.0  # every step ends 80 ms after capture
        return a_step(at_ns)

    worker = Worker(slow, lambda step: None, every_frame=True, clock_ns=now_ns)
    clock_ms[0] = 30.0
    worker.start()
    for k in range(5):
        worker.offer(an_item(k * 100 * MS))
        wait_until(lambda k=k: worker.status().done == k + 1)
        clock_ms[0] += 50.0  # the next step begins 30 ms after the next capture
    worker.stop(timeout_s=PATIENCE_S)
    status = worker.status()
    assert status.latency_ms == pytest.approx((80.0, 80.0))
    assert status.step_ms == pytest.approx((50.0, 50.0))
    assert status.rate_hz == pytest.approx(10.0)
    assert status.busy_share == pytest.approx(0.5)
