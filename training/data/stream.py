"""The pairs that the overhead network is trained on: pair number i is the same whoever draws it, and whenever.

Real pairs across dates come from NAIP, large ground of one date from the Namie orthophoto, relief and built-up change
from the project's renderer. Half of the batches are of one city: the tiles of a batch are each other's wrong answers,
and a map is of one city too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from torch.utils.data import Dataset

from training.data.ground import Ground, cut, naip_places, read_raster, split
from training.data.pairs import Pair, PairConfig, draw_pair
from training.data.weather import STYLES, degrade

CITIES = ("riverside", "long_beach", "chico")
LARGE = PairConfig()
# Most of a training is on smaller canvases of the same ground resolution: nearly twice the pairs in the same time.
SMALL = PairConfig(view_px=192, offset_px=48.0, footprint_px=(64.0, 250.0))


class Sample(TypedDict):
    """One pair, view first: image uint8 (2, 3, N, N), mask bool (2, 1, N, N), offset_px float32 (2,) row, col.

    moved_px float32 (2, N / 8, N / 8) row, col of each eighth pixel of the view, see `Pair`.
    """

    image: np.ndarray
    mask: np.ndarray
    offset_px: np.ndarray
    moved_px: np.ndarray


@dataclass(frozen=True)
class Mixture:
    """Where pairs come from, and what changes along a training: the canvas, and the weather after the first cycle."""

    data: str
    rendered: str = ""  # a folder of rendered pairs; empty: none
    rendered_share: float = 0.3
    namie_share: float = 0.15
    one_city_share: float = 0.5
    small_share: float = 0.85  # of a cycle's steps, the first ones
    weather_share: float = 0.15  # of the views, once the first cycle has learnt what clear ones look like


class PairStream(Dataset):  # type: ignore[type-arg]
    """Pairs 0 .. steps * batch - 1; pair i belongs to step i // batch. They make up `cycles` of one length."""

    def __init__(self, mixture: Mixture, steps: int, batch: int, seed: int, cycles: int = 1) -> None:
        self.mixture, self.steps, self.batch, self.seed, self.cycles = mixture, steps, batch, seed, cycles
        root = Path(mixture.data)
        self.cities = [split(naip_places(root / "naip", city))[0] for city in CITIES]
        rgb, valid, metres = read_raster(root / "namie" / "orthophoto_2017.tif")
        self.namie = cut(Ground("namie", (rgb,), valid, metres), 1024)
        self.naip = [ground for city in self.cities for ground in city]
        self.rendered = None
        if mixture.rendered:
            from training.data.rendered import RenderedPairs

            self.rendered = RenderedPairs(Path(mixture.rendered))

    def __len__(self) -> int:
        return self.steps * self.batch

    def __getitem__(self, index: int) -> Sample:
        step = index // self.batch
        cycle, along = divmod(step * self.cycles / self.steps, 1.0)
        config = SMALL if along < self.mixture.small_share else LARGE
        theme = np.random.default_rng([self.seed, 1, step])
        city = self.cities[theme.integers(len(self.cities))] if theme.random() < self.mixture.one_city_share else None
        rng = np.random.default_rng([self.seed, 0, index])
        while True:
            pair = self._draw(city, rng, config)
            if pair.view_mask.mean() >= 0.04 and pair.tile_mask.mean() >= 0.2:
                view = pair.view
                if cycle >= 1 and rng.random() < self.mixture.weather_share:
                    style = STYLES[1 + rng.integers(len(STYLES) - 1)]
                    view = degrade(view, style, int(rng.integers(2**31))) * pair.view_mask[..., None]
                return {
                    "image": np.stack([view, pair.tile]).transpose(0, 3, 1, 2),
                    "mask": np.stack([pair.view_mask, pair.tile_mask])[:, None],
                    "offset_px": pair.offset_px.astype(np.float32),
                    "moved_px": pair.moved_px.transpose(2, 0, 1),
                }

    def _draw(self, city: list[Ground] | None, rng: np.random.Generator, config: PairConfig) -> Pair:
        mixture = self.mixture
        if city is None:
            chance = rng.random() * (1 - mixture.one_city_share)
            if self.rendered and chance < mixture.rendered_share:
                return self.rendered.draw(rng, config)
            city = self.namie if 0 <= chance - mixture.rendered_share < mixture.namie_share else self.naip
        everything = len(self.naip) + len(self.namie)
        donor = (self.naip + self.namie)[rng.integers(everything)]
        return draw_pair(city[rng.integers(len(city))], donor, rng, config)
