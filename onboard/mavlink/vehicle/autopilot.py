"""Whose firmware flies the vehicle, as far as the link has to know."""

from __future__ import annotations

from enum import Enum


class Autopilot(str, Enum):
    ARDUPILOT = "ArduPilot"
    PX4 = "PX4"
    OTHER = "other"  # it says what it is, and nothing is known of that
    UNKNOWN = "unknown"  # it has not said yet
