"""Visual odometry: how far the vehicle moved between two frames, by what both of them show of the ground.

Both frames are laid on the ground at one resolution, each with its own attitude; corners of the one are followed into
the other (Lucas and Kanade 1981, forward and back), and a similarity that most of them agree on says by how much the
ground seems to have moved. The map has no part in it, so it goes on where the ground has changed or too little of it is
seen; but what most of the picture shows must stay where it is, which waves do not. It drifts, so it never replaces a
fix; it says what happened between two.

What a lean of the attitude does to one view it does to the next: it drops out of the difference, but for its change.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import cv2
import numpy as np

from onboard.config import OdometryConfig
from onboard.frames import rotation_from_quaternion
from onboard.records import Frame, GroundView, Telemetry
from onboard.rectify import Rectifier

_CORNERS, _CORNER_QUALITY, _CORNERS_APART_PX = 200, 0.002, 12  # spread out, or a few trees speak for all
_WINDOW_PX, _PYRAMID_LEVELS = 21, 3
_BORDER_PX = 4  # of a view's mask, where the corner may be the mask's own
_THERE_AND_BACK_PX = 0.5
_INLIER_PX = 2.0
_LEAST_INLIERS, _LEAST_SHARE = 10, 0.4
_LEAST_WAY_PX, _LEAST_SPREAD_PX = 2.0, 8.0  # below which corners do not tell a turn from what stands high
_MOST_TURN_RAD, _MOST_ZOOM = 0.1, 0.1  # left between two views that were laid on the ground: more is a wrong match


@dataclass(frozen=True, slots=True)
class Moved:
    """From the point below the vehicle at one frame to that at the next, at the height that was told.

    `enu_m` (2,) east, north; of a vehicle that is `s` times as high as told it is `s` times as far. `sigma_m` is its
    error along each axis, of the pictures and the attitudes; that of the height comes on top. `turn_rad` is how far the
    second picture is turned clockwise against the first: by that the heading told has gone wrong in between, the other
    way round.
    """

    from_ns: int
    to_ns: int
    enu_m: np.ndarray
    sigma_m: float
    inliers: int
    turn_rad: float = 0.0

    @property
    def enu_mps(self) -> np.ndarray:
        """(2,) the mean velocity of the way."""
        return self.enu_m / ((self.to_ns - self.from_ns) * 1e-9)


class VisualOdometry:
    """Keeps the last frame, and compares the next one with it."""

    def __init__(self, rectifier: Rectifier, config: OdometryConfig) -> None:
        settings = dataclasses.replace(rectifier.config, min_height_m=config.min_height_m)
        self._rectifier = Rectifier(rectifier.camera, rectifier.body_from_camera, rectifier.view_px, settings)
        self.config = config
        self._last: tuple[Frame, Telemetry] | None = None

    @property
    def last_ns(self) -> int | None:
        """When the frame was taken that the next one is compared with."""
        return None if self._last is None else self._last[0].captured_at_ns

    def step(self, frame: Frame | None, telemetry: Telemetry | None) -> Moved | None:
        """How far it was from the last frame to this one; None where that cannot be said.

        A frame without a picture, or that cannot be laid on the ground, is passed over: the next one is compared with
        the last good one, as long as that is not older than `max_gap_s`.
        """
        if frame is None or telemetry is None or self._rectifier.check(frame, telemetry) is not None:
            return None
        before, self._last = self._last, (frame, telemetry)
        if before is None:
            return None
        gap_ns = frame.captured_at_ns - before[0].captured_at_ns
        if not 0 < gap_ns <= self.config.max_gap_s * 1e9:
            return None
        side_m = max(self._rectifier.ground_side_m(said) for said in (before[1], telemetry))
        metres_per_pixel = side_m / self._rectifier.view_px
        first, second = (self._rectifier.view(*one, metres_per_pixel) for one in (before, self._last))
        seen = _seen_in_both(first, second)
        if seen is None:
            return None
        way_px = _way(seen.first_px, seen.second_px, seen.turn_rad)
        moved = np.array([way_px[0], -way_px[1]]) * metres_per_pixel
        leaned_rad = _between_axes(before[1], telemetry) / (gap_ns * 1e-9) * self.config.timing_sigma_ms * 1e-3
        on_body = telemetry.gimbal_quat_wxyz is None
        attitude_deg = self.config.attitude_sigma_deg if on_body else self.config.gimbal_sigma_deg
        attitude_rad = math.hypot(math.radians(attitude_deg), leaned_rad)
        picture_m = self.config.picture_sigma_px * metres_per_pixel
        sigma_m = math.hypot(telemetry.height_above_ground_m * attitude_rad, picture_m)
        return Moved(before[0].captured_at_ns, frame.captured_at_ns, moved, sigma_m, len(seen.first_px), seen.turn_rad)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Corners of the ground that two views agree on: (n, 2) col, row in pixels from the point below the vehicle.

    `turn_rad`: by how much the second view is turned clockwise; by that the heading told has gone wrong.
    """

    first_px: np.ndarray
    second_px: np.ndarray
    turn_rad: float


def _way(first_px: np.ndarray, second_px: np.ndarray, turn_rad: float) -> np.ndarray:
    """(2,) col, row: how far the vehicle moved, over the middle of the corners: a rest of scale does not count."""
    cos, sin = math.cos(turn_rad), math.sin(turn_rad)
    return np.asarray(first_px.mean(axis=0) - np.array([[cos, sin], [-sin, cos]]) @ second_px.mean(axis=0))


def _turn_across(first_px: np.ndarray, second_px: np.ndarray, turn_rad: float) -> float:
    """The turn by what corners move across the way alone: what stands higher moves further, but along the way only.

    A wood on one side of the view and a field on the other would seem to turn otherwise. `turn_rad` is the turn of the
    whole, which stands where the way is too short, or the corners too close together along it, to tell.
    """
    found = turn_rad
    for _ in range(2):
        way = _way(first_px, second_px, found)
        length = float(np.linalg.norm(way))
        if length < _LEAST_WAY_PX:
            return turn_rad
        along = second_px @ way / length
        across = (first_px - second_px) @ np.array([-way[1], way[0]]) / length
        along, across = along - along.mean(), across - across.mean()
        if along.std() < _LEAST_SPREAD_PX:
            return turn_rad
        found = -float(along @ across) / float(along @ along)
    return found if abs(found) <= _MOST_TURN_RAD else turn_rad


def _seen_in_both(first: GroundView, second: GroundView) -> _Seen | None:
    """What Lucas and Kanade follow from one view to the other, as far as most of it agrees on one similarity."""
    pictures = [cv2.cvtColor(view.image_rgb, cv2.COLOR_RGB2GRAY) for view in (first, second)]
    inner = cv2.erode(first.mask.astype(np.uint8), np.ones((2 * _BORDER_PX + 1,) * 2, np.uint8))
    corners = cv2.goodFeaturesToTrack(pictures[0], _CORNERS, _CORNER_QUALITY, _CORNERS_APART_PX, mask=inner)
    if corners is None or len(corners) < _LEAST_INLIERS:
        return None
    there, went = _followed(pictures[0], pictures[1], corners)
    back, came = _followed(pictures[1], pictures[0], there)
    start, end = corners[:, 0], there[:, 0]
    closed = np.linalg.norm(back[:, 0] - start, axis=1) < _THERE_AND_BACK_PX
    good = went & came & closed & _inside(second.mask, end)
    if int(good.sum()) < _LEAST_INLIERS:
        return None
    start, end = start[good], end[good]
    found, agree = cv2.estimateAffinePartial2D(start, end, ransacReprojThreshold=_INLIER_PX)
    if found is None or int(agree.sum()) < max(_LEAST_INLIERS, _LEAST_SHARE * len(start)):
        return None
    zoom, turn = math.hypot(found[0, 0], found[1, 0]), math.atan2(found[1, 0], found[0, 0])
    if abs(zoom - 1) > _MOST_ZOOM or abs(turn) > _MOST_TURN_RAD:
        return None
    first_px, second_px = (
        _from_below(view, points[agree[:, 0] > 0]) for view, points in ((first, start), (second, end))
    )
    return _Seen(first_px, second_px, _turn_across(first_px, second_px, turn))


def _from_below(view: GroundView, points: np.ndarray) -> np.ndarray:
    """Pixels (n, 2) col, row of a view, counted from the point below the vehicle."""
    east, north = view.centre_from_vehicle_enu_m
    lever = np.array([east, -north]) / view.metres_per_pixel
    return np.asarray(points.astype(float) - (view.mask.shape[0] - 1) / 2 + lever)


def _followed(picture: np.ndarray, into: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points (n, 1, 2) of one picture lie in another, and which were found (n,)."""
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        picture, into, points, np.empty_like(points), winSize=(_WINDOW_PX, _WINDOW_PX), maxLevel=_PYRAMID_LEVELS
    )
    return found, status[:, 0] > 0


def _between_axes(one: Telemetry, other: Telemetry) -> float:
    """The angle in rad by which what carries the camera has leaned from one to the other: its vertical, or where its
    gimbal points."""
    axis = 2 if one.gimbal_quat_wxyz is None else 0
    first, second = (rotation_from_quaternion(said.carrier_quat_wxyz)[:, axis] for said in (one, other))
    return math.atan2(float(np.linalg.norm(np.cross(first, second))), float(first @ second))


def _inside(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which points (n, 2) col, row lie on the mask; what is not finite lies nowhere."""
    finite = np.isfinite(points).all(axis=1)
    col, row = np.rint(np.where(finite[:, None], points, -1)).astype(int).T
    there = (col >= 0) & (row >= 0) & (col < mask.shape[1]) & (row < mask.shape[0])
    there[there] = mask[row[there], col[there]]
    return there
