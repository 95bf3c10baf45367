"""Golden vectors: every field of every message that carries a position, as a peer at the end of a socket reads it.

Nothing of `onboard.mavlink` computes an expectation (see `toy_golden`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from toy_golden import EPH_M, NAN, PLACES, SENT_NS, TELEMETRY, VALID_NS, Peer, aeqd, check, estimate, told, triangle

from onboard.frames import MapFrame
from onboard.mavlink import MavlinkLink, profile_named
from onboard.mavlink.tell.place import Home
from onboard.records import Telemetry


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    with peer.socket:
        yield peer


# cbrt(c0^2 + c6^2 + c11^2) must be EPH_M: k^2 (9^2 + 4^2 + 1^2) = EPH_M^3.
K = math.sqrt(EPH_M**3 / 98)
ANGLE = math.pi**2 / 3
ARDUPILOT_POSE = triangle(c0=9 * K, c1=1.5 * K, c6=4 * K, c11=1 * K, c15=ANGLE, c18=ANGLE, c20=ANGLE)


@pytest.mark.parametrize("where", PLACES)
def test_odometry_for_ardupilot(peer: Peer, where: str) -> None:
    origin, place, (north, east) = PLACES[where]
    check(
        told(peer, "ardupilot-odometry", origin, place),
        time_usec=VALID_NS // 1000,
        frame_id=20,
        child_frame_id=12,
        x=north,
        y=east,
        z=-62.5,
        q=[math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)],
        vx=5.0,  # forward is east
        vy=-1.0,  # right is south
        vz=0.5,
        rollspeed=NAN,
        pitchspeed=NAN,
        yawspeed=NAN,
        pose_covariance=ARDUPILOT_POSE,
        velocity_covariance=triangle(c0=0.25, c1=-0.02, c6=0.16),
        reset_counter=0,
        estimator_type=2,
        quality=99,
    )


@pytest.mark.parametrize("where", PLACES)
def test_vision_position_estimate_for_ardupilot(peer: Peer, where: str) -> None:
    origin, place, (north, east) = PLACES[where]
    check(
        told(peer, "ardupilot-vision", origin, place),
        usec=VALID_NS // 1000,
        x=north,
        y=east,
        z=-62.5,
        roll=0.0,
        pitch=0.0,
        yaw=math.pi / 2,
        covariance=ARDUPILOT_POSE,
        reset_counter=0,
    )


@pytest.mark.parametrize("where", PLACES)
def test_gps_input_for_ardupilot(peer: Peer, where: str) -> None:
    origin, place, _ = PLACES[where]
    check(
        told(peer, "ardupilot-gps-input", origin, place),
        time_usec=VALID_NS // 1000,
        gps_id=0,
        ignore_flags=16 | 128,  # vertical speed and accuracy
        time_week_ms=((4 * 24 + 8) * 3600 + 53 * 60 + 20 + 18) * 1000 + 123,  # since Sunday; 18 leap seconds
        time_week=2387,
        fix_type=3,
        lat=round(place[0] * 1e7),
        lon=round(place[1] * 1e7),
        alt=488.1 + 62.5,
        hdop=1.0,
        vdop=1.0,
        vn=1.0,
        ve=5.0,
        vd=0.0,
        speed_accuracy=math.sqrt(0.205 + math.hypot(0.045, 0.02)),
        horiz_accuracy=EPH_M,
        vert_accuracy=0.0,
        satellites_visible=10,
        yaw=0,
    )


@pytest.mark.parametrize("where", PLACES)
def test_global_position_sensor_for_px4(peer: Peer, where: str) -> None:
    origin, place, _ = PLACES[where]
    check(
        told(peer, "px4-global-position", origin, place),
        target_system=0,
        target_component=0,
        id=1,
        time_usec=SENT_NS // 1000,
        processing_time=150_000,
        source=2,
        flags=0,
        lat=round(place[0] * 1e7),
        lon=round(place[1] * 1e7),
        alt_ellipsoid=NAN,
        alt=488.1 + 62.5,
        eph=EPH_M,
        epv=NAN,
    )


@pytest.mark.parametrize("where", PLACES)
def test_odometry_for_px4(peer: Peer, where: str) -> None:
    origin, place, _ = PLACES[where]
    east, north = aeqd(origin)(place[1], place[0])
    check(
        told(peer, "px4-odometry", origin, place),
        time_usec=VALID_NS // 1000,
        frame_id=1,
        child_frame_id=1,
        x=north,
        y=east,
        z=-62.5,
        q=[NAN] * 4,
        vx=1.0,
        vy=5.0,
        vz=0.5,
        rollspeed=NAN,
        pitchspeed=NAN,
        yawspeed=NAN,
        pose_covariance=triangle(c0=9.0, c1=1.5, c6=4.0, c11=1.0, c15=ANGLE, c18=ANGLE, c20=ANGLE),
        velocity_covariance=triangle(c0=0.16, c1=0.02, c6=0.25, c11=100.0),
        reset_counter=0,
        estimator_type=2,
        quality=99,
    )


@pytest.mark.parametrize(
    "lacking",
    [
        None,
        Telemetry(VALID_NS, TELEMETRY.attitude_quat_wxyz, 50.0),
        Telemetry(0, (1, 0, 0, 0), 50.0, True, (1, 5, NAN)),
    ],
    ids=["no telemetry", "no velocity", "no vertical speed"],
)
def test_px4_gets_no_velocity_where_the_vertical_part_would_be_made_up(peer: Peer, lacking: Telemetry | None) -> None:
    frame = MapFrame(47.0, 8.0)
    with MavlinkLink.open(peer.address, profile_named("px4-odometry")) as link:
        link.use_origin(Home.at(47.0, 8.0), frame)
        link.send(estimate((47.0, 8.0), frame), lacking)
    message = peer.hear()
    assert [message.vx, message.vy, message.vz, *message.velocity_covariance] == pytest.approx([NAN] * 24, nan_ok=True)
    assert message.pose_covariance[0] == 9.0
