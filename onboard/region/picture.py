"""The whole of a level as one small picture, without reading it into memory at once."""

from __future__ import annotations

import cv2
import numpy as np


def overview(image: np.ndarray, valid: np.ndarray, max_px: int) -> tuple[np.ndarray, np.ndarray]:
    """(rgb uint8 (h, w, 3), valid bool (h, w)) shrunk by a whole factor so that no side is longer than `max_px`.

    A pixel of the picture is the mean of the valid pixels below it; where there are none it is black. The last
    row and column may stand for fewer pixels than the others: the picture covers ceil(size / factor) * factor.
    """
    height, width = valid.shape
    factor = shrink_factor(valid.shape, max_px)
    rows, cols = -(-height // factor), -(-width // factor)
    rgb = np.zeros((rows, cols, 3), dtype=np.uint8)
    there = np.zeros((rows, cols), dtype=bool)
    for row in range(rows):
        strip_valid = np.asarray(valid[row * factor : (row + 1) * factor])
        if not strip_valid.any():
            continue
        padding = cols * factor - width
        strip = np.asarray(image[row * factor : (row + 1) * factor], dtype=np.float32)
        weight = np.pad(strip_valid.astype(np.float32), ((0, 0), (0, padding)))
        strip = np.pad(strip, ((0, 0), (0, padding), (0, 0))) * weight[..., None]
        share = cv2.resize(weight, (cols, 1), interpolation=cv2.INTER_AREA)[0]
        mean = cv2.resize(strip, (cols, 1), interpolation=cv2.INTER_AREA)[0]
        there[row] = share > 0
        rgb[row, there[row]] = np.rint(mean[there[row]] / share[there[row], None])
    return rgb, there


def shrink_factor(shape: tuple[int, ...], max_px: int) -> int:
    """By how much `overview` shrinks an array of this shape."""
    return -(-max(shape) // max_px)
