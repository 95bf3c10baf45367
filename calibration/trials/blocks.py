"""A level's imagery in overlapping squares, so that a large map is worked on piece by piece."""

from __future__ import annotations

from collections.abc import Iterator

from onboard.match.correlate import covered_boxes
from onboard.region import Level

_BLOCK_PX = 512


def squares(level: Level, overlap_px: int) -> Iterator[tuple[int, int, int]]:
    """First row, first col and side in pixels of squares that overlap so far that all imagery is reached."""
    stride = round(level.cell_m / level.metres_per_pixel)
    margin = overlap_px // 2
    for row, col, rows, cols in covered_boxes(level) * stride:
        side = min(max(rows, cols), _BLOCK_PX) + 2 * margin
        step = side - overlap_px
        for top in range(row - margin, row + rows, step):
            for left in range(col - margin, col + cols, step):
                yield top, left, side
