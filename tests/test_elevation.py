"""Heights of the ground in a region map: how they come in from a DEM, what is refused, and how they are asked for."""

from __future__ import annotations

import json
import math
import mmap
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from toy_region import PLACE, UTM, ToyEngine, files_of, write_geotiff
from typer.testing import CliRunner

import onboard.engine
from export.region.build import BuildOptions, build_map
from export.region.cli import app
from export.region.elevation import FILL_M, inspect_dem, lay_heights, posts_over
from onboard.errors import MapError
from onboard.region import RegionMap
from onboard.region.elevation import Elevation

VOID = -32768.0


def heights(east_m: np.ndarray, north_m: np.ndarray) -> np.ndarray:
    """A slope with waves of 500 m: 60 to 200 m."""
    return 120 + 0.1 * east_m - 0.06 * north_m + 5 * np.sin(east_m / 80 + 1.0)


def write_dem(
    path: Path,
    crs: str | None = UTM,
    step: float = 2.0,
    side_m: float = 500.0,
    east_m: float = 0.0,
    change: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] = lambda h, east, north: h,
    dtype: str = "float32",
    nodata: float | None = VOID,
    bands: int = 1,
    unit: str | None = None,
) -> Path:
    """`heights` about PLACE, or `east_m` beside it, as a GeoTIFF; `step` is a pixel in the units of the CRS."""
    to_crs = pyproj.Transformer.from_crs(PLACE.proj4, crs or UTM, always_xy=True)
    x, y = to_crs.transform(east_m, 0.0)
    size = math.ceil(side_m / (step * 90_000 if crs == "EPSG:4326" else step))
    transform = Affine(step, 0, x - size * step / 2, 0, -step, y + size * step / 2)
    cols, rows = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    east, north = to_crs.transform(transform.c + cols * step, transform.f - rows * step, direction="INVERSE")
    values = change(heights(np.asarray(east), np.asarray(north)), np.asarray(east), np.asarray(north)).astype(dtype)
    settings = {"driver": "GTiff", "width": size, "height": size, "count": bands, "dtype": dtype, "nodata": nodata}
    if crs is not None:
        settings |= {"crs": crs, "transform": transform}
    with rasterio.open(path, "w", **settings) as file:
        file.write(np.repeat(values[None], bands, axis=0))
        if unit:
            file.units = (unit,) * bands
    return path


def laid(path: Path, half_m: float = 90.0) -> Elevation:
    """The DEM on posts for a map of some metres about PLACE."""
    posts = posts_over(inspect_dem(path), PLACE, (-half_m, -half_m, half_m, half_m))
    raster = np.zeros((posts.rows, posts.cols), np.float32)
    lay_heights(posts, PLACE, raster)
    return Elevation(posts.post_m, posts.west_m, posts.north_m, raster)


POINTS = np.random.default_rng(1).uniform(-90, 90, (200, 2))


# ---- what is laid


@pytest.mark.parametrize(
    ("crs", "step"), [(UTM, 2.0), (UTM, 0.5), (UTM, 12.0), ("EPSG:3857", 5.0), ("EPSG:4326", 1 / 3600 / 3)]
)
def test_heights_of_any_crs_and_step_are_those_of_the_ground(tmp_path: Path, crs: str, step: float) -> None:
    elevation = laid(write_dem(tmp_path / "dem.tif", crs, step))
    assert elevation.post_m >= 2.0
    np.testing.assert_allclose(elevation.at(POINTS), heights(*POINTS.T), atol=0.3)


def test_whole_numbers_with_scale_and_offset_are_metres(tmp_path: Path) -> None:
    path = write_dem(tmp_path / "dem.tif", dtype="int16", nodata=-1, change=lambda h, *_: np.rint((h - 50) / 0.1))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.1,), (50.0,)
    np.testing.assert_allclose(laid(path).at(POINTS), heights(*POINTS.T), atol=0.4)


@pytest.mark.parametrize("void", [VOID, math.nan])
def test_small_holes_are_filled_from_round_them_and_the_middle_of_large_ones_stays_unknown(
    tmp_path: Path, void: float
) -> None:
    def holes(h: np.ndarray, east: np.ndarray, north: np.ndarray) -> np.ndarray:
        small, large = np.hypot(east + 120, north) < 20, np.hypot(east - 80, north) < 90
        return np.where(small | large, void, h)

    elevation = laid(write_dem(tmp_path / "dem.tif", nodata=void, change=holes), 190.0)
    small = np.array([[-120.0, 0], [-110, 8], [-130, -5]])
    np.testing.assert_allclose(elevation.at(small), heights(*small.T), atol=2.5)
    assert np.isnan(elevation.at(np.array([[80.0, 0.0], [95.0, 20.0]]))).all()
    near_rim = np.array([[80.0 - 90 + 0.6 * FILL_M, 0.0]])
    assert np.isfinite(elevation.at(near_rim)).all()
    far = np.array([[-120.0, 100], [-40, -150], [180, 150]])
    np.testing.assert_allclose(elevation.at(far), heights(*far.T), atol=0.2)


# ---- how it is asked for


def test_between_posts_heights_are_bilinear_and_beyond_them_unknown() -> None:
    raster = np.array([[1.0, 3.0, 7.0], [5.0, 9.0, np.nan]], np.float32)
    elevation = Elevation(10.0, 100.0, 220.0, raster)  # posts at 105, 115, 125 east and 215, 205 north
    asked = np.array([[105.0, 215], [110, 215], [110, 210], [105, 205]])
    np.testing.assert_allclose(elevation.at(asked), [1, 2, 4.5, 5])
    unknown = np.array([[120.0, 210], [104.9, 210], [110, 215.1], [110, 204.9], [126, 215], [np.nan, 210]])
    assert np.isnan(elevation.at(unknown)).all()
    assert elevation.at(np.array([110.0, 210.0])).tolist() == [4.5]  # one point alone


# ---- in a map


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two maps of the same imagery: `level` and `hills`."""
    folder = tmp_path_factory.mktemp("maps")
    imagery = write_geotiff(folder / "ortho.tif")
    build_map([imagery], folder / "level", ToyEngine(), BuildOptions(name="place"))
    dem = write_dem(folder / "dem.tif")
    build_map([imagery], folder / "hills", ToyEngine(), BuildOptions(name="place", dem=dem))
    return folder


def test_a_map_with_a_dem_knows_the_ground_and_is_else_the_same(maps: Path) -> None:
    level, hills = (RegionMap.open(maps / name, verify=True) for name in ("level", "hills"))
    west, south, east, north = hills.bounds_enu_m
    at = np.random.default_rng(3).uniform((west, south), (east, north), (100, 2))
    to_place = pyproj.Transformer.from_crs(hills.frame.proj4, PLACE.proj4)
    np.testing.assert_allclose(hills.elevation_at(at), heights(*to_place.transform(*at.T)), atol=0.1)
    corners = np.array([[west, south], [west, north], [east, south], [east, north]])
    assert np.isfinite(hills.elevation_at(corners)).all()
    assert np.isnan(level.elevation_at(at)).all()
    with_, without = files_of(maps / "hills"), files_of(maps / "level")
    assert set(with_) - set(without) == {"elevation.npy"}
    assert all(with_[name] == without[name] for name in without if name != "manifest.json")
    assert hills.elevation is not None
    assert isinstance(hills.elevation.heights_m.base, mmap.mmap)


def test_the_manifest_says_where_heights_come_from_and_an_old_program_refuses_them_by_the_number(maps: Path) -> None:
    level = json.loads((maps / "level/manifest.json").read_text())
    assert level["format_version"] == 1
    assert "elevation" not in level
    hills = RegionMap.open(maps / "hills").manifest
    assert hills.format_version == 2
    assert hills.elevation is not None
    assert (hills.elevation.source.file, hills.elevation.source.crs) == ("dem.tif", UTM)
    assert (hills.elevation.post_m, hills.elevation.vertical_datum) == (2.0, "as in the file")
    assert hills.elevation.known == hills.elevation.rows * hills.elevation.cols
    assert 100 < hills.elevation.lowest_m < 110 < 130 < hills.elevation.highest_m < 145
    (part,) = (part for part in hills.parts if part.file == "elevation.npy")
    assert part.bytes > 4 * hills.elevation.known


def test_a_dem_that_changed_starts_an_interrupted_build_anew_and_the_same_one_goes_on(
    maps: Path, tmp_path: Path
) -> None:
    def build(out: Path, engine: ToyEngine) -> bool:
        return build_map(
            [maps / "ortho.tif"], out, engine, BuildOptions(name="place", dem=tmp_path / "dem.tif")
        ).resumed

    write_dem(tmp_path / "dem.tif")
    for expected in (True, False):
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "map", ToyEngine(fails_at=2))
        if not expected:
            write_dem(tmp_path / "dem.tif", change=lambda h, *_: h + 7)
        assert build(tmp_path / "map", ToyEngine()) is expected
        if expected:
            assert files_of(tmp_path / "map") == files_of(maps / "hills")
            shutil.rmtree(tmp_path / "map")
    assert RegionMap.open(tmp_path / "map").elevation_at(np.zeros((1, 2)))[0] == pytest.approx(131.2, abs=0.3)


def test_the_commands_take_a_dem_and_say_what_it_gave(
    maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onboard.engine, "open_engine", lambda path, config: ToyEngine())
    runner, out = CliRunner(), tmp_path / "map"
    built = runner.invoke(app, ["build", str(maps / "ortho.tif"), "--dem", str(maps / "dem.tif"), "--out", str(out)])
    assert built.exit_code == 0, built.output
    said = runner.invoke(app, ["info", str(out), "--verify"])
    for word in ("elevation.npy", "posts 2 m apart", "known 100.0%", "dem.tif", "as in the file"):
        assert word in said.output
    assert "taken as level" in runner.invoke(app, ["info", str(maps / "level")]).output


# ---- what is refused


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "bands": ({"bands": 3}, r"DEM of several bands: .*dem\.tif has 3; expected one band of heights in metres"),
    "crs": ({"crs": None}, r"no georeference"),
    "half": (
        {"east_m": 250.0},
        r"DEM does not cover the imagery: .*dem\.tif has heights for [67]\d\.\d % of it; .*90 %",
    ),
    "elsewhere": ({"east_m": 9000.0}, r"DEM does not cover the imagery: .* 0\.0 % of it"),
    "void": ({"change": lambda h, *_: np.full_like(h, VOID)}, r"DEM without heights: .*dem\.tif is all void"),
    "undeclared": (
        {"nodata": None, "change": lambda h, east, north: np.where(east > 20, -9999, h)},
        r"DEM with a height that no ground has: -\d+ m .*gdal_edit\.py -a_nodata",
    ),
    "feet": ({"unit": "ft"}, r"DEM in another unit: .* is in ft; expected heights in metres"),
    "complex": ({"dtype": "complex64", "nodata": None}, r"DEM of unusable numbers: .*complex64"),
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_dem_is_refused_in_one_line_and_leaves_nothing(maps: Path, tmp_path: Path, case: str) -> None:
    how, expected = REFUSED[case]
    dem = write_dem(tmp_path / "dem.tif", **how)  # type: ignore[arg-type]
    with pytest.raises(MapError, match=expected) as caught:
        build_map([maps / "ortho.tif"], tmp_path / "map", ToyEngine(fails_at=1), BuildOptions(dem=dem))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("map*"))


def test_no_dem_and_what_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MapError, match="no such DEM"):
        inspect_dem(tmp_path / "dem.tif")
    (tmp_path / "dem.tif").write_text("hills")
    with pytest.raises(MapError, match="unreadable DEM"):
        inspect_dem(tmp_path / "dem.tif")


def test_a_map_whose_heights_are_broken_is_refused(maps: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(maps / "hills", tmp_path / "map"))
    manifest = json.loads((folder / "manifest.json").read_text())

    def refused(expected: str, **fields: object) -> None:
        (folder / "manifest.json").write_text(json.dumps(manifest | fields))
        with pytest.raises(MapError, match=expected):
            RegionMap.open(folder)

    refused("elevation in version 2, none in version 1", format_version=1)
    refused(r"elevation\.npy is float32", elevation=manifest["elevation"] | {"rows": 7})
    refused("broken manifest", elevation=manifest["elevation"] | {"rows": 1})
    refused("broken manifest", elevation=None)
    refused("broken manifest", elevation={"post_m": 2.0})
    parts = [part for part in manifest["parts"] if part["file"] != "elevation.npy"]
    refused(r"map part is missing: elevation\.npy", parts=parts)
    (folder / "elevation.npy").write_bytes((folder / "elevation.npy").read_bytes()[:-4])
    refused(r"elevation\.npy has \d+ bytes")
