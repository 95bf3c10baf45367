"""One resolution of a region map: imagery, detail raster and window descriptors on one grid.

| index     | integer at                | east                            | north                            |
|-----------|---------------------------|---------------------------------|----------------------------------|
| pixel     | the centre of a pixel     | west + (col + 0.5) * m per px   | north - (row + 0.5) * m per px   |
| cell      | the centre of a cell      | west + (col + 0.5) * cell       | north - (row + 0.5) * cell       |
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import cv2
import numpy as np

DETAIL_SCALE = 127.0  # a detail feature of unit norm is kept as round(feature * 127)
_WHOLE_PX = 1e-4  # shifts smaller than this are none: no blur, no lost border


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """One resolution; all arrays are memory-mapped and read-only.

    `image` uint8 (H, W, 3) RGB, 0 where there is no imagery; `valid` uint8 (H, W), 1 where there is;
    `detail` int8 (h, w, C), unit-norm features times 127; `detail_valid` uint8 (h, w), the share of a cell's
    pixels that is valid, 255 is all; `descriptors` float16 (n, D), unit norm; `tiles` float64 (n, 2) the east,
    north of the centres of the `tile_px` windows that they describe. West and north are the grid's outer edges.
    """

    metres_per_pixel: float
    west_m: float
    north_m: float
    cell_m: float
    tile_px: int
    image: np.ndarray
    valid: np.ndarray
    detail: np.ndarray
    detail_valid: np.ndarray
    descriptors: np.ndarray
    tiles: np.ndarray

    def pixel_of(self, position_enu_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row, col) in pixels of points (2,) or (..., 2) east, north."""
        return self._index_of(position_enu_m, self.metres_per_pixel)

    def cell_of(self, position_enu_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row, col) in detail cells of points (2,) or (..., 2) east, north."""
        return self._index_of(position_enu_m, self.cell_m)

    def enu_of(self, row: np.ndarray | float, col: np.ndarray | float) -> np.ndarray:
        """Points (..., 2) east, north of detail cells; the inverse of `cell_of`."""
        return self._enu_of(row, col, self.cell_m)

    def enu_of_pixel(self, row: np.ndarray | float, col: np.ndarray | float) -> np.ndarray:
        """Points (..., 2) east, north of pixels; the inverse of `pixel_of`."""
        return self._enu_of(row, col, self.metres_per_pixel)

    def _index_of(self, position_enu_m: np.ndarray, step_m: float) -> tuple[np.ndarray, np.ndarray]:
        position = np.asarray(position_enu_m, dtype=float)
        return (self.north_m - position[..., 1]) / step_m - 0.5, (position[..., 0] - self.west_m) / step_m - 0.5

    def _enu_of(self, row: np.ndarray | float, col: np.ndarray | float, step_m: float) -> np.ndarray:
        east = self.west_m + (np.asarray(col, dtype=float) + 0.5) * step_m
        north = self.north_m - (np.asarray(row, dtype=float) + 0.5) * step_m
        return np.stack(np.broadcast_arrays(east, north), axis=-1)

    def window(self, centre_enu_m: np.ndarray, size_px: int) -> tuple[np.ndarray, np.ndarray]:
        """(rgb uint8 (n, n, 3), mask bool (n, n)), the middle of the grid, ((n - 1) / 2, (n - 1) / 2), at the point.

        Bilinear between pixels; what touches a pixel without imagery, or lies outside the region, is masked.
        """
        row, col = self.pixel_of(centre_enu_m)
        top, down = _whole_and_part(float(row) - (size_px - 1) / 2)
        left, right = _whole_and_part(float(col) - (size_px - 1) / 2)
        rgb, valid = cut(self.image, self.valid, top, left, size_px + 1)
        if down > 0 or right > 0:
            middle = ((size_px - 1) / 2 + right, (size_px - 1) / 2 + down)
            rgb = cv2.getRectSubPix(rgb, (size_px, size_px), middle)
        else:
            rgb = rgb[:-1, :-1]
        if down > 0:
            valid = valid & np.roll(valid, -1, axis=0)  # the last row, which wraps, is left out below
        if right > 0:
            valid = valid & np.roll(valid, -1, axis=1)
        mask = np.ascontiguousarray(valid[:-1, :-1])
        return cv2.bitwise_and(rgb, rgb, mask=mask), mask.astype(bool)

    def release(self) -> None:
        """Give back the pages of the files that this process looked at: they count as its memory, and round each of
        them the kernel maps its neighbours too. They stay in the file cache as long as the machine has room."""
        for array in (self.image, self.valid, self.detail, self.detail_valid):
            if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                array.base.madvise(mmap.MADV_DONTNEED)


def cut(image: np.ndarray, valid: np.ndarray, top: int, left: int, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Copies (n, n, 3) and (n, n) of image and valid from pixel (top, left) on; what lies outside is zero."""
    rgb = np.zeros((size_px, size_px, 3), dtype=np.uint8)
    mask = np.zeros((size_px, size_px), dtype=np.uint8)
    height, width = valid.shape
    first_row, last_row = max(top, 0), min(top + size_px, height)
    first_col, last_col = max(left, 0), min(left + size_px, width)
    if first_row < last_row and first_col < last_col:
        there = slice(first_row - top, last_row - top), slice(first_col - left, last_col - left)
        rgb[there] = image[first_row:last_row, first_col:last_col]
        mask[there] = valid[first_row:last_row, first_col:last_col]
    return rgb, mask


def _whole_and_part(index: float) -> tuple[int, float]:
    """The integer below an index and the rest, in which almost nothing counts as nothing."""
    whole = int(np.floor(index + _WHOLE_PX))
    part = index - whole
    return whole, part if part > _WHOLE_PX else 0.0
