"""A region map that is built: what is in it, what replaces it, and what is refused when it is broken."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pyproj
import pytest
import rasterio
from toy_region import PLACE, SIDE_M, UTM, ToyEngine, files_of, write_geotiff

from export.region.build import BuildOptions, build_map
from onboard.errors import MapError
from onboard.region import RegionMap


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


def test_outside_and_nowhere_are_not_contained(built: Path) -> None:
    region = RegionMap.open(built)
    west, _, east, north = region.bounds_enu_m
    for point in ([west - 0.1, 0.0], [east + 5.0, 0.0], [0.0, north + 0.1], [math.nan, 0.0], [math.inf, 0.0]):
        assert not region.contains(np.array(point))


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
    with pytest.raises(MapError, match=r"format version: 99; expected version 1 to 3; rebuild"):
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
