"""Draw a map tile and a view that lies in it.

The view is what the rectifier leaves: north up, at the tile's resolution, a turned rectangle of ground in
a square canvas, with the errors of a real pose in it (heading, height, tilt), another date or light, and a
known place in the tile. Ground is flat here; rendered places bring relief (`training.data.rendered`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.data import appearance
from training.data.ground import Ground

FIELD_STRIDE = 8  # pixels of the view between two displacements that are told


@dataclass(frozen=True)
class Pair:
    """uint8 (N, N, 3) and bool (N, N) of tile and view; `offset_px` (2,) row, col from the tile's centre to
    where the view's centre really lies; `moved_px` float32 (N / 8, N / 8, 2) row, col, how far each eighth pixel of
    the view (the middle of 8 by 8) must be moved to lie on its like in the tile, NaN where nobody knows."""

    tile: np.ndarray
    tile_mask: np.ndarray
    view: np.ndarray
    view_mask: np.ndarray
    offset_px: np.ndarray
    moved_px: np.ndarray


@dataclass(frozen=True)
class PairConfig:
    """How far a view may depart from the tile."""

    view_px: int = 256
    resolutions: tuple[float, float] = (0.3, 1.25)  # m/px
    offset_px: float = 64.0
    rotation_error_deg: float = 6.0
    scale_error: float = 0.09
    tilt: float = 3e-4  # of the projective terms, per pixel
    footprint_px: tuple[float, float] = (72.0, 330.0)  # long side; the short one is at least 54
    same_date_share: float = 0.15
    crop_rendered: bool = False  # lay a footprint on rendered views too; without, they show what their camera saw


def similarity(scale: float, angle_rad: float, centre: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(3, 3) in col, row: turn and scale about `target`, then on to `centre`."""
    c, s = scale * np.cos(angle_rad), scale * np.sin(angle_rad)
    linear = np.array([[c, -s], [s, c]])
    out = np.eye(3)
    out[:2, :2] = linear
    out[:2, 2] = centre - linear @ target
    return out


def draw_pair(ground: Ground, donor: Ground, rng: np.random.Generator, config: PairConfig = PairConfig()) -> Pair:
    """One pair from one piece of ground; `donor` lends what has changed."""
    n = config.view_px
    middle = np.full(2, (n - 1) / 2)
    map_date, view_date = _dates(ground, rng, config)
    height, width = ground.valid.shape

    # From tile pixels to source pixels: resolution, any rotation, a mirror image half of the time.
    native = ground.metres_per_pixel
    low, high = max(config.resolutions[0], 0.6 * native), min(config.resolutions[1], 2.2 * max(native, 0.55))
    metres = np.exp(rng.uniform(np.log(low), np.log(high)))
    scale = metres / native
    reach = max(0.0, (min(height, width) - n * scale) / 2)
    centre = np.array([width - 1, height - 1]) / 2 + rng.uniform(-1, 1, 2) * (reach + 0.15 * n * scale)
    turn = rng.integers(0, 4) * np.pi / 2 if rng.random() < 0.5 else rng.uniform(0, 2 * np.pi)
    source_from_tile = similarity(scale, turn, centre, middle)
    if rng.random() < 0.5:
        source_from_tile = source_from_tile @ np.array([[-1.0, 0, n - 1], [0, 1, 0], [0, 0, 1]])

    # From view pixels to tile pixels: the place, and the errors of the pose.
    offset = rng.uniform(-config.offset_px, config.offset_px, 2)  # col, row
    angle = np.radians(rng.uniform(-1, 1) * config.rotation_error_deg)
    zoom = np.exp(rng.uniform(-1, 1) * config.scale_error)
    lean = np.eye(3)
    lean[2, :2] = rng.normal(0, config.tilt / 2, 2)
    lean = about(middle) @ lean @ about(-middle)
    tile_from_view = similarity(zoom, angle, middle + offset, middle) @ lean

    tile, tile_mask = sample(ground.dates[map_date], ground.valid, source_from_tile, n)
    view, ground_mask = sample(ground.dates[view_date], ground.valid, source_from_tile @ tile_from_view, n)
    view_mask = ground_mask & draw_footprint(n, rng, config)

    extra = donor.dates[rng.integers(len(donor.dates))]
    extra = cv2.resize(extra[:n, :n], (n, n)).astype(np.float32) / 255
    view = look(view, extra, rng, map_date == view_date)
    tile = appearance.sensor(appearance.tone(tile, rng, 0.6), rng) if rng.random() < 0.7 else to_bytes(tile)
    view[~view_mask] = 0
    tile[~tile_mask] = 0
    return Pair(tile, tile_mask, view, view_mask, offset[::-1].copy(), displacements(tile_from_view, n))


def field_points(n: int) -> np.ndarray:
    """(n / 8 * n / 8, 2) col, row: where on a canvas of n pixels `Pair.moved_px` is told, row by row."""
    at = np.arange(0, n, FIELD_STRIDE) + (FIELD_STRIDE - 1) / 2
    return np.stack([axis.ravel() for axis in np.meshgrid(at, at)], axis=1)


def displacements(tile_from_view: np.ndarray, n: int) -> np.ndarray:
    """`Pair.moved_px` of level ground: tile_from_view (3, 3) leads from (col, row) of the view to those of the tile."""
    points = field_points(n)
    to = np.column_stack([points, np.ones(len(points))]) @ tile_from_view.T
    moved = (to[:, :2] / to[:, 2:] - points)[:, ::-1]
    return moved.reshape(n // FIELD_STRIDE, n // FIELD_STRIDE, 2).astype(np.float32)


def lies_px(moved_px: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(2,) row, col: where a view lies, the median displacement of what it shows, of `Pair.moved_px`."""
    half = FIELD_STRIDE // 2
    return np.asarray(np.nanmedian(moved_px[mask[half::FIELD_STRIDE, half::FIELD_STRIDE]], axis=0), np.float64)


def about(point: np.ndarray) -> np.ndarray:
    out = np.eye(3)
    out[:2, 2] = point
    return out


def _dates(ground: Ground, rng: np.random.Generator, config: PairConfig) -> tuple[int, int]:
    count = len(ground.dates)
    first = int(rng.integers(count))
    if count == 1 or rng.random() < config.same_date_share:
        return first, first
    return first, int((first + rng.integers(1, count)) % count)


def sample(
    image: np.ndarray, valid: np.ndarray, source_from_canvas: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """float32 (n, n, 3) in 0..1 and bool (n, n), the source shrunk by areas first where it is finer."""
    scale = np.sqrt(abs(np.linalg.det(source_from_canvas[:2, :2])))
    factor = max(1, int(scale + 0.25))
    if factor > 1:
        size = (image.shape[1] // factor, image.shape[0] // factor)
        image = cv2.resize(image[: size[1] * factor, : size[0] * factor], size, interpolation=cv2.INTER_AREA)
        valid = valid[: size[1] * factor : factor, : size[0] * factor : factor]
        shrink = np.diag([1 / factor, 1 / factor, 1.0])
        shrink[:2, 2] = 0.5 / factor - 0.5
        source_from_canvas = shrink @ source_from_canvas
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    out = cv2.warpPerspective(image, source_from_canvas, (n, n), flags=flags)
    seen = cv2.warpPerspective(
        valid.astype(np.uint8), source_from_canvas, (n, n), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    )
    return out.astype(np.float32) / 255, seen > 0


def draw_footprint(n: int, rng: np.random.Generator, config: PairConfig) -> np.ndarray:
    """A rectangle of ground at any heading, as a camera leaves it."""
    long_side = np.exp(rng.uniform(*np.log(config.footprint_px)))
    aspect = rng.choice([1.0, 0.75, 0.75, 2 / 3, 9 / 16])
    heading = rng.uniform(0, 180) if rng.random() < 0.8 else 0.0
    corners = cv2.boxPoints((((n - 1) / 2, (n - 1) / 2), (long_side, max(54.0, long_side * aspect)), float(heading)))
    corners += rng.normal(0, 0.02 * long_side, corners.shape)
    mask = np.zeros((n, n), np.uint8)
    cv2.fillConvexPoly(mask, corners.round().astype(np.int32), 1)
    return mask > 0


def look(view: np.ndarray, extra: np.ndarray, rng: np.random.Generator, same_date: bool) -> np.ndarray:
    """Another day and another camera; harder where the two dates are one."""
    if rng.random() < (0.8 if same_date else 0.4):
        view = appearance.change(view, extra, rng)
    view = appearance.tone(view, rng, 1.2 if same_date else 0.8)
    if rng.random() < (0.6 if same_date else 0.35):
        view = appearance.shade(view, rng)
    return appearance.sensor(view, rng)


def to_bytes(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)
