"""Ground that no model learned from, as a flight over a map: what the gate measures on.

With imagery at hand: NAIP chips of Claremont, the map of one year, the views of another. Without: ground drawn from
noise, fields and roads, its views in another light; that proves the machinery, and little about accuracy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyproj
import rasterio
from affine import Affine

from onboard.camera import CameraModel
from onboard.frames import MapFrame, quaternion_from_euler
from onboard.records import Frame, Telemetry

CITY, MAP_YEAR, VIEW_YEAR = "claremont", "2016", "2020"
PLACE = MapFrame(37.5, 140.99)  # where drawn ground is said to lie
_HEIGHT_M, _ACROSS_M, _SIZE = 100.0, 90.0, (320, 240)
_HEADING_ERROR_DEG, _HEIGHT_ERROR, _OFFSET_M = 5.0, 0.06, 18.0


@dataclass(frozen=True)
class View:
    """One frame, what was told with it, and where it really was (latitude, longitude in degrees)."""

    frame: Frame
    telemetry: Telemetry
    place: tuple[float, float]


@dataclass(frozen=True)
class HeldOut:
    """GeoTIFFs for the map, and views of the same ground with their truth."""

    name: str
    imagery: tuple[Path, ...]
    camera: CameraModel
    views: tuple[View, ...]


def held_out(data: Path, scratch: Path, count: int, seed: int = 11) -> HeldOut:
    """Real chips below `data`/naip where they are, else drawn ground, written into `scratch`."""
    chips = sorted((data / "naip" / CITY).glob(f"*_{MAP_YEAR}.tif"))
    pairs = [(chip, chip.with_name(chip.name.replace(MAP_YEAR, VIEW_YEAR))) for chip in chips]
    pairs = [(on_map, seen) for on_map, seen in pairs if seen.is_file()]
    if pairs:
        name = f"NAIP {CITY}: views of {VIEW_YEAR} over a map of {MAP_YEAR}"
        return _of_chips(name, [m for m, _ in pairs], [v for _, v in pairs], count, seed)
    drawn = draw_ground(scratch / "drawn.tif", seed)
    return _of_chips("drawn ground (no imagery at hand): views in another light", [drawn], [drawn], count, seed)


def _of_chips(name: str, on_map: list[Path], seen: list[Path], count: int, seed: int) -> HeldOut:
    rng = np.random.default_rng(seed)
    focal = _SIZE[0] * _HEIGHT_M / _ACROSS_M
    matrix = np.array([[focal, 0, (_SIZE[0] - 1) / 2], [0, focal, (_SIZE[1] - 1) / 2], [0, 0, 1.0]])
    camera = CameraModel(*_SIZE, matrix, ())
    views = []
    for index in range(count):
        photo, place, yaw = _photograph(seen[index % len(seen)], camera, rng)
        told = yaw + math.radians(rng.uniform(-1, 1) * _HEADING_ERROR_DEG)
        height = _HEIGHT_M * (1 + rng.uniform(-1, 1) * _HEIGHT_ERROR)
        at_ns = 1_700_000_000_000_000_000 + index * 1_000_000_000
        attitude = quaternion_from_euler(0.0, 0.0, told)
        views.append(View(Frame(at_ns, photo, str(index)), Telemetry(at_ns, attitude, height), place))
    return HeldOut(name, tuple(on_map), camera, tuple(views))


def _photograph(
    chip: Path, camera: CameraModel, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[float, float], float]:
    """A level photo (H, W, 3) BGR of a piece of a raster, in a light of its own; its place, its heading in radians."""
    with rasterio.open(chip) as raster:
        rgb = np.ascontiguousarray(raster.read([1, 2, 3]).transpose(1, 2, 0))
        to_geodetic = pyproj.Transformer.from_crs(raster.crs, "EPSG:4326", always_xy=True)
        middle = raster.transform @ (raster.width / 2, raster.height / 2)
        reach = _OFFSET_M
        if raster.width * abs(raster.transform.a) > 400:  # one large piece: anywhere in it
            reach = raster.width * abs(raster.transform.a) / 2 - _ACROSS_M
        inverse = ~raster.transform
    longitude, latitude = to_geodetic.transform(*middle)
    frame = MapFrame(latitude, longitude)
    position, yaw = rng.uniform(-reach, reach, 2), rng.uniform(-math.pi, math.pi)
    half = np.array([camera.width, camera.height]) / camera.focal_px * _HEIGHT_M / 2
    corners = np.array([[-1, 1], [1, 1], [1, -1], [-1, -1]]) * half  # image order, as right and forward
    turn = np.array([[math.cos(yaw), math.sin(yaw)], [-math.sin(yaw), math.cos(yaw)]])
    pixels = []
    for point in position + corners @ turn.T:
        lat, lon = frame.geodetic_from_enu(point)
        col, row = inverse @ to_geodetic.transform(lon, lat, direction="INVERSE")
        pixels.append((col - 0.5, row - 0.5))
    edge = np.array([camera.width, camera.height]) - 0.5
    image = np.array([[-0.5, -0.5], [edge[0], -0.5], edge, [-0.5, edge[1]]])
    warp = cv2.getPerspectiveTransform(image.astype(np.float32), np.array(pixels, np.float32))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    photo = cv2.warpPerspective(rgb, warp, (camera.width, camera.height), flags=flags, borderMode=cv2.BORDER_REFLECT)
    photo = np.clip(photo * rng.uniform(0.8, 1.15) + rng.normal(0, 3, photo.shape), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(photo[..., ::-1]), frame.geodetic_from_enu(position), yaw


def draw_ground(path: Path, seed: int, size_px: int = 1024, metres_per_pixel: float = 0.5) -> Path:
    """A GeoTIFF of noise, fields and roads about `PLACE`, where nothing comes twice."""
    rng = np.random.default_rng(seed)
    ground = np.full((size_px, size_px, 3), 110.0, np.float32)
    for cells, strength in ((6, 30), (20, 22), (60, 18), (180, 14), (450, 10)):
        noise = rng.normal(0, 1, (cells, cells, 1)) * 0.9 + rng.normal(0, 0.3, (cells, cells, 3))
        ground += strength * cv2.resize(noise.astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    for _ in range(size_px * size_px // 9000):
        box = (rng.uniform(0, size_px, 2).tolist(), rng.uniform(12, 60, 2).tolist(), float(rng.uniform(0, 180)))
        colour = rng.uniform(30, 225) + rng.uniform(-20, 20, 3)
        cv2.fillConvexPoly(ground, cv2.boxPoints(box).round().astype(np.int32), colour.tolist(), cv2.LINE_AA)
    for _ in range(10):
        ends = rng.uniform(-0.2 * size_px, 1.2 * size_px, (2, 2)).round().astype(int)
        cv2.line(ground, ends[0].tolist(), ends[1].tolist(), [float(rng.uniform(150, 220))] * 3, 9, cv2.LINE_AA)
    half = size_px * metres_per_pixel / 2
    where = Affine(metres_per_pixel, 0, -half, 0, -metres_per_pixel, half)
    facts = {"count": 3, "dtype": "uint8", "crs": PLACE.proj4, "transform": where, "width": size_px, "height": size_px}
    with rasterio.open(path, "w", driver="GTiff", **facts) as file:
        file.write(np.moveaxis(np.clip(ground, 0, 255).astype(np.uint8), -1, 0))
    return path
