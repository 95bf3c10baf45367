"""Pilotage's own connection, with an ear on what leaves by it: what the vehicle was told is read off the wire."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.frames import MapFrame
from onboard.mavlink.tell.globe import ARDUPILOT_GLOBE
from onboard.mavlink.tell.place import Home
from onboard.mavlink.wire.connection import Connection


@dataclass(frozen=True, slots=True)
class Told:
    """One ODOMETRY. `boot_s` by the vehicle's clock; `position_enu_m` (2,) as the vehicle understands it."""

    boot_s: float
    position_enu_m: np.ndarray
    quality: int
    reset_counter: int


_START, _HEADER, _REST, _SIGNATURE = 0xFD, 10, 2, 13  # of a MAVLink 2 packet: first byte, bytes before and after


def newest_stamp_ms(packets: bytes) -> int | None:
    """The last time_boot_ms of the attitudes in bytes that begin with a packet; None where there is none."""
    found, at = None, 0
    while at + _HEADER <= len(packets) and packets[at] == _START:
        length, signed = packets[at + 1], packets[at + 2] & 1
        if int.from_bytes(packets[at + 7 : at + 10], "little") == mav.MAVLINK_MSG_ID_ATTITUDE_QUATERNION:
            found = int.from_bytes(packets[at + _HEADER : at + _HEADER + 4], "little")
        at += _HEADER + length + _REST + _SIGNATURE * signed
    return found


class TappedConnection(Connection):
    """A `Connection` that keeps the ODOMETRY that it was given."""

    def waited(self, timeout_s: float) -> int | None:
        """As `wait`; the vehicle's newest stamp among what came."""
        self.wait(timeout_s)
        return newest_stamp_ms(bytes(self._early or b""))

    def send(self, message: mav.MAVLink_message) -> bool:
        if message.get_type() == "ODOMETRY":
            self.__dict__.setdefault("odometry", []).append(message)
        return super().send(message)

    def told(self, origin: Home, frame: MapFrame) -> list[Told]:
        """What was told so far, in the map frame; `origin` is the vehicle's."""
        start = (origin.latitude_deg, origin.longitude_deg)
        told = []
        for m in self.__dict__.get("odometry", []):
            place = ARDUPILOT_GLOBE.geodetic(start, m.x, m.y)
            told.append(Told(m.time_usec * 1e-6, frame.enu_from_geodetic(*place), m.quality, m.reset_counter))
        return told
