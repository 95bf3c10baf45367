"""How far another date of a map lies off the map's own: as far as fixes err that are found there."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from export.region.dates import Image
from onboard.region.register import shift_px

_BLOCK_PX, _BLOCKS = 64, 3  # squares of 192 pixels fit into chips of 256 wherever those lie
_PLACES = 60  # at most, evenly over what both dates show
_LEAST_VALID = 0.9
_MOST_PX = 25.0


def offset_m(own: Image, other: Image, metres_per_pixel: float) -> tuple[float, float] | None:
    """(east, north) in metres, to a centimetre: the median over places of both images (H, W, 3) with valid (H, W).

    None where keypoints say nothing, or the dates lie further apart than 25 pixels.
    """
    places = _places(own[1], other[1])
    chosen = places[:: max(1, math.ceil(len(places) / _PLACES))]
    found = [shift_px(np.asarray(other[0][at]), np.asarray(own[0][at]), _MOST_PX) for at in chosen]
    shifts = [shift for shift in found if shift is not None]
    if not shifts:
        return None
    col, row = np.median(shifts, axis=0) * metres_per_pixel  # from the other date to the map's own
    return round(float(-col), 2), round(float(row), 2)


def _places(own: np.ndarray, other: np.ndarray) -> list[tuple[slice, slice]]:
    """Squares of whole blocks of which both dates, valid (H, W), show nearly all; of a map smaller than that, all."""
    rows, cols = (size // _BLOCK_PX for size in own.shape)
    if min(rows, cols) < _BLOCKS:
        return [(slice(None), slice(None))]
    counts = np.zeros((rows, cols))
    for row in range(rows):  # strip by strip: a map may be larger than memory
        strip = slice(row * _BLOCK_PX, (row + 1) * _BLOCK_PX), slice(0, cols * _BLOCK_PX)
        both = np.asarray(own[strip] & other[strip]).sum(axis=0)
        counts[row] = both.reshape(cols, _BLOCK_PX).sum(axis=1)
    whole = sliding_window_view(counts, (_BLOCKS, _BLOCKS)).sum(axis=(2, 3))
    side = _BLOCKS * _BLOCK_PX
    return [
        (slice(row, row + side), slice(col, col + side))
        for row, col in _BLOCK_PX * np.argwhere(whole > _LEAST_VALID * side * side)
    ]
