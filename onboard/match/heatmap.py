"""Where the view may be: scores of all searched places, as a distribution in metres (UnifyGeo's D)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onboard.match.correlate import ScoreBlock
from onboard.region.level import Level


@dataclass(frozen=True, slots=True)
class Mode:
    """One peak. `position_enu_m` (2,) of the view's centre; `template` is the hypothesis that won there.

    `rank` counts from 0, the highest of the heatmap. `total` is what `onboard.match.ranking.rerank` orders modes by.
    `date` is the number of the map's date in which the view looks most like this place.
    """

    position_enu_m: np.ndarray
    score: float
    template: int
    rank: int = 0
    total: float = 0.0
    date: int = 0


@dataclass(frozen=True, slots=True)
class Heatmap:
    """Scores of one search over one level. `mean` and `deviation` are those of all places searched."""

    level: Level
    blocks: tuple[ScoreBlock, ...]
    mean: float
    deviation: float

    @staticmethod
    def of(level: Level, blocks: list[ScoreBlock]) -> Heatmap | None:
        """None where no place had enough map under the view."""
        scores = [block.score[block.score > -1.0] for block in blocks]
        everything = np.concatenate(scores) if scores else np.empty(0, np.float32)
        if not everything.size:
            return None
        return Heatmap(level, tuple(blocks), float(everything.mean()), float(everything.std() + 1e-6))

    def modes(self, count: int, distance_m: float) -> list[Mode]:
        """The highest peaks, best first, no two nearer than `distance_m`; refined between cells by parabolas."""
        radius = distance_m / self.level.cell_m
        left = [block.score.copy() for block in self.blocks]
        highest = np.array([score.max() for score in left])
        modes: list[Mode] = []
        while len(modes) < count and left and highest.max() > -1.0:
            best = int(highest.argmax())
            block = self.blocks[best]
            i, j = (int(v) for v in np.unravel_index(int(left[best].argmax()), block.score.shape))
            row, col = _between_cells(block.score, i, j)
            position = self.level.enu_of(block.row + row, block.col + col)
            score, template = float(block.score[i, j]), int(block.template[i, j])
            modes.append(Mode(position, score, template, len(modes), date=block.date))
            for k, other in enumerate(self.blocks):  # blocks may show the same places, dates do
                if _erase(left[k], round(block.row - other.row) + i, round(block.col - other.col) + j, radius):
                    highest[k] = left[k].max()
        return modes


def _between_cells(score: np.ndarray, i: int, j: int) -> tuple[float, float]:
    """(row, col) of a peak, moved by less than half a cell along each axis by a parabola."""
    return i + _vertex(score[i - 1 : i + 2, j]), j + _vertex(score[i, j - 1 : j + 2])


def _vertex(three: np.ndarray) -> float:
    if len(three) < 3 or three.min() <= -1.0:
        return 0.0
    below, at, above = (float(v) for v in three)
    curve = below - 2 * at + above
    return float(np.clip(0.5 * (below - above) / curve, -0.5, 0.5)) if curve < -1e-9 else 0.0


def _erase(score: np.ndarray, i: int, j: int, radius: float) -> bool:
    """Take out what is nearer than `radius` to (i, j), which may lie outside; False where nothing is."""
    reach = int(np.ceil(radius))
    if not (-reach <= i < score.shape[0] + reach and -reach <= j < score.shape[1] + reach):
        return False
    top, left = max(i - reach, 0), max(j - reach, 0)
    part = score[top : i + reach + 1, left : j + reach + 1]
    rows, cols = np.ogrid[top - i : top - i + part.shape[0], left - j : left - j + part.shape[1]]
    part[rows**2 + cols**2 < radius**2] = -1.0
    return True
