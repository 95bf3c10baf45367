"""Imagery of any CRS lands where it lies; what is no imagery is masked, and bad imagery makes no map."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyproj
import pytest
import rasterio
from toy_region import PLACE, SIDE_M, UTM, ToyEngine, pattern, write_geotiff

from export.region.build import BuildOptions, build_map
from export.region.cli import tables
from export.region.grid import resolutions_m
from export.region.imagery import inspect
from onboard.errors import MapError
from onboard.region import Level, RegionMap


def truth_of(region: RegionMap, level: Level) -> np.ndarray:
    """The pattern (H, W, 3) at the centres of a level's pixels."""
    rows, cols = np.mgrid[: level.valid.shape[0], : level.valid.shape[1]]
    points = level.enu_of_pixel(rows, cols)
    east, north = pyproj.Transformer.from_crs(region.frame.proj4, PLACE.proj4).transform(points[..., 0], points[..., 1])
    return pattern(east, north)


def inside(valid: np.ndarray) -> np.ndarray:
    """What lies two pixels and more from the edge of what is valid."""
    return cv2.erode(valid.astype(np.uint8), np.ones((5, 5)), borderValue=0).astype(bool)


def shift_px(image: np.ndarray, truth: np.ndarray, where: np.ndarray) -> np.ndarray:
    """(down, right) by how many pixels an image lies off its truth: least squares over the truth's slopes.

    (Phase correlation sees nothing here: the pattern has few frequencies.)
    """
    slopes = np.stack([slope[where] for slope in np.gradient(truth.mean(axis=-1))], axis=1)
    error = (image.astype(float) - truth).mean(axis=-1)[where]
    return -np.linalg.lstsq(slopes, error, rcond=None)[0]


# ---- imagery lands where it lies


@pytest.mark.parametrize(
    ("crs", "step", "turn_rad"),
    [(UTM, 0.6, 0.0), (UTM, 0.25, 0.0), (UTM, 0.6, 0.5), ("EPSG:3857", 0.756, 0.0), ("EPSG:4326", 6e-6, 0.0)],
    ids=["utm", "utm shrunk", "utm turned", "web mercator", "degrees"],
)
def test_the_same_ground_in_any_crs_lands_within_a_fiftieth_of_a_pixel(
    tmp_path: Path, crs: str, step: float, turn_rad: float
) -> None:
    imagery = write_geotiff(tmp_path / "ortho.tif", crs, step, turn_rad=turn_rad)
    build_map([imagery], tmp_path / "map", ToyEngine(), BuildOptions(metres_per_pixel=0.6))
    region = RegionMap.open(tmp_path / "map")
    assert [level.metres_per_pixel for level in region.levels] == [0.6, 1.2]
    for level in region.levels:
        truth, where = truth_of(region, level), inside(level.valid)
        assert where.sum() > 0.55 * (SIDE_M / level.metres_per_pixel) ** 2
        assert np.abs(shift_px(level.image, truth, where)).max() < 0.02
        assert np.abs(level.image[where] - truth[where]).mean() < 1.0  # a whole pixel off is 2.6 to 6


def test_metres_of_web_mercator_are_not_taken_for_metres(tmp_path: Path) -> None:
    raster = inspect(write_geotiff(tmp_path / "ortho.tif", "EPSG:3857", 0.6))
    assert raster.native_m == pytest.approx(0.6 * math.cos(math.radians(37.5)), rel=3e-3)


@pytest.mark.parametrize(
    ("native", "chosen", "expected"),
    [
        ([0.6], None, [0.6, 1.2]),
        ([0.08], None, [0.3, 0.6, 1.2]),
        ([1.0], None, [1.0]),
        ([0.49996, 3.0], None, [0.5, 1.0]),
        ([10.0], None, [10.0]),
        ([0.08], 0.25, [0.25, 0.5, 1.0]),
    ],
)
def test_levels_double_from_the_finest_imagery(native: list[float], chosen: float | None, expected: list) -> None:
    assert resolutions_m(native, chosen) == pytest.approx(expected)


def test_later_files_lie_on_top_where_they_are_valid(tmp_path: Path) -> None:
    below = write_geotiff(tmp_path / "below.tif")
    above = write_geotiff(
        tmp_path / "above.tif",
        "EPSG:3857",
        0.5,
        side_m=90,
        change=lambda bands: np.where(np.arange(bands.shape[2]) < bands.shape[2] // 2, 0, 255 - bands).astype("u1"),
        nodata=0,
    )
    build_map([below, above], tmp_path / "map", ToyEngine(), BuildOptions(metres_per_pixel=0.6))
    region = RegionMap.open(tmp_path / "map")
    image, truth = region.levels[0].image.astype(float), truth_of(region, region.levels[0])
    middle, _ = region.levels[0].pixel_of(region.frame.enu_from_geodetic(37.5, 140.99))
    rows = slice(int(middle) - 40, int(middle) + 40)
    west, east = slice(100, 140), slice(160, 200)
    assert np.abs(image[rows, west] - truth[rows, west]).mean() < 1.0  # the upper file has no data there
    assert np.abs(image[rows, east] - (255 - truth[rows, east])).mean() < 1.0
    assert [source.file for source in region.manifest.sources] == ["below.tif", "above.tif"]


@pytest.mark.parametrize("kind", ["nodata", "mask", "alpha"])
def test_what_is_no_imagery_is_masked_and_has_no_features(tmp_path: Path, kind: str) -> None:
    def west_half(east: np.ndarray, north: np.ndarray) -> np.ndarray:
        return np.where(east < 0, 255, 0).astype("u1")

    if kind == "mask":
        path = write_geotiff(tmp_path / "ortho.tif", mask=west_half)
    else:

        def change(bands: np.ndarray) -> np.ndarray:
            there = np.arange(bands.shape[2]) < bands.shape[2] // 2
            bands = np.where(there, bands, 0).astype("u1")
            alpha = np.broadcast_to(there * 255, bands.shape[1:]).astype("u1")
            return np.concatenate([bands, alpha[None]]) if kind == "alpha" else bands

        extra = {"alpha": {"photometric": "RGB", "ALPHA": "YES"}, "nodata": {"nodata": 0}}[kind]
        path = write_geotiff(tmp_path / "ortho.tif", change=change, **extra)
    build_map([path], tmp_path / "map", ToyEngine())
    region = RegionMap.open(tmp_path / "map")
    assert region.coverage_km2 == pytest.approx(SIDE_M**2 / 2 / 1e6, rel=0.02)
    assert region.contains(region.frame.enu_from_geodetic(*PLACE.geodetic_from_enu(np.array([-20.0, 5.0]))))
    assert not region.contains(region.frame.enu_from_geodetic(*PLACE.geodetic_from_enu(np.array([20.0, 5.0]))))
    for level in region.levels:
        norm = np.linalg.norm(level.detail.astype(float), axis=-1)
        assert (norm[level.detail_valid == 0] == 0).all()
        assert norm[level.detail_valid > 0] == pytest.approx(127, abs=2.5)
        assert (level.image[level.valid == 0] == 0).all()


def test_grey_imagery_becomes_three_equal_bands(tmp_path: Path) -> None:
    build_map([write_geotiff(tmp_path / "o.tif", change=lambda b: b[:1])], tmp_path / "map", ToyEngine())
    image = RegionMap.open(tmp_path / "map").levels[0].image
    assert image.max() > 150
    assert (image == image[..., :1]).all()


def test_sixteen_bits_are_scaled_by_percentiles_and_said(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "o.tif", change=lambda bands: bands.astype(np.uint16) * 16 + 1000)
    build_map([path], tmp_path / "map", ToyEngine())
    region = RegionMap.open(tmp_path / "map")
    (source,) = region.manifest.sources
    assert source.value_range is not None
    low, high = source.value_range
    assert 1400 < low < 2500 < 3500 < high < 4600
    level = region.levels[0]
    expected = np.clip((truth_of(region, level) * 16 + 1000 - low) / (high - low) * 255, 0, 255)
    where = inside(level.valid)
    assert np.abs(level.image[where] - expected[where]).mean() < 1.0


# ---- bad imagery


def _no_file(folder: Path) -> list[Path]:
    return [folder / "none.tif"]


def _empty_directory(folder: Path) -> list[Path]:
    return [folder]


def _not_a_raster(folder: Path) -> list[Path]:
    (folder / "text.tif").write_text("hello")
    return [folder / "text.tif"]


def _truncated(folder: Path) -> list[Path]:
    path = write_geotiff(folder / "ortho.tif")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return [path]


def _no_georeference(folder: Path) -> list[Path]:
    with rasterio.open(folder / "p.tif", "w", driver="GTiff", width=9, height=9, count=3, dtype="uint8") as file:
        file.write(np.ones((3, 9, 9), np.uint8))
    return [folder / "p.tif"]


def _all_nodata(folder: Path) -> list[Path]:
    return [write_geotiff(folder / "ortho.tif", change=lambda bands: bands * 0, nodata=0)]


def _all_nodata_16(folder: Path) -> list[Path]:
    return [write_geotiff(folder / "ortho.tif", change=lambda bands: bands.astype(np.uint16) * 0, nodata=0)]


def _far_apart(folder: Path) -> list[Path]:
    return [
        write_geotiff(folder / "here.tif"),
        write_geotiff(folder / "there.tif", "EPSG:4326", 6e-6, centre_enu_m=(900e3, 0)),
    ]


def _palette(folder: Path) -> list[Path]:
    path = write_geotiff(folder / "ortho.tif", change=lambda bands: bands[:1], photometric="PALETTE")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {value: (value, 0, 255 - value, 255) for value in range(256)})
    return [path]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_no_file, r"no such imagery: .*none\.tif"),
        (_empty_directory, r"no imagery in directory: .*\*\.tif"),
        (_not_a_raster, r"unreadable imagery: .*text\.tif"),
        (_truncated, r"unreadable imagery: .*ortho\.tif"),
        (_no_georeference, r"no georeference: .*p\.tif; expected a CRS and a transform; .*gdal_translate -a_srs"),
        (_all_nodata, "no valid pixels"),
        (_all_nodata_16, "no valid pixels"),
        (_far_apart, "too far apart"),
        (_palette, r"palette: .*ortho\.tif.*-expand rgb"),
    ],
)
def test_bad_imagery_is_one_line_and_leaves_no_map(
    tmp_path: Path, make: Callable[[Path], list[Path]], says: str
) -> None:
    with pytest.raises(MapError, match=says) as caught:
        build_map(make(tmp_path), tmp_path / "map", ToyEngine())
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("map*"))


def test_a_map_of_many_sources_names_a_few_unless_all_are_asked_for(tmp_path: Path) -> None:
    build_map([write_geotiff(tmp_path / "one.tif")], tmp_path / "map", ToyEngine(), BuildOptions(metres_per_pixel=0.6))
    manifest = RegionMap.open(tmp_path / "map").manifest
    many = dataclasses.replace(manifest, sources=manifest.sources * 25)
    assert [tables(many, "ab" * 32)[-1].row_count, tables(many, "ab" * 32, every_source=True)[-1].row_count] == [11, 25]
    assert list(tables(many, "ab" * 32)[-1].columns[0].cells)[-1] == "and 15 more (--sources)"
