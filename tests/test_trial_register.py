"""Two dates of a place: how far apart they lie is found by their own keypoints, or not at all."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from affine import Affine

from calibration.trials.views import ViewConfig, write_views
from onboard.errors import FlightError
from onboard.flight import open_flight
from onboard.region.register import shift_px


def ground(seed: int) -> np.ndarray:
    """uint8 (256, 256, 3): roofs and fields with edges that keypoints hold on to."""
    rng = np.random.default_rng(seed)
    rgb = np.full((256, 256, 3), 110, np.uint8)
    for _ in range(160):
        corners = cv2.boxPoints((rng.uniform(0, 256, 2), rng.uniform(6, 30, 2), rng.uniform(0, 90)))
        cv2.fillPoly(rgb, [corners.astype(int)], rng.integers(40, 230, 3).tolist())
    return cv2.GaussianBlur(rgb, (0, 0), 1.0)


def moved(rgb: np.ndarray, col: float, row: float) -> np.ndarray:
    return cv2.warpAffine(rgb, np.array([[1, 0, col], [0, 1, row]], float), (256, 256), borderMode=cv2.BORDER_REFLECT)


@pytest.mark.parametrize(("col", "row"), [(0.0, 0.0), (1.3, -0.6), (-3.2, 2.5)])
def test_a_shift_is_found_between_pixels_under_another_light(col: float, row: float) -> None:
    first = ground(1)
    second = cv2.convertScaleAbs(moved(first, col, row), alpha=0.8, beta=15)
    assert shift_px(first, second) == pytest.approx((col, row), abs=0.1)


def test_other_ground_has_no_shift() -> None:
    assert shift_px(ground(1), ground(2)) is None
    assert shift_px(np.zeros((256, 256, 3), np.uint8), ground(2)) is None


def test_views_tell_their_truth_where_the_maps_date_has_the_ground(tmp_path: Path) -> None:
    seen = ground(3)
    facts = {"crs": "EPSG:32611", "transform": Affine(0.6, 0, 500000, 0, -0.6, 3770000), "dtype": "uint8"}
    for date, rgb in (("2020", seen), ("2016", moved(seen, 2.0, -1.0))):
        with rasterio.open(
            tmp_path / f"000_{date}.tif", "w", driver="GTiff", height=256, width=256, count=3, **facts
        ) as f:
            f.write(np.moveaxis(rgb, -1, 0))
    chip, config = tmp_path / "000_2020.tif", ViewConfig(footprint_m=(60.0, 46.0), image_px=(320, 245))
    places = []
    for mapped in ("", "2016"):
        truth = open_flight(write_views([chip], tmp_path / f"views{mapped}", config, mapped)).truth()
        assert truth is not None
        places.append((truth.latitude_deg[0], truth.longitude_deg[0]))
    north_m = (places[1][0] - places[0][0]) * 110_900
    east_m = (places[1][1] - places[0][1]) * 92_400
    assert (east_m, north_m) == pytest.approx((1.2, 0.6), abs=0.1)
    with pytest.raises(FlightError, match="no chip of the map's date"):
        write_views([chip], tmp_path / "none", config, "1999")
