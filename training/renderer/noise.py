"""Smooth random fields from a seed: what keeps the ground from repeating itself."""

from __future__ import annotations

import cv2
import numpy as np

_CELL = 6  # pixels a grid cell at the resolution where a band is first drawn


def band(rng: np.random.Generator, shape: tuple[int, int], wavelength_px: float) -> np.ndarray:
    """Float32 field (rows, cols) of about zero mean and unit deviation, smooth below `wavelength_px`."""
    if wavelength_px > 2 * _CELL:
        # A long wave is drawn small and grown: the margin of a grid of large cells would cost memory.
        step = wavelength_px / _CELL
        small = band(rng, (int(shape[0] / step) + 2, int(shape[1] / step) + 2), _CELL)
        return cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)
    cell = max(1.0, wavelength_px)
    grid = rng.standard_normal((int(shape[0] / cell) + 4, int(shape[1] / cell) + 4), dtype=np.float32)
    grid *= 1.5  # interpolation between the grid's points loses a third of the deviation
    size = (round(grid.shape[1] * cell), round(grid.shape[0] * cell))
    grown = cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)
    start = round(1.5 * cell)
    return np.ascontiguousarray(grown[start : start + shape[0], start : start + shape[1]])


def octaves(
    rng: np.random.Generator, shape: tuple[int, int], wavelength_px: float, count: int, gain: float = 0.5
) -> np.ndarray:
    """Sum of `count` bands, each half as long and `gain` times as strong as the one before; deviation about 1."""
    total = band(rng, shape, wavelength_px)
    weight = 1.0
    power = 1.0
    for _ in range(count - 1):
        wavelength_px, weight = wavelength_px / 2, weight * gain
        if wavelength_px < 1.0:
            break
        cv2.scaleAdd(band(rng, shape, wavelength_px), weight, total, dst=total)
        power += weight**2
    total *= power**-0.5
    return total


def line(rng: np.random.Generator, count: int, wavelength: float) -> np.ndarray:
    """The same along one axis: float64 (count,), smooth below `wavelength` samples, deviation about 1."""
    sigma = max(wavelength / 4, 1e-3)
    reach = int(4 * sigma) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= np.sqrt((kernel**2).sum())  # unit deviation of filtered white noise
    return np.convolve(rng.standard_normal(count + 2 * reach), kernel, "valid")[:count]
