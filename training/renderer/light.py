"""The sun on a surface model: slopes turned to it are brighter, what stands in its way throws a shadow."""

from __future__ import annotations

import math

import cv2
import numpy as np

_SHADOW_REACH_M = 64.0  # nothing in a place is high enough to throw a longer shadow that matters


def shade(
    surface_m: np.ndarray, metres_per_pixel: float, azimuth_deg: float, elevation_deg: float
) -> tuple[np.ndarray, np.ndarray]:
    """(lambert, lit), both float32 (H, W): direct light over that of level ground, and 0 in shadow to 1 in sun.

    `azimuth_deg` clockwise from north is where the sun stands.
    """
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    right, down = math.sin(azimuth), -math.cos(azimuth)  # towards the sun, row and column grow down and right
    slope = 1.0 / (2 * metres_per_pixel)
    lambert = cv2.filter2D(
        surface_m, cv2.CV_32F, np.array([[slope, 0, -slope]], np.float32) * (right / math.tan(elevation))
    )
    lambert += cv2.filter2D(
        surface_m, cv2.CV_32F, np.array([[slope], [0], [-slope]], np.float32) * (down / math.tan(elevation))
    )
    # The normal's length is left out: it only darkens walls, which are a pixel wide from above.
    lambert += 1.0
    np.clip(lambert, 0.25, 1.7, out=lambert)
    return lambert, _lit(surface_m, metres_per_pixel, right, down, math.tan(elevation))


def _lit(surface_m: np.ndarray, metres_per_pixel: float, right: float, down: float, slope: float) -> np.ndarray:
    """Shadows by doubling: the height of the shadow's ceiling over 1, 2, 4 ... steps towards the sun."""
    ceiling = surface_m - 0.25
    height, width = surface_m.shape
    steps = 1
    start = np.full_like(surface_m, -1e4)
    while steps * metres_per_pixel <= _SHADOW_REACH_M:
        cols, rows = round(right * steps), round(down * steps)
        gone_m = math.hypot(cols, rows) * metres_per_pixel
        to_rows, from_rows = _overlap(rows, height)
        to_cols, from_cols = _overlap(cols, width)
        moved = ceiling[from_rows, from_cols] - np.float32(gone_m * slope)
        if steps == 1:
            start[to_rows, to_cols] = moved
            ceiling = start
        else:
            ceiling[to_rows, to_cols] = np.maximum(ceiling[to_rows, to_cols], moved)
        steps *= 2
    dark = (ceiling > surface_m).astype(np.float32)
    return 1.0 - cv2.GaussianBlur(dark, (0, 0), 0.35 / metres_per_pixel + 0.25)


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Where to write, and where to read, so that result[i] = source[i + shift]."""
    return (slice(0, size - shift), slice(shift, size)) if shift >= 0 else (slice(-shift, size), slice(0, size + shift))
