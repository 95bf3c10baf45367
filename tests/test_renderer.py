"""The renderer: places that do not repeat, views that are where they say, flights that are recorded whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("embreex")
pytest.importorskip("rasterio")
pytest.importorskip("rosbags")

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from onboard.camera import CameraModel
from onboard.frames import (
    BODY_FROM_CAMERA_DOWN,
    ENU_FROM_NED,
    FLU_FROM_FRD,
    quaternion_from_rotation,
    rotation_from_euler,
    rotation_from_quaternion,
)
from onboard.records import Frame, Telemetry
from onboard.rectify import Rectifier
from training.renderer import bag
from training.renderer.changes import changed
from training.renderer.covers import GROWN, Cover
from training.renderer.errors import RenderError
from training.renderer.files import read_place, write_place
from training.renderer.film import film
from training.renderer.flight import FlightSettings, default_camera, plan_flight
from training.renderer.light import shade
from training.renderer.pairs import render_pairs
from training.renderer.place import Place, generate_place
from training.renderer.scene import Scene, render
from training.renderer.season import Season, appearance
from training.renderer.sensor import Conditions, degrade, draw_conditions, unpack

SMALL = {"size_m": 600.0, "metres_per_pixel": 1.0}


@pytest.fixture(scope="module")
def place() -> Place:
    return generate_place(5, **SMALL)


@pytest.fixture(scope="module")
def level(place: Place) -> Place:
    """The same picture on ground without any height."""
    flat = np.zeros_like(place.surface_m)
    return replace(place, surface_m=flat, terrain_m=flat)


def test_the_same_seed_gives_the_same_place(place: Place) -> None:
    again = generate_place(5, **SMALL)
    for name in ("orthophoto", "surface_m", "terrain_m", "cover", "objects"):
        np.testing.assert_array_equal(getattr(place, name), getattr(again, name))


def test_another_seed_gives_another_place(place: Place) -> None:
    other = generate_place(6, **SMALL)
    assert (other.cover != place.cover).mean() > 0.3
    assert np.abs(other.orthophoto.astype(int) - place.orthophoto).mean() > 15


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_place_holds_every_land_cover(seed: int) -> None:
    grown = generate_place(seed, **SMALL)
    assert grown.cover is not None
    assert {int(cover) for cover in GROWN} <= set(np.unique(grown.cover).tolist())
    assert 3 < np.ptp(grown.terrain_m) < 45


def test_no_patch_of_a_place_comes_twice(place: Place) -> None:
    """A patch finds itself, and nothing as like it anywhere else."""
    gray = cv2.cvtColor(place.orthophoto, cv2.COLOR_RGB2GRAY)
    score = cv2.matchTemplate(gray, gray[200:264, 300:364], cv2.TM_CCOEFF_NORMED)
    assert np.unravel_index(score.argmax(), score.shape) == (200, 300)
    score[192:209, 292:309] = -1
    assert score.max() < 0.75


def test_a_place_too_small_is_refused_in_one_line() -> None:
    with pytest.raises(RenderError, match="240 m or more"):
        generate_place(1, size_m=50)


def test_a_place_comes_back_from_its_files(place: Place, tmp_path: Path) -> None:
    write_place(place, tmp_path / "place")
    back = read_place(tmp_path / "place")
    np.testing.assert_array_equal(back.cover, place.cover)
    np.testing.assert_array_equal(back.objects, place.objects)
    np.testing.assert_allclose(back.surface_m, place.surface_m, atol=0.026)
    np.testing.assert_allclose(back.enu_from_pixel, place.enu_from_pixel, atol=1e-6)
    assert np.abs(back.orthophoto.astype(int) - place.orthophoto).mean() < 4  # JPEG
    assert not (tmp_path / "place.part").exists()


def test_the_anchor_lies_in_the_middle_and_the_pixels_are_metres(place: Place) -> None:
    middle = place.enu_from_pixel @ [299.5, 299.5, 1]
    np.testing.assert_allclose(middle, 0, atol=0.01)
    columns = place.enu_from_pixel[:, 0]
    assert np.hypot(*columns) == pytest.approx(1.0, abs=1e-3)  # UTM's scale is in it
    assert columns[0] > 0.99
    assert place.enu_from_pixel[1, 1] < -0.99


def test_real_ground_is_read_from_its_orthophoto_and_surface_model(place: Place, tmp_path: Path) -> None:
    write_place(place, tmp_path / "place")
    real = Place.from_geotiff(tmp_path / "place/orthophoto.tif", tmp_path / "place/surface.tif")
    assert real.cover is None
    np.testing.assert_allclose(real.enu_from_pixel, place.enu_from_pixel, atol=1e-3)
    assert np.abs(real.surface_m - place.surface_m).mean() < 0.1
    assert Place.from_geotiff(tmp_path / "place/orthophoto.tif").surface_m.max() == 0
    assert appearance(real, Season.AUTUMN, 200, 40, 1).shape == place.orthophoto.shape


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_picture_without_georeference_is_refused(tmp_path: Path) -> None:
    import rasterio

    path = tmp_path / "bare.tif"
    with rasterio.open(path, "w", driver="GTiff", count=3, height=40, width=40, dtype="uint8") as file:
        file.write(np.zeros((3, 40, 40), np.uint8))
    with pytest.raises(RenderError, match="without georeference"):
        Place.from_geotiff(path)


def test_a_tower_throws_its_shadow_away_from_the_sun() -> None:
    surface = np.zeros((101, 101), np.float32)
    surface[48:53, 48:53] = 20
    _, lit = shade(surface, 1.0, azimuth_deg=180.0, elevation_deg=45.0)  # sun in the south: shadow to the north
    assert lit[35, 50] < 0.1
    assert lit[65, 50] > 0.9
    assert lit[50, 35] > 0.9
    assert lit[20, 50] > 0.9  # 28 m away: beyond the 20 m that the shadow reaches


def test_seasons_and_days_change_the_look_but_not_the_place(place: Place) -> None:
    autumn = appearance(changed(place, 9), Season.AUTUMN, 236, 33, 9)
    np.testing.assert_array_equal(autumn, appearance(changed(place, 9), Season.AUTUMN, 236, 33, 9))
    assert np.abs(autumn.astype(int) - place.orthophoto).mean() > 12
    snowy = appearance(place, Season.WINTER, 180, 25, 9, snow=0.6)
    bare = appearance(place, Season.WINTER, 180, 25, 9)
    assert snowy.mean() > bare.mean() + 8
    today = changed(place, 9)
    assert (today.cover == Cover.CAR).any()
    assert (today.cover != place.cover).mean() < 0.05


def _camera(focal_px: float = 300.0) -> CameraModel:
    return CameraModel(
        320, 320, np.array([[focal_px, 0, 159.5], [0, focal_px, 159.5], [0, 0, 1.0]]), (-0.2, 0.05, 0, 0)
    )


@pytest.mark.parametrize("angles_deg", [(0, 0, 0), (8, -6, 130)])
def test_a_view_of_level_ground_rectified_is_the_orthophoto(level: Place, angles_deg: tuple[float, ...]) -> None:
    rotation = rotation_from_euler(*np.radians(angles_deg))
    vehicle = np.array([37.3, -21.8, 150.0])
    image = render(Scene(level, level.orthophoto), _camera(), BODY_FROM_CAMERA_DOWN, rotation, vehicle)
    telemetry = Telemetry(0, quaternion_from_rotation(rotation), 150.0)
    view = Rectifier(_camera(), BODY_FROM_CAMERA_DOWN, 96).view(Frame(0, image[..., ::-1].copy()), telemetry, 1.0)
    assert view.mask[24:72, 24:72].all()
    steps = np.arange(96) - 47.5
    east, north = np.meshgrid(
        vehicle[0] + view.centre_from_vehicle_enu_m[0] + steps, vehicle[1] + view.centre_from_vehicle_enu_m[1] - steps
    )
    at = np.stack([east, north], axis=-1) @ level.pixel_from_enu[:, :2].T + level.pixel_from_enu[:, 2]
    at = at.astype(np.float32)
    wanted = cv2.remap(level.orthophoto, at[..., 0], at[..., 1], cv2.INTER_LINEAR)
    crop = (slice(16, 80), slice(16, 80))
    pair = [cv2.cvtColor(i, cv2.COLOR_RGB2GRAY)[crop].astype(np.float32) for i in (wanted, view.image_rgb)]
    shift, response = cv2.phaseCorrelate(*pair, cv2.createHanningWindow((64, 64), cv2.CV_32F))
    assert np.hypot(*shift) < 0.25
    assert response > 0.5


def test_a_building_leans_away_from_the_point_below_the_camera(level: Place) -> None:
    """A roof 20 m up, 60 m east of a camera at 120 m, is seen where the ground 72 m east would be."""
    surface, picture = level.surface_m.copy(), np.full_like(level.orthophoto, 60)
    centre = np.round(level.pixel_from_enu @ [60, 0, 1]).astype(int)
    window = (slice(centre[1] - 6, centre[1] + 7), slice(centre[0] - 6, centre[0] + 7))
    surface[window], picture[window] = 20.0, 250
    tower = replace(level, surface_m=surface)
    camera = CameraModel(400, 400, np.array([[200.0, 0, 199.5], [0, 200.0, 199.5], [0, 0, 1]]), ())
    image = render(Scene(tower, picture), camera, BODY_FROM_CAMERA_DOWN, np.eye(3), np.array([0, 0, 120.0]))
    rows, cols = np.nonzero(image[..., 0] > 230)
    assert cols.mean() == pytest.approx(199.5 + 200 * 60 / 100, abs=1.5)  # on level ground it were 200 * 60 / 120
    assert rows.mean() == pytest.approx(199.5, abs=1.5)


def test_beyond_the_place_a_view_is_gray_and_below_the_ground_is_an_error(level: Place) -> None:
    scene = Scene(level, level.orthophoto)
    image = render(scene, _camera(), BODY_FROM_CAMERA_DOWN, np.eye(3), np.array([320.0, 0, 100.0]))
    assert (image[:, -20:] == 128).all()
    with pytest.raises(RenderError, match="camera height"):
        render(scene, _camera(), BODY_FROM_CAMERA_DOWN, np.eye(3), np.array([0, 0, -3.0]))


def test_weather_is_drawn_from_its_generator(place: Place) -> None:
    image = np.ascontiguousarray(place.orthophoto[:200, :200])
    once, again, other = (degrade(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert np.abs(once.astype(int) - other).mean() > 1
    np.testing.assert_array_equal(degrade(image, np.random.default_rng(1), strength=0), image)
    hard = draw_conditions(np.random.default_rng(3), 2.0)
    assert hard.noise > 1.9
    assert 30 <= hard.jpeg_quality <= 96


SHORT = FlightSettings(seconds=12, low_m=60, high_m=100)


def test_a_flight_keeps_its_heights_its_tilt_and_its_place(place: Place) -> None:
    flight = plan_flight(place, 3, FlightSettings(seconds=90, low_m=60, high_m=100))
    truth, told = flight.frames, flight.telemetry
    assert truth.height_above_ground_m.min() > 50
    assert truth.height_above_ground_m.max() < 112
    assert np.abs(truth.position_enu_m[:, :2]).max() < 300 - 60
    speed = np.linalg.norm(truth.velocity_enu_mps[:, :2], axis=1)
    assert 7.5 < speed.min() <= speed.max() < 15
    tilt = np.degrees(np.arccos(truth.ned_from_body[:, 2, 2]))
    assert 1 < np.median(tilt) <= tilt.max() < 32
    moved = np.diff(truth.position_enu_m[:, :2], axis=0) / (np.diff(truth.at_ns) * 1e-9)[:, None]
    assert np.abs(moved - (truth.velocity_enu_mps[1:, :2] + truth.velocity_enu_mps[:-1, :2]) / 2).max() < 0.5
    assert not np.isin(truth.at_ns, told.at_ns).any()  # telemetry must be interpolated
    index = np.searchsorted(told.at_ns, truth.at_ns)
    ratio = told.height_above_ground_m[index] / truth.height_above_ground_m
    assert 0.001 < np.std(ratio) < 0.03
    assert np.isnan(told.position_enu_m).all()


def test_a_place_too_small_for_the_height_is_refused(place: Place) -> None:
    with pytest.raises(RenderError, match="place for a flight"):
        plan_flight(place, 1, FlightSettings(high_m=400))


def test_the_frames_do_not_hang_on_the_number_of_processes(place: Place) -> None:
    flight = replace(plan_flight(place, 4, replace(SHORT, seconds=11)), camera=default_camera(64, 48))
    one, two = (list(film(place, place.orthophoto, flight, Conditions(noise=2), 4, n)) for n in (1, 2))
    assert one == two
    assert unpack(one[0]).shape == (48, 64, 3)


def test_a_bag_holds_every_stamp_and_the_frames_of_rep_103(place: Place, tmp_path: Path) -> None:
    flight = replace(plan_flight(place, 4, SHORT), camera=default_camera(64, 48))
    jpegs = list(film(place, place.orthophoto, flight, Conditions(), 4, 1))
    bag.write_bag(tmp_path / "flight", flight, jpegs, place.frame)
    assert sorted(p.name for p in (tmp_path / "flight").iterdir()) == ["flight.mcap", "metadata.yaml"]
    with AnyReader([tmp_path / "flight"], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        by_topic: dict[str, list] = {}
        for connection, at_ns, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            by_topic.setdefault(connection.topic, []).append((at_ns, message))
    truth, told = flight.frames, flight.telemetry
    for topic, stamps in (
        (bag.IMAGE_TOPIC, truth.at_ns),
        (bag.CAMERA_INFO_TOPIC, truth.at_ns),
        (bag.TRUTH_TOPIC, truth.at_ns),
        (bag.IMU_TOPIC, told.at_ns),
        (bag.HEIGHT_TOPIC, told.at_ns),
        (bag.VELOCITY_TOPIC, told.at_ns),
    ):
        headers = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for _, m in by_topic[topic]]
        assert headers == stamps.tolist() == [at_ns for at_ns, _ in by_topic[topic]]
    assert by_topic[bag.IMAGE_TOPIC][3][1].data.tobytes() == jpegs[3]
    info = by_topic[bag.CAMERA_INFO_TOPIC][0][1]
    np.testing.assert_allclose(info.k.reshape(3, 3), flight.camera.matrix)
    q = by_topic[bag.IMU_TOPIC][7][1].orientation
    enu_from_flu = rotation_from_quaternion((q.w, q.x, q.y, q.z))
    np.testing.assert_allclose(ENU_FROM_NED.T @ enu_from_flu @ FLU_FROM_FRD, told.ned_from_body[7], atol=1e-9)
    transform = by_topic[bag.TF_STATIC_TOPIC][0][1].transforms[0]
    r = transform.transform.rotation
    flu_from_camera = rotation_from_quaternion((r.w, r.x, r.y, r.z))
    np.testing.assert_allclose(FLU_FROM_FRD @ flu_from_camera, flight.body_from_camera, atol=1e-9)
    fix = by_topic[bag.TRUTH_TOPIC][5][1]
    here = place.frame.enu_from_geodetic(fix.latitude, fix.longitude)
    np.testing.assert_allclose(here, truth.position_enu_m[5, :2], atol=1e-3)
    with pytest.raises(RenderError, match="frames of a flight"):
        bag.write_bag(tmp_path / "short", flight, jpegs[:-1], place.frame)
    assert not (tmp_path / "short").exists()


def test_pairs_for_training_are_drawn_from_the_seed_and_see_the_place(place: Place) -> None:
    first = list(render_pairs(place, 3, seed=1, height_m=(60, 90)))
    again = list(render_pairs(place, 3, seed=1, height_m=(60, 90)))
    assert len(first) == 3
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.image_rgb, b.image_rgb)
        assert a.image_rgb.shape == (a.camera.height, a.camera.width, 3)
        assert 60 <= a.height_above_ground_m <= 90
        assert np.abs(a.position_enu_m[:2]).max() < 300
    assert np.abs(first[0].position_enu_m - first[1].position_enu_m).max() > 1
