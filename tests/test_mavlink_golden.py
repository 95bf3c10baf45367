"""Golden vectors: every field of every message that leaves, as a peer at the other end of a socket reads it.

What is expected is worked out here: by hand, by the firmware's own formulas written down from its source, or by pyproj.
Nothing of `onboard.mavlink` computes an expectation.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pyproj
import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.frames import MapFrame
from onboard.mavlink import MavlinkLink, profile_named
from onboard.mavlink.peer.received import decode
from onboard.mavlink.tell import commands
from onboard.mavlink.tell.covariance import ardupilot_pose_covariance, enu_covariance_of_ardupilot
from onboard.mavlink.tell.globe import ARDUPILOT_GLOBE, PX4_GLOBE, Globe
from onboard.mavlink.tell.place import Home
from onboard.mavlink.wire.sender import PacedSender
from onboard.mavlink.wire.transport import open_transport, parse_address
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


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    with peer.socket:
        yield peer


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


@pytest.mark.parametrize("where", PLACES)
def test_the_origin(peer: Peer, where: str) -> None:
    (latitude, longitude), _, _ = PLACES[where]
    with MavlinkLink.open(peer.address, source_system=7) as link:
        assert link.set_origin(latitude, longitude, 488.1234)
    check(
        peer.hear(),
        target_system=7,
        latitude=round(latitude * 1e7),
        longitude=round(longitude * 1e7),
        altitude=488_123,
        time_usec=0,
    )


def test_the_heartbeat(peer: Peer) -> None:
    with MavlinkLink.open(peer.address) as link:
        assert link.heartbeat(VALID_NS)
    check(peer.hear(), type=18, autopilot=8, base_mode=0, custom_mode=0, system_status=4, mavlink_version=3)


@pytest.mark.parametrize("where", PLACES)
def test_the_position_reset_is_stamped_with_its_validity_as_the_odometry_of_the_same_link_is(
    peer: Peer, where: str
) -> None:
    origin, place, _ = PLACES[where]
    frame = MapFrame(*origin)
    with closing(open_transport(parse_address(peer.address))) as transport:
        sender = PacedSender(transport, 7, 197)
        link = MavlinkLink(sender, target_system=7, stamp=lambda ours_ns: ours_ns - BOOT_NS)
        link.use_origin(Home.at(*origin), frame)
        assert link.reset(estimate(place, frame), SENT_NS)
    check(
        peer.hear(),
        target_system=7,
        target_component=1,
        frame=0,
        command=43003,
        current=0,
        autocontinue=0,
        param1=75.000123789,
        param2=0.15,
        param3=EPH_M,
        param4=0.0,
        x=round(place[0] * 1e7),
        y=round(place[1] * 1e7),
        z=NAN,
    )


def over_the_wire(message: mav.MAVLink_message) -> mav.MAVLink_message:
    (heard,) = mav.MAVLink(None).parse_buffer(message.pack(mav.MAVLink(None, srcSystem=1, srcComponent=197)))
    return heard


def test_the_switch_of_the_source_set() -> None:
    nothing = {f"param{k}": 0.0 for k in range(2, 8)}
    check(
        over_the_wire(commands.set_ekf_source_set(2, target_system=7)),
        target_system=7,
        target_component=1,
        command=42007,
        confirmation=0,
        param1=2.0,
        **nothing,
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [("", 0, 0)]),
        ("PLTG: no fix", [("PLTG: no fix", 0, 0)]),
        ("a" * 50, [("a" * 50, 0, 0)]),
        ("a" * 50 + "b", [("a" * 50, 321, 0), ("b", 321, 1)]),
        ("a" * 50 + "b" * 50, [("a" * 50, 321, 0), ("b" * 50, 321, 1), ("", 321, 2)]),
        ("über 30 m", [("?ber 30 m", 0, 0)]),
    ],
    ids=["empty", "short", "full", "two chunks", "a full last chunk is ended by an empty one", "not ASCII"],
)
def test_the_status_text_and_its_chunks(text: str, parts: list[tuple[str, int, int]]) -> None:
    heard = [over_the_wire(one) for one in commands.statustext(text, mav.MAV_SEVERITY_WARNING, 321)]
    assert len(heard) == len(parts)
    for message, (words, text_id, number) in zip(heard, parts, strict=True):
        check(message, severity=4, text=words, id=text_id, chunk_seq=number)


def test_a_status_text_without_end_is_cut_where_the_chunks_cannot_be_counted_any_more() -> None:
    chunks = commands.statustext("a" * 100_000)
    assert [one.chunk_seq for one in chunks] == list(range(256))


# --- the firmware's way back to degrees ---------------------------------------------------------------------------


def ardupilot_location(home: Home, north_m: float, east_m: float) -> tuple[float, float]:
    """Location::offset_latlng, whole 1e-7 degrees and truncation included; EKF3 counts from its origin by it."""

    def longitude_scale(lat_e7: int) -> float:
        return max(math.cos(lat_e7 * 1e-7 * math.pi / 180), 0.01)

    dlat = int(north_m * 89.83204953368922)
    dlng = int(east_m * 89.83204953368922 / longitude_scale(home.latitude_e7 + int(dlat / 2)))
    lng = home.longitude_e7 + dlng
    if lng > 1_800_000_000:
        lng -= 3_600_000_000
    elif lng < -1_800_000_000:
        lng += 3_600_000_000
    return (home.latitude_e7 + dlat) / 1e7, lng / 1e7


@pytest.mark.parametrize("azimuth_deg", range(0, 360, 45))
@pytest.mark.parametrize(
    "origin", [(0.0, 0.0), (47.3977419, 8.5455938), (-33.9, 151.2), (70.0, 179.9), (-70.0, -179.9)], ids=str
)
def test_the_firmware_gets_our_latitude_and_longitude_back_at_twenty_kilometres(
    peer: Peer, origin: tuple[float, float], azimuth_deg: int
) -> None:
    longitude, latitude, _ = GEOD.fwd(origin[1], origin[0], azimuth_deg, 20_000.0)
    for profile in ("ardupilot-odometry", "ardupilot-vision", "px4-odometry"):
        message = told(peer, profile, origin, (latitude, longitude))
        if profile == "px4-odometry":
            back_longitude, back_latitude = aeqd(origin)(message.y, message.x, inverse=True)
        else:
            back_latitude, back_longitude = ardupilot_location(Home.at(*origin), message.x, message.y)
        _, _, distance_m = GEOD.inv(longitude, latitude, back_longitude, back_latitude)
        assert distance_m < 0.02, profile
        heard = decode(message, Home.at(*origin))  # and our own peer reads it without the firmware's truncation
        _, _, distance_m = GEOD.inv(longitude, latitude, heard.longitude_deg, heard.latitude_deg)
        assert distance_m < 0.002, profile


@pytest.mark.parametrize("globe", [ARDUPILOT_GLOBE, PX4_GLOBE], ids=lambda globe: globe.name)
@pytest.mark.parametrize("latitude", [-89.9, -45.0, 0.0, 45.0, 89.5])
@pytest.mark.parametrize("longitude", [-180.0, 0.0, 179.99999])
def test_a_globe_goes_there_and_back(globe: Globe, latitude: float, longitude: float) -> None:
    origin = (latitude, longitude)
    assert globe.geodetic(origin, 0.0, 0.0) == pytest.approx(origin, abs=1e-12) or longitude == -180.0
    for north, east in [(0.001, 0.0), (0.0, -0.001), (3000.0, -4000.0), (-5000.0, 2500.0)]:
        place = globe.geodetic(origin, north, east)
        assert -180.0 <= place[1] <= 180.0
        assert globe.north_east_m(origin, place) == pytest.approx((north, east), abs=1e-5)


def test_the_position_error_that_ardupilot_ends_with_is_the_one_sigma_of_the_worst_direction() -> None:
    random = np.random.default_rng(5)
    for _ in range(200):
        sigmas = 10.0 ** random.uniform(-1, 2, 2)  # 0.1 m to 100 m
        turn = random.uniform(0, math.pi)
        axes = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        covariance = axes @ np.diag(sigmas**2) @ axes.T
        on_the_wire = np.float32(ardupilot_pose_covariance(covariance)).astype(float)
        read = (on_the_wire[0] ** 2 + on_the_wire[6] ** 2 + on_the_wire[11] ** 2) ** (1 / 3)
        assert read == pytest.approx(max(sigmas), rel=1e-6)
        back = enu_covariance_of_ardupilot(on_the_wire)
        assert back == pytest.approx(covariance, abs=5e-7 * max(sigmas) ** 2)


def test_the_covariance_of_nine_square_metres_is_read_as_three_metres() -> None:
    c = ardupilot_pose_covariance(np.eye(2) * 9.0)
    assert (c[0] ** 2 + c[6] ** 2 + c[11] ** 2) ** (1 / 3) == pytest.approx(3.0)
    assert c[15] == c[18] == c[20] == pytest.approx(3.2899, abs=1e-4)


def test_an_unknown_covariance_stays_unknown() -> None:
    assert ardupilot_pose_covariance(np.full((2, 2), NAN)) == pytest.approx([NAN] * 21, nan_ok=True)
    assert np.isnan(enu_covariance_of_ardupilot([NAN] * 21)).all()
