"""Heights of the ground in a region map: a coarse raster of posts, north up, in the map's own east and north.

Post (row, col) stands at east = west + (col + 0.5) * post, north = north - (row + 0.5) * post, as cells do. Heights
are metres on whatever datum their file has: only differences of two of them mean anything here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Elevation:
    """`heights_m` float32 (rows, cols), memory-mapped and read-only; nan where the ground's height is not known.

    West and north are the grid's outer edges.
    """

    post_m: float
    west_m: float
    north_m: float
    heights_m: np.ndarray

    def at(self, positions_enu_m: np.ndarray) -> np.ndarray:
        """Heights (N,) in metres below points (N, 2) east, north: bilinear between posts.

        nan beyond the outermost posts, and where one of the four posts round a point is not known.
        """
        east, north = np.asarray(positions_enu_m, dtype=float).reshape(-1, 2).T
        rows, cols = self.heights_m.shape
        row, col = (self.north_m - north) / self.post_m - 0.5, (east - self.west_m) / self.post_m - 0.5
        inside = (row >= 0) & (row <= rows - 1) & (col >= 0) & (col <= cols - 1)  # false for nan too
        row, col = np.where(inside, row, 0.0), np.where(inside, col, 0.0)
        top, left = np.minimum(row.astype(int), rows - 2), np.minimum(col.astype(int), cols - 2)
        down, right = row - top, col - left
        h = self.heights_m
        upper = h[top, left] * (1 - right) + h[top, left + 1] * right
        lower = h[top + 1, left] * (1 - right) + h[top + 1, left + 1] * right
        return np.where(inside, upper * (1 - down) + lower * down, np.nan)
