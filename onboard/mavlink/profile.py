"""Which message carries an estimate, by the firmware that reads it.

What each firmware does with each message was measured: ODOMETRY with velocity serves ArduPilot best, GPS_INPUT
is the way for set-ups that know no other source than GPS, and GLOBAL_POSITION_SENSOR is PX4's own for global fixes
that come a few times a second (on PX4 a slow ODOMETRY would diverge as external vision).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pymavlink.dialects.v20 import common as mav

from onboard.errors import LinkError
from onboard.mavlink import messages
from onboard.mavlink.place import Reference
from onboard.records import Estimate, Telemetry


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
    which must have been set; `needs_unix_time` that the stamps must be Unix time.
    """

    name: str
    firmware: str
    carriers: Mapping[str, Callable[[Outgoing], mav.MAVLink_message]]
    local: bool
    needs_unix_time: bool = False


def _odometry(out: Outgoing) -> mav.MAVLink_message:
    return messages.odometry(out.estimate, out.telemetry, out.reference, out.reset_counter, out.height_above_home_m)


def _vision(out: Outgoing) -> mav.MAVLink_message:
    return messages.vision_position_estimate(
        out.estimate, out.telemetry, out.reference, out.reset_counter, out.height_above_home_m
    )


def _gps(out: Outgoing) -> mav.MAVLink_message:
    return messages.gps_input(out.estimate, out.reference, out.height_above_home_m)


def _global(out: Outgoing) -> mav.MAVLink_message:
    return messages.global_position_sensor(out.estimate, out.reference, out.sent_at_ns, out.height_above_home_m)


ARDUPILOT_ODOMETRY = Profile("ardupilot-odometry", "ArduPilot", {"ODOMETRY": _odometry}, local=True)
ARDUPILOT_VISION = Profile("ardupilot-vision", "ArduPilot", {"VISION_POSITION_ESTIMATE": _vision}, local=True)
ARDUPILOT_GPS_INPUT = Profile(
    "ardupilot-gps-input", "ArduPilot", {"GPS_INPUT": _gps}, local=False, needs_unix_time=True
)
PX4_GLOBAL_POSITION = Profile("px4-global-position", "PX4", {"GLOBAL_POSITION_SENSOR": _global}, local=False)

PROFILES = {
    profile.name: profile
    for profile in (ARDUPILOT_ODOMETRY, ARDUPILOT_VISION, ARDUPILOT_GPS_INPUT, PX4_GLOBAL_POSITION)
}


def profile_named(name: str) -> Profile:
    """The profile of a name that a user gave. LinkError with the names that there are."""
    if name not in PROFILES:
        raise LinkError("unknown MAVLink profile", name, "one of " + ", ".join(PROFILES))
    return PROFILES[name]
