"""What the companion says of the link at one moment: data for a program, and a few lines for a console."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from onboard.mavlink.tell.latency import VEHICLE_LIMIT_MS, Latency
from onboard.mavlink.watch.estimator import EstimatorVerdict
from onboard.mavlink.watch.gps import GpsVerdict, Switching


class Silence(str, Enum):
    """Why no estimate was due to leave. What the link itself held back is counted by `link.Withheld`."""

    NO_VEHICLE = "no_vehicle"  # none is heard
    NO_PROFILE = "no_profile"  # what it is cannot be told by any message we know
    NO_SYNC = "no_sync"  # its clock is not known
    NO_ORIGIN = "no_origin"  # it has none, or has not confirmed the one it was given
    LOST = "lost"  # the localizer does not know where it is
    OLD_FIX = "old_fix"  # motion alone has carried us as far as is allowed
    NO_HEIGHT = "no_height"  # the message needs one
    LINE_FULL = "line_full"  # it would leave late; the next one may be in time


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """The link as it is. Counts are since the start; None is what is not known.

    `vehicle` is the kind of it ("quadrotor").
    `telling`: an estimate left at the last opportunity; else `silence` says why not. `offset_ms` is the vehicle's
    clock minus ours. `rates_hz` are the messages heard, by name; `sent` and `received` count them. `withheld`
    counts the opportunities at which nothing left, by reason. `parameter` is the vehicle's delay parameter that
    `latency.set_ms` belongs into.
    """

    connected: bool
    alive: bool
    vehicle: str
    firmware: str
    armed: bool
    mode: str
    profile: str | None
    telling: bool
    silence: str | None
    synced: bool
    offset_ms: float | None
    skew_ppm: float | None
    round_trip_ms: float | None
    rates_hz: Mapping[str, float]
    sent: Mapping[str, int]
    received: Mapping[str, int]
    refused: Mapping[str, int]
    withheld: Mapping[str, int]
    lost: int
    dropped: int
    reconnects: int
    restarts: int
    estimator: EstimatorVerdict
    estimator_sentence: str
    estimator_remedy: str
    apart_m: float | None
    gps: GpsVerdict
    gps_apart_m: float | None
    switching: Switching
    latency: Latency
    parameter: str | None
    trouble: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes null."""
        return _plain(dataclasses.asdict(self))

    def in_words(self) -> list[str]:
        """Lines for a console, each of which stands for itself."""
        lines = [self._vehicle_line(), self._telling_line(), self._time_line()]
        remedy = f"; {self.estimator_remedy}" if self.estimator_remedy else ""
        lines.append(f"estimator: {self.estimator.value}: {self.estimator_sentence}{remedy}")
        apart = "" if self.gps_apart_m is None else f", {self.gps_apart_m:.0f} m from the map"
        switch = "" if self.switching is Switching.IDLE else f"; source set: {self.switching.value}"
        lines.append(f"GPS: {self.gps.value}{apart}{switch}")
        lines.append(self._latency_line())
        return lines + ([f"trouble: {self.trouble}"] if self.trouble else [])

    def _vehicle_line(self) -> str:
        if not self.alive:
            return "vehicle: none heard" if self.connected else "vehicle: the line is down"
        armed = "armed" if self.armed else "disarmed"
        again = f", restarted {self.restarts}x" if self.restarts else ""
        return f"vehicle: {self.vehicle}, {self.firmware}, {self.mode}, {armed}{again}"

    def _telling_line(self) -> str:
        profile = self.profile or "no profile"
        total = sum(self.withheld.values())
        state = "telling" if self.telling else f"silent ({self.silence})"
        return f"link: {state}, {profile}, withheld {total}, lost {self.lost}, dropped {self.dropped}"

    def _time_line(self) -> str:
        if not self.synced or self.offset_ms is None:
            return "time: not synchronized"
        skew = "" if self.skew_ppm is None else f", skew {self.skew_ppm:+.1f} ppm"
        trip = "" if self.round_trip_ms is None else f", round trip {self.round_trip_ms:.1f} ms"
        return f"time: offset {self.offset_ms:.1f} ms{skew}{trip}"

    def _latency_line(self) -> str:
        latency = self.latency
        told = f"latency: every message tells of {latency.set_ms:.0f} ms ago"
        if self.parameter is not None:
            told += f" (set {self.parameter} to {latency.set_ms:.0f})"
        if not latency.fixes:
            return told + "; no fix in the last minute"
        told += f"; fixes come after {latency.median_ms:.0f} ms, 95 % within {latency.p95_ms:.0f} ms"
        if latency.too_short:
            over = ", more than the vehicle can be told" if latency.recommended_ms > VEHICLE_LIMIT_MS else ""
            told += f"; too short: set link.latency_ms to {latency.recommended_ms:.0f}{over}"
        return told


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    return value
