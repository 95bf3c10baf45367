"""The region map: imagery of any CRS lands where it lies, what is built is whole, and what is broken is refused."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from typer.testing import CliRunner

import onboard.engine
from export.region.build import BuildOptions, build_map
from export.region.cli import app
from export.region.grid import resolutions_m
from export.region.imagery import inspect
from onboard.engine import Embeddings, ModelFacts
from onboard.errors import MapError
from onboard.frames import MapFrame
from onboard.region import Level, RegionMap

PLACE = MapFrame(37.5, 140.99)  # where 3857's metres are 1.26 times too long
UTM = "EPSG:32654"
SIDE_M = 180.0


class ToyEngine:
    """Features that are a fixed projection of colours and slopes; `fails_at` interrupts at that call."""

    backend = "toy"

    def __init__(self, sha256: str = "ab" * 32, fails_at: int | None = None) -> None:
        self.facts = ModelFacts("toy", sha256, 256, 8, 16, 32, 4, 8, {})
        generator = np.random.default_rng(7)
        self._detail = generator.normal(size=(5, 16)).astype(np.float32)
        self._global = generator.normal(size=(192, 32)).astype(np.float32)
        self._fails_at, self.windows, self._calls = fails_at, 0, 0

    def embed(self, images_rgb: np.ndarray, masks: np.ndarray) -> Embeddings:
        self._calls += 1
        if self._calls == self._fails_at:
            raise KeyboardInterrupt
        self.windows += len(images_rgb)
        return Embeddings(
            np.stack([self._descriptor(image) for image in images_rgb]),
            np.stack([self._features(image) for image in images_rgb]),
            np.zeros((len(images_rgb), 64, 64, 8), np.float32),
        )

    def close(self) -> None:
        """Nothing is held."""

    def _features(self, image: np.ndarray) -> np.ndarray:
        small = cv2.resize(image.astype(np.float32) - 100, (32, 32), interpolation=cv2.INTER_AREA)
        down, right = np.gradient(small.mean(axis=-1))
        features = np.dstack([small, down, right]) @ self._detail + 1e-3
        return features / np.linalg.norm(features, axis=-1, keepdims=True)

    def _descriptor(self, image: np.ndarray) -> np.ndarray:
        small = cv2.resize(image.astype(np.float32) - 100, (8, 8), interpolation=cv2.INTER_AREA)
        descriptor = small.ravel() @ self._global + 1e-3
        return descriptor / np.linalg.norm(descriptor)


def pattern(east_m: np.ndarray, north_m: np.ndarray) -> np.ndarray:
    """Colours (..., 3) in 30 to 220 of points about PLACE: waves of 9 m and more that do not repeat together."""
    e, n = np.asarray(east_m), np.asarray(north_m)
    red = np.sin(e / 3.1 + np.sin(n / 17.0)) + np.sin(n / 5.3) + np.sin((e + n) / 41.0)
    green = np.sin(n / 2.7 + np.sin(e / 23.0)) + np.sin((e - n) / 7.1) + np.sin(e / 37.0)
    blue = np.sin((e + 2 * n) / 6.1) + np.sin(e / 11.0) * np.sin(n / 13.0) + np.sin(n / 29.0)
    return 125 + 95 / 3 * np.stack([red, green, blue], axis=-1)


def write_geotiff(
    path: Path,
    crs: str = UTM,
    step: float = 0.6,
    centre_enu_m: tuple[float, float] = (0.0, 0.0),
    side_m: float = SIDE_M,
    turn_rad: float = 0.0,
    change: Callable[[np.ndarray], np.ndarray] = lambda bands: bands,
    mask: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    **profile: object,
) -> Path:
    """The pattern about PLACE as a GeoTIFF of a CRS; `step` is a pixel in its units, `change` acts on (3, H, W)."""
    from_geodetic = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    latitude, longitude = PLACE.geodetic_from_enu(np.asarray(centre_enu_m))
    x, y = from_geodetic.transform(longitude, latitude)
    side = math.ceil(side_m / (0.6 if crs == "EPSG:4326" else step))
    a, b = step * math.cos(turn_rad), step * math.sin(turn_rad)
    d, e = step * math.sin(turn_rad), -step * math.cos(turn_rad)
    c, f = x - (a + b) * side / 2, y - (d + e) * side / 2
    transform = Affine(a, b, c, d, e, f)
    cols, rows = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
    longitudes, latitudes = from_geodetic.transform(
        a * cols + b * rows + c, d * cols + e * rows + f, direction="INVERSE"
    )
    east, north = pyproj.Transformer.from_crs("EPSG:4326", PLACE.proj4, always_xy=True).transform(longitudes, latitudes)
    bands = change(np.moveaxis(np.rint(pattern(east, north)).astype(np.uint8), -1, 0))
    settings = {"driver": "GTiff", "count": len(bands), "dtype": bands.dtype, "crs": crs, "transform": transform}
    settings.update(profile)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", width=bands.shape[2], height=bands.shape[1], **settings) as file,
    ):
        file.write(bands)
        if mask is not None:
            file.write_mask(mask(east, north))
    return path


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


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of one UTM file with a hole, 0.6 and 1.2 m a pixel. Copy it before breaking it."""
    folder = tmp_path_factory.mktemp("built")
    imagery = write_geotiff(
        folder / "ortho.tif", mask=lambda east, north: np.where(np.hypot(east - 20, north) < 20, 0, 255).astype("u1")
    )
    build_map([imagery], folder / "map", ToyEngine(), BuildOptions(name="toy place", licence="CC0"))
    return folder / "map"


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "map"))


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


# ---- what is built


def test_tiles_and_cells_are_those_of_the_windows_about_them(built: Path) -> None:
    region, engine = RegionMap.open(built), ToyEngine()
    for level in region.levels:
        assert len(level.tiles) == len(level.descriptors) > 0
        for centre, descriptor in zip(level.tiles, level.descriptors, strict=True):
            rgb, mask = level.window(centre, 256)
            found = engine.embed(rgb[None], mask[None])
            assert descriptor == pytest.approx(found.descriptors[0], abs=1e-3)
            row, col = (round(float(index) + 0.5) for index in level.cell_of(centre))
            stored = level.detail[row - 8 : row + 8, col - 8 : col + 8]
            there = level.detail_valid[row - 8 : row + 8, col - 8 : col + 8] > 0
            fresh = found.detail[0][8 : 8 + stored.shape[0], 8 : 8 + stored.shape[1]]
            assert np.abs(stored[there] / 127.0 - fresh[there]).max() < 0.005


def test_every_patch_of_imagery_has_features_and_a_descriptor(tmp_path: Path) -> None:
    places = [(0.0, 0.0), (700.0, 30.0), (-350.0, 520.0), (400.0, -610.0)]
    for index, place in enumerate(places):
        write_geotiff(tmp_path / f"{index}.tif", centre_enu_m=place, side_m=100)
    engine = ToyEngine()
    build_map([tmp_path], tmp_path / "map", engine)
    region = RegionMap.open(tmp_path / "map")
    for level in region.levels:
        assert (np.linalg.norm(level.detail[level.detail_valid > 0].astype(float), axis=-1) > 120).all()
        for place in places:
            here = region.frame.enu_from_geodetic(*PLACE.geodetic_from_enu(np.array(place)))
            away_m = np.abs(level.tiles - here).max(axis=1).min()
            assert away_m < level.tile_px / 2 * level.metres_per_pixel
    assert engine.windows < 60  # and what is empty costs nothing: a full grid has several hundred


def test_the_manifest_says_what_went_in_and_names_no_folder(built: Path) -> None:
    text = (built / "manifest.json").read_text()
    assert str(built.parent) not in text
    manifest = RegionMap.open(built, verify=True).manifest
    assert (manifest.name, manifest.model_name, manifest.model_sha256) == ("toy place", "toy", "ab" * 32)
    (source,) = manifest.sources
    assert (source.file, source.crs, source.licence) == ("ortho.tif", UTM, "CC0")
    assert source.native_metres_per_pixel == pytest.approx(0.6, rel=1e-3)
    assert manifest.coverage_km2 == pytest.approx((SIDE_M**2 - math.pi * 20**2) / 1e6, rel=0.01)
    assert {part.file for part in manifest.parts} == set(files_of(built)) - {"manifest.json"}


def test_the_picture_is_a_geotiff_over_the_same_ground(built: Path) -> None:
    region = RegionMap.open(built)
    with rasterio.open(built / "picture.tif") as picture:
        assert tuple(picture.bounds) == pytest.approx(region.bounds_enu_m)
        assert pyproj.CRS(picture.crs.to_wkt()).coordinate_operation.method_name == "Transverse Mercator"
    rgb, (west, south, east, north) = region.picture(100)
    assert max(rgb.shape[:2]) <= 100
    step_m = (east - west) / rgb.shape[1]
    assert (north - south) / rgb.shape[0] == pytest.approx(step_m)
    level = region.levels[0]
    rows, cols = np.mgrid[: rgb.shape[0], : rgb.shape[1]]
    at = np.stack([west + (cols + 0.5) * step_m, north - (rows + 0.5) * step_m], axis=-1)
    row, col = level.pixel_of(at[20:60, 20:40])
    below = cv2.blur(np.asarray(level.image), (3, 3))[np.rint(row).astype(int), np.rint(col).astype(int)]
    assert np.abs(rgb[20:60, 20:40].astype(float) - below).mean() < 12


# ---- windows


def toy_level(height: int = 300, width: int = 400, metres: float = 0.5) -> Level:
    """A level of random pixels, all valid but one."""
    image = np.random.default_rng(3).integers(0, 256, (height, width, 3)).astype(np.uint8)
    valid = np.ones((height, width), np.uint8)
    valid[150, 200] = 0
    cells, empty = (height // 8, width // 8), np.zeros((0, 2))
    return Level(
        metres, -70.0, 40.0, 8 * metres, 256, image, valid, np.zeros((*cells, 4), np.int8), valid, empty, empty
    )


@pytest.mark.parametrize("size", [64, 65])
def test_a_window_on_pixel_centres_copies_the_pixels(size: int) -> None:
    level = toy_level()
    centre = level.enu_of_pixel(100 + (size - 1) / 2, 50 + (size - 1) / 2)
    rgb, mask = level.window(centre, size)
    assert mask.all()
    assert (rgb == level.image[100 : 100 + size, 50 : 50 + size]).all()


def test_a_window_between_pixels_is_bilinear_about_exactly_its_centre() -> None:
    level = toy_level()
    for down, right in np.random.default_rng(5).uniform(0, 1, (10, 2)):
        rgb, mask = level.window(level.enu_of_pixel(100 + 31.5 + down, 50 + 31.5 + right), 64)
        image = level.image.astype(float)
        rows, cols = slice(100, 164), slice(50, 114)
        next_rows, next_cols = slice(101, 165), slice(51, 115)
        above = image[rows, cols] * (1 - right) + image[rows, next_cols] * right
        below = image[next_rows, cols] * (1 - right) + image[next_rows, next_cols] * right
        assert mask.all()
        assert np.abs(rgb - (above * (1 - down) + below * down)).max() <= 1.0


def test_a_window_masks_what_is_not_there() -> None:
    level = toy_level()
    _, mask = level.window(level.enu_of_pixel(150.25, 200.0), 65)
    assert np.argwhere(~mask).tolist() == [[31, 32], [32, 32]]  # both rows that touch the missing pixel
    rgb, mask = level.window(np.array([level.west_m, level.north_m]), 64)
    assert mask[32:, 32:].all()
    assert not mask[:32].any()
    assert not mask[:, :32].any()
    assert (rgb[~mask] == 0).all()
    _, mask = level.window(np.array([level.west_m - 1e6, 0.0]), 64)
    assert not mask.any()


def test_indices_and_points_are_inverse_and_meet_at_the_corner() -> None:
    level = toy_level()
    corner = np.array([level.west_m, level.north_m])
    assert [float(index) for index in level.pixel_of(corner)] == [-0.5, -0.5]
    assert [float(index) for index in level.cell_of(corner)] == [-0.5, -0.5]
    points = np.random.default_rng(1).uniform(-50, 50, (20, 2))
    assert level.enu_of(*level.cell_of(points)) == pytest.approx(points)
    assert level.enu_of_pixel(*level.pixel_of(points)) == pytest.approx(points)
    assert level.enu_of_pixel(3.5, 3.5) == pytest.approx(level.enu_of(0, 0))  # 8 pixels of 0.5 m


def test_outside_and_nowhere_are_not_contained(built: Path) -> None:
    region = RegionMap.open(built)
    west, _, east, north = region.bounds_enu_m
    for point in ([west - 0.1, 0.0], [east + 5.0, 0.0], [0.0, north + 0.1], [math.nan, 0.0], [math.inf, 0.0]):
        assert not region.contains(np.array(point))


# ---- the same bytes, or none


def test_two_builds_and_an_interrupted_one_give_the_same_bytes(tmp_path: Path) -> None:
    imagery = write_geotiff(tmp_path / "ortho.tif")
    whole = ToyEngine()
    for name in ("one/map", "two/map"):
        build_map([imagery], tmp_path / name, whole)
    out = tmp_path / "three/map"
    with pytest.raises(KeyboardInterrupt):
        build_map([imagery], out, ToyEngine(fails_at=3))
    assert not out.exists()
    journal = out.with_name("map.partial") / "journal.jsonl"
    journal.write_text(journal.read_text() + '"level0 r')  # cut off in the middle of an entry
    again = ToyEngine()
    result = build_map([imagery], out, again)
    assert result.resumed
    assert 0 < again.windows < whole.windows / 2
    first = files_of(tmp_path / "one/map")
    assert first == files_of(tmp_path / "two/map") == files_of(out)
    assert not out.with_name("map.partial").exists()


@pytest.mark.parametrize("change", ["model", "option", "imagery"])
def test_an_interrupted_build_of_something_else_starts_anew(tmp_path: Path, change: str) -> None:
    imagery, out = write_geotiff(tmp_path / "ortho.tif"), tmp_path / "map"
    with pytest.raises(KeyboardInterrupt):
        build_map([imagery], out, ToyEngine(fails_at=3))
    engine, options = ToyEngine("cd" * 32 if change == "model" else "ab" * 32), BuildOptions()
    if change == "option":
        options = BuildOptions(metres_per_pixel=1.0)
    if change == "imagery":
        write_geotiff(tmp_path / "ortho.tif", change=lambda bands: 255 - bands)
    assert not build_map([imagery], out, engine, options).resumed
    fresh = ToyEngine(engine.facts.sha256)
    build_map([imagery], tmp_path / "fresh/map", fresh, options)
    assert files_of(tmp_path / "fresh/map") == files_of(out)


def test_force_replaces_a_map_and_nothing_else(copied: Path, tmp_path: Path) -> None:
    imagery = write_geotiff(tmp_path / "ortho.tif")
    with pytest.raises(MapError, match=r"map exists.*--force"):
        build_map([imagery], copied, ToyEngine())
    build_map([imagery], copied, ToyEngine("cd" * 32), force=True)
    assert RegionMap.open(copied).manifest.model_sha256 == "cd" * 32
    assert [path.name for path in tmp_path.glob("map*")] == ["map"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/dear.jpg").write_bytes(b"dear")
    with pytest.raises(MapError, match="not a region map"):
        build_map([imagery], tmp_path / "photos", ToyEngine(), force=True)
    (tmp_path / "photos").rename(tmp_path / "new.partial")
    with pytest.raises(MapError, match="not an unfinished map"):
        build_map([imagery], tmp_path / "new", ToyEngine())
    assert (tmp_path / "new.partial/dear.jpg").read_bytes() == b"dear"


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


def test_a_model_that_gives_nan_makes_no_map(tmp_path: Path) -> None:
    class Broken(ToyEngine):
        def embed(self, images_rgb: np.ndarray, masks: np.ndarray) -> Embeddings:
            found = super().embed(images_rgb, masks)
            found.detail[0, 0, 0, 0] = np.nan
            return found

    with pytest.raises(MapError, match="not finite"):
        build_map([write_geotiff(tmp_path / "ortho.tif")], tmp_path / "map", Broken())
    assert not list(tmp_path.glob("map*"))


# ---- bad maps


def _edit(folder: Path, **fields: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **fields}))


def test_a_map_of_another_model_is_refused_by_both_names(built: Path) -> None:
    assert RegionMap.open(built, ToyEngine().facts).name == "toy place"
    with pytest.raises(MapError, match=r"made with toy \(abababababab\).*toy \(cdcdcdcdcdcd\).*pilotage map build"):
        RegionMap.open(built, ToyEngine("cd" * 32).facts)


def test_no_map_no_manifest_and_a_broken_one_are_refused(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(MapError, match="no region map"):
        RegionMap.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MapError, match="not a region map"):
        RegionMap.open(tmp_path / "empty")
    for content in (b"{", b"[]", b"\xff\xfe"):
        (copied / "manifest.json").write_bytes(content)
        with pytest.raises(MapError, match="broken manifest"):
            RegionMap.open(copied)


def test_another_format_version_is_refused(copied: Path) -> None:
    _edit(copied, format_version=99)
    with pytest.raises(MapError, match=r"format version: 99; expected version 1; rebuild"):
        RegionMap.open(copied)


@pytest.mark.parametrize("fields", [{"levels": [{}]}, {"levels": []}, {"surprise": 1}, {"bounds_enu_m": [1, 2]}])
def test_a_manifest_of_other_keys_is_refused(copied: Path, fields: dict[str, object]) -> None:
    _edit(copied, **fields)
    with pytest.raises(MapError, match="broken manifest"):
        RegionMap.open(copied)


def test_parts_outside_the_folder_are_refused(copied: Path) -> None:
    _edit(copied, parts=[{"file": "../secret", "bytes": 1, "sha256": "00"}])
    with pytest.raises(MapError, match="inside the map's folder"):
        RegionMap.open(copied)


def test_a_missing_and_a_cut_part_are_refused(copied: Path) -> None:
    part = copied / "level1" / "detail.npy"
    content = part.read_bytes()
    part.write_bytes(content[:-1])
    with pytest.raises(MapError, match=r"level1/detail\.npy has \d+ bytes"):
        RegionMap.open(copied)
    part.unlink()
    with pytest.raises(MapError, match=r"map part is missing: level1/detail\.npy"):
        RegionMap.open(copied)


def test_a_changed_byte_is_refused(copied: Path) -> None:
    part = copied / "level0" / "tiles.npy"
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    with pytest.raises(MapError, match=r"level0/tiles\.npy has hash"):
        RegionMap.open(copied)


def test_a_part_of_another_shape_is_refused(copied: Path) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["levels"][0]["cell_rows"] += 1
    _edit(copied, levels=manifest["levels"])
    with pytest.raises(MapError, match=r"level0/detail\.npy is int8"):
        RegionMap.open(copied)


# ---- the commands


def test_the_commands_build_a_map_and_say_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onboard.engine, "open_engine", lambda path, config: ToyEngine())
    imagery, out = write_geotiff(tmp_path / "ortho.tif"), tmp_path / "map"
    runner = CliRunner()
    built = runner.invoke(app, ["build", str(imagery), "--out", str(out), "--licence", "CC0", "--name", "field"])
    assert built.exit_code == 0, built.output
    said = runner.invoke(app, ["info", str(out), "--verify"])
    assert said.exit_code == 0
    for word in ("field", "ortho.tif", "CC0", "level0/detail.npy", "0.6", "abababababab", "size and hash"):
        assert word in said.output
    refused = runner.invoke(app, ["build", str(imagery), "--out", str(out)])
    assert isinstance(refused.exception, MapError)
