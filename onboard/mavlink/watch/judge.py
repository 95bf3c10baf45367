"""The closed loop: what the vehicle makes of our fixes and what GPS says, against the map, and what follows from it.

Readings are fed to `watch` and `gps`; both verdicts, the switch of the source set and our own silence become words
for the pilot. Our own position is compared with another at that other's instant.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.config import LinkConfig
from onboard.frames import MapFrame
from onboard.mavlink.tell.covariance import largest_sigma
from onboard.mavlink.tell.profile import ARDUPILOT_GPS_INPUT, Profile
from onboard.mavlink.vehicle.autopilot import Autopilot
from onboard.mavlink.vehicle.state import GpsReading, Vehicle
from onboard.mavlink.watch.announce import Announcer, Lasting, Severity
from onboard.mavlink.watch.estimator import EstimatorOpinion, EstimatorVerdict, EstimatorWatch
from onboard.mavlink.watch.gps import GpsSample, GpsWatch, SourceSwitch
from onboard.records import Estimate

_WORDS_NS = 500_000_000
_VEHICLE_SIGMA_M = 3.0  # of the vehicle's own position, where it does not say
_SILENT_S = 1.0  # a shorter silence is not worth a word
_HEALTHY_NS = 1_000_000_000  # since something was told
_FRESH_NS = 2_000_000_000


class Judge:
    """`ours` gives our own estimate of an instant. `apart_m`: the vehicle's position from it, None where unknown."""

    def __init__(
        self, vehicle: Vehicle, config: LinkConfig, map_frame: MapFrame, ours: Callable[[int], Estimate | None]
    ) -> None:
        self.gps = GpsWatch(config.gps_disagreement_m)
        self.apart_m: float | None = None
        self._vehicle, self._config, self._map_frame, self._ours = vehicle, config, map_frame, ours
        self._announcers = [Announcer() for _ in range(4)]
        self._silent = Lasting()
        self._own = ("", Severity.INFO)  # nothing is said before the first time
        self._words_due_ns = 0
        self._seen: dict[str, object] = {}
        self.restart()

    def restart(self) -> None:
        """The vehicle has begun anew: its estimator and its source set have too. What was seen of GPS stays."""
        self.watch = EstimatorWatch()
        self.switch = SourceSwitch(self._config.switch_source_set)

    def opinion(self, now_ns: int, profile: Profile | None) -> EstimatorOpinion:
        return self.watch.opinion(now_ns, self._vehicle.autopilot, profile.name if profile else "")

    def look(self, now_ns: int, profile: Profile | None, told_at_ns: int | None) -> list[mav.MAVLink_message]:
        """Take in what is new; the words, and the switch, that are due."""
        if told_at_ns == now_ns:
            self.watch.sent(now_ns)
        vehicle = self._vehicle
        if self._is_new("estimator", vehicle.estimator) and vehicle.estimator is not None:
            self.watch.heard(vehicle.estimator.flags, vehicle.estimator.pos_horiz_ratio, now_ns)
        if profile is not None:
            self._compare(profile, now_ns)
        # With GPS_INPUT the vehicle's GPS is ourselves: it proves nothing.
        if self._is_new("gps", vehicle.gps) and vehicle.gps is not None and profile is not ARDUPILOT_GPS_INPUT:
            self._gps(vehicle.gps, now_ns)
        messages = self._switch(now_ns, told_at_ns)
        if now_ns >= self._words_due_ns:
            self._words_due_ns = now_ns + _WORDS_NS
            messages += self._words(now_ns, profile, told_at_ns)
        return messages

    def _is_new(self, what: str, reading: object) -> bool:
        new = reading is not self._seen.get(what)
        self._seen[what] = reading
        return new

    def _compare(self, profile: Profile, now_ns: int) -> None:
        """Where the vehicle believes to be, by its local position or, where it sends none, by its global one."""
        local, globe, origin = self._vehicle.local, self._vehicle.globe, self._vehicle.origin
        if local is not None and origin is not None and now_ns - local.at_ns <= _FRESH_NS:
            if self._is_new("position", local):
                place = profile.globe.geodetic(origin.degrees, *local.position_ned_m[:2])
                self._compared(place, local.at_ns, now_ns)
        elif globe is not None and self._is_new("position", globe) and (globe.latitude_deg or globe.longitude_deg):
            self._compared((globe.latitude_deg, globe.longitude_deg), globe.at_ns, now_ns)

    def _compared(self, place: tuple[float, float], at_ns: int, now_ns: int) -> None:
        ours, estimator = self._ours(at_ns), self._vehicle.estimator
        if ours is None:
            self.apart_m = None
            return
        self.apart_m = float(np.hypot(*(self._map_frame.enu_from_geodetic(*place) - ours.position_enu_m)))
        claimed_m = math.nan if estimator is None else estimator.position_sigma_m
        theirs_m = claimed_m if math.isfinite(claimed_m) else _VEHICLE_SIGMA_M
        self.watch.compared(self.apart_m, math.hypot(largest_sigma(ours.covariance[:2, :2]), theirs_m), now_ns)

    def _gps(self, reading: GpsReading, now_ns: int) -> None:
        place = self._map_frame.enu_from_geodetic(reading.latitude_deg, reading.longitude_deg)
        velocity = None
        if reading.velocity_ned_mps is not None:
            velocity = np.array([reading.velocity_ned_mps[1], reading.velocity_ned_mps[0]])
        self.gps.heard(GpsSample(reading.at_ns, reading.fix_type, place, velocity, reading.error_m), now_ns)
        ours = self._ours(reading.at_ns)
        if ours is None:
            self.gps.not_compared(now_ns)
        else:
            distance_m = float(np.hypot(*(place - ours.position_enu_m)))
            self.gps.compared(distance_m, largest_sigma(ours.covariance[:2, :2]), now_ns)

    def _switch(self, now_ns: int, told_at_ns: int | None) -> list[mav.MAVLink_message]:
        if self._vehicle.autopilot is not Autopilot.ARDUPILOT:
            return []
        healthy = told_at_ns is not None and now_ns - told_at_ns <= _HEALTHY_NS
        wanted = healthy and self.gps.verdict(now_ns).bad
        command = self.switch.due(wanted, now_ns, self._vehicle.target_system)
        return [] if command is None else [command]

    def _words(self, now_ns: int, profile: Profile | None, told_at_ns: int | None) -> list[mav.MAVLink_message]:
        opinion = self.opinion(now_ns, profile)
        own = self._own_words(now_ns, told_at_ns)
        estimator = (opinion.text, opinion.severity)
        if opinion.verdict is EstimatorVerdict.BLIND and own[0]:
            estimator = ("", Severity.INFO)  # it follows from our own silence, which is said already
        said = (own, estimator, self.gps.words(now_ns), self.switch.words())
        messages: list[mav.MAVLink_message] = []
        for announcer, (text, severity) in zip(self._announcers, said, strict=True):
            messages += announcer.say(text, severity, now_ns)
        return messages

    def _own_words(self, now_ns: int, told_at_ns: int | None) -> tuple[str, Severity]:
        """Nothing on the vehicle alarms when fixes end: we say it ourselves."""
        self._silent.see(told_at_ns is None or now_ns - told_at_ns > _HEALTHY_NS, now_ns)
        if not self._silent.is_so:
            self._own = ("position by the map is sent", Severity.INFO)
        elif self._own[0] and self._silent.for_s(now_ns) >= _SILENT_S:
            self._own = ("no position by the map, silent", Severity.WARNING)
        return self._own
