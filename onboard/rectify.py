"""Lay a camera frame on level ground: north up, at a map's resolution.

The ground is taken as a level plane at the told height. For each pixel of the view the ground point is
projected into the camera, lens distortion included, and the image is sampled there. Where the image is
finer than the view, it is shrunk by areas first, so that nothing aliases.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from onboard.camera import CameraModel
from onboard.config import RectifyConfig
from onboard.frames import ENU_FROM_NED, euler_from_rotation, rotation_from_quaternion
from onboard.records import Frame, GroundView, Reason, Telemetry

_GRID = 8  # pixels between the points that are projected exactly; between them sampling is bilinear


class Rectifier:
    """Makes ground views of `view_px` by `view_px` pixels from the frames of one mounted camera.

    `body_from_camera` (3, 3) is the mount, on the vehicle's body or, where telemetry tells of a gimbal, on that. The
    pyramid of shrunk images of the last frame is kept, since one frame is viewed under several hypotheses.
    """

    def __init__(
        self, camera: CameraModel, body_from_camera: np.ndarray, view_px: int, config: RectifyConfig = RectifyConfig()
    ) -> None:
        self.camera, self.body_from_camera, self.view_px, self.config = camera, body_from_camera, view_px, config
        self._shrunk: dict[int, tuple[np.ndarray, CameraModel]] = {}
        self._shrunk_of: np.ndarray | None = None

    def check(self, frame: Frame, telemetry: Telemetry) -> Reason | None:
        """Why this frame cannot be laid on the ground; None if it can."""
        attitudes = (telemetry.attitude_quat_wxyz, telemetry.carrier_quat_wxyz)
        if not np.isfinite((*attitudes[0], *attitudes[1], *(telemetry.velocity_ned_mps or ()))).all():
            return Reason.BAD_TELEMETRY
        if np.abs(np.linalg.norm(attitudes, axis=1) - 1).max() > 0.1:
            return Reason.BAD_TELEMETRY
        if not math.isfinite(telemetry.height_above_ground_m):
            return Reason.NO_HEIGHT
        if not self.config.min_height_m <= telemetry.height_above_ground_m <= self.config.max_height_m:
            return Reason.HEIGHT_OUT_OF_RANGE
        if frame.image_bgr is None or frame.image_bgr.ndim != 3 or frame.image_bgr.shape[2] != 3:
            return Reason.NO_IMAGE
        if frame.image_bgr.shape[:2] != (self.camera.height, self.camera.width):
            return Reason.NO_IMAGE
        if float(frame.image_bgr[::8, ::8].std()) < 2.0:
            return Reason.BLANK_IMAGE
        axis_down = (rotation_from_quaternion(telemetry.carrier_quat_wxyz) @ self.body_from_camera)[2, 2]
        if math.degrees(math.acos(max(-1.0, min(1.0, axis_down)))) > self.config.max_tilt_deg:
            return Reason.TILT_TOO_LARGE
        return None

    def footprint_enu_m(self, telemetry: Telemetry) -> np.ndarray:
        """Ground points (N, 2) east, north from the vehicle, seen along the image's border.

        Rays beyond `max_off_nadir_deg` are drawn in to that angle.
        """
        c = self.camera
        cols, rows = np.linspace(0, c.width - 1, 9), np.linspace(0, c.height - 1, 9)
        border = np.concatenate(
            [
                np.stack([cols, np.zeros(9)], 1),
                np.stack([np.full(9, c.width - 1.0), rows], 1),
                np.stack([cols[::-1], np.full(9, c.height - 1.0)], 1),
                np.stack([np.zeros(9), rows[::-1]], 1),
            ]
        )
        rotation = rotation_from_quaternion(telemetry.carrier_quat_wxyz) @ self.body_from_camera
        rays = c.rays(border) @ (ENU_FROM_NED @ rotation).T
        limit = math.tan(math.radians(self.config.max_off_nadir_deg))
        horizontal = np.hypot(rays[:, 0], rays[:, 1])
        reach = np.where(rays[:, 2] < 0, horizontal / np.maximum(-rays[:, 2], 1e-9), np.inf)
        reach = np.minimum(reach, limit)
        direction = rays[:, :2] / np.maximum(horizontal, 1e-12)[:, None]
        return telemetry.height_above_ground_m * reach[:, None] * direction

    def ground_side_m(self, telemetry: Telemetry) -> float:
        """The longer side of the ground seen, in metres, whatever the heading."""
        points = self.footprint_enu_m(telemetry)
        top, right, bottom, left = (np.linalg.norm(points[a] - points[a + 8]) for a in (0, 9, 18, 27))
        return float(max((top + bottom) / 2, (left + right) / 2))

    def view(
        self,
        frame: Frame,
        telemetry: Telemetry,
        metres_per_pixel: float,
        heading_offset_rad: float = 0.0,
        height_scale: float = 1.0,
    ) -> GroundView:
        """The view under one hypothesis: yaw turned by `heading_offset_rad`, height times `height_scale`.

        The view is centred on the middle of the ground seen. Call `check` first.
        """
        n = self.view_px
        cos, sin = math.cos(heading_offset_rad), math.sin(heading_offset_rad)
        turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])  # about NED down: clockwise
        ned_from_carrier = turn @ rotation_from_quaternion(telemetry.carrier_quat_wxyz)
        camera_from_enu = (ENU_FROM_NED @ ned_from_carrier @ self.body_from_camera).T
        height = telemetry.height_above_ground_m * height_scale

        footprint = self.footprint_enu_m(telemetry) * height_scale
        footprint = footprint @ np.array([[cos, -sin], [sin, cos]])  # the same turn, in east, north
        low, high = footprint.min(axis=0), footprint.max(axis=0)
        centre = (low + high) / 2

        # Project a coarse grid of ground points; grow it to the view's pixels.
        steps = np.arange(0, n + _GRID, _GRID) - (n - 1) / 2
        east = centre[0] + steps * metres_per_pixel
        north = centre[1] - steps * metres_per_pixel
        ground = np.stack([*(g.ravel() for g in np.meshgrid(east, north)), np.full(len(steps) ** 2, -height)], axis=1)
        image, camera = self._image_for(frame, metres_per_pixel * self.camera.focal_px / height)
        pixels, seen = camera.project(ground @ camera_from_enu.T)
        seen &= np.hypot(ground[:, 0], ground[:, 1]) <= height * math.tan(math.radians(self.config.max_off_nadir_deg))
        size = len(steps)
        grid = np.where(seen[:, None], pixels, 0.0).reshape(size, size, 2).astype(np.float32)
        whole = _grow(seen.reshape(size, size).astype(np.float32), n) > 0.999  # all four neighbours seen
        fine = _grow(grid, n)
        view = cv2.remap(image, fine[..., 0], fine[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask = (
            whole
            & (fine[..., 0] > -0.5)
            & (fine[..., 1] > -0.5)
            & (fine[..., 0] < camera.width - 0.5)
            & (fine[..., 1] < camera.height - 0.5)
        )
        rgb = cv2.cvtColor(view, cv2.COLOR_BGR2RGB)
        rgb[~mask] = 0
        heading = euler_from_rotation(turn @ rotation_from_quaternion(telemetry.attitude_quat_wxyz))[2]
        return GroundView(
            frame.captured_at_ns,
            rgb,
            mask,
            metres_per_pixel,
            (float(centre[0]), float(centre[1])),
            heading,
            heading_offset_rad,
            height_scale,
        )

    def _image_for(self, frame: Frame, shrink: float) -> tuple[np.ndarray, CameraModel]:
        """The frame shrunk by the largest whole factor that keeps it finer than the view."""
        if self._shrunk_of is not frame.image_bgr:
            self._shrunk, self._shrunk_of = {}, frame.image_bgr
        factor = max(1, int(shrink * 0.9))
        if factor not in self._shrunk:
            camera = self.camera.scaled(1 / factor)
            image = frame.image_bgr
            if factor > 1:
                image = cv2.resize(image, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
            self._shrunk[factor] = (image, camera)
        return self._shrunk[factor]


def _grow(grid: np.ndarray, n: int) -> np.ndarray:
    """Bilinear growth of a grid of values `_GRID` pixels apart to n by n."""
    at = np.arange(n, dtype=np.float32) / _GRID
    cols, rows = np.meshgrid(at, at)
    return cv2.remap(grid, cols, rows, cv2.INTER_LINEAR)
