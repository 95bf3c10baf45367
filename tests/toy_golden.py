"""One estimate at places all over the world, and a peer that reads what leaves of it.

What is expected of a message is worked out here or in the tests: by hand, by the firmware's own formulas written down
from its source, or by pyproj. Nothing of `onboard.mavlink` computes an expectation.
"""

from __future__ import annotations

import math
import socket

import numpy as np
import pyproj
import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.frames import MapFrame
from onboard.mavlink import MavlinkLink, profile_named
from onboard.mavlink.tell.place import Home
from onboard.records import Estimate, Telemetry

VALID_NS = 1_760_000_000_123_456_789  # 2025-10-09 08:53:20.123456789 UTC, a Thursday, in GPS week 2387
SENT_NS = VALID_NS + 150_000_000
BOOT_NS = VALID_NS - 75_000_123_789  # so that the vehicle's clock says 75.000123789 s
NAN = math.nan
GEOD = pyproj.Geod(ellps="WGS84")
EPH_M = math.sqrt(6.5 + math.hypot(2.5, 1.5))  # of [[4, 1.5], [1.5, 9]]: half the trace, half the difference
# origin (latitude, longitude), vehicle, and north, east in ArduPilot's metres: by hand, with 0.011131884502145034 m to
# 1e-7 degrees and the cosine of the middle latitude, 0.01 at least.
PLACES = {
    # 10,000 and 20,000 of them, cosine 1
    "equator": ((0.0, 0.0), (0.001, 0.002), (111.318845, 222.637690)),
    # south and west; cos(-0.00075 degrees) = 1
    "over the equator": ((-0.0005, 0.0005), (-0.001, -0.0005), (-55.659423, -111.318845)),
    # 5,000 and 300,000 of them; the cosine would be 0.00174, the firmware takes 0.01
    "near the north pole": ((89.9, 25.0), (89.9005, 25.03), (55.659423, 33.395654)),
    "near the south pole": ((-89.9, 25.0), (-89.9005, 24.97), (-55.659423, -33.395654)),
    # 2,000 of them to the east over the line; cos(16.9995 degrees) = 0.956307307
    "date line eastwards": ((-17.0, 179.9999), (-16.999, -179.9999), (111.318845, 21.291005)),
    "date line westwards": ((-17.0, -179.9999), (-16.999, 179.9999), (111.318845, -21.291005)),
    # cos(47.3982419 degrees) = 0.676898556
    "home of the simulators": ((47.3977419, 8.5455938), (47.3987419, 8.5475938), (111.318845, 150.703131)),
}


def aeqd(origin: tuple[float, float]) -> pyproj.Proj:
    """PX4's MapProjection, by PROJ."""
    return pyproj.Proj(proj="aeqd", R=6_371_000, lat_0=origin[0], lon_0=origin[1])


def estimate(place: tuple[float, float], frame: MapFrame) -> Estimate:
    """At a place, 50 m up, 5 m/s east and 1 m/s north; the map frame's metres by a projection of our own."""
    proj = pyproj.Proj(proj="tmerc", datum="WGS84", lat_0=frame.anchor_latitude_deg, lon_0=frame.anchor_longitude_deg)
    covariance = np.zeros((4, 4))
    covariance[:2, :2] = [[4.0, 1.5], [1.5, 9.0]]  # east, north
    covariance[2:, 2:] = [[0.25, 0.02], [0.02, 0.16]]
    east, north = proj(place[1], place[0])
    return Estimate(VALID_NS, np.array([east, north]), np.array([5.0, 1.0]), covariance, NAN, 50.0, 0.987)


# Nose to the east, banked by nothing, sinking at 0.5 m/s.
TELEMETRY = Telemetry(VALID_NS, (math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)), 50.0, True, (1.0, 5.0, 0.5))


class Peer:
    """A socket, and pymavlink's parser behind it."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(5.0)
        self.parser = mav.MAVLink(None)

    @property
    def address(self) -> str:
        return f"udpout:127.0.0.1:{self.socket.getsockname()[1]}"

    def hear(self) -> mav.MAVLink_message:
        (message,) = self.parser.parse_buffer(self.socket.recv(4096))
        return message


def told(peer: Peer, profile: str, origin: tuple[float, float], place: tuple[float, float]) -> mav.MAVLink_message:
    """What the peer hears of an estimate at `place`: of a map that is anchored some hundred metres off the origin."""
    frame = MapFrame(origin[0] - math.copysign(0.002, origin[0]), origin[1])
    with MavlinkLink.open(peer.address, profile_named(profile), source_system=7) as link:
        link.use_origin(Home.at(*origin, 488.1), frame)
        assert link.send(estimate(place, frame), TELEMETRY, sent_at_ns=SENT_NS, height_above_home_m=62.5)
    message = peer.hear()
    assert (message.get_srcSystem(), message.get_srcComponent()) == (7, 197)
    return message


def check(message: mav.MAVLink_message, **expected: object) -> None:
    """All fields, whole numbers exactly, others to float32 or 0.2 mm."""
    assert set(expected) == set(message.fieldnames)
    for name, value in expected.items():
        got = getattr(message, name)
        if isinstance(value, (int, str)):
            assert got == value, name
        else:
            assert got == pytest.approx(value, rel=2e-7, abs=2e-4, nan_ok=True), name


def triangle(**entries: float) -> list[float]:
    """21 numbers, NaN but for those named by their place: c0, c1, c6, ..."""
    return [entries.get(f"c{k}", NAN) for k in range(21)]
