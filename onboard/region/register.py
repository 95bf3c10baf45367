"""How far two pictures of one place lie apart: dates of a place are the same ground to a pixel only.

A pixel of 0.6 m is as much as a good fix errs, so a view of one date must have its truth in the frame of the date that
is the map, and a map of several dates says how far they are apart. SIFT keypoints of the whole picture vote for one
shift: the network has no part in it.
"""

from __future__ import annotations

import cv2
import numpy as np

_TOLERANCE_PX = 1.0  # of a match from the shift that it is counted for
_LEAST = 8  # matches that agree; fewer say nothing
_ROUNDS = 10


def shift_px(seen_rgb: np.ndarray, mapped_rgb: np.ndarray, most_px: float = 6.0) -> np.ndarray | None:
    """(2,) col, row in pixels: how much further on what lies in the first picture (H, W, 3) lies in the second.

    None where fewer than eight keypoints agree on less than `most_px` along each axis.
    """
    detector = cv2.SIFT.create(3000, contrastThreshold=0.02)
    found = [detector.detectAndCompute(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), None) for rgb in (seen_rgb, mapped_rgb)]
    (points, described), (others, of_others) = found
    if described is None or of_others is None:
        return None
    matches = cv2.BFMatcher(crossCheck=True).match(described, of_others)
    steps = np.array([np.subtract(others[m.trainIdx].pt, points[m.queryIdx].pt) for m in matches]).reshape(-1, 2)
    steps = steps[np.abs(steps).max(axis=1, initial=0.0) < most_px]
    if not len(steps):
        return None
    apart = np.linalg.norm(steps[:, None] - steps[None], axis=2)
    shift = steps[(apart < _TOLERANCE_PX).sum(axis=1).argmax()]  # the fullest spot, then the middle of what is near
    for _ in range(_ROUNDS):
        near = steps[np.linalg.norm(steps - shift, axis=1) < _TOLERANCE_PX]
        shift = np.median(near, axis=0)
    return shift if len(near) >= _LEAST else None
