"""An estimate with known numbers, a link that writes into memory, and a transport from which packets come."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.frames import MapFrame, quaternion_from_euler
from onboard.mavlink import MavlinkLink
from onboard.mavlink.tell.place import Home, Reference
from onboard.mavlink.wire.sender import PacedSender
from onboard.mavlink.wire.transport import Address
from onboard.records import Estimate, Telemetry

LATITUDE, LONGITUDE, ALTITUDE = 47.3977419, 8.5455938, 488.1
START_NS = 1_760_000_000_123_456_789  # 2025-10-09 08:53:20.123456789 UTC, a Thursday
EAST_M, NORTH_M = 20.0, 10.0
# The same place in ArduPilot's metres, whose degree is that of a sphere of 6,378,100 m; the ellipsoid's radii of
# curvature at this latitude are 6,370,064 m along the meridian and 6,389,735 m across.
FLAT_NORTH_M, FLAT_EAST_M = 10.0 * 6_378_100 / 6_370_064, 20.0 * 6_378_100 / 6_389_735


def frame() -> MapFrame:
    return MapFrame(LATITUDE, LONGITUDE)


def reference() -> Reference:
    return Reference(Home.at(LATITUDE, LONGITUDE, ALTITUDE), frame())


def estimate(**changes: object) -> Estimate:
    """10 m north and 20 m east of the origin, 50 m up, moving east at 5 m/s."""
    covariance = np.zeros((4, 4))
    covariance[:2, :2] = [[4.0, 1.5], [1.5, 9.0]]  # east, north
    covariance[2:, 2:] = [[0.25, 0.02], [0.02, 0.16]]
    values: dict = {
        "valid_at_ns": START_NS,
        "position_enu_m": np.array([EAST_M, NORTH_M]),
        "velocity_enu_mps": np.array([5.0, 0.0]),
        "covariance": covariance,
        "heading_rad": math.nan,
        "height_above_ground_m": 50.0,
        "probability_right": 0.987,
    }
    return Estimate(**(values | changes))


def telemetry(roll_deg: float = 0.0, pitch_deg: float = 0.0, yaw_deg: float = 90.0, **changes: object) -> Telemetry:
    angles = (math.radians(a) for a in (roll_deg, pitch_deg, yaw_deg))
    return dataclasses.replace(Telemetry(START_NS, quaternion_from_euler(*angles), 50.0), **changes)


class Wire:
    """A transport that keeps what is written; `open` says whether it takes anything."""

    def __init__(self) -> None:
        self.address, self.packets, self.open = Address("udpout", "nowhere", 1), [], True

    def write(self, packet: bytes) -> bool:
        if self.open:
            self.packets.append(packet)
        return self.open

    def read(self, timeout_s: float) -> bytes:
        return b""

    def close(self) -> None:
        self.open = False

    def messages(self) -> list[mav.MAVLink_message]:
        parser = mav.MAVLink(None)
        return [message for packet in self.packets for message in parser.parse_buffer(packet)]


def wired(**options: object) -> tuple[Wire, MavlinkLink]:
    wire = Wire()
    link = MavlinkLink(PacedSender(wire, 7, 197), **options)
    link.set_origin(LATITUDE, LONGITUDE, ALTITUDE)
    return wire, link


def flight(count: int) -> list[Estimate]:
    """A turn of a vehicle, 4 estimates a second, its covariance breathing."""
    turn = []
    for k in range(count):
        covariance = estimate().covariance.copy()
        covariance[:2, :2] = [[4.0 + math.sin(k), 0.3 * math.cos(k)], [0.3 * math.cos(k), 2.5 + math.cos(k)]]
        position = np.array([400 * math.sin(k / 50), 300 * math.cos(k / 50)])
        turn.append(estimate(valid_at_ns=START_NS + k * 250_000_000, position_enu_m=position, covariance=covariance))
    return turn


class PacketSource:
    """A transport from which packets come: messages, or bytes as they are."""

    def __init__(self, *packets: mav.MAVLink_message | bytes) -> None:
        self.address, packer = Address("udpin", "test", 1), mav.MAVLink(None, srcSystem=1, srcComponent=197)
        self._packets = []
        for number, one in enumerate(packets):
            packer.seq = number % 256
            self._packets.append(one if isinstance(one, bytes) else one.pack(packer))

    def keep(self, *order: int) -> PacketSource:
        self._packets = [self._packets[k] for k in order]
        return self

    def read(self, timeout_s: float) -> bytes:
        return self._packets.pop(0) if self._packets else b""

    def write(self, packet: bytes) -> bool:
        return False

    def close(self) -> None: ...
