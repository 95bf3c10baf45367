"""Correlate view templates with a region's detail raster, block by block, in the frequency domain.

The score of a template at a place is the sum of its products with the map's features there, over the square
root of the number of cells that have imagery: in -1..1, and a view that hangs over the map's edge is judged by
the part that lies on it. Overlap-save: a block of S cells yields S - T + 1 places for templates of T.
The spectra's product is a batched matrix product: some templates against some blocks at each frequency. How many at
once is bounded, so that a search under 72 hypotheses needs no more memory than one under 18.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

import cv2
import numpy as np

from onboard.region.level import DETAIL_SCALE, Level

LARGE_BLOCK, SMALL_BLOCK = 128, 64
# Operands of one product: 4 blocks of 128 with 32 channels take 9 MB, 18 templates 38, where all of 72 would be 153.
_BLOCKS_AT_ONCE = 4
_TEMPLATES_AT_ONCE = 18
_APART = 8  # cells: pieces of imagery nearer than this share their blocks
_MIN_OVERLAP = 0.4


@dataclass(frozen=True, slots=True)
class ScoreBlock:
    """Scores of one block: the best over all templates and which template it was, (n, n) each.

    Element (i, j) puts the view's centre at detail cell (row + i, col + j), cells as in `Level.cell_of`.
    Places with too little map under the view hold -1. `date` is that of the map that was searched: its number.
    """

    row: float
    col: float
    score: np.ndarray
    template: np.ndarray
    date: int = 0


def block_size(cells_across: int, template_cells: int) -> int:
    """The smaller block where the whole search fits into it."""
    return SMALL_BLOCK if cells_across <= SMALL_BLOCK - template_cells + 1 else LARGE_BLOCK


def covered_boxes(level: Level) -> np.ndarray:
    """(P, 4) row, col, rows, cols of the pieces of imagery: a region may be chips far apart."""
    valid = (np.asarray(level.detail_valid) >= 128).astype(np.uint8)
    grown = cv2.dilate(valid, np.ones((_APART, _APART), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(grown)
    boxes = []
    for label in range(1, len(stats)):
        left, top, width, height, _ = stats[label]
        inside = (labels[top : top + height, left : left + width] == label) & (
            valid[top : top + height, left : left + width] > 0
        )
        rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        boxes.append((top + rows[0], left + cols[0], rows[-1] - rows[0] + 1, cols[-1] - cols[0] + 1))
    return np.array(boxes, dtype=np.int64).reshape(-1, 4)


def block_origins(box: tuple[int, int, int, int], block: int, template: int) -> list[tuple[int, int]]:
    """First row, col of the blocks that put the view's centre on every cell of a box (row, col, rows, cols)."""
    step = block - template + 1
    half = (template - 1) // 2
    row, col, rows, cols = (int(v) for v in box)
    return [
        (r, c) for r in range(row - half, row - half + rows, step) for c in range(col - half, col - half + cols, step)
    ]


def covering_origins(boxes: np.ndarray, block: int, template: int) -> list[tuple[int, int]]:
    """`block_origins` of all boxes (P, 4), without blocks that would show only what those before them show.

    A block shows more than a small box: chips of imagery side by side share it.
    """
    step, half = block - template + 1, (template - 1) // 2
    if not len(boxes):
        return []
    shown = np.zeros((boxes[:, [0, 1]] + boxes[:, [2, 3]]).max(axis=0), bool)
    chosen = []
    for box in boxes:
        bottom, right = box[:2] + box[2:]
        for origin in block_origins(tuple(box), block, template):
            row, col = origin[0] + half, origin[1] + half
            if not shown[row : min(row + step, bottom), col : min(col + step, right)].all():
                shown[row : row + step, col : col + step] = True
                chosen.append(origin)
    return chosen


@dataclass(frozen=True, slots=True)
class Spectra:
    """complex64 (C, F) of a block's features, (1, F) of its validity: None where imagery is everywhere."""

    features: np.ndarray
    valid: np.ndarray | None


class SpectrumCache:
    """Spectra of a level's blocks, kept up to a limit: the map does not change in flight.

    A search of the whole map asks for all blocks in the same order every time. Where they do not all fit, what came
    last makes room: were it what came first, each block would be gone just before its turn.
    """

    def __init__(self, level: Level, limit_mb: float) -> None:
        self.level, self._limit = level, int(limit_mb * 1e6)
        self._kept: dict[tuple[int, int, int], Spectra | None] = {}
        self._bytes = 0

    def get(self, row: int, col: int, block: int) -> Spectra | None:
        """None where the block has no imagery."""
        key = (row, col, block)
        if key in self._kept:
            return self._kept[key]
        cells, valid = _cut(self.level, row, col, block)
        spectra = None
        if valid.any():
            spectra = Spectra(_spectra(cells), None if valid.all() else _spectra(valid))
        self._bytes += _size(spectra)
        while self._bytes > self._limit and self._kept:
            self._bytes -= _size(self._kept.popitem()[1])
        self._kept[key] = spectra
        return spectra


def _size(spectra: Spectra | None) -> int:
    if spectra is None:
        return 0
    return spectra.features.nbytes + (0 if spectra.valid is None else spectra.valid.nbytes)


def correlate(
    cache: SpectrumCache,
    templates: np.ndarray,
    masks: np.ndarray,
    origins: list[tuple[int, int]],
    block: int,
    date: int = 0,
) -> list[ScoreBlock]:
    """Scores of templates (K, T, T, C) with masks bool (K, T, T) over the blocks that start at `origins`.

    `date` is the number of the map's date that `cache` holds.
    """
    step = block - templates.shape[1] + 1
    shape = (len(origins), step, step)
    best = _Best(np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int16))
    parts = -(-len(templates) // _TEMPLATES_AT_ONCE)
    ends = [len(templates) * k // parts for k in range(parts + 1)]
    for first, last in itertools.pairwise(ends):
        _search(cache, templates[first:last], masks[first:last], origins, block, best, first)
    centre = (templates.shape[1] - 1) / 2
    return [
        ScoreBlock(row + centre, col + centre, score, template, date)
        for (row, col), score, template in zip(origins, best.score, best.template, strict=True)
        if score[0, 0] > -np.inf
    ]


@dataclass(frozen=True, slots=True)
class _Best:
    """The best so far at each place of each block, (blocks, n, n) each; -inf in blocks without imagery."""

    score: np.ndarray
    template: np.ndarray

    def take(self, index: int, scores: np.ndarray, first: int) -> None:
        """Scores (K, n, n) of the templates from number `first` on in one block; of equal ones the earlier stays."""
        which = scores.argmax(axis=0)
        top = np.take_along_axis(scores, which[None], axis=0)[0]
        higher = top > self.score[index]
        np.copyto(self.score[index], top, where=higher)
        np.copyto(self.template[index], which + first, where=higher, casting="unsafe")


def _search(
    cache: SpectrumCache,
    templates: np.ndarray,
    masks: np.ndarray,
    origins: list[tuple[int, int]],
    block: int,
    best: _Best,
    first: int,
) -> None:
    """Try a few templates, the first of which has number `first`, on all blocks."""
    step = best.score.shape[-1]
    conjugate = _template_spectra(templates, block)  # (F, K, C)
    mask_conjugate = _template_spectra(masks[..., None].astype(np.float32), block)
    total = masks.sum(axis=(1, 2)).astype(np.float32)[:, None, None]
    for start in range(0, len(origins), _BLOCKS_AT_ONCE):
        few = origins[start : start + _BLOCKS_AT_ONCE]
        features = np.empty((conjugate.shape[2], conjugate.shape[0], len(few)), np.complex64)  # (C, F, blocks)
        present: list[tuple[int, np.ndarray | None]] = []
        for index, origin in enumerate(few, start):
            spectra = cache.get(*origin, block)
            if spectra is not None:
                features[..., len(present)] = spectra.features
                present.append((index, spectra.valid))
        if block == LARGE_BLOCK:
            cache.level.release()  # a search of the whole map looks at all of it
        if not present:
            continue
        scores = _inverse(conjugate @ features[..., : len(present)].swapaxes(0, 1), block, step)
        for k, (index, valid) in enumerate(present):
            there = scores[:, k]
            if valid is None:  # imagery everywhere: nothing to count
                there /= np.sqrt(total)
            else:
                count = np.rint(_inverse(mask_conjugate @ valid.T[..., None], block, step)[:, 0])
                there /= np.sqrt(np.maximum(count, 0.25 * total))
                there[count < _MIN_OVERLAP * total] = -1.0
            best.take(index, there, first)


def _template_spectra(pictures: np.ndarray, block: int) -> np.ndarray:
    """(K, T, T, C) -> conjugate spectra, complex64 (F, K, C), zero-padded to the block."""
    count, rows, cols, channels = pictures.shape
    out = np.empty((block * (block // 2 + 1), count, channels), np.complex64)
    padded = np.zeros((block, block, channels), np.float32)
    for k, picture in enumerate(pictures):  # one by one: together they would be the largest thing in memory
        padded[:rows, :cols] = picture
        out[:, k] = _spectra(padded).conj().T
    return out


def _spectra(picture: np.ndarray) -> np.ndarray:
    """float32 (S, S, C) -> complex64 (C, F), F = S * (S / 2 + 1). OpenCV's real transform is the fastest at hand."""
    size, _, channels = picture.shape
    half = size // 2
    out = np.empty((channels, size, half + 1), np.complex64)
    for k, plane in enumerate(np.ascontiguousarray(picture.transpose(2, 0, 1))):
        packed = cv2.dft(plane)
        out.real[k, :, 1:half], out.imag[k, :, 1:half] = packed[:, 1:-1:2], packed[:, 2:-1:2]
        # The first and the last column are those of real rows: packed downwards, the other half mirrors them.
        for column, source in ((0, packed[:, 0]), (half, packed[:, -1])):
            out[k, [0, half], column] = source[[0, -1]]
            out.real[k, 1:half, column], out.imag[k, 1:half, column] = source[1:-1:2], source[2:-1:2]
            out[k, half + 1 :, column] = out[k, half - 1 : 0 : -1, column].conj()
    return out.reshape(channels, -1)


def _inverse(product: np.ndarray, block: int, step: int) -> np.ndarray:
    """complex (F, K, B) -> float32 (K, B, step, step): the displacements at which a template lies inside.

    `irfft2` in two steps, so that rows which are not asked for are left out of the second.
    """
    planes = np.ascontiguousarray(product.transpose(1, 2, 0)).reshape(*product.shape[1:], block, block // 2 + 1)
    rows = np.fft.ifft(planes, axis=-2)[..., :step, :]
    return np.fft.irfft(rows, n=block)[..., :step].astype(np.float32, copy=False)


def _cut(level: Level, row: int, col: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 (S, S, C) features and (S, S, 1) validity from cell (row, col) on; zero outside the region."""
    height, width, channels = level.detail.shape
    cells = np.zeros((block, block, channels), np.float32)
    valid = np.zeros((block, block, 1), np.float32)
    rows = slice(max(row, 0), min(row + block, height))
    cols = slice(max(col, 0), min(col + block, width))
    if rows.start < rows.stop and cols.start < cols.stop:
        there = slice(rows.start - row, rows.stop - row), slice(cols.start - col, cols.stop - col)
        valid[there] = (level.detail_valid[rows, cols] >= 128)[..., None]
        cells[there] = level.detail[rows, cols] * (valid[there] / np.float32(DETAIL_SCALE))
    return cells, valid


def promising(
    level: Level, origins: list[tuple[int, int]], block: int, tiles: np.ndarray, limit: int
) -> list[tuple[int, int]]:
    """The `limit` blocks that hold the best retrieved tiles."""
    middle = np.array(origins, dtype=float) + block / 2
    chosen: set[int] = set()
    for tile in tiles:
        row, col = level.cell_of(tile)
        chosen.add(int(np.abs(middle - [float(row), float(col)]).max(axis=1).argmin()))
        if len(chosen) == limit:
            break
    return [origins[i] for i in sorted(chosen)]


def within(block: ScoreBlock, row: int, col: int, reach: int) -> ScoreBlock:
    """Places further than `reach` cells from row, col are taken out of a block: a strong one would hide a near one."""
    score = block.score.copy()
    rows, cols = np.ogrid[: score.shape[0], : score.shape[1]]
    score[(block.row + rows - row) ** 2 + (block.col + cols - col) ** 2 > reach**2] = -1.0
    return dataclasses.replace(block, score=score)
