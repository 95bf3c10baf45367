"""What is said to the vehicle beside positions: presence, origin, commands and words. Pure functions.

None of them arms, changes a mode or writes a parameter.
"""

from __future__ import annotations

import math

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.mavlink.tell.covariance import largest_sigma
from onboard.mavlink.tell.place import Home, Reference
from onboard.records import Estimate

COMPONENT = mav.MAV_COMP_ID_VISUAL_INERTIAL_ODOMETRY  # 197
AUTOPILOT = mav.MAV_COMP_ID_AUTOPILOT1  # 1
_TEXT_BYTES = 50


def heartbeat() -> mav.MAVLink_heartbeat_message:
    """A companion that is alive: no autopilot, no modes."""
    return mav.MAVLink_heartbeat_message(
        type=mav.MAV_TYPE_ONBOARD_CONTROLLER,
        autopilot=mav.MAV_AUTOPILOT_INVALID,
        base_mode=0,
        custom_mode=0,
        system_status=mav.MAV_STATE_ACTIVE,
        mavlink_version=3,
    )


def set_gps_global_origin(
    home: Home, time_usec: int = 0, target_system: int = 1
) -> mav.MAVLink_set_gps_global_origin_message:
    """The origin that every local position is counted from. The vehicle wants it before it arms."""
    return mav.MAVLink_set_gps_global_origin_message(
        target_system, home.latitude_e7, home.longitude_e7, home.altitude_mm, time_usec
    )


def external_position_estimate(
    estimate: Estimate, reference: Reference, sent_at_ns: int, target_system: int = 1
) -> mav.MAVLink_command_int_message:
    """MAV_CMD_EXTERNAL_POSITION_ESTIMATE: ArduPilot moves its position there, where it aids by something else.

    Both stamps are in the vehicle's clock. MAVLink calls param1 the time of transmission. ArduPilot passes it
    through the one filter per link that takes the least delay between stamp and arrival for the transport's, and
    ODOMETRY passes it with the time of validity: a later stamp here would make it take the next fixes for older
    than they are. So param1 is the time of validity as well, and param2 the time since.
    """
    latitude, longitude = reference.geodetic(estimate.position_enu_m)
    return mav.MAVLink_command_int_message(
        target_system=target_system,
        target_component=AUTOPILOT,
        frame=mav.MAV_FRAME_GLOBAL,
        command=mav.MAV_CMD_EXTERNAL_POSITION_ESTIMATE,
        current=0,
        autocontinue=0,
        param1=estimate.valid_at_ns * 1e-9,
        param2=max(0, sent_at_ns - estimate.valid_at_ns) * 1e-9,
        param3=largest_sigma(estimate.covariance[:2, :2]),
        param4=0.0,
        x=round(latitude * 1e7),
        y=round(longitude * 1e7),
        z=math.nan,  # a number is refused
    )


def set_ekf_source_set(source_set: int, target_system: int = 1) -> mav.MAVLink_command_long_message:
    """MAV_CMD_SET_EKF_SOURCE_SET: which of EK3_SRC1 to EK3_SRC3 ArduPilot's estimator goes by."""
    return mav.MAVLink_command_long_message(
        target_system=target_system,
        target_component=AUTOPILOT,
        command=mav.MAV_CMD_SET_EKF_SOURCE_SET,
        confirmation=0,
        param1=source_set,
        param2=0,
        param3=0,
        param4=0,
        param5=0,
        param6=0,
        param7=0,
    )


def statustext(
    text: str, severity: int = mav.MAV_SEVERITY_INFO, text_id: int = 1
) -> list[mav.MAVLink_statustext_message]:
    """Words for the pilot: one message of up to 50 bytes, or chunks that the ground station joins by `text_id`.

    `text_id` must differ from one long text to the next (1 to 65535). What is not ASCII becomes "?". A NUL ends a long
    text: one that fills its last chunk gets an empty one after it. MAVLink counts up to 255 chunks.
    """
    data = text.encode("ascii", "replace")[: 255 * _TEXT_BYTES]
    if len(data) <= _TEXT_BYTES:
        return [mav.MAVLink_statustext_message(severity, data, 0, 0)]
    return [
        mav.MAVLink_statustext_message(severity, data[start : start + _TEXT_BYTES], text_id, number)
        for number, start in enumerate(range(0, len(data) + 1, _TEXT_BYTES))
    ]
