"""Which message carries an estimate, by the firmware that reads it.

What each firmware does with each message was measured. ODOMETRY serves ArduPilot best; its velocity is told, and stays
unused while EK3_SRCn_VELXY is 0: fused, the loop through the attitude is unstable. GPS_INPUT is the way for set-ups
that know no other source than GPS, and GLOBAL_POSITION_SENSOR is PX4's own for global fixes that come a few times
a second; PX4 takes ODOMETRY as external vision, which diverges when it comes slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.errors import LinkError
from onboard.mavlink.tell import messages
from onboard.mavlink.tell.globe import ARDUPILOT_GLOBE, PX4_GLOBE, Globe
from onboard.mavlink.tell.place import Reference
from onboard.mavlink.vehicle.autopilot import Autopilot
from onboard.records import Estimate, Telemetry

AUTO = "auto"


class Clock(str, Enum):
    """Whose clock the stamps are told by."""

    VEHICLE = "vehicle"  # ArduPilot only compares stamps with each other; in its own clock they do not drift
    OURS = "ours"  # PX4 adds the offset that it found itself, as the asking end of TIMESYNC
    UNIX = "unix"  # a calendar is needed


@dataclass(frozen=True, slots=True)
class Outgoing:
    """All that a message is made of. `sent_at_ns` is told by the clock of `estimate.valid_at_ns`."""

    estimate: Estimate
    telemetry: Telemetry | None
    reference: Reference
    reset_counter: int
    sent_at_ns: int
    height_above_home_m: float | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """How one firmware wants to be told.

    `carriers` are the messages that carry an estimate, by name; `local` says that they count from the origin,
    which must have been set, on the firmware's `globe`. Slower than `min_rate_hz` it is of no use.
    """

    name: str
    autopilot: Autopilot
    carriers: Mapping[str, Callable[[Outgoing], mav.MAVLink_message]]
    local: bool
    clock: Clock
    globe: Globe
    min_rate_hz: float = 0.0


def _odometry(out: Outgoing) -> mav.MAVLink_message:
    return messages.odometry(out.estimate, out.telemetry, out.reference, out.reset_counter, out.height_above_home_m)


def _px4_odometry(out: Outgoing) -> mav.MAVLink_message:
    return messages.px4_odometry(out.estimate, out.telemetry, out.reference, out.reset_counter, out.height_above_home_m)


def _vision(out: Outgoing) -> mav.MAVLink_message:
    return messages.vision_position_estimate(
        out.estimate, out.telemetry, out.reference, out.reset_counter, out.height_above_home_m
    )


def _gps(out: Outgoing) -> mav.MAVLink_message:
    return messages.gps_input(out.estimate, out.reference, out.height_above_home_m)


def _global(out: Outgoing) -> mav.MAVLink_message:
    return messages.global_position_sensor(out.estimate, out.reference, out.sent_at_ns, out.height_above_home_m)


ARDUPILOT_ODOMETRY = Profile(
    "ardupilot-odometry", Autopilot.ARDUPILOT, {"ODOMETRY": _odometry}, True, Clock.VEHICLE, ARDUPILOT_GLOBE
)
ARDUPILOT_VISION = Profile(
    "ardupilot-vision",
    Autopilot.ARDUPILOT,
    {"VISION_POSITION_ESTIMATE": _vision},
    True,
    Clock.VEHICLE,
    ARDUPILOT_GLOBE,
)
ARDUPILOT_GPS_INPUT = Profile(
    "ardupilot-gps-input", Autopilot.ARDUPILOT, {"GPS_INPUT": _gps}, False, Clock.UNIX, ARDUPILOT_GLOBE
)
PX4_GLOBAL_POSITION = Profile(
    "px4-global-position", Autopilot.PX4, {"GLOBAL_POSITION_SENSOR": _global}, False, Clock.OURS, PX4_GLOBE
)
PX4_ODOMETRY = Profile(
    "px4-odometry", Autopilot.PX4, {"ODOMETRY": _px4_odometry}, True, Clock.OURS, PX4_GLOBE, min_rate_hz=30.0
)

PROFILES = {
    profile.name: profile
    for profile in (ARDUPILOT_ODOMETRY, ARDUPILOT_VISION, ARDUPILOT_GPS_INPUT, PX4_GLOBAL_POSITION, PX4_ODOMETRY)
}
_BY_DEFAULT = {Autopilot.ARDUPILOT: ARDUPILOT_ODOMETRY, Autopilot.PX4: PX4_GLOBAL_POSITION}


def profile_named(name: str) -> Profile:
    """The profile of a name that a user gave. LinkError with the names that there are."""
    if name not in PROFILES:
        raise LinkError("unknown MAVLink profile", name, "one of " + ", ".join(PROFILES))
    return PROFILES[name]


def profile_for(
    autopilot: Autopilot, firmware_version: str = "", wanted: str = AUTO, rate_hz: float | None = None
) -> Profile:
    """The profile of a vehicle: by what it says it is, or the one that is `wanted` by name.

    `firmware_version` is for the words of an error. LinkError for a name that is none or is another known
    firmware's, for an autopilot that nothing is known of when none is named, and for a `rate_hz` that the profile
    cannot live on.
    """
    says = firmware_version or autopilot.value
    if wanted == AUTO:
        if autopilot not in _BY_DEFAULT:
            raise LinkError("no MAVLink profile for this autopilot", says, "link.profile one of " + ", ".join(PROFILES))
        profile = _BY_DEFAULT[autopilot]
    else:
        profile = profile_named(wanted)
        if autopilot in _BY_DEFAULT and autopilot is not profile.autopilot:
            fitting = [one.name for one in PROFILES.values() if one.autopilot is autopilot]
            raise LinkError(f"MAVLink profile {wanted}, but the vehicle is", says, ", ".join((AUTO, *fitting)))
    if rate_hz is not None and rate_hz < profile.min_rate_hz:
        raise LinkError(
            f"link.rate_hz under MAVLink profile {profile.name}",
            rate_hz,
            f"at least {profile.min_rate_hz:g}",
            "external vision that comes slower diverges on this firmware",
        )
    return profile
