"""Where the view may be: scores of all searched places, as a distribution in metres (UnifyGeo's D)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onboard.match.correlate import ScoreBlock
from onboard.region.level import Level


@dataclass(frozen=True, slots=True)
class Mode:
    """One peak. `position_enu_m` (2,) of the view's centre; `template` is the hypothesis that won there.

    `rank` counts from 0, the highest of the heatmap.
    """

    position_enu_m: np.ndarray
    score: float
    template: int
    rank: int = 0


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
        if not self.blocks:
            return []
        radius = distance_m / self.level.cell_m
        candidates: list[tuple[float, float, float, int]] = []
        for block in self.blocks:
            score = block.score.copy()
            for _ in range(count):
                i, j = np.unravel_index(int(score.argmax()), score.shape)
                if score[i, j] <= -1.0:
                    break
                row, col = _between_cells(block.score, int(i), int(j))
                candidates.append((float(score[i, j]), block.row + row, block.col + col, int(block.template[i, j])))
                _erase(score, int(i), int(j), radius)
        candidates.sort(key=lambda c: -c[0])
        kept: list[tuple[float, float, float, int]] = []
        for candidate in candidates:
            if all(np.hypot(candidate[1] - k[1], candidate[2] - k[2]) >= radius for k in kept):
                kept.append(candidate)
            if len(kept) == count:
                break
        return [
            Mode(self.level.enu_of(row, col), score, template, rank)
            for rank, (score, row, col, template) in enumerate(kept)
        ]


def _between_cells(score: np.ndarray, i: int, j: int) -> tuple[float, float]:
    """(row, col) of a peak, moved by less than half a cell along each axis by a parabola."""
    return i + _vertex(score[i - 1 : i + 2, j]), j + _vertex(score[i, j - 1 : j + 2])


def _vertex(three: np.ndarray) -> float:
    if len(three) < 3 or three.min() <= -1.0:
        return 0.0
    below, at, above = (float(v) for v in three)
    curve = below - 2 * at + above
    return float(np.clip(0.5 * (below - above) / curve, -0.5, 0.5)) if curve < -1e-9 else 0.0


def _erase(score: np.ndarray, i: int, j: int, radius: float) -> None:
    reach = int(np.ceil(radius))
    top, left = max(i - reach, 0), max(j - reach, 0)
    part = score[top : i + reach + 1, left : j + reach + 1]
    rows, cols = np.ogrid[top - i : top - i + part.shape[0], left - j : left - j + part.shape[1]]
    part[rows**2 + cols**2 < radius**2] = -1.0
