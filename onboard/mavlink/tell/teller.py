"""What leaves for the vehicle: ten times a second the estimate of a moment that is always equally long ago, or nothing.

Each message tells of `now - link.latency_ms`: whatever a frame took to become a fix, the whole delay is one constant,
and the firmware's one delay parameter is right. Quality falls from the last real fix on (see `propagate`), and beyond
`link.silent_after_s` nothing is told. A localizer that is LOST ends it at once; when it has found itself again, the
first message says by its reset counter that the position jumped on purpose.

The vehicle takes each message for a measurement of its own, but the errors of ten in a second are one and the same.
The covariance told is the estimate's times the number of messages within `link.correlation_s`. That is more than
honesty: a vehicle whose estimator follows us faster than its own attitude settles does not fly steadily (see
`onboard.track.velocity`). What a camera on a gimbal sees does not lean with the vehicle, so that it may follow firmly
(`link.gimbal_correlation_s`), and swings the less about what it is told.

Positions are counted from the vehicle's own origin. One that has none 3 s after it was first heard is given one, at
the map's anchor and as high above the sea as it says to have started (for which it is given 10 s; else 0); what it
answers is what counts.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter

from onboard.config import Config
from onboard.frames import MapFrame
from onboard.mavlink.status import Silence
from onboard.mavlink.tell import commands
from onboard.mavlink.tell.latency import Latency, LatencyMeter
from onboard.mavlink.tell.link import MavlinkLink, Withheld
from onboard.mavlink.tell.place import Home
from onboard.mavlink.tell.propagate import Felt, Propagator, felt
from onboard.mavlink.vehicle.state import Vehicle
from onboard.mavlink.wire.connection import Connection
from onboard.records import Estimate, State, Step, Telemetry
from onboard.track.velocity import VelocityUse

ORIGIN_AFTER_NS = 3_000_000_000  # of a live vehicle that told none
ORIGIN_AGAIN_NS = 2_000_000_000
_ALTITUDE_PATIENCE_NS = 10_000_000_000  # of a live vehicle that does not say how high it stands
_FRESH_NS = 1_000_000_000
_FIXES_TO_JUDGE = 20  # before the latency that is set is called too short
_log = logging.getLogger(__name__)


class Teller:
    """`silence` is why nothing left at the last opportunity (None: something did), `withheld` counts the reasons."""

    def __init__(
        self, link: MavlinkLink, connection: Connection, vehicle: Vehicle, config: Config, map_frame: MapFrame
    ) -> None:
        self.link, self.vehicle, self.has_profile = link, vehicle, False
        self.silence: Silence | Withheld | None = Silence.NO_VEHICLE
        self.withheld: Counter[str] = Counter()
        self.told_at_ns: int | None = None
        self._connection, self._config, self._map_frame = connection, config.link, map_frame
        self._latency_ns = round(config.link.latency_ms * 1e6)
        self._period_ns = round(1e9 / config.link.rate_hz)
        lasting_s = config.link.gimbal_correlation_s if config.rectify.on_gimbal else config.link.correlation_s
        self._alike = max(1.0, config.link.rate_hz * lasting_s)  # messages that share one error
        live = config.track.velocity_use == VelocityUse.INERTIAL
        self._propagator = Propagator(config.track, config.link, self._felt if live else lambda *_: None)
        self._meter = LatencyMeter(config.link.latency_ms)
        self._first_valid_ns: int | None = None  # of the present track; None while LOST
        self._held_at_ns = 0
        self._ever_told, self._jumped = False, False
        self._due_ns = 0
        self._warned = False
        self._without_origin_since_ns: int | None = None  # of a live vehicle
        self._origin_due_ns = 0

    def take(self, step: Step, now_ns: int) -> None:
        """A step of the localizer. One whose frame was out of order changes nothing."""
        if step.state in (State.LOST, State.ACQUIRING):
            self._propagator.clear()
            self._first_valid_ns = None
            self._jumped = self._ever_told
            return
        if step.estimate is None:
            return
        if step.reason is None:
            self._held_at_ns = step.estimate.valid_at_ns
            self._measure(step, now_ns)
        elif step.held and self._first_valid_ns is not None:
            self._held_at_ns = step.estimate.valid_at_ns
        elif self._first_valid_ns is None:
            return  # motion alone, of a track whose fixes were never seen here
        self._first_valid_ns = self._first_valid_ns or step.estimate.valid_at_ns
        self._propagator.take(step.estimate, self._held_at_ns)

    def at(self, valid_at_ns: int) -> Estimate | None:
        """Our own estimate of an instant, if it may be told."""
        return self._propagator.at(valid_at_ns)

    def _felt(self, from_ns: int, to_ns: int) -> Felt | None:
        return felt(self.vehicle.telemetry, from_ns, to_ns)

    def latency(self, now_ns: int) -> Latency:
        return self._meter.figures(now_ns)

    def settle_origin(self, now_ns: int) -> None:
        """Use the vehicle's origin; give it one where it has none."""
        origin = self.vehicle.origin
        if origin is not None and origin != self.link.origin:
            self.link.use_origin(origin, self._map_frame)
        if origin is not None or not self.vehicle.alive(now_ns):
            self._without_origin_since_ns = None
            return
        if self._without_origin_since_ns is None:
            self._without_origin_since_ns = now_ns
        waited_ns = now_ns - self._without_origin_since_ns
        altitude_m = self._home_altitude_m()
        patient = waited_ns < (ORIGIN_AFTER_NS if altitude_m is not None else _ALTITUDE_PATIENCE_NS)
        if patient or now_ns < self._origin_due_ns or not self.has_profile:
            return
        frame = self._map_frame
        anchor = Home.at(frame.anchor_latitude_deg, frame.anchor_longitude_deg, altitude_m or 0.0)
        if not self.link.profile.local:  # global positions count from nowhere; the records still want a place
            self.link.use_origin(anchor, frame)
        if self._config.set_origin:
            self._origin_due_ns = now_ns + ORIGIN_AGAIN_NS
            self._connection.send(commands.set_gps_global_origin(anchor, target_system=self.link.target_system))

    def tell(self, now_ns: int) -> None:
        """Send the estimate of `latency_ms` ago when it is time to."""
        if now_ns < self._due_ns:
            return
        self._due_ns += self._period_ns
        if self._due_ns <= now_ns:  # the first time, or after a pause of the caller: no burst to make up for it
            self._due_ns = now_ns + self._period_ns
        self.silence = self._tell(now_ns)
        if self.silence is not None:
            self.withheld[self.silence.value] += 1
            return
        self._ever_told, self.told_at_ns = True, now_ns

    def _measure(self, step: Step, now_ns: int) -> None:
        self._meter.fix(step.captured_at_ns, now_ns)
        figures = self._meter.figures(now_ns)
        if figures.too_short and figures.fixes >= _FIXES_TO_JUDGE and not self._warned:
            self._warned = True
            _log.warning(
                "fixes come after %.0f ms, later than link.latency_ms %.0f: set it, and the vehicle's delay, to %.0f",
                figures.p95_ms,
                figures.set_ms,
                figures.recommended_ms,
            )

    def _tell(self, now_ns: int) -> Silence | Withheld | None:
        if not self.vehicle.alive(now_ns):
            return Silence.NO_VEHICLE
        if not self.has_profile:
            return Silence.NO_PROFILE
        if not self.vehicle.sync.synced:
            return Silence.NO_SYNC
        if self._connection.waiting:
            return Silence.LINE_FULL
        valid_at_ns = now_ns - self._latency_ns
        if self._first_valid_ns is None or valid_at_ns < self._first_valid_ns:
            return Silence.LOST
        estimate = self._propagator.at(valid_at_ns)
        if estimate is None:
            return Silence.OLD_FIX
        if self.link.origin is None or (self.link.profile.local and self.vehicle.origin is None):
            return Silence.NO_ORIGIN
        height_m = self._height_above_origin_m(now_ns)
        if height_m is None and self.link.profile.local:
            return Silence.NO_HEIGHT
        telemetry = self.vehicle.telemetry.at(valid_at_ns)
        jumped, self._jumped = self._jumped, False
        before = self.link.withheld.copy()
        left = self.link.send(
            dataclasses.replace(estimate, covariance=estimate.covariance * self._alike),
            telemetry if isinstance(telemetry, Telemetry) else None,
            reset=jumped,
            sent_at_ns=now_ns,
            height_above_home_m=height_m,
        )
        return None if left else next(iter(self.link.withheld - before))

    def _height_above_origin_m(self, now_ns: int) -> float | None:
        """By the vehicle's own local position, where it has one; else by its height above home, as high as the origin.

        What it believes itself is returned to it: our map says nothing about height.
        """
        local = self.vehicle.local
        if local is not None and now_ns - local.at_ns <= _FRESH_NS:
            return -local.position_ned_m[2]
        height_m, home, origin = self.vehicle.relative_height_m, self.vehicle.home, self.vehicle.origin
        if height_m is None or home is None or origin is None:
            return height_m
        return height_m + home.altitude_m - origin.altitude_m

    def _home_altitude_m(self) -> float | None:
        """Above the sea, of the place that the vehicle counts its height from; None where it does not say."""
        home, globe = self.vehicle.home, self.vehicle.globe
        if home is not None:
            return home.altitude_m
        if globe is not None and globe.altitude_m != 0.0:
            return globe.altitude_m - globe.relative_height_m
        return None
