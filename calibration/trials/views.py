"""Flight folders made of orthophotos: level views of one date, with telemetry that errs by known amounts."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyproj
import rasterio

from onboard.camera import CameraModel
from onboard.errors import FlightError
from onboard.frames import MapFrame

COLUMNS = ("file", "captured_at_ns", "roll_deg", "pitch_deg", "yaw_deg", "height_above_ground_m")
TRUTH = ("latitude_deg", "longitude_deg")


@dataclass(frozen=True)
class ViewConfig:
    """A camera that sees `footprint_m` of ground from `height_m`, and how wrong its telemetry is.

    `offset_m`: how far from a chip's centre the vehicle may be; `heading_error_deg` and `height_error` are the
    ends of uniform distributions.
    """

    footprint_m: tuple[float, float] = (90.0, 70.0)
    image_px: tuple[int, int] = (640, 498)
    height_m: float = 100.0
    offset_m: float = 18.0
    heading_error_deg: float = 6.0
    height_error: float = 0.10
    any_heading: bool = True
    seed: int = 0


def write_views(chips: list[Path], out: Path, config: ViewConfig = ViewConfig()) -> Path:
    """A flight folder with one level view of each chip (GeoTIFF); the chip's own pixels are the ground."""
    if not chips:
        raise FlightError("no chips", out, "at least one GeoTIFF")
    rng = np.random.default_rng(config.seed)
    width, height_px = config.image_px
    focal = width * config.height_m / config.footprint_m[0]
    matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height_px - 1) / 2], [0, 0, 1.0]])
    camera = CameraModel(width, height_px, matrix, (0.0, 0.0, 0.0, 0.0, 0.0))
    (out / "photos").mkdir(parents=True, exist_ok=True)
    camera.to_yaml(out / "camera.yaml", "ortho")
    rows = []
    for index, chip in enumerate(chips):
        with rasterio.open(chip) as raster:
            rgb = raster.read([1, 2, 3]).transpose(1, 2, 0)
            to_pixel = ~raster.transform
            to_geodetic = pyproj.Transformer.from_crs(raster.crs, "EPSG:4326", always_xy=True)
            longitude, latitude = to_geodetic.transform(*(raster.transform @ (raster.width / 2, raster.height / 2)))
        frame = MapFrame(latitude, longitude)
        position = rng.uniform(-config.offset_m, config.offset_m, 2)
        yaw = rng.uniform(-math.pi, math.pi) if config.any_heading else 0.0
        # Corners of the footprint, image order, in east and north; then in the chip's pixels.
        half = np.array(config.footprint_m) / 2
        corners = np.array([[-half[0], half[1]], [half[0], half[1]], [half[0], -half[1]], [-half[0], -half[1]]])
        turn = np.array([[math.cos(yaw), math.sin(yaw)], [-math.sin(yaw), math.cos(yaw)]])
        ground = position + corners @ turn.T
        pixels = []
        for point in ground:
            lat, lon = frame.geodetic_from_enu(point)
            easting, northing = to_geodetic.transform(lon, lat, direction="INVERSE")
            col, row = to_pixel @ (easting, northing)
            pixels.append((col - 0.5, row - 0.5))
        edge = np.array([[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height_px - 0.5], [-0.5, height_px - 0.5]])
        warp = cv2.getPerspectiveTransform(edge.astype(np.float32), np.array(pixels, np.float32))
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        image = cv2.warpPerspective(np.ascontiguousarray(rgb), warp, (width, height_px), flags=flags)
        name = f"photos/{chip.stem}.jpg"
        cv2.imwrite(str(out / name), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
        told_yaw = math.degrees(yaw) + rng.uniform(-1, 1) * config.heading_error_deg
        told_height = config.height_m * (1 + rng.uniform(-1, 1) * config.height_error)
        lat, lon = frame.geodetic_from_enu(position)
        rows.append((name, index * 10**9, 0, 0, f"{told_yaw:.3f}", f"{told_height:.3f}", f"{lat:.9f}", f"{lon:.9f}"))
    with (out / "frames.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS + TRUTH)
        writer.writerows(rows)
    return out
