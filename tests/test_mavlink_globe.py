"""The firmware's way back: from metres to degrees, and from the covariance told to the error that it reads."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from toy_golden import GEOD, NAN, Peer, aeqd, told

from onboard.mavlink.peer.received import decode
from onboard.mavlink.tell.covariance import ardupilot_pose_covariance, enu_covariance_of_ardupilot
from onboard.mavlink.tell.globe import ARDUPILOT_GLOBE, PX4_GLOBE, Globe
from onboard.mavlink.tell.place import Home


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    with peer.socket:
        yield peer


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
