"""Camera models: pinhole with Brown-Conrady or rational distortion, and the equidistant fisheye.

Pixels are (col, row) with the centre of the first pixel at (0, 0), as in OpenCV and in ROS camera_info.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml

from onboard.errors import CameraError

# Number of coefficients that each ROS distortion model may have.
_MODELS = {"plumb_bob": (0, 4, 5), "rational_polynomial": (8,), "equidistant": (0, 4)}


@dataclass(frozen=True)
class CameraModel:
    """Intrinsics of one camera. `matrix` is (3, 3); `distortion` as ROS camera_info orders it."""

    width: int
    height: int
    matrix: np.ndarray
    distortion: tuple[float, ...]
    distortion_model: str = "plumb_bob"

    def __post_init__(self) -> None:
        if self.distortion_model not in _MODELS:
            raise CameraError("distortion model", self.distortion_model, "one of " + ", ".join(_MODELS))
        if len(self.distortion) not in _MODELS[self.distortion_model]:
            counts = " or ".join(map(str, _MODELS[self.distortion_model]))
            raise CameraError("distortion coefficients", len(self.distortion), f"{counts} for {self.distortion_model}")
        if self.width <= 0 or self.height <= 0:
            raise CameraError("image size", f"{self.width}x{self.height}", "positive numbers of pixels")
        matrix = np.asarray(self.matrix, dtype=float)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
            raise CameraError(
                "camera matrix", matrix.tolist(), "3x3 with positive focal lengths", "calibrate the camera"
            )
        if not np.isfinite(self.distortion).all():
            raise CameraError("distortion coefficients", self.distortion, "finite numbers", "calibrate the camera")
        object.__setattr__(self, "matrix", matrix)

    @property
    def is_fisheye(self) -> bool:
        return self.distortion_model == "equidistant"

    @property
    def focal_px(self) -> float:
        return float(math.sqrt(self.matrix[0, 0] * self.matrix[1, 1]))

    def scaled(self, factor: float) -> CameraModel:
        """The same camera after its image was resized by `factor` (< 1 shrinks), pixel centres kept right."""
        matrix = self.matrix.copy()
        matrix[:2] *= factor
        matrix[:2, 2] += 0.5 * factor - 0.5
        size = (max(1, round(self.width * factor)), max(1, round(self.height * factor)))
        return CameraModel(*size, matrix, self.distortion, self.distortion_model)

    def project(self, points_camera_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, 2) of points (N, 3) in the camera frame, and which of them the camera sees (N,).

        A distortion polynomial folds back beyond the field of view; points further from the axis than the
        image's own corners (and a margin) count as unseen. Seen points may still lie outside the image.
        """
        points = np.asarray(points_camera_m, dtype=np.float64)
        ahead = points[:, 2] > 1e-6
        safe = np.where(ahead[:, None], points, [0.0, 0.0, 1.0])
        pixels = self._project_flat(safe[:, :2] / safe[:, 2:])
        tangent = np.hypot(safe[:, 0], safe[:, 1]) / safe[:, 2]
        return pixels, ahead & (np.arctan(tangent) <= self.half_field_rad * 1.1)

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """Unit vectors (N, 3) in the camera frame through pixels (N, 2): the inverse of `project`."""
        pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
        if self.is_fisheye:
            return self._fisheye_rays(pixels)
        coefficients = np.array(self.distortion or (0.0, 0.0, 0.0, 0.0))
        flat = cv2.undistortPoints(pixels[:, None], self.matrix, coefficients).reshape(-1, 2)
        focal = np.diag(self.matrix)[:2]
        for _ in range(20):  # OpenCV stops after five rounds, a pixel short for strong lenses
            miss = pixels - self._project_flat(flat)
            flat = flat + miss / focal
            if np.abs(miss).max() < 1e-6:
                break
        rays = np.concatenate([flat, np.ones((len(pixels), 1))], axis=1)
        return rays / np.linalg.norm(rays, axis=1, keepdims=True)

    def _fisheye_rays(self, pixels: np.ndarray) -> np.ndarray:
        """As `rays`, solved for the angle: a corner beyond 90 degrees lies on no plane ahead of the lens."""
        offset = (pixels - self.matrix[:2, 2]) / np.diag(self.matrix)[:2]
        radius = np.hypot(offset[:, 0], offset[:, 1])
        k1, k2, k3, k4 = self.distortion or (0.0, 0.0, 0.0, 0.0)
        angle = radius.copy()
        for _ in range(20):  # Newton; the slope is held up where the polynomial folds back
            s = angle * angle
            miss = angle * (1 + s * (k1 + s * (k2 + s * (k3 + s * k4)))) - radius
            slope = 1 + s * (3 * k1 + s * (5 * k2 + s * (7 * k3 + s * 9 * k4)))
            angle = np.clip(angle - miss / np.maximum(slope, 0.1), 0.0, math.pi)
        aside = np.sin(angle) / np.maximum(radius, 1e-12)
        return np.concatenate([offset * aside[:, None], np.cos(angle)[:, None]], axis=1)

    def _project_flat(self, flat: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) of points (N, 2) on the plane one metre ahead."""
        points = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)[:, None]
        coefficients = np.array(self.distortion or (0.0, 0.0, 0.0, 0.0))
        zero = np.zeros(3)
        project = cv2.fisheye.projectPoints if self.is_fisheye else cv2.projectPoints
        return project(points, zero, zero, self.matrix, coefficients)[0].reshape(-1, 2)

    @property
    def half_field_rad(self) -> float:
        """Largest angle from the optical axis that falls into the image (its farthest corner)."""
        cached = self.__dict__.get("_half_field_rad")
        if cached is None:
            corners = np.array(
                [[0, 0], [self.width - 1, 0], [0, self.height - 1], [self.width - 1, self.height - 1]], dtype=float
            )
            cached = float(np.arccos(np.clip(self.rays(corners)[:, 2], -1, 1)).max())
            object.__setattr__(self, "_half_field_rad", cached)
        return cached

    @staticmethod
    def from_yaml(path: Path | str) -> CameraModel:
        """Read a ROS camera_info YAML (image_width, camera_matrix, distortion_model, ...)."""
        path = Path(path)
        if not path.is_file():
            raise CameraError("no camera file", path, "a ROS camera_info YAML", "calibrate, or copy camera.yaml there")
        try:
            text = yaml.safe_load(path.read_text())
            return CameraModel(
                int(text["image_width"]),
                int(text["image_height"]),
                np.array(text["camera_matrix"]["data"], dtype=float).reshape(3, 3),
                tuple(float(v) for v in text["distortion_coefficients"]["data"]),
                str(text["distortion_model"]),
            )
        except (KeyError, TypeError, ValueError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise CameraError(
                "unreadable camera file", f"{path} ({error!r})", "a ROS camera_info YAML", "see README, flight folder"
            ) from error

    def to_yaml(self, path: Path | str, name: str = "camera") -> None:
        """Write the ROS camera_info YAML that `from_yaml` reads."""
        matrix = [float(v) for v in self.matrix.ravel()]
        projection = np.hstack([self.matrix, np.zeros((3, 1))])
        text = {
            "image_width": self.width,
            "image_height": self.height,
            "camera_name": name,
            "camera_matrix": {"rows": 3, "cols": 3, "data": matrix},
            "distortion_model": self.distortion_model,
            "distortion_coefficients": {"rows": 1, "cols": len(self.distortion), "data": list(self.distortion)},
            "rectification_matrix": {"rows": 3, "cols": 3, "data": [float(v) for v in np.eye(3).ravel()]},
            "projection_matrix": {"rows": 3, "cols": 4, "data": [float(v) for v in projection.ravel()]},
        }
        Path(path).write_text(yaml.safe_dump(text, sort_keys=False, default_flow_style=None))
