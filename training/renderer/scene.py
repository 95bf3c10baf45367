"""Perspective views of a place: rays through the lens meet the surface model (trimesh over Embree)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
import trimesh
from trimesh.ray.ray_pyembree import RayMeshIntersector

from onboard.camera import CameraModel
from onboard.frames import ENU_FROM_NED
from training.renderer.errors import RenderError
from training.renderer.place import Place

_MARGIN_M = 70.0  # a mesh is cut out larger than the view, so that the next views find it again
_MAX_OFF_NADIR_RAD = math.radians(72)  # what is seen more obliquely is beyond the mesh
_POST_M = 1.0
_MANY_POSTS = 700  # a side longer than this gets posts farther apart
_OUTSIDE_RGB = (128, 128, 128)


@dataclass(frozen=True)
class _Ground:
    """One cut-out of the surface as triangles; coordinates are metres from `origin_enu_m` (3,)."""

    rays: RayMeshIntersector
    normals: np.ndarray
    corners: np.ndarray
    origin_enu_m: np.ndarray
    low_enu_m: np.ndarray
    high_enu_m: np.ndarray


@dataclass
class Scene:
    """A place with one look `picture` (H, W, 3) uint8 RGB; keeps the last mesh and the shrunk pictures."""

    place: Place
    picture: np.ndarray
    lowest_m: float = field(init=False)
    _shrunk: list[np.ndarray] = field(default_factory=list)
    _ground: _Ground | None = None

    def __post_init__(self) -> None:
        if self.picture.shape[:2] != self.place.surface_m.shape:
            raise RenderError("picture", self.picture.shape, f"the place's shape {self.place.surface_m.shape}")
        self._shrunk = [self.picture]
        self.lowest_m = float(self.place.terrain_m.min())

    def shrunk(self, level: int) -> tuple[np.ndarray, int]:
        """The picture shrunk by areas to 1 / 2^level, and the level that is had (no smaller than 64 pixels)."""
        while len(self._shrunk) <= level and min(self._shrunk[-1].shape[:2]) >= 128:
            last = self._shrunk[-1]
            even = last[: last.shape[0] // 2 * 2, : last.shape[1] // 2 * 2]
            self._shrunk.append(cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        level = min(level, len(self._shrunk) - 1)
        return self._shrunk[level], level

    def ground(self, low_enu_m: np.ndarray, high_enu_m: np.ndarray) -> _Ground:
        """A mesh that holds the box from `low_enu_m` to `high_enu_m` (2,), as far as the place goes."""
        if (
            self._ground is None
            or (low_enu_m < self._ground.low_enu_m).any()
            or (high_enu_m > self._ground.high_enu_m).any()
        ):
            self._ground = _mesh(self.place, low_enu_m - _MARGIN_M, high_enu_m + _MARGIN_M)
        return self._ground

    def forget(self) -> None:
        """Drop the kept mesh: what is rendered next does not hang on what was rendered before."""
        self._ground = None


def render(
    scene: Scene,
    camera: CameraModel,
    body_from_camera: np.ndarray,
    ned_from_body: np.ndarray,
    position_enu_m: np.ndarray,
) -> np.ndarray:
    """What the camera sees: uint8 RGB (height, width, 3). Beyond the place, and above the horizon, it is gray.

    `body_from_camera`, `ned_from_body` (3, 3); `position_enu_m` (3,) with the height on the place's own datum.
    Raises RenderError when the camera is not above the surface model's lowest point.
    """
    enu_from_camera = ENU_FROM_NED @ ned_from_body @ body_from_camera
    lens = _lens_rays(camera)
    directions = (lens.reshape(-1, 3) @ enu_from_camera.T.astype(np.float32)).astype(np.float32)
    drop_m = float(position_enu_m[2]) - float(scene.lowest_m)
    if drop_m <= 0:
        raise RenderError("camera height", f"{position_enu_m[2]:.1f} m", "above the place's lowest ground")
    border = np.concatenate([lens[0], lens[-1], lens[:, 0], lens[:, -1]]) @ enu_from_camera.T
    ground = scene.ground(*_footprint(border, position_enu_m, drop_m))
    points, triangles = _hits(ground, position_enu_m, directions)
    affine = scene.place.pixel_from_enu
    at = points[:, :2] @ affine[:, :2].T.astype(np.float32) + (
        affine[:, 2] + affine[:, :2] @ ground.origin_enu_m[:2]
    ).astype(np.float32)
    # Walls and the flanks of crowns get less of the sky than what lies flat.
    light = np.clip(0.62 + 0.45 * ground.normals[triangles, 2], 0.6, 1.0)
    coarse = np.column_stack([at, light, triangles >= 0]).astype(np.float32).reshape(*lens.shape[:2], 4)
    fine = _grow(coarse)[: camera.height, : camera.width]
    image = _sample(scene, fine[..., :2], fine[..., 3] > 0.99)
    image = cv2.multiply(image, cv2.merge([fine[..., 2]] * 3), dtype=cv2.CV_8U)
    image[fine[..., 3] <= 0.99] = _OUTSIDE_RGB
    return image


def follow(scene: Scene, position_enu_m: np.ndarray, directions_enu: np.ndarray) -> np.ndarray:
    """Where rays (N, 3) from a position (3,) meet the surface: (N, 3) east, north, up metres; NaN where they do not."""
    drop_m = float(position_enu_m[2]) - float(scene.lowest_m)
    ground = scene.ground(*_footprint(directions_enu, position_enu_m, drop_m))
    points, triangles = _hits(ground, position_enu_m, directions_enu.astype(np.float32))
    return np.where((triangles >= 0)[:, None], points + ground.origin_enu_m, np.nan)


def _footprint(border: np.ndarray, position_enu_m: np.ndarray, drop_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Box (low, high) east, north that holds the ends of rays (N, 3), were all ground at the place's lowest."""
    flat = np.hypot(border[:, 0], border[:, 1])
    reach = np.minimum(
        np.where(border[:, 2] < 0, flat / np.maximum(-border[:, 2], 1e-9), np.inf), math.tan(_MAX_OFF_NADIR_RAD)
    )
    away = drop_m * reach[:, None] * border[:, :2] / np.maximum(flat, 1e-12)[:, None]
    away = np.concatenate([away, np.zeros((1, 2))])
    return position_enu_m[:2] + away.min(axis=0), position_enu_m[:2] + away.max(axis=0)


def _grow(coarse: np.ndarray) -> np.ndarray:
    """From every second pixel to all: (2r - 2, 2c - 2, C) of (r, c, C), linear between neighbours."""
    wide = np.empty((coarse.shape[0], 2 * coarse.shape[1] - 2, coarse.shape[2]), np.float32)
    wide[:, 0::2] = coarse[:, :-1]
    wide[:, 1::2] = (coarse[:, :-1] + coarse[:, 1:]) / 2
    fine = np.empty((2 * coarse.shape[0] - 2, wide.shape[1], coarse.shape[2]), np.float32)
    fine[0::2] = wide[:-1]
    fine[1::2] = (wide[:-1] + wide[1:]) / 2
    return fine


_RAYS: dict[bytes, np.ndarray] = {}


def _lens_rays(camera: CameraModel) -> np.ndarray:
    """Unit rays (rows, cols, 3) float32 in the camera frame of every second pixel, one beyond the far edges.

    Those of the last cameras are kept.
    """
    key = (
        repr((camera.width, camera.height, camera.distortion, camera.distortion_model)).encode()
        + camera.matrix.tobytes()
    )
    if key not in _RAYS:
        if len(_RAYS) >= 4:
            _RAYS.clear()
        cols, rows = np.meshgrid(*(2 * np.arange((n + 1) // 2 + 1) for n in (camera.width, camera.height)))
        rays = camera.rays(np.stack([cols.ravel(), rows.ravel()], axis=1))
        _RAYS[key] = rays.astype(np.float32).reshape(*cols.shape, 3)
    return _RAYS[key]


def _mesh(place: Place, low_enu_m: np.ndarray, high_enu_m: np.ndarray) -> _Ground:
    """Two triangles between each four posts of the surface model."""
    extent = float((high_enu_m - low_enu_m).max())
    step = max(1, round(_POST_M * max(1.0, extent / _MANY_POSTS) / place.metres_per_pixel))
    height, width = place.surface_m.shape
    affine = place.pixel_from_enu
    centre_enu_m = (low_enu_m + high_enu_m) / 2
    corners = np.array([[e, n] for e in (low_enu_m[0], high_enu_m[0]) for n in (low_enu_m[1], high_enu_m[1])])
    pixels = corners @ affine[:, :2].T + affine[:, 2]
    low = np.clip(np.floor(pixels.min(axis=0)).astype(int) // step * step, 0, [width - 1 - step, height - 1 - step])
    high = np.clip(np.ceil(pixels.max(axis=0)).astype(int), low + step + 1, [width, height])
    cols, rows = np.meshgrid(np.arange(low[0], high[0], step), np.arange(low[1], high[1], step))
    origin = np.array([*centre_enu_m, 0.0])
    flat = np.stack([cols.ravel(), rows.ravel()], axis=1) @ place.enu_from_pixel[:, :2].T + place.enu_from_pixel[:, 2]
    vertices = np.column_stack([flat, place.surface_m[rows, cols].ravel()]) - origin
    index = np.arange(cols.size, dtype=np.int32).reshape(cols.shape)
    a, b, c, d = (i.ravel() for i in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    faces = np.concatenate([np.stack([a, c, b], axis=1), np.stack([b, c, d], axis=1)])
    mesh = trimesh.Trimesh(vertices, faces, process=False, validate=False)
    first = vertices[faces[:, 0]]
    normals = np.cross(vertices[faces[:, 1]] - first, vertices[faces[:, 2]] - first)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    rays = RayMeshIntersector(mesh, scale_to_box=False)
    return _Ground(rays, normals.astype(np.float32), first.astype(np.float32), origin, low_enu_m, high_enu_m)


def _hits(ground: _Ground, position_enu_m: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays (N, 3) meet the mesh: points (N, 3) from its origin, and the triangles (N,), -1 for none."""
    eye = (np.asarray(position_enu_m) - ground.origin_enu_m).astype(np.float32)
    triangles = ground.rays.intersects_first(np.broadcast_to(eye, directions.shape), directions)
    normals = ground.normals[triangles]
    towards = np.einsum("ij,ij->i", normals, directions)
    distance = np.einsum("ij,ij->i", normals, ground.corners[triangles] - eye)
    distance /= np.where(np.abs(towards) < 1e-6, np.float32(-1e-6), towards)
    return eye + np.where(triangles >= 0, distance, np.float32(0))[:, None] * directions, triangles


def _sample(scene: Scene, at: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Colours at pixels (h, w, 2) of the picture, each from the level whose pixel is as large as the view's."""
    some = at[::4, ::4]
    apart = np.hypot(*np.moveaxis(np.diff(some, axis=1, append=some[:, -1:]), 2, 0)) / 4
    apart[:, -1] = apart[:, -2]
    apart[~seen[::4, ::4]] = 0.0
    wanted, farthest = np.percentile(apart[apart > 0], (50, 98)) if (apart > 0).any() else (1.0, 1.0)
    low, high = (max(0, math.floor(math.log2(max(v, 1e-3)) + 0.3)) for v in (wanted, farthest))
    image = _level(scene, at, min(low, high))
    for level in range(min(low, high) + 1, min(high, low + 4) + 1):
        far = cv2.resize(cv2.blur(apart, (5, 5)), seen.shape[::-1]) > 2 ** (level - 0.3)
        image[far] = _level(scene, at, level)[far]
    return image


def _level(scene: Scene, at: np.ndarray, level: int) -> np.ndarray:
    picture, level = scene.shrunk(level)
    scaled = (at + 0.5) / 2**level - 0.5
    return cv2.remap(picture, scaled[..., 0], scaled[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
