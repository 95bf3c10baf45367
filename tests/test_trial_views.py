"""Views cut of orthophotos: what telemetry tells of them leads back to the ground that is in them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine

from calibration.trials.views import ViewConfig, write_views
from onboard.errors import FlightError
from onboard.flight import open_flight
from onboard.frames import MapFrame
from onboard.records import Telemetry
from onboard.rectify import Rectifier

EXACT = {"heading_error_deg": 0.0, "height_error": 0.0, "footprint_m": (60.0, 46.0), "image_px": (640, 490)}


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 m of blurred noise at 0.5 m, grid north true north to a few hundredths of a degree."""
    noise = np.random.default_rng(2).integers(0, 255, (480, 480, 3), dtype=np.uint8)
    rgb = cv2.GaussianBlur(noise, (0, 0), 2.5)
    path = tmp_path_factory.mktemp("chip") / "000_2020.tif"
    facts = {"crs": "EPSG:32611", "transform": Affine(0.5, 0, 500000, 0, -0.5, 3770000), "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", height=480, width=480, count=3, **facts) as file:
        file.write(np.moveaxis(rgb, -1, 0))
    return path


def likeness(chip: Path, out: Path, config: ViewConfig) -> tuple[float, float]:
    """Correlation of the rectified view with the chip's ground at the told truth, and the lean told in degrees."""
    flight = open_flight(write_views([chip], out, config))
    (item,), truth = list(flight.items()), flight.truth()
    assert truth is not None
    assert item.frame is not None
    assert isinstance(item.telemetry, Telemetry)
    rectifier = Rectifier(flight.camera, flight.body_from_camera, 256)
    view = rectifier.view(item.frame, item.telemetry, 0.5)
    with rasterio.open(chip) as raster:
        rgb, grid = raster.read().transpose(1, 2, 0), raster.transform
    frame = MapFrame(*(float(v[0]) for v in (truth.latitude_deg, truth.longitude_deg)))
    rows, cols = np.nonzero(view.mask)
    ground = np.array(view.centre_from_vehicle_enu_m) + np.stack([cols - 127.5, 127.5 - rows], axis=1) * 0.5
    to_grid = pyproj.Transformer.from_crs(frame.proj4, "EPSG:32611", always_xy=True)
    col, row = ~grid @ np.array(to_grid.transform(*ground.T))
    at = np.stack([col, row]) - 0.5
    there = cv2.remap(rgb, *(np.float32(axis)[None] for axis in at), cv2.INTER_LINEAR)[0].astype(float).ravel()
    seen = view.image_rgb[rows, cols].astype(float).ravel()
    lean = np.loadtxt(out / "frames.csv", delimiter=",", skiprows=1, usecols=(2, 3))
    return float(np.corrcoef(seen, there)[0, 1]), float(np.hypot(*lean))


@pytest.mark.parametrize("tilt_deg", [0.0, 30.0])
def test_a_view_laid_on_the_ground_by_its_telemetry_is_the_ground_at_its_truth(
    chip: Path, tmp_path: Path, tilt_deg: float
) -> None:
    found, lean_deg = likeness(chip, tmp_path / "flight", ViewConfig(tilt_deg=tilt_deg, seed=3, **EXACT))
    assert found > 0.95
    assert lean_deg > 5.0 if tilt_deg else lean_deg == 0.0


def test_an_error_of_the_attitude_moves_it_off_its_ground(chip: Path, tmp_path: Path) -> None:
    config = ViewConfig(tilt_deg=30.0, attitude_error_deg=4.0, seed=3, **EXACT)
    assert likeness(chip, tmp_path / "flight", config)[0] < 0.5


def test_a_horizon_in_the_picture_or_a_chip_that_is_not_there_is_refused(chip: Path, tmp_path: Path) -> None:
    with pytest.raises(FlightError, match="horizon"):
        write_views([chip], tmp_path / "one", ViewConfig(tilt_deg=85.0, seed=1, footprint_m=(400.0, 300.0)))
    with pytest.raises(FlightError, match=r"no chip: .*gone\.tif"):
        write_views([tmp_path / "gone.tif"], tmp_path / "other")
