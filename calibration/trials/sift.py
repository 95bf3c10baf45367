"""SIFT over the whole map: the other classical baseline.

Root-SIFT keypoints of the map are found once. A view's keypoints look for their like among all of them; each match
that passes the ratio test votes for a place of the view, the told heading and height taken for right, and among the
votes round the fullest spot a similarity is fitted by RANSAC. No network, no idea of being wrong.
"""

from __future__ import annotations

import cv2
import faiss
import numpy as np

from calibration.trials.blocks import squares
from onboard.records import GroundView
from onboard.region import Level
from onboard.region.level import cut

_RATIO = 0.9
_SPOT_PX = 40.0  # a bin of votes: what 6 degrees and 10 % move a keypoint at the edge of a view by
_TOLERANCE_PX = 4.0
_BORDER_PX = 8  # keypoints nearer to the edge of what is valid describe the edge


class SiftFinder:
    """Finds views on one level; the keypoints of the last level are kept."""

    def __init__(self) -> None:
        self._detector = cv2.SIFT_create(contrastThreshold=0.02)
        self._level: Level | None = None
        self._points = np.empty((0, 2), np.float32)
        self._index = faiss.IndexFlatL2(128)

    def __call__(self, level: Level, view: GroundView) -> np.ndarray:
        """(2,) east, north of the view's centre; NaN where nothing matched."""
        if level is not self._level:
            self._read(level)
        nowhere, middle = np.full(2, np.nan), (np.array(view.mask.shape[::-1]) - 1) / 2
        points, descriptors = self._describe(view.image_rgb, view.mask)
        if len(points) < 2 or self._index.ntotal < 2:
            return nowhere
        distance, found = self._index.search(descriptors, 2)
        kept = distance[:, 0] < _RATIO**2 * distance[:, 1]
        here, there = points[kept] - middle, self._points[found[kept, 0]]  # col, row
        if not len(here):
            return nowhere
        votes = there - here
        bins, at = np.unique((votes // _SPOT_PX).astype(int), axis=0, return_inverse=True)
        fullest = (bins[np.bincount(at.ravel()).argmax()] + 0.5) * _SPOT_PX
        near = np.abs(votes - fullest).max(axis=1) < _SPOT_PX
        centre = np.median(votes[near], axis=0)
        if near.sum() >= 3:
            matrix, _ = cv2.estimateAffinePartial2D(
                here[near].astype(np.float32), there[near], ransacReprojThreshold=_TOLERANCE_PX
            )
            if matrix is not None:
                centre = matrix[:, 2]  # of the view's middle, from which `here` counts
        return level.enu_of_pixel(centre[1], centre[0])

    def _read(self, level: Level) -> None:
        self._level, points = level, []
        self._index.reset()
        for top, left, side in squares(level, 2 * _BORDER_PX):
            rgb, valid = cut(level.image, level.valid, top, left, side)
            at, descriptors = self._describe(rgb, valid > 0)
            if len(at):
                points.append(at + np.array([left, top], np.float32))
                self._index.add(descriptors)
        self._points = np.concatenate(points) if points else np.empty((0, 2), np.float32)

    def _describe(self, rgb: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (n, 2) col, row float32 and their root-SIFT descriptors (n, 128) float32."""
        side = 2 * _BORDER_PX + 1
        inner = cv2.erode(mask.astype(np.uint8), np.ones((side, side), np.uint8), borderValue=0)
        found, raw = self._detector.detectAndCompute(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), inner)
        if raw is None:
            return np.empty((0, 2), np.float32), np.empty((0, 128), np.float32)
        rooted = np.sqrt(raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-6))
        return np.array([point.pt for point in found], np.float32), np.ascontiguousarray(rooted, np.float32)
