"""A fix on the ground: the vehicle is told, for some seconds, that it is where it is, and does it take that?

What the estimator says of itself is all that can be seen. Where it held a position before, by GPS, it cannot be told
which of the two it follows, unless it is switched to Pilotage's source set for the trial (and back to set 1 after it).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.config import LinkConfig
from onboard.frames import MapFrame
from onboard.mavlink.doctor.rules import Finding, Severity
from onboard.mavlink.doctor.session import Session
from onboard.mavlink.tell import commands
from onboard.mavlink.tell.link import MavlinkLink
from onboard.mavlink.tell.place import Home
from onboard.mavlink.tell.profile import ARDUPILOT_GPS_INPUT, Profile
from onboard.mavlink.vehicle.autopilot import Autopilot
from onboard.mavlink.watch.estimator import EstimatorVerdict, EstimatorWatch
from onboard.records import Estimate, Telemetry

PATIENCE_S = 25.0
_TAKEN_S = 3.0  # so long it must be so
_SWITCHED_S = 12.0  # after a switch: what it held before has run out by then
_NEAR_M = 15.0
_SIGMA_M, _SPEED_SIGMA_MPS = 3.0, 0.5
_SYNC_S, _ORIGIN_S, _READING_S = 10.0, 10.0, 3.0
_FRESH_NS = 2_000_000_000

Place = tuple[float, float]


class TrialVerdict(str, Enum):
    TAKEN = "taken"
    NOT_TAKEN = "not_taken"
    UNCLEAR = "unclear"
    NOT_RUN = "not_run"


@dataclass(frozen=True, slots=True)
class DryRun:
    """How it ended. `flags` are the estimator's, before and after; `apart_m`: its position from the place told."""

    verdict: TrialVerdict
    sentence: str
    remedy: str = ""
    place: Place | None = None
    sent: int = 0
    flags_before: int | None = None
    flags_after: int | None = None
    pos_horiz_ratio: float = math.nan
    apart_m: float = math.nan


def try_fix(session: Session, profile: Profile, settings: LinkConfig, at: Place | None) -> DryRun:
    """Run it at `at` (degrees), by default where the vehicle believes to be. The caller has asked: it is disarmed."""
    vehicle = session.vehicle
    place = at or believed_place(session, profile)
    if place is None:
        return DryRun(TrialVerdict.NOT_RUN, "the vehicle does not know where it is", "say it: --at LAT,LON")
    if not session.run(_SYNC_S, lambda: vehicle.sync.synced):
        return DryRun(
            TrialVerdict.NOT_RUN, "the vehicle's clock is not known: it does not answer TIMESYNC", place=place
        )
    origin = _origin(session, profile, settings, place)
    if origin is None:
        remedy = "set link.set_origin to true, or give it one from the ground station"
        return DryRun(TrialVerdict.NOT_RUN, "the vehicle has no origin, and takes none", remedy, place)
    session.run(_READING_S, lambda: vehicle.estimator is not None)
    switches = switches_set(profile, settings)
    trial = _Trial(session, profile, settings, place, origin)
    if switches:
        session.connection.send(commands.set_ekf_source_set(settings.switch_source_set, vehicle.target_system))
    try:
        taken = trial.run(_SWITCHED_S if switches else _TAKEN_S)
    finally:
        if switches:
            session.connection.send(commands.set_ekf_source_set(1, vehicle.target_system))
            session.run(0.2)
    return trial.result(taken, switches)


def switches_set(profile: Profile, settings: LinkConfig) -> bool:
    """Whether the vehicle has to be switched to another source set to look at what it is told."""
    local = profile.autopilot is Autopilot.ARDUPILOT and profile is not ARDUPILOT_GPS_INPUT
    return local and settings.switch_source_set > 1


def believed_place(session: Session, profile: Profile) -> Place | None:
    """(latitude, longitude) that the vehicle holds itself to be at; its origin or home where it holds none."""
    vehicle, now_ns = session.vehicle, session.clock()
    where = _position(session, profile)
    if where is not None:
        return where
    gps = vehicle.gps
    if gps is not None and gps.fix_type >= mav.GPS_FIX_TYPE_3D_FIX and now_ns - gps.at_ns <= _FRESH_NS:
        return gps.latitude_deg, gps.longitude_deg
    known = vehicle.origin or vehicle.home
    return known.degrees if known is not None else None


def trial_findings(dry_run: DryRun) -> list[Finding]:
    """A trial that failed stands in the way as a parameter does."""
    if dry_run.verdict is not TrialVerdict.NOT_TAKEN:
        return []
    why = f"{dry_run.sentence}; {dry_run.remedy}" if dry_run.remedy else dry_run.sentence
    return [Finding(Severity.MUST, "dry-run fix", None, "taken", why)]


def _origin(session: Session, profile: Profile, settings: LinkConfig, place: Place) -> Home | None:
    """The vehicle's; given to it where it has none and the message counts from one."""
    vehicle, here = session.vehicle, Home.at(*place, _altitude_m(session))
    session.run(_READING_S, lambda: vehicle.origin is not None)
    if vehicle.origin is not None or not profile.local:
        return vehicle.origin or here
    if settings.set_origin:
        for _ in range(3):
            session.connection.send(commands.set_gps_global_origin(here, target_system=vehicle.target_system))
            if session.run(_ORIGIN_S / 3, lambda: vehicle.origin is not None):
                break
    return vehicle.origin


def _altitude_m(session: Session) -> float:
    """Above the sea, of where it stands; 0 where it does not say."""
    home, globe = session.vehicle.home, session.vehicle.globe
    return home.altitude_m if home is not None else globe.altitude_m if globe is not None else 0.0


def _position(session: Session, profile: Profile) -> Place | None:
    """Where the vehicle's estimator holds it to be."""
    vehicle, now_ns = session.vehicle, session.clock()
    local, globe, origin = vehicle.local, vehicle.globe, vehicle.origin
    if not _holds(_flags(session)):
        return None
    if globe is not None and now_ns - globe.at_ns <= _FRESH_NS and (globe.latitude_deg or globe.longitude_deg):
        return globe.latitude_deg, globe.longitude_deg
    if local is not None and origin is not None and now_ns - local.at_ns <= _FRESH_NS:
        return profile.globe.geodetic(origin.degrees, *local.position_ned_m[:2])
    return None


def _flags(session: Session) -> int | None:
    estimator = session.vehicle.estimator
    return None if estimator is None else estimator.flags


def _holds(flags: int | None) -> bool:
    """Whether these flags say that the estimator holds an absolute position."""
    return bool(flags is not None and flags & mav.EKF_POS_HORIZ_ABS) and not flags & mav.EKF_CONST_POS_MODE


class _Trial:
    """The sending and the watching."""

    def __init__(self, session: Session, profile: Profile, settings: LinkConfig, place: Place, origin: Home) -> None:
        self.session, self.profile, self.settings, self.place = session, profile, settings, place
        self.frame = MapFrame(*place)
        vehicle = session.vehicle
        self.link = MavlinkLink(
            session.connection,
            profile,
            target_system=vehicle.target_system,
            stamp=vehicle.sync.vehicle_from_ours_ns,
        )
        self.link.use_origin(origin, self.frame)
        self.watch = EstimatorWatch()
        self.flags_before = _flags(session)
        self.apart_m = math.nan
        self._read: object = vehicle.estimator
        self._since_ns: int | None = None  # it has been taken

    def run(self, lasting_s: float) -> bool:
        """Send at the link's rate until the fix has been taken for so long; false where it is not, or it is armed."""
        session = self.session
        end_ns = session.clock() + round((PATIENCE_S + lasting_s) * 1e9)
        while session.clock() < end_ns and not session.vehicle.armed:
            self._tell()
            session.run(1.0 / self.settings.rate_hz)
            self._look()
            if self._since_ns is not None and session.clock() - self._since_ns >= lasting_s * 1e9:
                return True
        return False

    def result(self, taken: bool, switched: bool) -> DryRun:
        vehicle, now_ns = self.session.vehicle, self.session.clock()
        estimator = vehicle.estimator
        ended = DryRun(
            TrialVerdict.TAKEN,
            "the estimator holds a position, and it is the one that was told",
            place=self.place,
            sent=sum(self.link.sent.values()),
            flags_before=self.flags_before,
            flags_after=_flags(self.session),
            pos_horiz_ratio=estimator.pos_horiz_ratio if estimator is not None else math.nan,
            apart_m=self.apart_m,
        )
        if vehicle.armed:
            return dataclasses.replace(
                ended, verdict=TrialVerdict.NOT_RUN, sentence="the vehicle was armed: it was told no more"
            )
        if not taken:
            opinion = self.watch.opinion(now_ns, vehicle.autopilot, self.profile.name)
            said = opinion.verdict in (EstimatorVerdict.IGNORED, EstimatorVerdict.REFUSED)
            sentence = opinion.sentence if said else f"it holds itself to be {self.apart_m:.0f} m from the place told"
            if math.isnan(self.apart_m) and not said:
                sentence = "the estimator did not take the position up"
            remedy = opinion.remedy.replace("EK3_SRC1_", f"EK3_SRC{self.settings.switch_source_set or 1}_")
            remedy = remedy or "look at the other findings"
            return dataclasses.replace(ended, verdict=TrialVerdict.NOT_TAKEN, sentence=sentence, remedy=remedy)
        if _holds(self.flags_before) and not switched and self.profile is not ARDUPILOT_GPS_INPUT:
            sentence = "the estimator held a position before: which of the two it follows cannot be seen"
            return dataclasses.replace(ended, verdict=TrialVerdict.UNCLEAR, sentence=sentence)
        return ended

    def _tell(self) -> None:
        vehicle, now_ns = self.session.vehicle, self.session.clock()
        valid_at_ns = now_ns - round(self.settings.latency_ms * 1e6)
        alike = max(1.0, self.settings.rate_hz * self.settings.correlation_s)  # as in flight, see `teller`
        covariance = np.diag([_SIGMA_M**2, _SIGMA_M**2, _SPEED_SIGMA_MPS**2, _SPEED_SIGMA_MPS**2]) * alike
        estimate = Estimate(valid_at_ns, np.zeros(2), np.zeros(2), covariance, math.nan, 0.0, 1.0)
        telemetry = vehicle.telemetry.at(valid_at_ns)
        left = self.link.send(
            estimate,
            telemetry if isinstance(telemetry, Telemetry) else None,
            sent_at_ns=now_ns,
            height_above_home_m=self._height_m(now_ns),
        )
        if left:
            self.watch.sent(now_ns)

    def _height_m(self, now_ns: int) -> float:
        """Above the origin, as the vehicle says; on the ground it is about 0 where it does not."""
        vehicle = self.session.vehicle
        if vehicle.local is not None and now_ns - vehicle.local.at_ns <= _FRESH_NS:
            return -vehicle.local.position_ned_m[2]
        return vehicle.relative_height_m or 0.0

    def _look(self) -> None:
        vehicle, now_ns = self.session.vehicle, self.session.clock()
        estimator = vehicle.estimator
        if estimator is None or estimator is self._read:
            return
        self._read = estimator
        self.watch.heard(estimator.flags, estimator.pos_horiz_ratio, now_ns)
        where = _position(self.session, self.profile)
        self.apart_m = math.nan if where is None else float(np.hypot(*self.frame.enu_from_geodetic(*where)))
        good = self.apart_m <= _NEAR_M and estimator.pos_horiz_ratio <= 1.0
        self._since_ns = (self._since_ns or now_ns) if good else None
