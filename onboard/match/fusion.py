"""Which candidates are looked at first: the network's opinion of them, and that of the imagery itself.

The network's detail cells are coarse, 8 pixels, and a small view holds few of them. So at each place that it likes, the
view's gradients are correlated with the map's, in cells of 4 pixels, a little around and under all hypotheses. What
comes out only orders the candidates: the evidence of a fix stays the network's own, and so does its calibration.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from onboard.match.heatmap import Mode
from onboard.match.witness import grey_level
from onboard.records import GroundView
from onboard.region.level import Level

STRIDE = 4  # pixels of a cell
REACH = 2  # cells around a candidate: one of the network's
_CHANNELS = 3
_MIN_OVERLAP = 0.4  # of a view must lie on imagery
_LEAST = 20  # modes that are compared whatever the view
_COMPARED = 1_600_000  # cells of a frame, over all modes and views: 256 of nine views of 26 by 26 cells
_RELEASE_EVERY = 8  # windows cut before the level's pages are given back
_EDGE = np.ones((5, 5), np.uint8)  # pixels along a mask's edge whose gradients are the edge's own


def directed_gradients(image_rgb: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of uint8 (H, W, 3) and bool (H, W), sides multiples of 4: float32 (h, w, 3), means over cells, and bool (h, w),
    which of them count.

    The square root of the gradient's magnitude, which tames single strong edges, and the same towards the cosine and
    the sine of twice its direction: an edge is the same one whichever of its sides is the brighter.
    """
    grey = grey_level(image_rgb)
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    squared = dx * dx + dy * dy
    magnitude = np.sqrt(np.sqrt(squared))
    share = magnitude / np.maximum(squared, 1e-6)
    channels = np.stack([magnitude, share * (dx * dx - dy * dy), share * (2 * dx * dy)], axis=-1)
    h, w = (side // STRIDE for side in mask.shape)
    inside = cv2.erode(mask.astype(np.uint8), _EDGE, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    cells = inside.reshape(h, STRIDE, w, STRIDE).mean(axis=(1, 3)) > 0.5
    return channels.reshape(h, STRIDE, w, STRIDE, _CHANNELS).mean(axis=(1, 3)), cells


class GradientCorrelation:
    """The views of one frame, ready to be correlated with the imagery at many places."""

    def __init__(self, views: Sequence[GroundView]) -> None:
        described = [directed_gradients(view.image_rgb, view.mask) for view in views]
        masks = np.stack([cells for _, cells in described])
        rim = _rim(np.asarray(masks.any(axis=0)))
        inner = slice(rim, masks.shape[1] - rim)
        self.side_cells = masks.shape[1] - 2 * rim
        self._masks = masks[:, inner, inner].reshape(len(views), -1).T.astype(np.float32)  # (P, K)
        signal = np.stack([channels for channels, _ in described])[:, inner, inner].reshape(len(views), -1, _CHANNELS)
        self._signal = signal.transpose(2, 1, 0) * self._masks  # (C, P, K)
        self._full = self._masks.sum(axis=0)

    def at(self, level: Level, centre_enu_m: np.ndarray) -> float:
        """The highest zero-mean normalised correlation, -1 to 1, of any view with its centre at a point (2,) or up to
        `REACH` cells from there; 0 where too little of the map has imagery."""
        window, valid = directed_gradients(*level.window(centre_enu_m, (self.side_cells + 2 * REACH) * STRIDE))
        there = _unfold(valid.astype(np.float32), self.side_cells)  # (D, P)
        whole = valid.all()
        there = there[:1] if whole else there  # the same wherever the view lies
        count = np.maximum(there @ self._masks, 1.0)  # (D, K), or (1, K)
        cross, map_power, view_power = np.zeros((3, (2 * REACH + 1) ** 2, len(self._full)), np.float32)
        for channel, signal in enumerate(self._signal):
            seen = _unfold(window[..., channel] * valid, self.side_cells)
            total, own = seen @ self._masks, there @ signal
            cross += seen @ signal - total * own / count
            map_power += (seen * seen) @ self._masks - total * total / count
            view_power += there @ (signal * signal) - own * own / count
        score = cross / np.sqrt(np.maximum(map_power, 1e-3) * np.maximum(view_power, 1e-3))
        return float(np.where(count >= _MIN_OVERLAP * self._full, score, 0.0).max())


def gradient_scores(
    views: Sequence[GroundView], modes: Sequence[Mode], dates: Sequence[Level], weight: float
) -> np.ndarray:
    """(M,) what gradients say for each mode, highest first: `weight` times their correlation there, in its own date.

    Those that are not compared are out, -inf: of a large view each costs more, and it is found among fewer.
    """
    correlation = GradientCorrelation(views)
    scores = np.full(len(modes), -np.inf)
    for k, mode in enumerate(modes[: compared(correlation.side_cells, len(views))]):
        scores[k] = weight * correlation.at(dates[mode.date], mode.position_enu_m)
        if k % _RELEASE_EVERY == 0:
            for level in dates:
                level.release()
    return scores


def compared(side_cells: int, views: int) -> int:
    """How many modes are compared with so many views, of so many cells by as many."""
    return max(_LEAST, _COMPARED // (side_cells**2 * views))


def _rim(seen: np.ndarray) -> int:
    """How many cells along all four edges of (n, n) hold nothing: views are small in their pictures, and centred."""
    taken = np.flatnonzero(seen.any(axis=0) | seen.any(axis=1))
    return int(min(taken[0], len(seen) - 1 - taken[-1])) if len(taken) else 0


def _unfold(cells: np.ndarray, side: int) -> np.ndarray:
    """(n, n) -> (D, side * side): all squares of `side` cells in it."""
    return np.lib.stride_tricks.sliding_window_view(cells, (side, side)).reshape(-1, side * side)
