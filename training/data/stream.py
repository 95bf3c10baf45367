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
from training.schedule import Canvas, Stage, canvas_at, place_of, total_steps

CITIES = ("riverside", "long_beach", "chico")


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
    """Where pairs come from."""

    data: str
    rendered: str = ""  # a folder of rendered pairs; empty: none
    rendered_share: float = 0.3
    namie_share: float = 0.15
    one_city_share: float = 0.5


class PairStream(Dataset):  # type: ignore[type-arg]
    """The pairs of a training by (step, number in its batch); `batches` tells which there are."""

    def __init__(self, mixture: Mixture, stages: tuple[Stage, ...], seed: int) -> None:
        self.mixture, self.stages, self.seed = mixture, stages, seed
        root = Path(mixture.data)
        self.cities = [split(naip_places(root / "naip", city))[0] for city in CITIES]
        rgb, valid, metres = read_raster(root / "namie" / "orthophoto_2017.tif")
        self.namie = cut(Ground("namie", (rgb,), valid, metres), 1024)
        self.naip = [ground for city in self.cities for ground in city]
        self.rendered = None
        if mixture.rendered:
            from training.data.rendered import RenderedPairs

            self.rendered = RenderedPairs(Path(mixture.rendered))

    def batches(self, first: int = 0) -> list[list[tuple[int, int]]]:
        """What to draw at each step from `first` on."""
        steps = range(first, total_steps(self.stages))
        return [[(step, number) for number in range(self.canvas(step).batch)] for step in steps]

    def canvas(self, step: int) -> Canvas:
        """The canvas that all pairs of a step share."""
        at = place_of(step, self.stages)
        where = at.step / at.stage.steps
        if at.stage.mixed:
            where = np.random.default_rng([self.seed, 2, step]).random()
        return canvas_at(at.stage, where)

    def __getitem__(self, which: tuple[int, int]) -> Sample:
        step, number = which
        at, config = place_of(step, self.stages), self.canvas(step).pairs
        theme = np.random.default_rng([self.seed, 1, step])
        city = self.cities[theme.integers(len(self.cities))] if theme.random() < self.mixture.one_city_share else None
        rng = np.random.default_rng([self.seed, 0, at.first_pair + number])
        while True:
            pair = self._draw(city, rng, config)
            if pair.view_mask.mean() >= 0.04 and pair.tile_mask.mean() >= 0.2:
                view = pair.view
                if at.stage.weather_share and rng.random() < at.stage.weather_share:
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
