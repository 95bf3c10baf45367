"""Fixes leave for the flight controller: a profile per firmware, a link, and a peer that checks what arrives."""

from onboard.mavlink.peer.listener_process import ListenerProcess
from onboard.mavlink.peer.received import Received
from onboard.mavlink.peer.verify import Verification, verify
from onboard.mavlink.tell.link import MavlinkLink, Withheld
from onboard.mavlink.tell.place import Home, Reference
from onboard.mavlink.tell.profile import ARDUPILOT_ODOMETRY, PROFILES, Profile, profile_for, profile_named
from onboard.mavlink.tell.propagate import Propagator
from onboard.mavlink.vehicle.autopilot import Autopilot

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
