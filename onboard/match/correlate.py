"""Correlate view templates with a region's detail raster, block by block, in the frequency domain.

The score of a template at a place is the sum of its products with the map's features there, over the square
root of the number of cells that have imagery: in -1..1, and a view that hangs over the map's edge is judged by
the part that lies on it. Overlap-save: a block of S cells yields S - T + 1 places for templates of T.
The spectra's product is a batched matrix product: all templates against all blocks at each frequency.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onboard.region.level import DETAIL_SCALE, Level

LARGE_BLOCK, SMALL_BLOCK = 128, 64
_BLOCKS_AT_ONCE = 8  # bounds the memory of the spectra: 8 blocks of 128 with 64 channels take 34 MB
_MIN_OVERLAP = 0.4


@dataclass(frozen=True, slots=True)
class ScoreBlock:
    """Scores of one block: the best over all templates and which template it was, (n, n) each.

    Element (i, j) puts the view's centre at detail cell (row + i, col + j), cells as in `Level.cell_of`.
    Places with too little map under the view hold -1.
    """

    row: float
    col: float
    score: np.ndarray
    template: np.ndarray


def block_size(cells_across: int, template_cells: int) -> int:
    """The smaller block where the whole search fits into it."""
    return SMALL_BLOCK if cells_across <= SMALL_BLOCK - template_cells + 1 else LARGE_BLOCK


def block_origins(level: Level, rows: tuple[int, int], cols: tuple[int, int], block: int, template: int) -> np.ndarray:
    """(B, 2) first row, col of the blocks that put the view's centre on cells rows[0]..rows[1] - 1, likewise cols.

    Blocks without a cell of imagery are left out.
    """
    step = block - template + 1
    half = (template - 1) // 2
    origins = []
    for row in range(rows[0] - half, rows[1] - half, step):
        for col in range(cols[0] - half, cols[1] - half, step):
            window = level.detail_valid[max(row, 0) : max(row + block, 0), max(col, 0) : max(col + block, 0)]
            if window.size and (window >= 128).any():
                origins.append((row, col))
    return np.array(origins, dtype=np.int64).reshape(-1, 2)


def correlate(
    level: Level, templates: np.ndarray, masks: np.ndarray, origins: np.ndarray, block: int
) -> list[ScoreBlock]:
    """Scores of templates (K, T, T, C) with masks bool (K, T, T) over the blocks at origins (B, 2)."""
    size = templates.shape[1]
    step = block - size + 1
    conjugate = _spectra(templates, block).conj()  # (F, K, C)
    mask_conjugate = _spectra(masks[..., None].astype(np.float32), block).conj()
    total = masks.sum(axis=(1, 2)).astype(np.float32)[:, None, None, None]
    found: list[ScoreBlock] = []
    for start in range(0, len(origins), _BLOCKS_AT_ONCE):
        part = origins[start : start + _BLOCKS_AT_ONCE]
        cells, valid = zip(*(_cut(level, row, col, block) for row, col in part), strict=True)
        scores = _inverse(conjugate @ _spectra(np.stack(cells), block).swapaxes(1, 2), block, step)
        count = _inverse(mask_conjugate @ _spectra(np.stack(valid), block).swapaxes(1, 2), block, step)
        scores /= np.sqrt(np.maximum(count, 0.25 * total))
        scores[count < _MIN_OVERLAP * total] = -1.0
        best = scores.argmax(axis=0)  # (blocks, step, step)
        top = np.take_along_axis(scores, best[None], axis=0)[0]
        centre = (size - 1) / 2
        for (row, col), score, template in zip(part, top, best.astype(np.int16), strict=True):
            found.append(ScoreBlock(float(row) + centre, float(col) + centre, score, template))
    return found


def _spectra(pictures: np.ndarray, block: int) -> np.ndarray:
    """(B, h, w, C) -> complex64 (F, B, C), zero-padded to the block."""
    planes = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), dtype=np.float32)
    spectrum = np.fft.rfft2(planes, s=(block, block)).astype(np.complex64, copy=False)
    batch, channels = spectrum.shape[:2]
    return np.ascontiguousarray(spectrum.reshape(batch, channels, -1).transpose(2, 0, 1))


def _inverse(product: np.ndarray, block: int, step: int) -> np.ndarray:
    """complex (F, K, B) -> float32 (K, B, step, step): the displacements at which a template lies inside."""
    planes = np.ascontiguousarray(product.transpose(1, 2, 0)).reshape(*product.shape[1:], block, block // 2 + 1)
    return np.fft.irfft2(planes, s=(block, block))[..., :step, :step].astype(np.float32, copy=False)


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
