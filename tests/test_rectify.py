"""The rectifier: dots on level ground, seen from known poses, come back where they lie."""

from __future__ import annotations

import dataclasses
import functools
import math

import cv2
import numpy as np
import pytest
import toy_world

from onboard.camera import CameraModel
from onboard.config import RectifyConfig
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.records import Frame, GroundView, Reason, Telemetry
from onboard.rectify import Rectifier

METRES = 0.5
VIEW_PX = 256
K = np.array([[340.0, 0, 239.5], [0, 340.0, 179.5], [0, 0, 1]])
LENSES = {
    "pinhole": CameraModel(480, 360, K, ()),
    "plumb_bob": CameraModel(480, 360, K, (-0.25, 0.06, 0.001, -0.002, 0.0)),
    "rational": CameraModel(480, 360, K, (0.3, -0.05, 0.0, 0.0, 0.0, 0.55, -0.02, 0.0), "rational_polynomial"),
    "fisheye": CameraModel(
        480,
        360,
        K * [[0.8], [0.8], [1]] + [[0, 0, 47.9], [0, 0, 35.9], [0, 0, 0]],
        (-0.02, 0.003, 0.0, 0.0),
        "equidistant",
    ),
}
DOTS = np.random.default_rng(4).uniform(-75, 75, (60, 2))  # east, north; no symmetry that a wrong sign could keep
DOTS = np.array([d for k, d in enumerate(DOTS) if all(np.hypot(*(d - e)) > 9 for e in DOTS[:k])])
SIGMA_M = 1.2


def flat_rays(lens: CameraModel) -> np.ndarray:
    """(H, W, 3) directions of all pixels, by turning the textbook's lens formulas round: no OpenCV in it."""
    cols, rows = np.meshgrid(np.arange(lens.width), np.arange(lens.height))
    xd = (cols - lens.matrix[0, 2]) / lens.matrix[0, 0]
    yd = (rows - lens.matrix[1, 2]) / lens.matrix[1, 1]
    d = np.zeros(8)
    d[: len(lens.distortion)] = lens.distortion
    if lens.distortion_model == "equidistant":
        angle = radius = np.hypot(xd, yd)
        for _ in range(50):
            angle = radius / (1 + d[0] * angle**2 + d[1] * angle**4 + d[2] * angle**6 + d[3] * angle**8)
        grow = np.tan(angle) / np.maximum(radius, 1e-12)
        return np.stack([xd * grow, yd * grow, np.ones_like(xd)], axis=-1)
    x, y = xd, yd
    for _ in range(100):
        r2 = x * x + y * y
        radial = (1 + d[0] * r2 + d[1] * r2**2 + d[4] * r2**3) / (1 + d[5] * r2 + d[6] * r2**2 + d[7] * r2**3)
        x, y = (
            (xd - 2 * d[2] * x * y - d[3] * (r2 + 2 * x * x)) / radial,
            (yd - d[2] * (r2 + 2 * y * y) - 2 * d[3] * x * y) / radial,
        )
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def picture(lens: CameraModel, height_m: float, angles_deg: tuple[float, float, float]) -> np.ndarray:
    """The dots as the camera sees them, uint8 BGR, each pixel computed from its ray; the vehicle is at 0, 0."""
    rays = flat_rays(lens) @ toy_world.enu_from_camera(*angles_deg).T
    down = rays[..., 2] < -1e-6
    reach = np.where(down, height_m / np.where(down, -rays[..., 2], 1.0), 1e6)
    ground = (rays[..., :2] * reach[..., None]).clip(-1e4, 1e4).astype(np.float32)
    rows, cols = (100 - ground[..., 1]) / 0.1 - 0.5, (ground[..., 0] + 100) / 0.1 - 0.5
    return np.repeat(cv2.remap(dotted_ground(), cols, rows, cv2.INTER_LINEAR, borderValue=40)[..., None], 3, axis=2)


@functools.cache
def dotted_ground() -> np.ndarray:
    """Ground from -100 to 100 m, north up, 0.1 m a pixel: far finer than any picture of it."""
    metres = (np.arange(2000) + 0.5) * 0.1 - 100
    bells = [np.exp(-((axis[:, None] - metres) ** 2) / (2 * SIGMA_M**2)) for axis in (DOTS[:, 1], DOTS[:, 0])]
    return (40 + 180 * (bells[0].T @ bells[1])[::-1]).clip(0, 255).astype(np.uint8)


def misses_px(view: GroundView) -> np.ndarray:
    """For each dot well inside the view, how far its centre of mass lies from where it should, in pixels."""
    centre, middle = np.array(view.centre_from_vehicle_enu_m), (VIEW_PX - 1) / 2
    weight = np.clip(view.image_rgb[..., 0].astype(float) - 48, 0, None)
    found = []
    for dot in DOTS:
        col = middle + (dot[0] - centre[0]) / view.metres_per_pixel
        row = middle - (dot[1] - centre[1]) / view.metres_per_pixel
        half = max(2, int(3.0 / view.metres_per_pixel))
        top, left, r = round(row) - half, round(col) - half, 2 * half + 1
        if min(top, left) < 0 or max(top, left) + r > VIEW_PX or not view.mask[top : top + r, left : left + r].all():
            continue
        part = weight[top : top + r, left : left + r]
        if part.max() < 40:
            found.append(99.0)
            continue
        rows, cols = np.mgrid[top : top + r, left : left + r]
        found.append(math.hypot((rows * part).sum() / part.sum() - row, (cols * part).sum() / part.sum() - col))
    return np.array(found)


def told(
    height_m: float, angles_deg: tuple[float, float, float], at_ns: int = 0, heading_known: bool = True
) -> Telemetry:
    return Telemetry(at_ns, toy_world.quaternion(*angles_deg), height_m, heading_known)


def rectifier(lens: CameraModel, mount: np.ndarray = BODY_FROM_CAMERA_DOWN) -> Rectifier:
    return Rectifier(lens, mount, VIEW_PX)


@pytest.mark.parametrize("angles_deg", [(0, 0, 0), (0, 0, 115), (12, 0, 40), (0, -14, -75), (-9, 11, 200)], ids=str)
@pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES.keys())
def test_dots_come_back_at_their_east_and_north(lens: CameraModel, angles_deg: tuple[float, float, float]) -> None:
    frame = Frame(7, picture(lens, 80.0, angles_deg))
    view = rectifier(lens).view(frame, told(80.0, angles_deg, 7), METRES)
    miss = misses_px(view)
    assert len(miss) >= 8
    assert miss.max() < 0.3
    assert view.captured_at_ns == 7
    assert math.cos(view.heading_rad - math.radians(angles_deg[2])) == pytest.approx(1.0)


@pytest.mark.parametrize("metres", [0.25, 1.0, 2.0])
def test_any_resolution_of_the_view_puts_dots_at_the_same_place(metres: float) -> None:
    lens, angles = LENSES["pinhole"], (5.0, -7.0, 33.0)
    frame = Frame(0, picture(lens, 80.0, angles))
    miss = misses_px(rectifier(lens).view(frame, told(80.0, angles), metres))
    assert len(miss) >= 4
    assert miss.max() < 0.45  # at 2 m a dot is half a pixel wide


def test_a_heading_offset_turns_the_view_by_what_was_told_too_little() -> None:
    lens = LENSES["plumb_bob"]
    frame = Frame(0, picture(lens, 80.0, (4, -6, 50)))
    wrong = told(80.0, (4, -6, 50 - 25))
    right = rectifier(lens).view(frame, wrong, METRES, heading_offset_rad=math.radians(25))
    assert misses_px(right).max() < 0.3
    assert math.degrees(right.heading_rad) == pytest.approx(50)
    straight = rectifier(lens).view(frame, told(80.0, (4, -6, 50)), METRES)
    assert right.centre_from_vehicle_enu_m == pytest.approx(straight.centre_from_vehicle_enu_m)
    assert right.heading_offset_rad == pytest.approx(math.radians(25))
    for offset in (0.0, -25.0):
        assert np.median(misses_px(rectifier(lens).view(frame, wrong, METRES, math.radians(offset)))) > 2


def test_a_height_scale_multiplies_the_told_height() -> None:
    lens = LENSES["plumb_bob"]
    frame = Frame(0, picture(lens, 88.0, (4, -6, 50)))
    wrong = told(80.0, (4, -6, 50))
    right = rectifier(lens).view(frame, wrong, METRES, height_scale=1.1)
    assert misses_px(right).max() < 0.3
    assert right.height_scale == 1.1
    for scale in (1.0, 1 / 1.1):
        assert np.median(misses_px(rectifier(lens).view(frame, wrong, METRES, height_scale=scale))) > 1


def test_a_tilted_mount_is_undone_like_a_tilted_body() -> None:
    lens = LENSES["pinhole"]
    mount = toy_world.euler_matrix(0, 15, 0) @ BODY_FROM_CAMERA_DOWN  # the camera looks 15 degrees forward
    frame = Frame(0, picture(lens, 80.0, (0, 15 - 6, 70)))  # flown nose down by 6
    miss = misses_px(rectifier(lens, mount).view(frame, told(80.0, (0, -6, 70)), METRES))
    assert len(miss) >= 8
    assert miss.max() < 0.3


def test_the_mask_is_the_ground_that_the_camera_saw() -> None:
    lens = LENSES["pinhole"]
    frame = Frame(0, np.full((360, 480, 3), 130, np.uint8))
    view = rectifier(lens).view(frame, told(80.0, (0, 0, 0)), METRES)
    wanted = (480 / 340 * 80 / METRES) * (360 / 340 * 80 / METRES)
    assert view.mask.sum() == pytest.approx(wanted, rel=0.02)
    assert (view.image_rgb[view.mask] == 130).all()
    assert (view.image_rgb[~view.mask] == 0).all()
    rows, cols = np.flatnonzero(view.mask.any(axis=1)), np.flatnonzero(view.mask.any(axis=0))
    assert (rows[0] + rows[-1]) / 2 == pytest.approx(127.5, abs=0.6)
    assert (cols[0] + cols[-1]) / 2 == pytest.approx(127.5, abs=0.6)


def test_a_tilted_view_is_centred_on_the_ground_seen_not_on_the_vehicle() -> None:
    lens = LENSES["pinhole"]
    view = rectifier(lens).view(Frame(0, picture(lens, 80.0, (0, 15, 90))), told(80.0, (0, 15, 90)), METRES)
    east, north = view.centre_from_vehicle_enu_m
    assert east > 15  # nose up and east: what is seen lies ahead
    assert abs(north) < 1
    rows, cols = np.flatnonzero(view.mask.any(axis=1)), np.flatnonzero(view.mask.any(axis=0))
    assert (cols[0] + cols[-1]) / 2 == pytest.approx(127.5, abs=2)
    assert (rows[0] + rows[-1]) / 2 == pytest.approx(127.5, abs=2)


def test_ground_seen_too_obliquely_is_left_out() -> None:
    wide = CameraModel(480, 360, K * [[0.35], [0.35], [1]] + [[0, 0, 155.7], [0, 0, 116.7], [0, 0, 0]], ())
    config = RectifyConfig(max_off_nadir_deg=40.0)
    view = Rectifier(wide, BODY_FROM_CAMERA_DOWN, VIEW_PX, config).view(
        Frame(0, np.full((360, 480, 3), 130, np.uint8)), told(60.0, (0, 0, 0)), 1.0
    )
    rows, cols = np.nonzero(view.mask)
    off_m = np.hypot(rows - 127.5, cols - 127.5).max()
    assert off_m == pytest.approx(60 * math.tan(math.radians(40)), abs=8)  # the grid of exact points is 8 m wide
    assert off_m <= 60 * math.tan(math.radians(40)) + 0.8


def test_fine_texture_is_averaged_and_does_not_alias() -> None:
    """A chequer far finer than the view turns to its mean, whatever the phase."""
    lens = LENSES["pinhole"]
    chequer = (np.indices((360, 480)).sum(axis=0) % 2 * 255).astype(np.uint8)
    view = rectifier(lens).view(Frame(0, np.repeat(chequer[..., None], 3, axis=2)), told(80.0, (0, 0, 10)), 1.0)
    inside = view.image_rgb[view.mask]
    assert abs(float(inside.mean()) - 127.5) < 3
    assert float(inside.std()) < 12


GOOD = told(80.0, (0, 0, 0))
NAN = float("nan")


@pytest.mark.parametrize(
    ("telemetry", "reason"),
    [
        (GOOD, None),
        (dataclasses.replace(GOOD, attitude_quat_wxyz=(NAN, 0, 0, 0)), Reason.BAD_TELEMETRY),
        (dataclasses.replace(GOOD, attitude_quat_wxyz=(0.0, 0, 0, 0)), Reason.BAD_TELEMETRY),
        (dataclasses.replace(GOOD, velocity_ned_mps=(0, NAN, 0)), Reason.BAD_TELEMETRY),
        (dataclasses.replace(GOOD, height_above_ground_m=NAN), Reason.NO_HEIGHT),
        (dataclasses.replace(GOOD, height_above_ground_m=math.inf), Reason.NO_HEIGHT),
        (dataclasses.replace(GOOD, height_above_ground_m=-80.0), Reason.HEIGHT_OUT_OF_RANGE),
        (dataclasses.replace(GOOD, height_above_ground_m=9000.0), Reason.HEIGHT_OUT_OF_RANGE),
        (told(80.0, (0, 39, 0)), None),
        (told(80.0, (0, 41, 0)), Reason.TILT_TOO_LARGE),
        (told(80.0, (30, 30, 0)), Reason.TILT_TOO_LARGE),
        (told(80.0, (180, 0, 0)), Reason.TILT_TOO_LARGE),
    ],
)
def test_telemetry_that_cannot_be_used_is_refused_with_its_reason(telemetry: Telemetry, reason: Reason | None) -> None:
    image = np.random.default_rng(0).integers(0, 255, (360, 480, 3), dtype=np.uint8)
    assert rectifier(LENSES["pinhole"]).check(Frame(0, image), telemetry) is reason


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((360, 480, 3), np.uint8), Reason.BLANK_IMAGE),
        (np.full((360, 480, 3), 255, np.uint8), Reason.BLANK_IMAGE),
        (np.random.default_rng(0).integers(0, 3, (360, 480, 3), dtype=np.uint8), Reason.BLANK_IMAGE),  # a covered lens
        (np.zeros((480, 360, 3), np.uint8), Reason.NO_IMAGE),  # another camera's
        (np.zeros((360, 480), np.uint8), Reason.NO_IMAGE),
        (np.zeros((360, 480, 4), np.uint8), Reason.NO_IMAGE),
    ],
    ids=["black", "white", "dark noise", "wrong size", "grey", "four channels"],
)
def test_an_image_that_cannot_be_used_is_refused_with_its_reason(image: np.ndarray, reason: Reason) -> None:
    assert rectifier(LENSES["pinhole"]).check(Frame(0, image), GOOD) is reason
