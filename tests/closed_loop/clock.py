"""Our clock in the trial: it goes as the simulated world does.

A vehicle's clock does not stop; a simulator's does when its computer is busy, by tenths of a second at once, which no
synchronization could follow nor should. So the trial's own clock, a stand-in for the companion computer's, takes its
time from the simulator, and runs on between two of its stamps. That the two clocks have another origin, and that
Pilotage must find it out over its own link, is left as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

START_NS = 1_760_000_000_000_000_000  # Unix time at the vehicle's boot
_RUN_ON_NS = 200_000_000  # without a stamp; then the simulator stands still, and so do we


class SimulatedClock:
    """Nanoseconds of Unix time, never going back. `speedup` is that of the simulation."""

    def __init__(self, speedup: float, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.speedup, self._monotonic_ns = speedup, monotonic_ns
        self._lock = Lock()
        self._boot_ns, self._heard_at_ns = 0, monotonic_ns()
        self._last_ns = START_NS

    def heard(self, boot_ms: int) -> None:
        """A stamp of the simulator's has just come. One that came late does not set the clock back."""
        boot_ns = boot_ms * 1_000_000
        with self._lock:
            if boot_ns > self._boot_ns:
                self._boot_ns, self._heard_at_ns = boot_ns, self._monotonic_ns()

    def __call__(self) -> int:
        with self._lock:
            ran_on = min(round((self._monotonic_ns() - self._heard_at_ns) * self.speedup), _RUN_ON_NS)
            self._last_ns = max(self._last_ns, START_NS + self._boot_ns + ran_on)
            return self._last_ns
