"""Flight folders made of orthophotos: views of one date, with telemetry that errs by known amounts."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyproj
import rasterio
from affine import Affine

from onboard.camera import CameraModel
from onboard.errors import FlightError
from onboard.frames import BODY_FROM_CAMERA_DOWN, ENU_FROM_NED, MapFrame, rotation_from_euler
from onboard.region.register import shift_px

COLUMNS = ("file", "captured_at_ns", "roll_deg", "pitch_deg", "yaw_deg", "height_above_ground_m")
TRUTH = ("latitude_deg", "longitude_deg")


@dataclass(frozen=True)
class ViewConfig:
    """A camera that sees `footprint_m` of ground from `height_m` when it looks straight down, and how wrong its
    telemetry is.

    `offset_m`: how far from a chip's centre the middle of the picture may be. `heading_error_deg` and `height_error`
    are the ends of uniform distributions, and so is `tilt_deg`, by which the camera leans to any side, as telemetry
    says but for `attitude_error_deg`, 1 sigma of roll and of pitch.
    """

    footprint_m: tuple[float, float] = (90.0, 70.0)
    image_px: tuple[int, int] = (640, 498)
    height_m: float = 100.0
    offset_m: float = 18.0
    heading_error_deg: float = 6.0
    height_error: float = 0.10
    tilt_deg: float = 0.0
    attitude_error_deg: float = 0.0
    any_heading: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Pose:
    """Where a view is taken from (2,) east, north of a chip's middle, and its aerospace angles in rad."""

    position_enu_m: np.ndarray
    roll_rad: float
    pitch_rad: float
    yaw_rad: float


def write_views(chips: list[Path], out: Path, config: ViewConfig = ViewConfig(), mapped: str = "") -> Path:
    """A flight folder with one view of each chip (GeoTIFF); the chip's own pixels are the ground, taken as level.

    With `mapped`, the date of a map, the truth of PLACE_DATE.tif is told where that ground lies in PLACE_MAPPED.tif.
    """
    if not chips:
        raise FlightError("no chips", out, "at least one GeoTIFF")
    if missing := [chip for chip in chips if not chip.is_file()]:
        raise FlightError("no chip", missing[0], "GeoTIFFs that are there", "check the path")
    rng = np.random.default_rng(config.seed)
    camera = _camera(config)
    (out / "photos").mkdir(parents=True, exist_ok=True)
    camera.to_yaml(out / "camera.yaml", "ortho")
    rows = []
    for index, chip in enumerate(chips):
        with rasterio.open(chip) as raster:
            rgb, grid, crs = raster.read([1, 2, 3]).transpose(1, 2, 0), raster.transform, raster.crs
        to_geodetic = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        longitude, latitude = to_geodetic.transform(*(grid @ (rgb.shape[1] / 2, rgb.shape[0] / 2)))
        frame = MapFrame(latitude, longitude)
        pose = _pose(camera, config, rng)
        pixels = _pixels(ground_corners(camera, config.height_m, pose), frame, to_geodetic, grid)
        name = f"photos/{chip.stem}.jpg"
        image = _picture(np.ascontiguousarray(rgb), camera, pixels)
        cv2.imwrite(str(out / name), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
        told = _told(pose, config, rng)
        truth = pose.position_enu_m + (_shift_m(chip, rgb, grid, mapped) if mapped else 0.0)
        rows.append((name, index * 10**9, *told, *_degrees(frame, truth)))
    with (out / "frames.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS + TRUTH)
        writer.writerows(rows)
    return out


def _shift_m(chip: Path, rgb: np.ndarray, grid: Affine, mapped: str) -> np.ndarray:
    """(2,) east, north: how much further on the chip's ground lies in the map's date; 0 where that cannot be said."""
    other = chip.with_name(f"{chip.stem.rsplit('_', 1)[0]}_{mapped}{chip.suffix}")
    if not other.is_file():
        raise FlightError("no chip of the map's date", other, "PLACE_DATE.tif beside the view's", "check --mapped")
    with rasterio.open(other) as raster:
        shift = shift_px(rgb, raster.read([1, 2, 3]).transpose(1, 2, 0))
    return np.zeros(2) if shift is None else shift * [grid.a, grid.e]


def ground_corners(camera: CameraModel, height_m: float, pose: Pose) -> np.ndarray:
    """(4, 2) east, north where the picture's corners, image order, meet level ground."""
    right, bottom = camera.width - 0.5, camera.height - 0.5
    corners = np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])
    ned_from_body = rotation_from_euler(pose.roll_rad, pose.pitch_rad, pose.yaw_rad)
    rays = camera.rays(corners) @ (ENU_FROM_NED @ ned_from_body @ BODY_FROM_CAMERA_DOWN).T
    if (rays[:, 2] >= -1e-3).any():
        raise FlightError("tilt of a view", "its horizon is in the picture", "a smaller tilt or footprint")
    return np.asarray(pose.position_enu_m + height_m * rays[:, :2] / -rays[:, 2:])


def _camera(config: ViewConfig) -> CameraModel:
    width, height_px = config.image_px
    focal = width * config.height_m / config.footprint_m[0]
    matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height_px - 1) / 2], [0, 0, 1.0]])
    return CameraModel(width, height_px, matrix, (0.0, 0.0, 0.0, 0.0, 0.0))


def _pose(camera: CameraModel, config: ViewConfig, rng: np.random.Generator) -> Pose:
    """The middle of what is seen lies within `offset_m` of the chip's."""
    middle = rng.uniform(-config.offset_m, config.offset_m, 2)
    yaw = rng.uniform(-math.pi, math.pi) if config.any_heading else 0.0
    if not config.tilt_deg:
        return Pose(middle, 0.0, 0.0, yaw)
    tilt, side = math.radians(rng.uniform(0, config.tilt_deg)), rng.uniform(-math.pi, math.pi)
    pose = Pose(np.zeros(2), tilt * math.cos(side), tilt * math.sin(side), yaw)
    seen = ground_corners(camera, config.height_m, pose)
    return Pose(middle - (seen.min(axis=0) + seen.max(axis=0)) / 2, pose.roll_rad, pose.pitch_rad, yaw)


def _pixels(
    ground_enu_m: np.ndarray, frame: MapFrame, to_geodetic: pyproj.Transformer, grid: Affine
) -> list[tuple[float, float]]:
    """(col, row) of the chip, the middle of its first pixel 0, 0."""
    pixels = []
    for point in ground_enu_m:
        latitude, longitude = frame.geodetic_from_enu(point)
        col, row = ~grid @ to_geodetic.transform(longitude, latitude, direction="INVERSE")
        pixels.append((col - 0.5, row - 0.5))
    return pixels


def _picture(rgb: np.ndarray, camera: CameraModel, pixels: list[tuple[float, float]]) -> np.ndarray:
    right, bottom = camera.width - 0.5, camera.height - 0.5
    edge = np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]], np.float32)
    warp = cv2.getPerspectiveTransform(edge, np.array(pixels, np.float32))
    return cv2.warpPerspective(rgb, warp, (camera.width, camera.height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _told(pose: Pose, config: ViewConfig, rng: np.random.Generator) -> tuple[str, ...]:
    """Roll, pitch, yaw in degrees and the height in metres, with their errors."""
    yaw = math.degrees(pose.yaw_rad) + rng.uniform(-1, 1) * config.heading_error_deg
    height = config.height_m * (1 + rng.uniform(-1, 1) * config.height_error)
    lean = np.degrees([pose.roll_rad, pose.pitch_rad])
    if config.attitude_error_deg:
        lean = lean + rng.normal(0, config.attitude_error_deg, 2)
    return tuple(f"{value:.3f}" for value in (*lean, yaw, height))


def _degrees(frame: MapFrame, position_enu_m: np.ndarray) -> tuple[str, str]:
    latitude, longitude = frame.geodetic_from_enu(position_enu_m)
    return f"{latitude:.9f}", f"{longitude:.9f}"
