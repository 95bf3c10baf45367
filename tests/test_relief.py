"""Hills in a view: where they put what is seen, and that a map which knows them finds the vehicle better."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import toy_world
from toy_world import HAND_CONFIDENCE, HandEngine, Heights, World, with_heights

from onboard.config import Config
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.match.locate import Located, Locator, Search
from onboard.match.refine import align
from onboard.match.relief import ground_shift, in_cells, laid_on_ground, mean_shift, shift_of_match
from onboard.records import Fix, Frame, GroundView, Telemetry
from onboard.rectify import Rectifier
from onboard.region import RegionMap
from onboard.stopwatch import Stopwatch

HEIGHT_M = 90.0


def slope(at: np.ndarray) -> np.ndarray:
    """One side of a valley: 200 m over the sea, rising 18 m over 100 m towards the east."""
    return 200 + 0.18 * at[..., 0] - 0.07 * at[..., 1]


def ridge(at: np.ndarray) -> np.ndarray:
    """A wave of 24 m from bottom to top, 120 m long, that runs across."""
    return 50 + 12 * np.sin((at[..., 0] + 0.5 * at[..., 1]) / 19)


def terrace(at: np.ndarray) -> np.ndarray:
    """A bank of 16 m between two levels, 80 m wide, that runs from south-west to north-east."""
    return 80 + 8 * np.tanh((at[..., 0] - at[..., 1]) / 40)


def look_at_hills(
    world: World, heights: Heights, position_enu_m: np.ndarray, angles_deg: tuple[float, float, float]
) -> np.ndarray:
    """What the toy camera sees, uint8 BGR, `HEIGHT_M` over the ground below it: each ray followed to the ground."""
    camera = toy_world.toy_camera()
    cols, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = np.stack([cols, rows, np.ones_like(cols)], axis=-1) @ np.linalg.inv(camera.matrix).T
    rays = rays @ toy_world.enu_from_camera(*angles_deg).T
    flat = rays[..., :2] / -rays[..., 2:]  # east, north for each metre down
    own = heights(position_enu_m)
    ground = position_enu_m + HEIGHT_M * flat
    for _ in range(40):
        ground = position_enu_m + (own + HEIGHT_M - heights(ground))[..., None] * flat
    step, half = world.metres_per_pixel, world.half_m
    at = (
        ((ground[..., 0] + half) / step - 0.5).astype(np.float32),
        ((half - ground[..., 1]) / step - 0.5).astype(np.float32),
    )
    return np.ascontiguousarray(cv2.remap(world.rgb, *at, cv2.INTER_LINEAR)[..., ::-1])


def told(angles_deg: tuple[float, float, float], height_m: float = HEIGHT_M) -> Telemetry:
    return Telemetry(toy_world.BEGAN_NS, toy_world.quaternion(*angles_deg), height_m)


def rectifier(view_px: int = 256) -> Rectifier:
    return Rectifier(toy_world.toy_camera(), BODY_FROM_CAMERA_DOWN, view_px)


# ---- where hills put what is seen


@pytest.mark.parametrize("heights", [slope, ridge])
@pytest.mark.parametrize("angles", [(0, 0, 0), (-8, 24, 130)])
def test_a_dot_on_a_hill_is_brought_back_to_its_place(
    heights: Heights, angles: tuple[float, float, float], hand_map: RegionMap
) -> None:
    vehicle, camera = np.array([31.0, -17.0]), toy_world.toy_camera()
    rotation = toy_world.enu_from_camera(*angles)
    region = with_heights(hand_map, heights, 1.0)
    checked, moved = 0, []
    for dot in np.random.default_rng(2).uniform(-90, 90, (40, 2)):
        rise = float(heights(vehicle + dot) - heights(vehicle))
        col, row, depth = camera.matrix @ rotation.T @ np.array([*dot, rise - HEIGHT_M])
        col, row = col / depth, row / depth
        if depth <= 0 or not (12 < col < camera.width - 12 and 12 < row < camera.height - 12):
            continue
        rows, cols = np.mgrid[: camera.height, : camera.width]
        picture = np.exp(-((cols - col) ** 2 + (rows - row) ** 2) / (2 * 2.5**2))
        image = np.repeat((250 * picture[..., None]).astype(np.uint8), 3, axis=2)
        view = rectifier().view(Frame(0, image), told(angles), 0.6)
        seen_m, shift_m = place_of_dot(view), ground_shift(region, view, vehicle, HEIGHT_M)
        assert shift_m is not None
        shift = in_cells(shift_m, 256, 0.6)
        at = np.rint(seen_m[::-1] * [-1, 1] / 0.6 + 127.5 + centre_px(view)).astype(int)
        shift_enu = shift[at[0], at[1]][::-1] * [0.6, -0.6]
        np.testing.assert_allclose(seen_m + shift_enu, dot, atol=0.5)
        moved.append(np.hypot(*shift_enu))
        checked += 1
    assert checked >= 8
    assert max(moved) > 3.0  # without it the dots lie so far off


def centre_px(view: GroundView) -> np.ndarray:
    """(row, col) by which the point below the vehicle lies off the view's middle."""
    east, north = view.centre_from_vehicle_enu_m
    return np.array([north, -east]) / view.metres_per_pixel


def place_of_dot(view: GroundView) -> np.ndarray:
    """East, north of the brightest spot of a view from the point below the vehicle."""
    light = view.image_rgb[..., 0].astype(float)
    rows, cols = np.mgrid[:256, :256]
    row, col = (light * rows).sum() / light.sum(), (light * cols).sum() / light.sum()
    return np.array(view.centre_from_vehicle_enu_m) + np.array([col - 127.5, 127.5 - row]) * view.metres_per_pixel


def test_on_level_and_on_unknown_ground_nothing_moves(hand_map: RegionMap) -> None:
    view = rectifier().view(Frame(0, np.zeros((360, 480, 3), np.uint8)), told((0, 10, 0)), 0.6)
    vehicle = np.zeros(2)
    assert ground_shift(hand_map, view, vehicle, HEIGHT_M) is None
    assert shift_of_match(hand_map, view, vehicle, HEIGHT_M) is None
    assert (mean_shift(None, view) == 0).all()
    for level in (lambda at: np.full(at.shape[:-1], 431.0), lambda at: np.full(at.shape[:-1], np.nan)):
        shift = ground_shift(with_heights(hand_map, level), view, vehicle, HEIGHT_M)
        assert shift is not None
        assert (shift == 0).all()


def test_where_a_height_is_unknown_only_that_ground_is_level(hand_map: RegionMap) -> None:
    view = rectifier().view(Frame(0, np.zeros((360, 480, 3), np.uint8)), told((0, 0, 0)), 0.6)
    half = with_heights(hand_map, lambda at: np.where(at[..., 0] < -20, np.nan, slope(at)))
    shift, whole = (
        ground_shift(region, view, np.zeros(2), HEIGHT_M) for region in (half, with_heights(hand_map, slope))
    )
    assert shift is not None
    assert whole is not None
    assert (shift[:, :4] == 0).all()
    np.testing.assert_array_equal(shift[:, 8:], whole[:, 8:])
    assert np.abs(whole[:, :4]).max() > 2.0


def test_ground_as_high_as_the_vehicle_moves_nothing_out_of_reason(hand_map: RegionMap) -> None:
    view = rectifier().view(Frame(0, np.zeros((360, 480, 3), np.uint8)), told((0, 0, 0)), 0.6)
    cliff = with_heights(hand_map, lambda at: np.where(at[..., 0] > 10, 900.0, 0.0))
    shift = ground_shift(cliff, view, np.zeros(2), HEIGHT_M)
    assert shift is not None
    assert np.isfinite(shift).all()
    assert np.abs(shift).max() < 128 * 0.6


def test_a_match_of_the_whole_view_is_freed_of_the_shift_that_all_of_it_has(hand_map: RegionMap) -> None:
    """Seen obliquely, a slope shifts the whole view by metres; where the vehicle is follows all the same."""
    region, vehicle = with_heights(hand_map, slope), np.array([12.0, 5.0])
    view = rectifier().view(Frame(0, np.zeros((360, 480, 3), np.uint8)), told((0, 28, 90)), 0.6)
    true = ground_shift(region, view, vehicle, HEIGHT_M)
    mean = mean_shift(true, view)
    assert np.hypot(*mean) > 4.0
    found = shift_of_match(region, view, vehicle + np.array(view.centre_from_vehicle_enu_m) + mean, HEIGHT_M)
    assert found is not None
    assert true is not None
    assert np.abs(found - true).max() < 0.25


def test_a_view_laid_on_the_ground_shows_its_hills_where_they_are(world: World, hand_map: RegionMap) -> None:
    vehicle, angles = np.array([-20.0, 30.0]), (0.0, 15.0, 60.0)
    image = look_at_hills(world, ridge, vehicle, angles)
    view = rectifier().view(Frame(0, image), told(angles), 0.6)
    shift = ground_shift(with_heights(hand_map, ridge), view, vehicle, HEIGHT_M)
    assert shift is not None
    tile, _ = hand_map.levels[0].window(vehicle + np.array(view.centre_from_vehicle_enu_m), 256)
    step = hand_map.levels[0].metres_per_pixel / 0.6
    tile = cv2.warpAffine(
        tile,
        np.array([[1 / step, 0, 127.5 * (1 - 1 / step)], [0, 1 / step, 127.5 * (1 - 1 / step)]]),
        (256, 256),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
    rgb, mask = laid_on_ground(view, shift)
    inner = cv2.erode(mask.astype(np.uint8) & view.mask, np.ones((25, 25))) > 0
    assert inner.sum() > 10_000
    off = [np.abs(picture[inner].astype(float) - tile[inner]).mean() for picture in (view.image_rgb, rgb)]
    assert off[1] < 0.6 * off[0]


# ---- what a match makes of it


def test_patches_sought_where_relief_puts_them_agree_and_the_others_do_not() -> None:
    noise = np.random.default_rng(1).normal(size=(128, 128, 8)).astype(np.float32)
    ground = cv2.GaussianBlur(noise, (0, 0), 1.5)
    ground /= np.linalg.norm(ground, axis=2, keepdims=True)
    rows, cols = np.mgrid[:64, :64] - 31.5
    hill = 9 * np.exp(-((rows - 10) ** 2 + (cols + 8) ** 2) / (2 * 22**2))  # cells by which its top is displaced
    relief = np.stack([-0.5 * hill + 4.0, hill], axis=-1)  # 4 of all, as of an oblique view
    # The coarse match holds the mean of it: the tile is cut there. The rest is a true shift of (1.3, -2.2) cells.
    mean = np.rint(relief.mean(axis=(0, 1)))
    at = (rows + relief[..., 0] + 1.3 + 63.5 - mean[0], cols + relief[..., 1] - 2.2 + 63.5 - mean[1])
    view = cv2.remap(ground, at[1].astype(np.float32), at[0].astype(np.float32), cv2.INTER_LINEAR)
    view /= np.linalg.norm(view, axis=2, keepdims=True)
    everywhere = np.ones((64, 64), bool)
    known = align(view, everywhere, ground[32:96, 32:96], everywhere, 4, relief)
    level = align(view, everywhere, ground[32:96, 32:96], everywhere, 4)
    assert known is not None
    assert level is not None
    np.testing.assert_allclose(known.shift_px / 4, np.array([1.3, -2.2]) - mean, atol=0.3)
    assert abs(known.turn_rad) < 0.01
    assert known.scale == pytest.approx(1.0, abs=0.01)
    assert known.agreeing > 0.85 * known.patches
    assert level.agreeing < 0.7 * level.patches


def located(region: RegionMap, engine: HandEngine, image: np.ndarray, telemetry: Telemetry, near: np.ndarray) -> Fix:
    locator = Locator(region, engine, rectifier(), HAND_CONFIDENCE, Config())
    found = locator.locate(
        Frame(telemetry.captured_at_ns, image), telemetry, Search([(0.0, 1.0)], near, 30.0, 2, True), Stopwatch()
    )
    assert isinstance(found, Located)
    return found.fixes[0]


@pytest.mark.parametrize("heights", [slope, terrace])
@pytest.mark.parametrize("angles", [(2.0, -3.0, 40.0), (0.0, 22.0, 75.0)])
def test_over_hills_a_map_with_heights_finds_the_vehicle_better(
    heights: Heights, angles: tuple[float, float, float], world: World, hand_map: RegionMap, hand_engine: HandEngine
) -> None:
    known = with_heights(hand_map, heights)
    errors: dict[str, list[float]] = {"level": [], "known": []}
    agreeing: dict[str, list[float]] = {"level": [], "known": []}
    for place in [(-70.0, 40.0), (15.0, -60.0), (60.0, 55.0)]:
        vehicle = np.array(place)
        image = look_at_hills(world, heights, vehicle, angles)
        for name, region in (("level", hand_map), ("known", known)):
            fix = located(region, hand_engine, image, told(angles), vehicle + np.array([5.0, -4.0]))
            errors[name].append(float(np.hypot(*(fix.position_enu_m - vehicle))))
            agreeing[name].append(fix.evidence["agree"])
    assert np.mean(errors["known"]) < 0.5 * np.mean(errors["level"])
    assert max(errors["known"]) < 0.5
    assert min(agreeing["known"]) > 0.95 > np.mean(agreeing["level"])


def test_known_hills_leave_height_and_heading_right(world: World, hand_map: RegionMap, hand_engine: HandEngine) -> None:
    """Level ground explains a slope by a height or a heading that is wrong."""
    vehicle, angles = np.array([15.0, -60.0]), (0.0, 22.0, 75.0)
    image = look_at_hills(world, slope, vehicle, angles)
    level, known = (
        located(region, hand_engine, image, told(angles, 1.04 * HEIGHT_M), vehicle)
        for region in (hand_map, with_heights(hand_map, slope))
    )
    assert known.height_scale == pytest.approx(1 / 1.04, abs=0.015)
    assert abs(known.height_scale - 1 / 1.04) < abs(level.height_scale - 1 / 1.04)
    assert abs(math.remainder(known.heading_rad - math.radians(75.0), 2 * math.pi)) < math.radians(0.7)
