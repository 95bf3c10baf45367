"""Normalised cross-correlation over the whole map: the baseline that is easy to forget and hard to beat.

The view, at the told heading and height, is correlated with the imagery: grey levels, or gradient magnitudes. No
network, no search over rotations, no idea of being wrong.
"""

from __future__ import annotations

import cv2
import numpy as np

from calibration.trials.blocks import squares
from onboard.match.witness import gradient_magnitude
from onboard.records import GroundView
from onboard.region import Level
from onboard.region.level import cut


def best_place(level: Level, view: GroundView, grey: bool) -> np.ndarray:
    """(2,) east, north of the view's centre where the masked zero-mean correlation is highest."""
    rows, cols = np.flatnonzero(view.mask.any(axis=1)), np.flatnonzero(view.mask.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
    template = _signal(view.image_rgb, grey)[box]
    mask = cv2.erode(view.mask.astype(np.uint8), np.ones((5, 5), np.uint8))[box].astype(np.float32)
    middle = (np.array([rows[0] + rows[-1], cols[0] + cols[-1]]) - (len(view.mask) - 1)) / 2  # from the view's
    height, width = template.shape
    best, answer = -2.0, np.full(2, np.nan)
    for top, left, side in squares(level, max(height, width)):
        rgb, valid = cut(level.image, level.valid, top, left, side)
        score = masked_ncc(_signal(rgb, grey), valid.astype(np.float32), template, mask)
        i, j = np.unravel_index(int(score.argmax()), score.shape)
        if score[i, j] > best:
            best = float(score[i, j])
            row, col = top + i + (height - 1) / 2 - middle[0], left + j + (width - 1) / 2 - middle[1]
            answer = level.enu_of_pixel(row, col)
    return answer


def masked_ncc(image: np.ndarray, valid: np.ndarray, template: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Zero-mean normalised correlation over the pixels that both have; -1 where fewer than half are valid."""

    def correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return cv2.matchTemplate(a.astype(np.float32), b.astype(np.float32), cv2.TM_CCORR).astype(np.float64)

    image, template = image * valid, template * mask
    count = np.maximum(correlate(valid, mask), 1.0)
    sum_i, sum_t = correlate(image, mask), correlate(valid, template)
    cross = correlate(image, template) - sum_i * sum_t / count
    var_i = correlate(image * image, mask) - sum_i**2 / count
    var_t = correlate(valid, template * template) - sum_t**2 / count
    score = cross / np.sqrt(np.maximum(var_i, 1e-3) * np.maximum(var_t, 1e-3))
    score[(count < 0.5 * mask.sum()) | (var_i < 1.0) | (var_t < 1.0)] = -1.0
    return score


def _signal(rgb: np.ndarray, grey: bool) -> np.ndarray:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) if grey else gradient_magnitude(rgb)
