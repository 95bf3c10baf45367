"""Memory of this process, as Linux counts it.

Resident memory has two parts: what the process owns (anonymous), and pages of files that it looked at, the map's above
all. The kernel takes the latter back when it needs them; both are told, since a limit is set on their sum.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TELLING_FRAMES = 500  # in fewer, what was taken once looks like growth
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes (1e6 bytes): the highest so far (since `forget_peak`), now, and of now what is owned and what is pages
    of files."""

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


def forget_peak(clear: Path = _CLEAR) -> None:
    """From here on the peak is that of what follows; where the system does not allow it, the highest ever so far."""
    with contextlib.suppress(OSError):
        clear.write_text("5")


@dataclass(frozen=True, slots=True)
class Growth:
    """Resident megabytes over a run of `frames`: after the first `warm_up_frames`, where caches fill, and at its end.

    A leak shows in `mb_per_1000_frames`, a spike does not: the medians of the two halves of what follows the warm-up.
    That is nan below `TELLING_FRAMES`, the rest of a run too short to have halves.
    """

    frames: int
    warm_up_frames: int
    after_warm_up_mb: float
    at_end_mb: float
    mb_per_1000_frames: float


def growth(resident_mb: Sequence[float]) -> Growth:
    """Of the resident megabytes after each frame. A tenth of the frames is warm-up."""
    count = len(resident_mb)
    warm_up = count // 10
    rest = list(resident_mb[warm_up:])
    half = len(rest) // 2
    if half < 2:
        return Growth(count, warm_up, math.nan, math.nan, math.nan)
    apart = len(rest) - half  # frames between the middles of the halves
    grown = statistics.median(rest[-half:]) - statistics.median(rest[:half])
    rate = 1000 * grown / apart if count >= TELLING_FRAMES else math.nan
    end = max(1, len(rest) // 10)
    return Growth(count, warm_up, statistics.median(rest[:end]), statistics.median(rest[-end:]), rate)
