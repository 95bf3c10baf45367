"""Fixes leave for the flight controller: a profile per firmware, a link, and a peer that checks what arrives."""

from onboard.mavlink.autopilot import Autopilot
from onboard.mavlink.link import MavlinkLink, Withheld
from onboard.mavlink.listener_process import ListenerProcess
from onboard.mavlink.place import Home, Reference
from onboard.mavlink.profile import ARDUPILOT_ODOMETRY, PROFILES, Profile, profile_for, profile_named
from onboard.mavlink.propagate import Propagator
from onboard.mavlink.received import Received
from onboard.mavlink.verify import Verification, verify

__all__ = [
    "ARDUPILOT_ODOMETRY",
    "PROFILES",
    "Autopilot",
    "Home",
    "ListenerProcess",
    "MavlinkLink",
    "Profile",
    "Propagator",
    "Received",
    "Reference",
    "Verification",
    "Withheld",
    "profile_for",
    "profile_named",
    "verify",
]
