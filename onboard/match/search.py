"""One resolution of a map, at all of its dates, ready to be searched: everywhere, or round a place."""

from __future__ import annotations

import math

import numpy as np

from onboard.match.correlate import (
    LARGE_BLOCK,
    ScoreBlock,
    SpectrumCache,
    block_origins,
    block_size,
    correlate,
    covered_boxes,
    covering_origins,
    promising,
    within,
)
from onboard.match.retrieve import TileIndex
from onboard.region import Level


class LevelSearch:
    """`dates` share one grid. What a search of all of it would compute again each time is kept, up to `spectra_mb`."""

    def __init__(self, dates: tuple[Level, ...], spectra_mb: float) -> None:
        self.dates = dates
        self._spectra = [SpectrumCache(level, spectra_mb / len(dates)) for level in dates]
        self._boxes = [covered_boxes(level) for level in dates]
        self._index: TileIndex | None = None

    def retrieve(self, descriptors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions (n, 2) and similarities (n,) of the tiles most like any of the descriptors (K, D)."""
        if self._index is None:
            self._index = TileIndex(*self.dates)
        found, similarities = self._index.search(descriptors, count)
        return self._index.tiles[found], similarities

    def everywhere(
        self, templates: np.ndarray, masks: np.ndarray, tiles: np.ndarray, max_blocks: int
    ) -> list[ScoreBlock]:
        """Scores of templates (K, T, T, C) with masks (K, T, T); of too many blocks, those of the retrieved tiles."""
        most, size = max(1, max_blocks // len(self.dates)), templates.shape[1]
        blocks = []
        for date, level in enumerate(self.dates):
            origins = covering_origins(self._boxes[date], LARGE_BLOCK, size)
            if len(origins) > most:
                origins = promising(level, origins, LARGE_BLOCK, tiles, most)
            blocks += correlate(self._spectra[date], templates, masks, origins, LARGE_BLOCK, date)
        return blocks

    def around(
        self, templates: np.ndarray, masks: np.ndarray, centre_enu_m: np.ndarray, radius_m: float
    ) -> list[ScoreBlock]:
        """The same with a view's centre no further than `radius_m` (and a cell) from a point (2,)."""
        level, size = self.dates[0], templates.shape[1]
        row, col = (round(float(v)) for v in level.cell_of(centre_enu_m))
        reach = math.ceil(radius_m / level.cell_m) + 1
        block = block_size(2 * reach + 1, size)
        origins = block_origins((row - reach, col - reach, 2 * reach + 1, 2 * reach + 1), block, size)
        blocks = []
        for date, at_date in enumerate(self.dates):
            cache = SpectrumCache(at_date, 0.0)  # the next frame's blocks begin elsewhere
            blocks += correlate(cache, templates, masks, origins, block, date)
        return [within(block, row, col, reach) for block in blocks]
