"""A frame waits for the telemetry of its instant: replay, the ROS node and `pilotage fly` pair in one and the same way.

Telemetry comes later than the frame that it belongs to, so a frame is held until all telemetry has passed its
capture time, but no longer than `wait_ns` after it arrived. Frames leave in order of capture. Two clocks: capture
times are the clock of the telemetry, arrival times and `now_ns` are one other clock that the caller chooses (a bag's
time of logging, the monotonic clock of a live program).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from typing import Generic, Protocol, TypeVar

from onboard.records import Reason, Telemetry

Payload = TypeVar("Payload")


class TelemetrySource(Protocol):
    """What can be asked for the telemetry of an instant; `onboard.telemetry.TelemetryBuffer` is one."""

    def passed(self, t_ns: int, /) -> bool: ...
    def at(self, captured_at_ns: int, /) -> Telemetry | Reason: ...


class Pairing(Generic[Payload]):
    """Frames that wait. A payload is whatever stands for the frame: undecoded bytes, a message, an image.

    Not for several threads at once.
    """

    def __init__(self, buffer: TelemetrySource, wait_ns: int) -> None:
        self.buffer, self.wait_ns = buffer, wait_ns
        self._order = count()  # frames of one capture time leave as they came, and payloads are never compared
        self._waiting: list[tuple[int, int, int, Payload]] = []  # captured, order, arrived, payload

    def __len__(self) -> int:
        return len(self._waiting)

    def frame(self, captured_at_ns: int, arrived_at_ns: int, payload: Payload) -> None:
        """Take a frame in."""
        heapq.heappush(self._waiting, (captured_at_ns, next(self._order), arrived_at_ns, payload))

    def ready(self, now_ns: int) -> Iterator[tuple[int, Payload, Telemetry | Reason]]:
        """(captured_at_ns, payload, telemetry or why there is none) of each frame that need not wait any longer."""
        while self._waiting:
            captured_at_ns, _, arrived_at_ns, _ = self._waiting[0]
            if not self.buffer.passed(captured_at_ns) and now_ns - arrived_at_ns <= self.wait_ns:
                return
            yield self._leave()

    def rest(self) -> Iterator[tuple[int, Payload, Telemetry | Reason]]:
        """As `ready`, of all that still wait: nothing more will come."""
        while self._waiting:
            yield self._leave()

    def _leave(self) -> tuple[int, Payload, Telemetry | Reason]:
        captured_at_ns, _, _, payload = heapq.heappop(self._waiting)
        return captured_at_ns, payload, self.buffer.at(captured_at_ns)
