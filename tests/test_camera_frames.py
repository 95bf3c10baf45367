"""Frames and cameras: golden vectors fix every sign, and every way there has its way back."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import toy_world

from onboard.camera import CameraModel
from onboard.errors import CameraError
from onboard.frames import (
    BODY_FROM_CAMERA_DOWN,
    ENU_FROM_NED,
    FLU_FROM_FRD,
    MapFrame,
    euler_from_rotation,
    quaternion_from_euler,
    quaternion_from_rotation,
    rotation_from_euler,
    rotation_from_quaternion,
    wrap_angle,
)

NORTH, EAST, DOWN = np.eye(3)
K = np.array([[420.0, 0, 322.5], [0, 415.0, 236.0], [0, 0, 1]])
K_WIDE = np.array([[300.0, 0, 322.5], [0, 298.0, 236.0], [0, 0, 1]])
LENSES = {
    "no distortion": CameraModel(640, 480, K, ()),
    "plumb_bob": CameraModel(640, 480, K, (-0.28, 0.09, 0.0011, -0.0007, -0.013)),
    "rational": CameraModel(
        640, 480, K, (0.35, -0.06, 0.0004, -0.0006, 0.002, 0.66, -0.04, 0.004), "rational_polynomial"
    ),
    "fisheye": CameraModel(640, 480, K_WIDE, (-0.03, 0.006, -0.004, 0.0007), "equidistant"),
}


@pytest.mark.parametrize(
    ("angles_deg", "body_axis", "points_to"),
    [
        ((0, 0, 90), 0, EAST),  # yaw 90: the nose looks east
        ((0, 0, 90), 1, -NORTH),  # and the right wing south
        ((0, 90, 0), 0, -DOWN),  # pitch 90: nose up
        ((90, 0, 0), 1, DOWN),  # roll 90: right wing down
        ((0, 30, 0), 2, (math.sin(math.radians(30)), 0, math.cos(math.radians(30)))),  # nose up, belly forward
        ((30, 0, 0), 2, (0, -math.sin(math.radians(30)), math.cos(math.radians(30)))),  # right wing down, belly left
    ],
)
def test_golden_vectors_of_the_aerospace_angles(
    angles_deg: tuple[float, float, float], body_axis: int, points_to: np.ndarray
) -> None:
    ned_from_body = rotation_from_euler(*np.radians(angles_deg))
    np.testing.assert_allclose(ned_from_body[:, body_axis], points_to, atol=1e-12)


def test_angles_are_three_plain_rotations_one_after_the_other() -> None:
    for angles in ((10, -20, 30), (-70, 45, 200), (3, 80, -170)):
        np.testing.assert_allclose(
            rotation_from_euler(*np.radians(angles)), toy_world.euler_matrix(*angles), atol=1e-12
        )


def test_the_top_of_a_level_image_is_where_the_nose_points_and_its_right_is_to_the_right() -> None:
    enu_from_camera = ENU_FROM_NED @ rotation_from_euler(0, 0, math.pi / 2) @ BODY_FROM_CAMERA_DOWN
    np.testing.assert_allclose(enu_from_camera @ [0, -1, 0], [1, 0, 0], atol=1e-12)  # image up is east
    np.testing.assert_allclose(enu_from_camera @ [1, 0, 0], [0, -1, 0], atol=1e-12)  # image right is south
    np.testing.assert_allclose(enu_from_camera @ [0, 0, 1], [0, 0, -1], atol=1e-12)  # the axis looks down
    np.testing.assert_allclose(FLU_FROM_FRD @ [1, 2, 3], [1, -2, -3])


def test_quaternions_and_angles_survive_the_round_trip() -> None:
    rng = np.random.default_rng(1)
    for roll, pitch, yaw in rng.uniform([-3.1, -1.5, -3.1], [3.1, 1.5, 3.1], (200, 3)):
        quat = quaternion_from_euler(roll, pitch, yaw)
        assert quat[0] >= 0
        assert np.linalg.norm(quat) == pytest.approx(1.0)
        rotation = rotation_from_quaternion(quat)
        np.testing.assert_allclose(rotation, rotation_from_euler(roll, pitch, yaw), atol=1e-12)
        np.testing.assert_allclose(euler_from_rotation(rotation), (roll, pitch, yaw), atol=1e-9)
        np.testing.assert_allclose(quaternion_from_rotation(rotation), quat, atol=1e-9)


def test_half_turns_have_quaternions_too() -> None:
    for axis in np.eye(3):
        rotation = 2 * np.outer(axis, axis) - np.eye(3)
        np.testing.assert_allclose(rotation_from_quaternion(quaternion_from_rotation(rotation)), rotation, atol=1e-12)


def test_a_known_quaternion_is_a_known_heading() -> None:
    half = math.radians(45)
    roll, pitch, yaw = euler_from_rotation(rotation_from_quaternion((math.cos(half), 0, 0, math.sin(half))))
    assert (roll, pitch, yaw) == pytest.approx((0, 0, math.pi / 2))


@pytest.mark.parametrize(
    ("angle", "wrapped"),
    [(0, 0), (3 * math.pi, math.pi), (-math.pi, math.pi), (4, 4 - 2 * math.pi), (-4, 2 * math.pi - 4)],
)
def test_angles_wrap_into_half_a_turn_either_way(angle: float, wrapped: float) -> None:
    assert wrap_angle(angle) == pytest.approx(wrapped)


def test_the_map_frame_counts_metres_east_and_north_and_leads_back() -> None:
    frame = MapFrame(37.5, 141.0)
    np.testing.assert_allclose(frame.enu_from_geodetic(37.5, 141.0), [0, 0], atol=1e-6)
    # A minute of latitude on this ellipsoid at 37.5 degrees is 1849.79 m, one of longitude 1473.76 m.
    np.testing.assert_allclose(frame.enu_from_geodetic(37.5 + 1 / 60, 141.0), [0, 1849.79], atol=0.02)
    np.testing.assert_allclose(frame.enu_from_geodetic(37.5, 141.0 + 1 / 60), [1473.76, 0.13], atol=0.02)
    for point in ([0, 0], [1234.5, -876.5], [-9000, 9000]):
        np.testing.assert_allclose(frame.enu_from_geodetic(*frame.geodetic_from_enu(np.array(point))), point, atol=1e-4)


@pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES.keys())
def test_rays_are_the_inverse_of_project(lens: CameraModel) -> None:
    pixels = np.stack(np.meshgrid(np.linspace(0, 639, 17), np.linspace(0, 479, 13)), axis=-1).reshape(-1, 2)
    rays = lens.rays(pixels)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1.0)
    back, seen = lens.project(rays * np.linspace(0.5, 300, len(rays))[:, None])
    assert seen.all()
    np.testing.assert_allclose(back, pixels, atol=0.02)


def test_plumb_bob_is_the_formula_of_the_books() -> None:
    lens = LENSES["plumb_bob"]
    k1, k2, p1, p2, k3 = lens.distortion
    x, y = 0.31, -0.22
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    flat = (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y)
    pixels, _ = lens.project(np.array([[10 * x, 10 * y, 10.0]]))
    np.testing.assert_allclose(pixels[0], [420 * flat[0] + 322.5, 415 * flat[1] + 236.0], atol=1e-6)


def test_the_fisheye_maps_angles_to_radii() -> None:
    lens = CameraModel(640, 480, LENSES["fisheye"].matrix, (0.0, 0.0, 0.0, 0.0), "equidistant")
    angle = math.radians(50)
    pixels, _ = lens.project(np.array([[math.sin(angle), 0.0, math.cos(angle)]]))
    assert pixels[0, 0] - lens.matrix[0, 2] == pytest.approx(lens.matrix[0, 0] * angle)


def test_a_fisheye_that_sees_behind_itself_keeps_right_what_lies_ahead() -> None:
    lens = CameraModel(640, 480, np.array([[220.0, 0, 319.5], [0, 220.0, 239.5], [0, 0, 1]]), (), "equidistant")
    assert math.degrees(lens.half_field_rad) == pytest.approx(math.degrees(math.hypot(319.5, 239.5) / 220), abs=0.01)
    ahead = np.array([[math.sin(a), 0.0, math.cos(a)] for a in np.radians([10, 60, 80, 85])])
    pixels, seen = lens.project(ahead)
    assert seen.all()
    np.testing.assert_allclose(lens.rays(pixels), ahead, atol=1e-4)
    np.testing.assert_allclose(lens.rays(np.array([[639.0, 239.5]]))[0], [0.993, 0, 0.118], atol=2e-3)
    assert lens.rays(np.array([[0.0, 0.0]]))[0, 2] < -0.2


@pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES.keys())
def test_what_lies_behind_or_far_beside_the_camera_is_unseen(lens: CameraModel) -> None:
    beside = 1.3 * lens.half_field_rad
    points = np.array([[0, 0, -5.0], [0, 0, 0], [math.sin(beside), 0, math.cos(beside)], [0.1, 0.1, 5.0]])
    assert lens.project(points)[1].tolist() == [False, False, False, True]


@pytest.mark.parametrize("factor", [0.5, 0.25, 2.0])
def test_a_resized_image_keeps_its_pixel_centres(factor: float) -> None:
    camera = CameraModel(64, 48, np.array([[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]]), ())
    spot = np.zeros((48, 64), np.float32)
    spot[16:24, 40:48] = 1.0  # its middle lies between pixels: row 19.5, col 43.5
    ray = camera.rays(np.array([[43.5, 19.5]]))
    small = cv2.resize(spot, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    rows, cols = np.indices(small.shape)
    middle = (cols * small).sum() / small.sum(), (rows * small).sum() / small.sum()
    scaled = camera.scaled(factor)
    assert (scaled.height, scaled.width) == small.shape
    np.testing.assert_allclose(scaled.project(ray)[0][0], middle, atol=1e-3)


@pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES.keys())
def test_a_camera_file_gives_the_same_camera_back(lens: CameraModel, tmp_path: Path) -> None:
    lens.to_yaml(tmp_path / "camera.yaml", "test")
    again = CameraModel.from_yaml(tmp_path / "camera.yaml")
    assert (again.width, again.height, again.distortion_model) == (lens.width, lens.height, lens.distortion_model)
    assert again.distortion == pytest.approx(lens.distortion)
    np.testing.assert_array_equal(again.matrix, lens.matrix)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"distortion_model": "mercator"}, "distortion model: mercator"),
        ({"distortion": (0.1, 0.2)}, "distortion coefficients: 2"),
        ({"distortion": (math.nan, 0, 0, 0)}, "finite"),
        ({"width": 0}, "image size"),
        ({"matrix": np.zeros((3, 3))}, "focal"),
        ({"matrix": np.eye(2)}, "3x3"),
    ],
)
def test_an_impossible_camera_is_refused_in_one_line(change: dict[str, object], word: str) -> None:
    good: dict[str, object] = {"width": 640, "height": 480, "matrix": K, "distortion": (0.0, 0.0, 0.0, 0.0)}
    with pytest.raises(CameraError, match=word) as caught:
        CameraModel(**(good | change))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "image_width: 640", "a: [", "image_width: x\nimage_height: 3\n"])
def test_a_broken_camera_file_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "camera.yaml").write_text(text)
    with pytest.raises(CameraError, match=r"camera\.yaml") as caught:
        CameraModel.from_yaml(tmp_path / "camera.yaml")
    assert "\n" not in str(caught.value)
    with pytest.raises(CameraError, match="no camera file"):
        CameraModel.from_yaml(tmp_path / "absent.yaml")
