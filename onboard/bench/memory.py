"""Memory of this process, as Linux counts it.

Resident memory has two parts: what the process owns (anonymous), and pages of files that it looked at, the map's above
all. The kernel takes the latter back when it needs them; both are told, since a limit is set on their sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes (1e6 bytes): the highest so far, now, and of now what is owned and what is pages of files."""

    peak_mb: float
    now_mb: float
    owned_mb: float
    files_mb: float


def read_memory(status: Path = _STATUS) -> Memory:
    """nan where the system does not say (no Linux)."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        lines = []
    kilobytes = {key: rest.split()[0] for key, _, rest in (line.partition(":") for line in lines) if rest.split()}

    def of(key: str) -> float:
        return float(kilobytes[key]) * 1024 / 1e6 if key in kilobytes else float("nan")

    return Memory(of("VmHWM"), of("VmRSS"), of("RssAnon"), of("RssFile"))


def growth_mb(samples: list[float]) -> float:
    """How much the second half of a run holds more than the first, by medians: a leak shows, a spike does not.

    The first tenth is left out: caches fill there.
    """
    rest = sorted_halves(samples[len(samples) // 10 :])
    return rest[1] - rest[0] if rest is not None else float("nan")


def sorted_halves(samples: list[float]) -> tuple[float, float] | None:
    """Medians of the first and of the second half; None of fewer than four."""
    if len(samples) < 4:
        return None
    half = len(samples) // 2
    first, second = sorted(samples[:half]), sorted(samples[half:])
    return first[len(first) // 2], second[len(second) // 2]
