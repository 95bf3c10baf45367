"""How well a head finds places that it never saw: what settings are chosen by, so that Claremont is only reported.

Views of one date of the places held back, over a gallery as a map lays it out: windows half a window apart, at any
phase, of another date of all places of the training cities.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from onboard.region.level import cut
from training.data.ground import Ground
from training.data.pairs import PairConfig, draw_footprint, sample, similarity
from training.descriptor.draw import LayoutConfig, Seen
from training.descriptor.grounds import held_back
from training.descriptor.head import DescriptorHead
from training.descriptor.store import cell_share
from training.descriptor.trunk import FrozenTrunk, Rounding

SIDE = 256
EACH = 3  # views of each kind of a place
OFFSET_PX = 30.0  # of a view's middle from its chip's, as `pilotage trial views` lays them
FOOTPRINTS = {"large": (150.0, 150.0), "small": (75.0, 75.0)}  # 90 and 45 m at 0.6 m/px


@dataclass(frozen=True)
class Gallery:
    """Trunk features uint8 and masks uint8 (255 is all) of tiles and views; `right[kind]` (Q,) the nearest tile,
    `holding[kind]` bool (Q, T), the tiles that hold a view's middle."""

    tiles: tuple[np.ndarray, np.ndarray]
    views: dict[str, tuple[np.ndarray, np.ndarray]]
    right: dict[str, np.ndarray]
    holding: dict[str, np.ndarray]
    rounding: Rounding


def make_gallery(data: Path, trunk: FrozenTrunk, seed: int = 7) -> Gallery:
    """The same gallery for the same seed and data."""
    rng = np.random.default_rng(seed)
    held, others = held_back(data)
    tiles: list[Seen] = []
    centres, of_ground = [], []
    for number, ground in enumerate([*held, *others]):
        for centre, seen in _windows(ground, rng):
            tiles.append(seen)
            centres.append(centre)
            of_ground.append(number)
    at, owner = np.array(centres), np.array(of_ground)
    views, right, holding = {}, {}, {}
    for kind, footprint in FOOTPRINTS.items():
        pictures, near, holds = [], [], []
        for number, ground in enumerate(held):
            for _ in range(EACH):
                middle, picture = _view(ground, footprint, rng)
                away = np.where((owner == number)[:, None], np.abs(at - middle), np.inf)
                pictures.append(picture)
                near.append(int(np.hypot(*away.T).argmin()))
                holds.append((away <= SIDE / 2).all(axis=1))
        views[kind], right[kind], holding[kind] = _embedded(trunk, pictures), np.array(near), np.array(holds)
    return Gallery(_embedded(trunk, tiles), views, right, holding, trunk.rounding)


def recalls(head: DescriptorHead, gallery: Gallery) -> dict[str, float]:
    """For each kind of view: the nearest tile first, among five, among 1 %; and any that holds its middle first."""
    tiles = describe(head, *gallery.tiles, gallery.rounding)
    out = {}
    for kind, pictures in gallery.views.items():
        scores = describe(head, *pictures, gallery.rounding) @ tiles.T
        own = scores[np.arange(len(scores)), gallery.right[kind]]
        rank = (scores >= own[:, None]).sum(axis=1)
        first = gallery.holding[kind][np.arange(len(scores)), scores.argmax(axis=1)]
        found = {"@1": rank <= 1, "@5": rank <= 5, "@1%": rank <= max(1, len(tiles) // 100), "holds": first}
        out |= {f"{kind} {name}": float(hits.mean()) for name, hits in found.items()}
    return out


def describe(head: DescriptorHead, features: np.ndarray, masks: np.ndarray, rounding: Rounding) -> np.ndarray:
    """(B, D) float32 of trunk bytes (B, C, n, n) and mask bytes (B, n, n)."""
    parts = []
    with torch.no_grad():
        for first in range(0, len(features), 64):
            chosen = slice(first, first + 64)
            parts.append(head(*to_numbers(features[chosen], masks[chosen], rounding)).numpy())
    return np.concatenate(parts)


def to_numbers(features: np.ndarray, masks: np.ndarray, rounding: Rounding) -> tuple[torch.Tensor, torch.Tensor]:
    """Bytes as `describe` takes them -> float (B, C, n, n) and (B, 1, n, n)."""
    trunk = (torch.from_numpy(np.ascontiguousarray(features)).float() - rounding.zero) * rounding.scale
    return trunk, torch.from_numpy(np.ascontiguousarray(masks))[:, None].float() / 255


def _windows(ground: Ground, rng: np.random.Generator) -> list[tuple[np.ndarray, Seen]]:
    """Windows of the first date on a grid of any phase: (middle (col, row), picture)."""
    height, width = ground.valid.shape
    step, phase = SIDE // 2, rng.integers(0, SIDE // 2, 2)
    valid, out = ground.valid.astype(np.uint8), []
    for left in range(int(phase[0]) - SIDE, width, step):
        for top in range(int(phase[1]) - SIDE, height, step):
            rgb, mask = cut(ground.dates[0], valid, top, left, SIDE)
            if mask.mean() >= LayoutConfig().least_valid:
                seen = np.where(mask[..., None] > 0, rgb, 0).astype(np.uint8), mask > 0
                out.append((np.array([left, top]) + (SIDE - 1) / 2, seen))
    return out


def _view(ground: Ground, footprint: tuple[float, float], rng: np.random.Generator) -> tuple[np.ndarray, Seen]:
    """A view of the last date under errors of heading and height: its middle (col, row) and the picture."""
    config = replace(PairConfig(), footprint_px=footprint)
    centre = (np.array(ground.valid.shape[::-1]) - 1) / 2 + rng.uniform(-OFFSET_PX, OFFSET_PX, 2)
    angle = np.radians(rng.uniform(-1, 1) * config.rotation_error_deg)
    warp = similarity(1 + rng.uniform(-0.1, 0.1), angle, centre, np.full(2, (SIDE - 1) / 2))
    image, mask = sample(ground.dates[-1], ground.valid, warp, SIDE)
    mask = mask & draw_footprint(SIDE, rng, config)
    return centre, (np.where(mask[..., None], image * 255, 0).astype(np.uint8), mask)


def _embedded(trunk: FrozenTrunk, pictures: list[Seen]) -> tuple[np.ndarray, np.ndarray]:
    images, masks = (np.stack([picture[k] for picture in pictures]) for k in (0, 1))
    parts = [trunk.features(images[i : i + 4], masks[i : i + 4]) for i in range(0, len(images), 4)]
    return np.concatenate(parts), cell_share(masks)
