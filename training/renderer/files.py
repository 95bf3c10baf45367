"""Places on disk: GeoTIFFs that any tool opens, and the facts by which a flight can be rendered later."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from training.renderer.errors import RenderError
from training.renderer.place import Place

_FACTS = "place.json"
_HEIGHT_STEP_M = 0.05  # heights are rounded to this, which halves the files


def write_place(place: Place, folder: Path) -> None:
    """orthophoto.tif and surface.tif for a map; terrain, cover, objects and place.json for the renderer.

    The folder is written beside and renamed. Raises RenderError where something else stands in the way.
    """
    if folder.exists() and not (folder / _FACTS).is_file():
        raise RenderError("not a place folder", folder, "a new folder or an older place", "choose another --out")
    beside = folder.with_name(folder.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    _write_tiff(place, beside / "orthophoto.tif", np.moveaxis(place.orthophoto, 2, 0), jpeg=True)
    for name, raster in (("surface", place.surface_m), ("terrain", place.terrain_m)):
        _write_tiff(place, beside / f"{name}.tif", (np.round(raster / _HEIGHT_STEP_M) * _HEIGHT_STEP_M)[None])
    if place.cover is not None and place.objects is not None:
        _write_tiff(place, beside / "cover.tif", place.cover[None])
        _write_tiff(place, beside / "objects.tif", place.objects[None])
    facts = {
        "format": 1,
        "seed": place.seed,
        "metres_per_pixel": place.metres_per_pixel,
        "anchor_latitude_deg": place.anchor_latitude_deg,
        "anchor_longitude_deg": place.anchor_longitude_deg,
        "parcel_angle_rad": [round(float(v), 4) for v in place.parcel_angle_rad],
        "roof_objects": [int(v) for v in place.roof_objects],
        "car_slots": [[round(float(v), 3) for v in slot] for slot in place.car_slots],
    }
    (beside / _FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def read_place(folder: Path) -> Place:
    """The place that `write_place` wrote. Raises RenderError when a part is missing or broken."""
    path = folder / _FACTS
    if not path.is_file():
        raise RenderError(
            "no place", folder, f"a folder with {_FACTS}", "make one with: pilotage render place --out DIR"
        )
    try:
        facts = json.loads(path.read_text())
        picture, crs, transform = _read_tiff(folder / "orthophoto.tif")
        rasters = {name: _read_tiff(folder / f"{name}.tif")[0][0] for name in ("surface", "terrain")}
        labels = {
            name: _read_tiff(folder / f"{name}.tif")[0][0]
            for name in ("cover", "objects")
            if (folder / "cover.tif").is_file()
        }
        return Place(
            np.ascontiguousarray(np.moveaxis(picture, 0, 2)),
            rasters["surface"],
            rasters["terrain"],
            float(facts["metres_per_pixel"]),
            float(facts["anchor_latitude_deg"]),
            float(facts["anchor_longitude_deg"]),
            crs,
            transform,
            int(facts["seed"]),
            labels.get("cover"),
            labels.get("objects"),
            np.array(facts["parcel_angle_rad"], dtype=float),
            np.array(facts["roof_objects"], dtype=int),
            np.array(facts["car_slots"], dtype=float).reshape(-1, 3),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RenderError("broken place", f"{path} ({error!r})", "a place of this version", "make it again") from error


def read_real_place(orthophoto: Path, surface: Path | None) -> Place:
    """Real ground from a georeferenced picture and, if any, a surface model, which is laid on the picture's grid."""
    picture, crs, transform = _read_tiff(orthophoto)
    if picture.dtype != np.uint8 or picture.shape[0] not in (1, 3, 4):
        found = f"{picture.shape[0]} bands of {picture.dtype} in {orthophoto}"
        raise RenderError("orthophoto", found, "1, 3 or 4 bands of 8 bits", "convert it with gdal_translate -ot Byte")
    bands = picture[:3] if len(picture) >= 3 else np.repeat(picture[:1], 3, axis=0)
    shape = bands.shape[1:]
    heights = np.zeros(shape, np.float32) if surface is None else _warped(surface, shape, crs, transform)
    longitude, latitude = _centre(shape, crs, transform)
    place = Place(
        np.ascontiguousarray(np.moveaxis(bands, 0, 2)), heights, heights, 1.0, latitude, longitude, crs, transform
    )
    scale = float(np.sqrt(abs(np.linalg.det(place.enu_from_pixel[:, :2]))))
    return Place(place.orthophoto, heights, heights, scale, latitude, longitude, crs, transform)


def _centre(shape: tuple[int, ...], crs: str, transform: tuple[float, ...]) -> tuple[float, float]:
    """(longitude, latitude) of the raster's middle."""
    import pyproj

    a, b, c, d, e, f = transform
    col, row = shape[1] / 2, shape[0] / 2
    to_geodetic = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    longitude, latitude = to_geodetic.transform(a * col + b * row + c, d * col + e * row + f)
    return float(longitude), float(latitude)


def _write_tiff(place: Place, path: Path, bands: np.ndarray, jpeg: bool = False) -> None:
    import rasterio

    options = {"compress": "jpeg", "photometric": "ycbcr", "jpeg_quality": 92} if jpeg else {"compress": "deflate"}
    if not jpeg:
        options |= {"zlevel": 1, "predictor": 3 if bands.dtype == np.float32 else 1}
    tile = {"tiled": True, "blockxsize": 256, "blockysize": 256} if min(bands.shape[1:]) >= 256 else {}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(bands),
        height=bands.shape[1],
        width=bands.shape[2],
        dtype=bands.dtype,
        crs=place.crs,
        transform=rasterio.Affine(*place.transform),
        **tile,
        **options,
    ) as file:
        file.write(bands)


def _read_tiff(path: Path) -> tuple[np.ndarray, str, tuple[float, float, float, float, float, float]]:
    """(bands (C, H, W), crs, transform)."""
    import rasterio

    if not path.is_file():
        raise RenderError("no raster", path, "a GeoTIFF")
    try:
        with rasterio.open(path) as file:
            if file.crs is None or file.transform.is_identity:
                remedy = "give it a world file or use gdal_translate -a_srs -a_ullr"
                raise RenderError("raster without georeference", path, "a GeoTIFF with CRS and transform", remedy)
            return file.read(), file.crs.to_wkt(), tuple(file.transform)[:6]
    except rasterio.errors.RasterioIOError as error:
        raise RenderError("unreadable raster", f"{path} ({error})", "a GeoTIFF") from error


def _warped(path: Path, shape: tuple[int, ...], crs: str, transform: tuple[float, ...]) -> np.ndarray:
    """A surface model (H, W) in metres on another raster's grid; holes get the lowest height."""
    import rasterio
    from rasterio.warp import Resampling, reproject

    _, own_crs, own_transform = _read_tiff(path)
    heights = np.full(shape, np.nan, np.float32)
    with rasterio.open(path) as file:
        reproject(
            file.read(1).astype(np.float32),
            heights,
            src_transform=rasterio.Affine(*own_transform),
            src_crs=own_crs,
            src_nodata=file.nodata,
            dst_transform=rasterio.Affine(*transform),
            dst_crs=crs,
            dst_nodata=np.nan,
            resampling=Resampling.bilinear,
        )
    if np.isnan(heights).all():
        raise RenderError("surface model", path, "one that covers the orthophoto")
    return np.where(np.isnan(heights), np.nanmin(heights), heights).astype(np.float32)
