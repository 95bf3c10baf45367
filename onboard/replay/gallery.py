"""A few frames with what they matched, kept small while the replay runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from onboard.camera import CameraModel
from onboard.config import RectifyConfig
from onboard.frames import euler_from_rotation, rotation_from_quaternion, wrap_angle
from onboard.records import Fix, Frame, Step, Telemetry
from onboard.rectify import Rectifier
from onboard.replay.drawing import jpeg
from onboard.replay.mapview import Region

_VIEW_PX = 288
_CAMERA_PX = 420
_CHECKS = 6


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame of the gallery; the four pictures are JPEGs, `evidence` is that of the frame's own fix."""

    captured_at_ns: int
    published: bool
    camera_jpeg: bytes
    view_jpeg: bytes
    map_jpeg: bytes
    overlay_jpeg: bytes
    metres_across: float
    probability_right: float | None
    evidence: Mapping[str, float]
    reason: str


class Gallery:
    """Keeps at most `limit` samples of published frames, spread over the flight, and as many of refused ones.

    How long a flight is need not be known: when twice too many are kept, every other one goes and the stride
    doubles. Only what is kept is drawn, so most frames cost nothing.
    """

    def __init__(
        self,
        camera: CameraModel,
        body_from_camera: np.ndarray,
        region: Region,
        rectify: RectifyConfig = RectifyConfig(),
        limit: int = 6,
    ) -> None:
        self._rectifier = Rectifier(camera, body_from_camera, _VIEW_PX, rectify)
        self._region, self._limit = region, limit
        self._kept: dict[bool, list[Sample]] = {True: [], False: []}
        self._seen, self._stride = {True: 0, False: 0}, {True: 1, False: 1}

    def offer(self, frame: Frame | None, telemetry: object, step: Step) -> None:
        """Keep this frame if its turn has come and there is a place to show for it."""
        position = step.fix.position_enu_m if step.fix is not None else step.best_position_enu_m
        if frame is None or not isinstance(telemetry, Telemetry) or position is None:
            return
        if self._rectifier.check(frame, telemetry) is not None:
            return
        kind = step.published
        turn = self._seen[kind] % self._stride[kind] == 0
        self._seen[kind] += 1
        if not turn:
            return
        self._kept[kind].append(self._sample(frame, telemetry, step, position))
        if len(self._kept[kind]) >= 2 * self._limit:
            self._kept[kind] = self._kept[kind][::2]
            self._stride[kind] *= 2

    def samples(self) -> list[Sample]:
        """At most `limit`, published before refused, each in order of time."""
        published = _spread(self._kept[True], self._limit)
        refused = _spread(self._kept[False], self._limit - len(published))
        return published + refused

    def _sample(self, frame: Frame, telemetry: Telemetry, step: Step, position_enu_m: np.ndarray) -> Sample:
        seen = look(self._rectifier, self._region, frame, telemetry, step.fix, position_enu_m)
        shape = frame.image_bgr.shape
        shrink = _CAMERA_PX / max(shape[:2])
        small = cv2.resize(frame.image_bgr, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        return Sample(
            step.captured_at_ns,
            step.published,
            jpeg(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), 80),
            jpeg(seen.view_rgb, 80),
            jpeg(seen.map_rgb, 80),
            jpeg(checkerboard(seen.view_rgb, seen.map_rgb, seen.both), 80),
            seen.metres_across,
            step.fix.probability_right if step.fix is not None else None,
            dict(step.fix.evidence) if step.fix is not None else {},
            step.reason.value if step.reason is not None else "",
        )


@dataclass(frozen=True, slots=True)
class Look:
    """A frame laid on the ground and the map at the place where it was found: uint8 (N, N, 3), north up.

    `both` (N, N) is true where both hold ground; `centre_enu_m` (2,) is the middle of both pictures.
    """

    view_rgb: np.ndarray
    map_rgb: np.ndarray
    both: np.ndarray
    centre_enu_m: np.ndarray
    metres_across: float


def look(
    rectifier: Rectifier,
    region: Region,
    frame: Frame,
    telemetry: Telemetry,
    fix: Fix | None,
    position_enu_m: np.ndarray,
) -> Look:
    """Lay a frame (whose `Rectifier.check` passed) on the ground as `fix` saw it, the vehicle at the position (2,).

    The map is shown at the date that `fix` was found at.
    """
    scale, offset, view_px = 1.0, 0.0, rectifier.view_px
    if fix is not None:
        scale = fix.height_scale
        if math.isfinite(fix.heading_rad):
            told = euler_from_rotation(rotation_from_quaternion(telemetry.attitude_quat_wxyz))[2]
            offset = wrap_angle(fix.heading_rad - told)
    footprint = rectifier.footprint_enu_m(telemetry) * scale
    side_m = float((footprint.max(axis=0) - footprint.min(axis=0)).max())
    level = _level_for(region, side_m / view_px)
    metres_per_pixel = region.levels[level].metres_per_pixel
    view = rectifier.view(frame, telemetry, metres_per_pixel, offset, scale)
    centre = np.asarray(position_enu_m) + np.asarray(view.centre_from_vehicle_enu_m)
    map_rgb, map_mask = region.window(level, centre, view_px, 0 if fix is None else fix.map_date)
    return Look(view.image_rgb, map_rgb, view.mask & map_mask, centre, metres_per_pixel * view_px)


def _level_for(region: Region, metres_per_pixel: float) -> int:
    """The finest level in which nearly all of the ground seen fits the view."""
    for index, level in enumerate(region.levels):
        if level.metres_per_pixel >= 0.85 * metres_per_pixel:
            return index
    return len(region.levels) - 1


def checkerboard(view_rgb: np.ndarray, map_rgb: np.ndarray, both: np.ndarray) -> np.ndarray:
    """Squares of the view and of the map by turns: where they match, roads and edges run on across the squares.

    Both are (N, N, 3) uint8; where `both` (N, N) is false the map is shown, darkened. The view's colours are
    brought to the map's mean and spread, so that the eye compares shapes and not seasons.
    """
    n = view_rgb.shape[0]
    squares = (np.indices((n, n)) * _CHECKS // n).sum(axis=0) % 2 == 0
    out = (map_rgb * 0.45).astype(np.uint8)
    if not both.any():
        return out
    view, ground = view_rgb.astype(np.float32), map_rgb.astype(np.float32)
    mean_v, mean_m = view[both].mean(axis=0), ground[both].mean(axis=0)
    gain = np.clip((ground[both].std(axis=0) + 1) / (view[both].std(axis=0) + 1), 0.4, 2.5)
    toned = np.clip((view - mean_v) * gain + mean_m, 0, 255).astype(np.uint8)
    out[both] = map_rgb[both]
    out[both & squares] = toned[both & squares]
    return out


def _spread(samples: list[Sample], most: int) -> list[Sample]:
    if most <= 0 or not samples:
        return []
    if len(samples) <= most:
        return samples
    if most == 1:
        return [samples[len(samples) // 2]]
    return [samples[round(k * (len(samples) - 1) / (most - 1))] for k in range(most)]
