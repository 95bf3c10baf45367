"""What a vehicle is called: firmware, version, kind, mode. From HEARTBEAT and AUTOPILOT_VERSION."""

from __future__ import annotations

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.mavlink.vehicle.autopilot import Autopilot

_AUTOPILOTS = {mav.MAV_AUTOPILOT_ARDUPILOTMEGA: Autopilot.ARDUPILOT, mav.MAV_AUTOPILOT_PX4: Autopilot.PX4}
_PLANES = {1, *range(19, 26)}
_COPTERS = {2, 3, 4, 13, 14, 15, 29, 35, 43}
_ARDUPILOT_NAMES = (
    (_COPTERS, "ArduCopter"),
    (_PLANES, "ArduPlane"),
    ({10, 11}, "ArduRover"),
    ({12}, "ArduSub"),
    ({7}, "Blimp"),
    ({5}, "AntennaTracker"),
)
_COPTER_MODES = {
    0: "Stabilize",
    2: "AltHold",
    3: "Auto",
    4: "Guided",
    5: "Loiter",
    6: "RTL",
    9: "Land",
    16: "PosHold",
    17: "Brake",
    20: "GuidedNoGPS",
    21: "SmartRTL",
}
_PX4_MODES = {
    1: "Manual",
    2: "Altitude",
    3: "Position",
    4: "Auto",
    5: "Acro",
    6: "Offboard",
    7: "Stabilized",
}


def autopilot_of(number: int) -> Autopilot:
    """Of HEARTBEAT.autopilot."""
    return _AUTOPILOTS.get(number, Autopilot.OTHER)


def kind_of(vehicle_type: int) -> str:
    """HEARTBEAT.type in words: "quadrotor", "fixed wing"; its number where it is none of MAVLink's."""
    known = mav.enums["MAV_TYPE"].get(vehicle_type)
    return known.name.removeprefix("MAV_TYPE_").replace("_", " ").lower() if known else f"type {vehicle_type}"


def mode_name(autopilot: Autopilot, vehicle_type: int, mode: int) -> str:
    """HEARTBEAT.custom_mode in words, or its number."""
    if autopilot is Autopilot.PX4:
        return _PX4_MODES.get(mode >> 16 & 0xFF, str(mode))
    if autopilot is Autopilot.ARDUPILOT and vehicle_type in _COPTERS:
        return _COPTER_MODES.get(mode, str(mode))
    return str(mode)


def firmware_name(autopilot: Autopilot, vehicle_type: int) -> str:
    if autopilot is Autopilot.ARDUPILOT:
        return next((name for types, name in _ARDUPILOT_NAMES if vehicle_type in types), "ArduPilot")
    return autopilot.value


def version_of(message: mav.MAVLink_message, autopilot: Autopilot) -> str:
    """AUTOPILOT_VERSION as "4.7.0-dev (265753db)"."""
    number = message.flight_sw_version
    major, minor, patch, stage = (number >> shift & 0xFF for shift in (24, 16, 8, 0))
    version = f"{major}.{minor}.{patch}{_stage(stage)}"
    commit = _commit(bytes(message.flight_custom_version), autopilot)
    return f"{version} ({commit})" if commit else version


def _stage(number: int) -> str:
    """FIRMWARE_VERSION_TYPE; release candidates and betas count up from their own."""
    if number == mav.FIRMWARE_VERSION_TYPE_OFFICIAL:
        return ""
    named = ((mav.FIRMWARE_VERSION_TYPE_RC, "rc"), (mav.FIRMWARE_VERSION_TYPE_BETA, "beta"), (64, "alpha"), (0, "dev"))
    return next(f"-{name}" for least, name in named if number >= least)


def _commit(custom: bytes, autopilot: Autopilot) -> str:
    """ArduPilot writes the letters of the hash, PX4 its bytes, the last one first."""
    if not any(custom):
        return ""
    if autopilot is Autopilot.PX4:
        return custom[::-1].hex()[:8]
    return custom.split(b"\0")[0].decode("ascii", "replace")
