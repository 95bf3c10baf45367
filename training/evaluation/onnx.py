"""The overhead model as it flies: the ONNX file through the onboard engine.

A picture of another size is scaled to the model's square, whatever its shape: right for the square pictures of
University-1652 and its like, a squash for panoramas, of which this model has seen none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from onboard.engine import open_engine
from onboard.match.template import cell_mask, zero_mean
from training.benchmarks.base import Benchmark
from training.evaluation.describer import Match, Seen

_MIN_OVERLAP = 0.4  # share of the view's cells that must lie on the tile, as onboard/match/correlate.py


class OnnxDescriber:
    """Describes with the global descriptor, matches by correlating the view's detail map with the tile's."""

    def __init__(self, path: Path | None = None) -> None:
        self._engine = open_engine(path)
        facts = self._engine.facts
        self.name = facts.name
        self.facts: Mapping[str, str] = {
            "model": facts.name,
            "sha256": facts.sha256,
            "precision": facts.metadata.get("precision", ""),
        }
        self._side = facts.view_px
        self._stride = facts.detail_stride

    def describe_queries(self, pictures: Sequence[Seen]) -> np.ndarray:
        """See `Describer.describe_queries`; views and tiles share the network."""
        return self._engine.embed(*self._fitted(pictures)).descriptors

    describe_references = describe_queries

    def can_match(self, benchmark: Benchmark) -> bool:
        """Only where a view can be laid on a tile as it is."""
        return benchmark.same_scale

    def match(self, queries: Sequence[Seen], references: Sequence[Seen]) -> Match:
        """See `Describer.match`. The place is that of the view's centre, between cells by a parabola."""
        views, view_masks = self._fitted(queries)
        tiles, tile_masks = self._fitted(references)
        view_cells, tile_cells = (cell_mask(masks, self._stride) for masks in (view_masks, tile_masks))
        templates = zero_mean(self._engine.embed(views, view_masks).detail, view_cells)
        detail = self._engine.embed(tiles, tile_masks).detail * tile_cells[..., None]
        scores = correlate(templates, view_cells, detail, tile_cells)
        reach = scores.shape[1] // 2
        places, best = [], []
        for score in scores:
            row, col = np.unravel_index(int(score.argmax()), score.shape)
            best.append(float(score[row, col]))
            places.append([_vertex(score[:, col], int(row)) - reach, _vertex(score[row], int(col)) - reach])
        cells = self._side / self._stride
        return Match(0.5 + np.array(places) / cells, np.array(best, dtype=np.float32))

    def _fitted(self, pictures: Sequence[Seen]) -> tuple[np.ndarray, np.ndarray]:
        """(B, N, N, 3) and (B, N, N) at the model's size; what is masked is black, as the rectifier leaves it."""
        fitted = [fit(rgb, mask, self._side) for rgb, mask in pictures]
        return np.stack([rgb for rgb, _ in fitted]), np.stack([mask for _, mask in fitted])


def fit(rgb: np.ndarray, mask: np.ndarray, side: int) -> Seen:
    """A picture at `side` by `side` pixels: by areas where it shrinks, linearly where it grows."""
    if rgb.shape[:2] != (side, side):
        how = cv2.INTER_AREA if min(rgb.shape[:2]) >= side else cv2.INTER_LINEAR
        rgb = cv2.resize(rgb, (side, side), interpolation=how)
        mask = cv2.resize(mask.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST) > 0
    return np.where(mask[..., None], rgb, 0).astype(np.uint8), mask


def correlate(templates: np.ndarray, view_cells: np.ndarray, detail: np.ndarray, tile_cells: np.ndarray) -> np.ndarray:
    """(B, n + 1, n + 1): scores in -1..1 of each template (B, n, n, C) over its own map (B, n, n, C), displaced by
    -n/2..n/2 cells; -1 where too little of the view lies on valid map. Scores as `training.losses.correlate`."""
    n = templates.shape[1]
    size = 2 * n

    def cross(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        a, b = (np.fft.rfft2(x.astype(np.float32), s=(size, size), axes=(1, 2)) for x in (left, right))
        full = np.fft.irfft2((a.conj() * b).sum(axis=3), s=(size, size), axes=(1, 2))
        index = np.arange(-(n // 2), n // 2 + 1) % size
        return full[:, index][:, :, index]

    count = np.round(cross(view_cells[..., None], tile_cells[..., None]))
    total = np.maximum(view_cells.sum(axis=(1, 2)), 1)[:, None, None]
    scores = cross(templates, detail) / np.sqrt(np.maximum(count, 0.25 * total))
    return np.where(count >= _MIN_OVERLAP * total, scores, -1.0)


def _vertex(line: np.ndarray, at: int) -> float:
    """The peak of a parabola through the best element and its neighbours."""
    if at in (0, len(line) - 1):
        return float(at)
    before, middle, after = (float(v) for v in line[at - 1 : at + 2])
    curve = before - 2 * middle + after
    if min(before, after) <= -1.0 or not curve < -1e-9:
        return float(at)
    return at + float(np.clip(0.5 * (before - after) / curve, -0.5, 0.5))
