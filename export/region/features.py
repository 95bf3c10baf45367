"""One pass of the model over a level: a descriptor for each window, a detail feature for each cell.

Windows of N pixels are N / 2 apart and hang over the region's edge by N / 4, so that the windows' middle halves
tile the region: every detail cell is written once, by the window in whose middle half it lies, where the network
sees at least N / 4 pixels around it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from export.region.grid import LevelGrid
from export.region.workspace import Workspace
from onboard.errors import MapError
from onboard.region.level import DETAIL_SCALE, cut

if TYPE_CHECKING:
    from onboard.engine import Embeddings, ModelFacts

MIN_VALID = 0.2  # share of a window that must be imagery for a descriptor
LEAST_VALID = 0.05  # the same for a patch of imagery that no window holds MIN_VALID of
BATCH = 8


class Embedder(Protocol):
    """The network as the building pass sees it."""

    @property
    def facts(self) -> ModelFacts: ...

    def embed(self, images_rgb: np.ndarray, masks: np.ndarray) -> Embeddings: ...


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Which windows are embedded. `embedded` and `described` are bool (rows, cols) of the window grid;
    window (i, j) begins at pixel ((i - 0.5) * step_px, (j - 0.5) * step_px) and is 2 * step_px wide."""

    step_px: int
    embedded: np.ndarray
    described: np.ndarray

    @property
    def descriptors(self) -> int:
        return int(self.described.sum())


def plan_windows(valid: np.ndarray, window_px: int) -> WindowPlan:
    """Choose the windows of a level from its `valid` (H, W).

    Embedded is what has imagery in its middle half, so that every valid cell gets its feature, and all that is
    described: windows with at least `MIN_VALID` of imagery, and beside them those with `LEAST_VALID` that hold no
    less of it than their neighbours, so that a patch of imagery smaller than a window can be found at all.
    """
    step = window_px // 2
    quarters = _counts(valid, step // 2)  # blocks of a quarter of a window
    halves = quarters[0::2, 0::2] + quarters[1::2, 0::2] + quarters[0::2, 1::2] + quarters[1::2, 1::2]
    padded = np.pad(quarters, 1)
    rows, cols = halves.shape
    whole = sum(padded[i : i + 2 * rows : 2, j : j + 2 * cols : 2] for i in range(4) for j in range(4))
    share = np.asarray(whole, dtype=np.float64) / window_px**2
    most_around = cv2.dilate(share, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0.0)
    least = min(LEAST_VALID, share.max())  # a map of one small patch has a descriptor, too
    described = (share >= MIN_VALID) | ((share >= least) & (share >= most_around))
    return WindowPlan(step, (halves > 0) | described, described)


def embed_level(
    workspace: Workspace,
    prefix: str,
    grid: LevelGrid,
    image: np.ndarray,
    valid: np.ndarray,
    plan: WindowPlan,
    embedder: Embedder,
    advance: Callable[[int], None],
) -> int:
    """Fill the feature arrays of a level row of windows by row, skipping finished ones; how many were embedded."""
    facts = embedder.facts
    cells = (grid.height_px // facts.detail_stride, grid.width_px // facts.detail_stride)
    detail = workspace.array(f"{prefix}/detail", (*cells, facts.detail_channels), np.int8)
    detail_valid = workspace.array(f"{prefix}/detail_valid", cells, np.uint8)
    descriptors = workspace.array(f"{prefix}/descriptors", (plan.descriptors, facts.descriptor_dim), np.float16)
    tiles = workspace.array(f"{prefix}/tiles", (plan.descriptors, 2), np.float64)
    first_of_row = np.concatenate([[0], np.cumsum(plan.described.sum(axis=1))])
    arrays = [array for array in (detail, detail_valid, descriptors, tiles) if isinstance(array, np.memmap)]
    embedded = 0
    for row in np.flatnonzero(plan.embedded.any(axis=1)):
        step = f"{prefix} row {row}"
        columns = np.flatnonzero(plan.embedded[row])
        if step not in workspace.done:
            next_tile = int(first_of_row[row])
            for first in range(0, len(columns), BATCH):
                batch = columns[first : first + BATCH]
                masks, found = _embed(embedder, image, valid, plan, int(row), batch)
                for index, col in enumerate(batch):
                    _write_detail(detail, detail_valid, found.detail[index], masks[index], int(row), int(col))
                    if plan.described[row, col]:
                        descriptors[next_tile] = found.descriptors[index]
                        east = grid.west_m + (col + 0.5) * plan.step_px * grid.metres_per_pixel
                        north = grid.north_m - (row + 0.5) * plan.step_px * grid.metres_per_pixel
                        tiles[next_tile] = east, north
                        next_tile += 1
            for array in arrays:
                array.flush()
            workspace.finish(step)
            embedded += len(columns)
        advance(len(columns))
    return embedded


def _embed(
    embedder: Embedder, image: np.ndarray, valid: np.ndarray, plan: WindowPlan, row: int, columns: np.ndarray
) -> tuple[np.ndarray, Embeddings]:
    """The masks (B, N, N) of a row's windows and what the network makes of them."""
    size, hang = 2 * plan.step_px, plan.step_px // 2
    cuts = [cut(image, valid, row * plan.step_px - hang, int(col) * plan.step_px - hang, size) for col in columns]
    windows, masks = np.stack([rgb for rgb, _ in cuts]), np.stack([mask for _, mask in cuts]).astype(bool)
    found = embedder.embed(windows, masks)
    if not (np.isfinite(found.descriptors).all() and np.isfinite(found.detail).all()):
        raise MapError("the model gave values that are not finite", embedder.facts.name, remedy="use another model")
    return masks, found


def _write_detail(
    detail: np.ndarray, detail_valid: np.ndarray, features: np.ndarray, mask: np.ndarray, row: int, col: int
) -> None:
    """Put the middle half of a window's features (h, w, C) where they belong; cells without imagery stay zero."""
    count = features.shape[0]
    quarter, half = count // 4, count // 2
    top, left = row * half, col * half
    rows, cols = min(half, detail.shape[0] - top), min(half, detail.shape[1] - left)
    share = cv2.resize(mask.astype(np.float32), (count, count), interpolation=cv2.INTER_AREA)
    share = share[quarter : quarter + rows, quarter : quarter + cols]
    middle = features[quarter : quarter + rows, quarter : quarter + cols]
    whole = np.clip(np.rint(middle * DETAIL_SCALE), -127, 127) * (share > 0)[..., None]
    detail[top : top + rows, left : left + cols] = whole
    detail_valid[top : top + rows, left : left + cols] = np.ceil(share * 255)


def _counts(valid: np.ndarray, block_px: int) -> np.ndarray:
    """Valid pixels in each block, read strip by strip; twice the whole number of windows a side, zeros beyond."""
    height, width = valid.shape
    rows, cols = (2 * -(-size // (2 * block_px)) for size in (height, width))
    counts = np.zeros((rows, cols), dtype=np.int64)
    starts = np.arange(0, width, block_px)
    for row in range(-(-height // block_px)):
        strip = np.asarray(valid[row * block_px : (row + 1) * block_px])
        counts[row, : len(starts)] = np.add.reduceat(strip.sum(axis=0, dtype=np.int64), starts)
    return counts
