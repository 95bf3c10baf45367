"""Trials: imagery laid beside other imagery, with its pixels untouched, and views of one date over a map of another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from calibration.trials.surroundings import gather, place_beside
from onboard.errors import MapError


def write(path: Path, seed: int, side: int = 32, metres: float = 0.6, crs: str = "EPSG:32611") -> np.ndarray:
    rgb = np.random.default_rng(seed).integers(0, 256, (3, side, side), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"crs": crs, "transform": Affine(metres, 0, 4e5 + seed, 0, -metres, 3.7e6), "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", height=side, width=side, count=3, **facts) as file:
        file.write(rgb)
    return rgb


def test_gathered_places_lie_apart_and_their_dates_on_one_spot(tmp_path: Path) -> None:
    pixels = {}
    for city, crs in (("a", "EPSG:32611"), ("b", "EPSG:32610")):
        for place in ("000", "001", "002"):
            for year in ("2016", "2020"):
                seed = len(pixels)
                pixels[f"{city}-{place}_{year}"] = write(tmp_path / city / f"{place}_{year}.tif", seed, crs=crs)
    written = gather(sorted(tmp_path.glob("*/*.tif")), tmp_path / "out")
    assert sorted(path.stem for path in written) == sorted(pixels)
    bounds: dict[str, set[tuple[float, ...]]] = {}
    for path in written:
        with rasterio.open(path) as raster:
            np.testing.assert_array_equal(raster.read(), pixels[path.stem])
            assert raster.crs.to_epsg() == 32611
            assert raster.transform.a == pytest.approx(0.6)
            bounds.setdefault(path.stem[:5], set()).add(tuple(raster.bounds))
    spots = [next(iter(dates)) for dates in bounds.values() if len(dates) == 1]
    assert len(spots) == 6, "both dates of a place share its spot"
    for i, one in enumerate(spots):
        for other in spots[:i]:
            apart = max(other[0] - one[2], one[0] - other[2], other[1] - one[3], one[1] - other[3])
            assert apart >= 59.9, "no view may see two places"
    assert not list((tmp_path / "out").glob("*.partial*"))


def test_dates_of_a_place_that_differ_in_size_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a" / "000_2016.tif", 1)
    write(tmp_path / "a" / "000_2020.tif", 2, side=40)
    with pytest.raises(MapError, match=r"chips of one place.*000_2020"):
        gather(sorted(tmp_path.glob("*/*.tif")), tmp_path / "out")


def test_chips_in_degrees_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a" / "000_2016.tif", 1, metres=1e-5, crs="EPSG:4326")
    with pytest.raises(MapError, match="projected CRS"):
        gather([tmp_path / "a" / "000_2016.tif"], tmp_path / "out")


def test_imagery_of_elsewhere_lies_east_of_the_reference_and_keeps_its_pixels(tmp_path: Path) -> None:
    write(tmp_path / "reference.tif", 1)
    elsewhere = write(tmp_path / "elsewhere.tif", 2, side=48, crs="EPSG:32610")
    out = place_beside(tmp_path / "elsewhere.tif", tmp_path / "reference.tif", tmp_path / "out.tif")
    with rasterio.open(out) as laid, rasterio.open(tmp_path / "reference.tif") as reference:
        np.testing.assert_array_equal(laid.read(), elsewhere)
        assert laid.bounds.left - reference.bounds.right == pytest.approx(60.0)
        assert laid.crs == reference.crs
