"""The clock of a live program: Unix time that never jumps."""

from __future__ import annotations

import time


class SteadyClock:
    """Nanoseconds since 1970 as the system knew them at the start, carried on by the monotonic clock.

    A system without a battery-backed clock may learn the date in flight; the times of this program must not jump then.
    """

    def __init__(self) -> None:
        self._unix_minus_monotonic_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        return time.monotonic_ns() + self._unix_minus_monotonic_ns

    def from_monotonic_ns(self, monotonic_ns: int) -> int:
        """The same instant by this clock: drivers stamp buffers with CLOCK_MONOTONIC."""
        return monotonic_ns + self._unix_minus_monotonic_ns
