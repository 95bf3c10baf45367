"""The localizer off its caller's thread: a mailbox in front of it, its steps handed on behind it.

Live, the mailbox holds one frame and the newest wins: a frame that waited would only give a late fix. A replay wants
every frame: then a short queue makes the caller wait. An error in a step is never swallowed: the worker stops, and its
owner gets that error from `check`, from the next `offer`, or from `stop`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from onboard.records import Frame, Reason, Step, Telemetry

StepFunction = Callable[[Frame | None, Telemetry | Reason, int, str], Step]
_QUEUE = 8  # frames that may wait where none is dropped
_KEPT = 200  # steps that rates and latencies are told of


@dataclass(frozen=True, slots=True)
class FrameItem:
    """One frame to be localized. `frame` may be a function that makes it: a frame that is dropped is never decoded."""

    captured_at_ns: int
    source: str
    frame: Frame | Callable[[], Frame | None] | None
    telemetry: Telemetry | Reason


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """Counts since the start; figures over the last steps, None before there are any.

    `latency_ms` is from capture to answer by the worker's clock, `step_ms` the work alone; both (median, 95 %).
    `busy_share` (0 to 1) and `rate_hz` are over the same steps. `busy_since_ns` is set while a step runs.
    """

    offered: int
    done: int
    dropped: int
    last: Step | None
    rate_hz: float | None
    latency_ms: tuple[float, float] | None
    step_ms: tuple[float, float] | None
    busy_share: float | None
    busy_since_ns: int | None
    failed: str


class Worker:
    """A thread that calls `step` with the frames it is offered, and `on_step` with what came of each.

    `on_item` is for who also wants the frame itself (a recorder), and is called last. `clock_ns` is the clock of the
    capture times. Use as a context manager, or `start` and `stop`; an end without an error works off what waits
    where every frame counts.
    """

    def __init__(
        self,
        step: StepFunction,
        on_step: Callable[[Step], None],
        every_frame: bool = False,
        *,
        on_item: Callable[[FrameItem, Frame | None, Step], None] | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._step, self._on_step, self._on_item, self._clock_ns = step, on_step, on_item, clock_ns
        self._every_frame = every_frame
        self._changed = threading.Condition()
        self._waiting: deque[FrameItem] = deque()
        self._running, self._finishing = True, False
        self._offered = self._dropped = self._done = 0
        self._last: Step | None = None
        self._failure: BaseException | None = None
        self._busy_since_ns: int | None = None
        self._times: deque[tuple[int, int, int]] = deque(maxlen=_KEPT)  # captured, began, ended
        self._thread = threading.Thread(target=self._run, name="localizer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(self, item: FrameItem) -> bool:
        """Put a frame in the mailbox; false when the worker has been stopped. Raises what a step has raised.

        With `every_frame` this waits for room.
        """
        with self._changed:
            self._offered += 1
            if self._every_frame:
                self._changed.wait_for(lambda: len(self._waiting) < _QUEUE or not self._running)
            if not self._running:
                self._dropped += 1
                if self._failure is not None:
                    raise self._failure
                return False
            if not self._every_frame:
                self._dropped += len(self._waiting)
                self._waiting.clear()
            self._waiting.append(item)
            self._changed.notify_all()
        return True

    def check(self) -> None:
        """Raise what a step has raised, if any has."""
        if self._failure is not None:
            raise self._failure

    def stop(self, finish: bool = False, timeout_s: float | None = None) -> bool:
        """As `end`, and raise what a step has raised."""
        ended = self.end(finish, timeout_s)
        self.check()
        return ended

    def end(self, finish: bool = False, timeout_s: float | None = None) -> bool:
        """End after the step in hand, or with `finish` after all that wait. True when the thread has ended.

        Frames left in the mailbox count as dropped.
        """
        with self._changed:
            self._finishing = finish
            if not finish:
                self._close()
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def status(self) -> WorkerStatus:
        with self._changed:
            times = list(self._times)
            counts = (self._offered, self._done, self._dropped, self._last)
            busy_since_ns, failure = self._busy_since_ns, self._failure
        rate_hz = busy_share = None
        if len(times) > 1 and times[-1][2] > times[0][2]:
            span_ns = times[-1][2] - times[0][2]
            rate_hz = (len(times) - 1) * 1e9 / span_ns
            busy_share = min(1.0, sum(ended - began for _, began, ended in times[1:]) / span_ns)
        latency_ms = _median_and_p95([(ended - captured) / 1e6 for captured, _, ended in times])
        step_ms = _median_and_p95([(ended - began) / 1e6 for _, began, ended in times])
        failed = "" if failure is None else f"{type(failure).__name__}: {failure}"
        return WorkerStatus(*counts, rate_hz, latency_ms, step_ms, busy_share, busy_since_ns, failed)

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end(finish=self._every_frame and kind is None)
        if kind is None:  # else the owner's own error is the one that is told
            self.check()

    def _run(self) -> None:
        try:
            while (item := self._next()) is not None:
                self._work(item)
        except BaseException as error:  # it is the owner's, who may be in any other thread
            with self._changed:
                self._failure = error
        finally:
            with self._changed:
                self._busy_since_ns = None
                self._close()
                self._changed.notify_all()

    def _next(self) -> FrameItem | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._finishing or not self._running)
            if not self._waiting or not self._running:
                return None
            self._changed.notify_all()  # there is room
            self._busy_since_ns = self._clock_ns()
            return self._waiting.popleft()

    def _work(self, item: FrameItem) -> None:
        began_ns = self._clock_ns()
        frame = item.frame() if callable(item.frame) else item.frame
        step = self._step(frame, item.telemetry, item.captured_at_ns, item.source)
        self._on_step(step)
        ended_ns = self._clock_ns()
        with self._changed:
            self._done += 1
            self._last = step
            self._times.append((item.captured_at_ns, began_ns, ended_ns))
            self._busy_since_ns = None
        if self._on_item is not None:
            self._on_item(item, frame, step)

    def _close(self) -> None:
        """No more frames: what waits is dropped. Called with the lock held."""
        self._running = False
        self._dropped += len(self._waiting)
        self._waiting.clear()


def _median_and_p95(values: list[float]) -> tuple[float, float] | None:
    if not values:
        return None
    values.sort()
    return median(values), values[min(len(values) - 1, round(0.95 * (len(values) - 1)))]
