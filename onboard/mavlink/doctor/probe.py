"""What a link is worth, measured: rates, losses, round trips, how well the two clocks are known to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.mavlink.doctor.rules import Finding, Severity
from onboard.mavlink.doctor.session import Session

_SLOW = 0.5  # of what was asked for
_LOSS = 0.05
_ROUND_TRIP_MS = 100.0
_JITTER_MS = 5.0
_SYNCED, _SYNCED_AT_ALL = 0.95, 0.5
_FULL = 0.8  # of a serial line
_SYNC_PATIENCE_S = 5.0
_ATTITUDES = ("ATTITUDE_QUATERNION", "ATTITUDE")
_ATTITUDE_HZ = 8.0
_ESTIMATORS = ("EKF_STATUS_REPORT", "ESTIMATOR_STATUS")


@dataclass(frozen=True, slots=True)
class StreamRate:
    name: str
    asked_hz: float
    heard_hz: float


@dataclass(frozen=True, slots=True)
class LinkMeasure:
    """Over `seconds`. NaN is what could not be measured; `capacity_bytes_per_s` None where the line has no figure.

    `synced` is the share of the time that the vehicle's clock was known for, `offset_jitter_ms` the standard deviation
    of that clock minus ours round a straight line.
    """

    seconds: float
    streams: tuple[StreamRate, ...]
    received: int
    lost: int
    round_trip_ms: float
    round_trip_p95_ms: float
    synced: float
    offset_jitter_ms: float
    skew_ppm: float
    bytes_per_s: float
    capacity_bytes_per_s: float | None

    @property
    def loss(self) -> float:
        """Share of the vehicle's messages that never came."""
        return self.lost / (self.received + self.lost) if self.received + self.lost else 0.0


class _Watcher:
    """Counts what passes while a session runs."""

    def __init__(self, session: Session) -> None:
        self.messages = self.bytes = self.synced = 0
        self.round_trips_ms: list[float] = []
        self.offsets: list[tuple[int, int]] = []
        self._session, self._began_ns = session, session.clock()

    def hear(self, message: mav.MAVLink_message, now_ns: int) -> None:
        self.messages += 1
        self.synced += self._session.vehicle.sync.synced
        self.bytes += len(message.get_msgbuf() or b"")
        if message.get_type() != "TIMESYNC" or message.tc1 <= 0:
            return
        if self._began_ns <= message.ts1 <= now_ns:  # else it answers somebody else, or what was asked before
            self.round_trips_ms.append((now_ns - message.ts1) * 1e-6)
        offset_ns = self._session.vehicle.sync.offset_ns
        if offset_ns is not None:
            self.offsets.append((now_ns, offset_ns))

    def jitter_ms(self) -> float:
        if len(self.offsets) < 3:
            return math.nan
        first_ns, first_offset_ns = self.offsets[0]
        times_s = np.array([(at_ns - first_ns) * 1e-9 for at_ns, _ in self.offsets])
        offsets_ms = np.array([(offset_ns - first_offset_ns) * 1e-6 for _, offset_ns in self.offsets])
        line = np.polynomial.Polynomial.fit(times_s, offsets_ms, 1)
        return float(np.std(offsets_ms - line(times_s)))


def measure(session: Session, seconds: float) -> LinkMeasure:
    """Listen for so long, after the clocks have found each other. Rates are those of the last 5 s."""
    vehicle, connection = session.vehicle, session.connection
    session.run(_SYNC_PATIENCE_S, lambda: vehicle.sync.synced)
    watcher, lost_before = _Watcher(session), connection.lost
    session.listeners.append(watcher.hear)
    began_ns = session.clock()
    session.run(seconds)
    session.listeners.remove(watcher.hear)
    took_s = (session.clock() - began_ns) * 1e-9
    heard_hz = vehicle.rates_hz(session.clock())
    asked = vehicle.streams.wanted_hz(vehicle.autopilot)
    trips, skew_ppm = sorted(watcher.round_trips_ms), vehicle.sync.skew_ppm
    return LinkMeasure(
        seconds=took_s,
        streams=tuple(StreamRate(name, hz, heard_hz.get(name, 0.0)) for name, hz in asked.items()),
        received=watcher.messages,
        lost=connection.lost - lost_before,
        round_trip_ms=median(trips) if trips else math.nan,
        round_trip_p95_ms=trips[math.ceil(0.95 * len(trips)) - 1] if trips else math.nan,
        synced=watcher.synced / watcher.messages if watcher.messages else 0.0,
        offset_jitter_ms=watcher.jitter_ms(),
        skew_ppm=math.nan if skew_ppm is None else skew_ppm,
        bytes_per_s=watcher.bytes / took_s,
        capacity_bytes_per_s=session.bytes_per_s,
    )


def link_findings(link: LinkMeasure) -> list[Finding]:
    """What is wrong with a link."""
    found = _rate_findings(link.streams)
    if math.isnan(link.round_trip_ms):
        why = "the vehicle does not answer TIMESYNC: frames and fixes cannot be put into its time, and nothing is told"
        found.append(Finding(Severity.MUST, "time sync", None, "answers to TIMESYNC", why))
    elif link.synced < _SYNCED:
        severity = Severity.SHOULD if link.synced >= _SYNCED_AT_ALL else Severity.MUST
        why = "its clock jumps against ours, or answers come late: meanwhile nothing is told"
        found.append(Finding(severity, "time sync", link.synced, f"{_SYNCED:g} of the time or more", why))
    elif link.offset_jitter_ms > _JITTER_MS:
        why = "the two clocks are known to each other no better than this"
        found.append(
            Finding(Severity.SHOULD, "time sync jitter", link.offset_jitter_ms, f"below {_JITTER_MS:g} ms", why)
        )
    if link.round_trip_p95_ms > _ROUND_TRIP_MS:
        why = "a radio, or a slow line: a companion belongs on a cable of its own"
        should_be = f"below {_ROUND_TRIP_MS:g} ms"
        found.append(Finding(Severity.SHOULD, "round trip", link.round_trip_p95_ms, should_be, why))
    if link.loss > _LOSS:
        why = "messages are lost: a baud rate too high for the cable, a full line, or no flow control"
        found.append(Finding(Severity.SHOULD, "loss", link.loss, f"below {_LOSS:g}", why))
    if link.capacity_bytes_per_s is not None and link.bytes_per_s > _FULL * link.capacity_bytes_per_s:
        why = "the line is nearly full, and fixes wait: a higher baud rate, or fewer streams (SRn_*, MAV_n_RATE)"
        should_be = f"below {_FULL * link.capacity_bytes_per_s:.0f} bytes/s"
        found.append(Finding(Severity.SHOULD, "line", link.bytes_per_s, should_be, why))
    return found


def _rate_findings(streams: Sequence[StreamRate]) -> list[Finding]:
    heard = {one.name: one.heard_hz for one in streams}
    found = []
    attitude_hz = max((heard.get(name, 0.0) for name in _ATTITUDES), default=0.0)
    if attitude_hz < _ATTITUDE_HZ:
        why = "every frame needs the attitude of its instant"
        found.append(Finding(Severity.MUST, "ATTITUDE_QUATERNION", attitude_hz, f"{_ATTITUDE_HZ:g} Hz or more", why))
    if not any(heard.get(name) for name in _ESTIMATORS):
        why = "without it nobody knows whether the estimator uses the fixes"
        found.append(Finding(Severity.SHOULD, _ESTIMATORS[0], 0.0, "1 Hz or more", why))
    if not heard.get("GLOBAL_POSITION_INT") and not heard.get("LOCAL_POSITION_NED"):
        why = "the height of the vehicle comes with it"
        found.append(Finding(Severity.MUST, "GLOBAL_POSITION_INT", 0.0, "4 Hz or more", why))
    named = {one.parameter for one in found}
    for one in streams:
        if 0 < one.heard_hz < _SLOW * one.asked_hz and one.name not in named:
            why = "it comes more slowly than asked for: a busy vehicle or a thin line"
            found.append(Finding(Severity.NOTE, one.name, one.heard_hz, f"{one.asked_hz:g} Hz", why))
    return found
