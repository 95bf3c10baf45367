"""A small world with known coordinates: ground, pictures of it from known poses, maps of it, a hand-made engine.

The world's east and north are metres about `PLACE`, and its GeoTIFF is written in just that projection, so that
a toy position is a map position. Pictures are made by a homography of our own, not by the code under test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import rasterio
from affine import Affine

from export.region.build import BuildOptions, build_map
from onboard.camera import CameraModel
from onboard.engine import Embeddings, Engine, ModelFacts
from onboard.frames import MapFrame
from onboard.match.evidence import Confidence, Logistic
from onboard.records import Frame, Telemetry
from onboard.region import RegionMap
from onboard.region.elevation import Elevation

Heights = Callable[[np.ndarray], np.ndarray]  # metres, of points (..., 2) east, north
PLACE = MapFrame(37.5, 140.99)
STEP_NS = 500_000_000  # 2 Hz
BEGAN_NS = 1_700_000_000_000_000_000
# What the hand-made features look like when they are right, read off this world: agree 0.9, fine 0.5, gradient 0.5.
_WEIGHTS = {"agree": 10.0, "fine": 8.0, "gradient": 8.0}
HAND_CONFIDENCE = Confidence(
    Logistic(-17.0, _WEIGHTS | {"margin": 25.0}), Logistic(-11.0, _WEIGHTS), 3.0, 0.5, 0.3, "the toy world"
)


@dataclass(frozen=True)
class World:
    """Ground `rgb` uint8 (S, S, 3), north up, centred on the origin."""

    rgb: np.ndarray
    metres_per_pixel: float

    @property
    def half_m(self) -> float:
        return len(self.rgb) * self.metres_per_pixel / 2

    @property
    def enu_from_pixel(self) -> np.ndarray:
        """(3, 3) from col, row (centre of the first pixel 0, 0) to east, north."""
        step, first = self.metres_per_pixel, self.metres_per_pixel / 2 - self.half_m
        return np.array([[step, 0.0, first], [0.0, -step, -first], [0.0, 0.0, 1.0]])


def make_world(seed: int = 3, size_px: int = 900, metres_per_pixel: float = 0.5) -> World:
    """Noise of many scales, fields, roads and houses: nothing in it comes twice."""
    rng = np.random.default_rng(seed)
    ground = np.full((size_px, size_px, 3), 110.0, np.float32)
    for cells, strength in ((6, 30), (20, 22), (60, 18), (180, 14), (450, 10)):
        noise = rng.normal(0, 1, (cells, cells, 3)).astype(np.float32)
        noise = 0.3 * noise + 1.6 * noise.mean(axis=2, keepdims=True)  # mostly light and dark, a little colour
        ground += strength * cv2.resize(noise, (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    for _ in range(size_px * size_px // 9000):
        shape = (rng.uniform(0, size_px, 2).tolist(), rng.uniform(12, 60, 2).tolist(), float(rng.uniform(0, 180)))
        colour = rng.uniform(30, 225) + rng.uniform(-20, 20, 3)
        cv2.fillConvexPoly(ground, cv2.boxPoints(shape).round().astype(np.int32), colour.tolist(), cv2.LINE_AA)
    for _ in range(10):
        ends = rng.uniform(-0.2 * size_px, 1.2 * size_px, (2, 2)).round().astype(int)
        shade = [float(rng.uniform(150, 220))] * 3
        cv2.line(ground, ends[0].tolist(), ends[1].tolist(), shade, int(rng.integers(6, 14)), cv2.LINE_AA)
    ground = cv2.GaussianBlur(ground, (0, 0), 0.7)
    return World(np.clip(ground, 0, 255).astype(np.uint8), metres_per_pixel)


def make_repeating_world(period_px: int = 120, times: int = 7) -> World:
    """The same 60 m of ground over and over, with no seam."""
    rng = np.random.default_rng(5)
    patch = rng.normal(0, 1, (period_px, period_px, 3)).astype(np.float32)
    tiled = np.tile(patch, (3, 3, 1))
    ground = sum(cv2.GaussianBlur(tiled, (0, 0), sigma) * sigma * 60 for sigma in (2, 5, 11))
    middle = np.asarray(ground)[period_px : 2 * period_px, period_px : 2 * period_px] + 115
    return World(np.clip(np.tile(middle, (times, times, 1)), 0, 255).astype(np.uint8), 0.5)


def build_toy_map(world: World, engine: Engine, folder: Path, *other_dates: World) -> RegionMap:
    """The world as a GeoTIFF, and a region map of that; perhaps of other dates of it, too."""
    own, *others = (write_world(at, folder / f"toy{date or ''}.tif") for date, at in enumerate((world, *other_dates)))
    build_map([own], folder / "map", engine, BuildOptions(other_dates=tuple(others)))
    return RegionMap.open(folder / "map", engine.facts)


def write_world(world: World, path: Path) -> Path:
    step, half = world.metres_per_pixel, world.half_m
    size = len(world.rgb)
    facts = {"count": 3, "dtype": "uint8", "crs": PLACE.proj4, "transform": Affine(step, 0, -half, 0, -step, half)}
    with rasterio.open(path, "w", driver="GTiff", width=size, height=size, **facts) as file:
        file.write(np.moveaxis(world.rgb, -1, 0))
    return path


def with_heights(region: RegionMap, heights: Heights, post_m: float = 2.0) -> RegionMap:
    """The same map with heights of the ground over it and 100 m round it."""
    west, south, east, north = region.bounds_enu_m
    posts_e = np.arange(west - 100 + post_m / 2, east + 100, post_m)
    posts_n = np.arange(north + 100 - post_m / 2, south - 100, -post_m)
    raster = heights(np.stack(np.meshgrid(posts_e, posts_n), axis=-1)).astype(np.float32)
    elevation = Elevation(post_m, west - 100, north + 100, raster)
    return RegionMap(region.path, region.manifest, region.sha256, region.levels, elevation, region.other_dates)


def toy_camera(width: int = 480, height: int = 360, focal_px: float = 340.0) -> CameraModel:
    """Sees 127 m by 95 m from 90 m."""
    matrix = np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1.0]])
    return CameraModel(width, height, matrix, ())


def euler_matrix(roll_deg: float, pitch_deg: float, yaw_deg: float) -> np.ndarray:
    """ned_from_body as three plain rotations, one after the other."""
    r, p, y = (math.radians(v) for v in (roll_deg, pitch_deg, yaw_deg))
    about_x = np.array([[1, 0, 0], [0, math.cos(r), -math.sin(r)], [0, math.sin(r), math.cos(r)]])
    about_y = np.array([[math.cos(p), 0, math.sin(p)], [0, 1, 0], [-math.sin(p), 0, math.cos(p)]])
    about_z = np.array([[math.cos(y), -math.sin(y), 0], [math.sin(y), math.cos(y), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def quaternion(roll_deg: float, pitch_deg: float, yaw_deg: float) -> tuple[float, float, float, float]:
    """ned_from_body, w x y z, by the product of three half-angle quaternions."""
    (cr, sr), (cp, sp), (cy, sy) = (
        (math.cos(math.radians(v) / 2), math.sin(math.radians(v) / 2)) for v in (roll_deg, pitch_deg, yaw_deg)
    )
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )


def enu_from_camera(roll_deg: float, pitch_deg: float, yaw_deg: float) -> np.ndarray:
    """(3, 3) for a camera that looks along the body's z axis, the top of its image along the body's x."""
    forward, right, down = euler_matrix(roll_deg, pitch_deg, yaw_deg).T  # body axes in north, east, down
    return np.array([[axis[1], axis[0], -axis[2]] for axis in (right, -forward, down)]).T


def look(
    world: World,
    camera: CameraModel,
    position_enu_m: Sequence[float] | np.ndarray,
    height_m: float,
    angles_deg: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> np.ndarray:
    """What an undistorted camera sees of the world, uint8 BGR: ground, level, `height_m` below it."""
    rotation = enu_from_camera(*angles_deg)
    place = np.array([position_enu_m[0], position_enu_m[1], height_m])
    pixel_from_enu = camera.matrix @ rotation.T @ np.array([[1, 0, -place[0]], [0, 1, -place[1]], [0, 0, -place[2]]])
    warp = pixel_from_enu @ world.enu_from_pixel
    image = cv2.warpPerspective(world.rgb, warp, (camera.width, camera.height), flags=cv2.INTER_LINEAR)
    return np.ascontiguousarray(image[..., ::-1])


@dataclass(frozen=True)
class Moment:
    """One frame of a toy flight, what was told, and where it really was."""

    frame: Frame
    telemetry: Telemetry
    position_enu_m: np.ndarray


def make_flight(
    world: World,
    count: int = 12,
    start_enu_m: tuple[float, float] = (-90.0, -60.0),
    velocity_enu_mps: tuple[float, float] = (12.0, 6.0),
    height_m: float = 90.0,
    yaw_deg: float = 30.0,
    seed: int = 0,
) -> list[Moment]:
    """A straight line at 2 Hz with a little wobble, another light and sensor noise; what is told errs by 1 degree."""
    rng = np.random.default_rng(seed)
    camera, moments = toy_camera(), []
    for k in range(count):
        at_ns = BEGAN_NS + k * STEP_NS
        position = np.array(start_enu_m) + np.array(velocity_enu_mps) * k * STEP_NS * 1e-9
        angles = (3 * math.sin(k / 2), 4 * math.cos(k / 3), yaw_deg + 2 * math.sin(k))
        image = look(world, camera, position, height_m, angles).astype(np.float32)
        image = np.clip(0.85 * image + 12 + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
        told = (angles[0] + rng.normal(0, 0.2), angles[1] + rng.normal(0, 0.2), angles[2] + 1.0)
        velocity_ned = (velocity_enu_mps[1], velocity_enu_mps[0], 0.0)
        telemetry = Telemetry(at_ns, quaternion(*told), height_m * 1.02, True, velocity_ned)
        moments.append(Moment(Frame(at_ns, image, f"{k:03d}"), telemetry, position))
    return moments


class HandEngine:
    """Histograms of gradient directions in place of a network: deterministic, light, and it finds the toy world.

    `spoil` names an output (descriptors, detail, fine) in which numbers are lost from call `spoil_from` on.
    """

    backend = "hand"
    facts = ModelFacts("hand", "ab" * 32, 256, 8, 8, 14, 4, 8, {})

    def __init__(self, spoil: str = "", spoil_from: int = 0) -> None:
        self.spoil, self.spoil_from, self.calls = spoil, spoil_from, 0

    def embed(self, images_rgb: np.ndarray, masks: np.ndarray) -> Embeddings:
        made = [self._one(image, mask) for image, mask in zip(images_rgb, masks, strict=True)]
        out = {name: np.stack([m[k] for m in made]) for k, name in enumerate(("descriptors", "detail", "fine"))}
        if self.spoil and self.calls >= self.spoil_from:
            out[self.spoil][...] = np.nan
        self.calls += 1
        return Embeddings(**out)

    def close(self) -> None:
        """Nothing is held."""

    def _one(self, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.2)
        inside = cv2.erode(mask.astype(np.uint8), np.ones((9, 9), np.uint8), borderValue=1)
        dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0) * inside, cv2.Sobel(grey, cv2.CV_32F, 0, 1) * inside
        size = np.sqrt(np.sqrt(dx * dx + dy * dy)) + 1e-3
        turns = np.arange(8) * (2 * math.pi / 8)
        along = dx[..., None] * np.cos(turns).astype(np.float32) + dy[..., None] * np.sin(turns).astype(np.float32)
        bins = np.clip(along / (size**2)[..., None], 0, None) ** 2 * size[..., None]
        detail, fine = (_pooled(bins, stride) for stride in (8, 4))
        seen = image[mask].astype(np.float32) / 255 if mask.any() else np.zeros((1, 3), np.float32)
        descriptor = np.concatenate([detail.mean(axis=(0, 1)), seen.mean(axis=0), seen.std(axis=0)])
        return descriptor / np.linalg.norm(descriptor), detail, fine


def _pooled(bins: np.ndarray, stride: int) -> np.ndarray:
    """Unit-norm features (h, w, 8) of cells; the overall mean of the eight is taken out, so they can be negative."""
    n = len(bins) // stride
    cells = cv2.GaussianBlur(cv2.resize(bins, (n, n), interpolation=cv2.INTER_AREA), (0, 0), 0.6)
    cells = cells - cells.mean(axis=2, keepdims=True)
    cells[..., 0] += 1e-3
    return (cells / np.linalg.norm(cells, axis=2, keepdims=True)).astype(np.float32)
