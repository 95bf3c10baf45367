"""From exposure to a fix in hand: how long it takes, and what the link's constant latency should be."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

_WINDOW_NS = 60_000_000_000
_MARGIN_MS = 20.0  # the link's own tick, and what a quiet minute does not show
_STEP_MS = 10.0
VEHICLE_LIMIT_MS = 250.0  # of VISO_DELAY_MS


@dataclass(frozen=True, slots=True)
class Latency:
    """Of the fixes of the last minute. `recommended_ms` is for link.latency_ms and the vehicle's delay parameter alike.

    `late` counts the fixes since the start that came later than `set_ms`: they were used, carried on by motion alone
    for the moments in between.
    """

    set_ms: float
    median_ms: float
    p95_ms: float
    recommended_ms: float
    fixes: int
    late: int

    @property
    def too_short(self) -> bool:
        """Whether more than one fix in twenty comes too late for the latency that is set."""
        return self.fixes > 0 and self.p95_ms > self.set_ms


class LatencyMeter:
    def __init__(self, set_ms: float) -> None:
        self._set_ms = set_ms
        self._seen: deque[tuple[int, float]] = deque()
        self._late = 0

    def fix(self, captured_at_ns: int, ready_at_ns: int) -> None:
        latency_ms = (ready_at_ns - captured_at_ns) * 1e-6
        self._seen.append((ready_at_ns, latency_ms))
        self._late += latency_ms > self._set_ms

    def figures(self, now_ns: int) -> Latency:
        """NaN where no fix came in the last minute."""
        while self._seen and now_ns - self._seen[0][0] > _WINDOW_NS:
            self._seen.popleft()
        ordered = sorted(latency_ms for _, latency_ms in self._seen)
        if not ordered:
            return Latency(self._set_ms, math.nan, math.nan, math.nan, 0, self._late)
        p95_ms = ordered[math.ceil(0.95 * len(ordered)) - 1]
        recommended_ms = _STEP_MS * math.ceil((p95_ms + _MARGIN_MS) / _STEP_MS)
        return Latency(self._set_ms, ordered[len(ordered) // 2], p95_ms, recommended_ms, len(ordered), self._late)
