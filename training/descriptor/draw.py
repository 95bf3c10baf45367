"""One tile of a map and two views in it, a large one and a small one, laid out as a map's grid of tiles has them.

The windows of a map are half a window apart (`export.region.features`), so that the middle of a view lies up to a
quarter of a window from that of its nearest tile, along each axis, and the tiles of a small piece of imagery hang over
its edge. What `training.data.pairs` draws is other: there the tile's middle is near the ground's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from training.data import appearance
from training.data.ground import Ground
from training.data.pairs import PairConfig, about, draw_footprint, look, sample, similarity, to_bytes
from training.data.weather import STYLES, degrade

Seen = tuple[np.ndarray, np.ndarray]  # uint8 (N, N, 3) RGB and bool (N, N)
VARIANTS = 8  # quarter turns and mirrors of a piece of ground: north up, each of them is another place


@dataclass(frozen=True)
class LayoutConfig:
    """How tile and views lie. Footprints are long sides in pixels, at 0.6 m/px 102 to 36 m of ground."""

    pairs: PairConfig = field(default_factory=PairConfig)
    large_px: tuple[float, float] = (110.0, 170.0)
    small_px: tuple[float, float] = (60.0, 100.0)
    resolution: tuple[float, float] = (0.8, 1.25)  # of the ground's own, within those of `pairs`
    turned_share: float = 0.25  # of the draws, in which the ground is turned by up to `turned_deg` beside its variant
    turned_deg: float = 20.0
    weather_share: float = 0.15  # of the views
    least_valid: float = 0.2  # share of a tile that must be ground, as in a map


@dataclass(frozen=True)
class Layout:
    """A tile and views of its ground; every view's middle lies within a quarter of a window of the tile's."""

    tile: Seen
    large: Seen
    small: Seen


def draw_layout(
    ground: Ground, donor: Ground, variant: int, rng: np.random.Generator, config: LayoutConfig = LayoutConfig()
) -> Layout:
    """Draw from one `variant` (0 to 7) of a piece of ground; `donor` lends what has changed."""
    while True:
        drawn = _draw(ground, donor, variant, rng, config)
        if drawn is not None:
            return drawn


def _draw(ground: Ground, donor: Ground, variant: int, rng: np.random.Generator, config: LayoutConfig) -> Layout | None:
    laid = _lay(ground, variant, rng, config)
    if laid is None:
        return None
    source_from_tile, offsets = laid
    n = config.pairs.view_px
    map_date, *days = rng.permutation(len(ground.dates))
    tile, tile_mask = sample(ground.dates[map_date], ground.valid, source_from_tile, n)
    if tile_mask.mean() < config.least_valid:
        return None
    tile = appearance.sensor(appearance.tone(tile, rng, 0.6), rng) if rng.random() < 0.5 else to_bytes(tile)
    tile[~tile_mask] = 0
    views = []
    for offset, footprint in zip(offsets, (config.large_px, config.small_px), strict=True):
        other = days and rng.random() >= config.pairs.same_date_share
        date = days[rng.integers(len(days))] if other else map_date
        pairs = replace(config.pairs, footprint_px=footprint)
        warp = source_from_tile @ _tile_from_view(offset, rng, pairs)
        views.append(_view(ground, donor, int(date), date == map_date, warp, rng, pairs, config.weather_share))
    return Layout((tile, tile_mask), views[0], views[1])


def _lay(
    ground: Ground, variant: int, rng: np.random.Generator, config: LayoutConfig
) -> tuple[np.ndarray, np.ndarray] | None:
    """(3, 3) from the tile's pixels to the ground's, and (2, 2), where the views' middles lie from the tile's: both in
    col, row. None where the second view would leave the ground."""
    n = config.pairs.view_px
    middle = np.full(2, (n - 1) / 2)
    metres = max(ground.metres_per_pixel, 0.45) * np.exp(rng.uniform(*np.log(config.resolution)))
    scale = float(np.clip(metres, *config.pairs.resolutions)) / ground.metres_per_pixel
    turn = variant % 4 * np.pi / 2
    if rng.random() < config.turned_share:
        turn += np.radians(rng.uniform(-1, 1) * config.turned_deg)
    size = np.array(ground.valid.shape[::-1])
    inside = np.maximum(size / 2 - 0.45 * config.large_px[1] * scale, 0.1 * size)
    first = (size - 1) / 2 + rng.uniform(-1, 1, 2) * inside  # where the large view's middle lies on the ground
    offsets = rng.uniform(-n / 4, n / 4, (2, 2))
    source_from_tile = similarity(scale, turn, np.zeros(2), middle)
    if variant >= 4:
        source_from_tile = source_from_tile @ np.array([[-1.0, 0, n - 1], [0, 1, 0], [0, 0, 1]])
    source_from_tile[:2, 2] += first - (source_from_tile @ [*(middle + offsets[0]), 1])[:2]
    second = (source_from_tile @ [*(middle + offsets[1]), 1])[:2]
    room = inside + 0.3 * (config.large_px[1] - config.small_px[1]) * scale
    return None if (np.abs(second - (size - 1) / 2) > room).any() else (source_from_tile, offsets)


def _tile_from_view(offset: np.ndarray, rng: np.random.Generator, config: PairConfig) -> np.ndarray:
    """(3, 3): the place, and the errors of a pose in heading, height and tilt."""
    middle = np.full(2, (config.view_px - 1) / 2)
    angle = np.radians(rng.uniform(-1, 1) * config.rotation_error_deg)
    zoom = np.exp(rng.uniform(-1, 1) * config.scale_error)
    lean = np.eye(3)
    lean[2, :2] = rng.normal(0, config.tilt / 2, 2)
    return similarity(zoom, angle, middle + offset, middle) @ about(middle) @ lean @ about(-middle)


def _view(
    ground: Ground,
    donor: Ground,
    date: int,
    same_date: bool,
    source_from_view: np.ndarray,
    rng: np.random.Generator,
    config: PairConfig,
    weather_share: float,
) -> Seen:
    n = config.view_px
    image, mask = sample(ground.dates[date], ground.valid, source_from_view, n)
    mask = mask & draw_footprint(n, rng, config)
    extra = donor.dates[rng.integers(len(donor.dates))]
    extra = cv2.resize(extra[:n, :n], (n, n)).astype(np.float32) / 255
    view = look(image, extra, rng, same_date)
    if rng.random() < weather_share:
        view = degrade(view, STYLES[1 + rng.integers(len(STYLES) - 1)], int(rng.integers(2**31)))
    view = np.where(mask[..., None], view, 0).astype(np.uint8)
    return view, mask
