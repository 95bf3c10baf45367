"""Our own places: views rectified by the onboard code, or cut from another date, over map tiles of one resolution.

Three kinds of data, told apart by what lies at the path:

- FLIGHT@MAP: a flight folder with truth (`pilotage trial views`, or a real one) over a region map (`pilotage map
  build`). Each frame is rectified at the told attitude and height; the gallery is every tile of the map's level that
  suits the flight. The tile whose centre is nearest is right, those that hold the view's centre are forgiven. That
  centre is laid off from the true place by the told attitude, so that an attitude error is part of the metres.
- a folder of GeoTIFFs PLACE_DATE.tif, co-registered dates of one piece of ground: protocol VIEWED-MAPPED, two dates.
  A view is cut from the one under an error of heading and height, the gallery is the middle of each of the other.
- a folder of rendered pairs (`python -m training.data.rendered`): a view of a procedural place and the map round it.
  Samples of one place may show the same ground; only its own tile counts as right, so R@1 is a lower bound.

Surface models play no part here: methods that train on them describe pictures.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import cv2
import numpy as np

from training.benchmarks.base import Benchmark, BenchmarkError, Query, Reference
from training.data.pairs import lies_px

if TYPE_CHECKING:
    from onboard.region import Level

NAME = "places"
METRICS = ("R@1", "R@5", "R@10", "R@1%", "hit", "covers", "R@1m", "R@10m", "mean m", "median m")
METRICS_PX = ("R@1", "R@5", "R@10", "R@1%", "R@1px", "R@10px", "mean px", "median px")
VIEW_PX = 256
HEADING_ERROR_RAD = math.radians(6.0)
HEIGHT_ERROR = 0.10
_OFFSET_M = 18.0
_FOOTPRINT_M = (90.0, 70.0)
_OFFSET_PX = 60


@dataclass(frozen=True, slots=True)
class ArrayPicture:
    """A picture in memory."""

    name: str
    rgb: np.ndarray
    mask: np.ndarray

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Picture.read`."""
        return self.rgb, self.mask


@dataclass(frozen=True, slots=True)
class WindowPicture:
    """A window of a region map's level."""

    name: str
    level: Level
    centre_enu_m: tuple[float, float]

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Picture.read`."""
        return self.level.window(np.array(self.centre_enu_m), self.level.tile_px)


def load(root: Path, protocol: str = "", split: str = "test") -> tuple[Benchmark, ...]:
    """Whatever lies at the path. Raises BenchmarkError where it is none of the three."""
    if split != "test":
        raise BenchmarkError("split of places", split, "test", "training draws its own pairs")
    flight, separator, region = str(root).rpartition("@")
    if separator and not root.is_dir():
        return (_flight_over_map(Path(flight), Path(region), protocol),)
    if not root.is_dir():
        raise BenchmarkError("no places", root, "FLIGHT@MAP, a folder of PLACE_DATE.tif, or one of rendered pairs")
    if pairs := sorted(root.glob("*.npz")):
        return (_rendered(pairs, protocol),)
    if any(root.glob("*_*.tif")):
        return (_dates(root, protocol),)
    raise BenchmarkError("no places", root, "PLACE_DATE.tif or *.npz in it", "or give FLIGHT@MAP")


def _flight_over_map(flight_path: Path, region_path: Path, protocol: str) -> Benchmark:
    from onboard.config import RectifyConfig
    from onboard.flight.open import open_flight
    from onboard.records import Telemetry
    from onboard.rectify import Rectifier
    from onboard.region import RegionMap

    if protocol not in ("", "views"):
        raise BenchmarkError("protocol of a flight over a map", protocol, "views")
    config = RectifyConfig()
    flight, region = open_flight(flight_path, config), RegionMap.open(region_path)
    truth = flight.truth()
    if truth is None:
        raise BenchmarkError("flight without truth", flight_path, "latitude_deg, longitude_deg in frames.csv")
    view_px = region.levels[0].tile_px
    rectifier = Rectifier(flight.camera, flight.body_from_camera, view_px, config)
    sides = [
        rectifier.ground_side_m(item.telemetry)
        for item in flight.items()
        if item.frame is not None
        and isinstance(item.telemetry, Telemetry)
        and rectifier.check(item.frame, item.telemetry) is None
    ]
    if not sides:
        raise BenchmarkError("flight without usable frames", flight_path, "images with telemetry")
    level = region.levels[region.level_for(float(np.median(sides)), view_px)]
    references = _level_tiles(level, region.name)
    queries, refused = [], 0
    for item in flight.items():
        place = truth.at(item.captured_at_ns)
        if item.frame is None or not isinstance(item.telemetry, Telemetry) or place is None:
            continue
        if rectifier.check(item.frame, item.telemetry) is not None:
            refused += 1
            continue
        view = rectifier.view(item.frame, item.telemetry, level.metres_per_pixel)
        centre = region.frame.enu_from_geodetic(*place) + np.array(view.centre_from_vehicle_enu_m)
        picture = ArrayPicture(f"{flight.name}/{item.source}", view.image_rgb, view.mask)
        queries.append(_query_over(picture, region.name, centre, np.asarray(level.tiles), references))
    notes: tuple[str, ...] = (f"{level.metres_per_pixel:g} m/px, {len(references)} tiles of {view_px} px",)
    if refused:
        notes += (f"{refused} frames refused by the rectifier are left out",)
    return _benchmark("views", queries, references, notes)


def _level_tiles(level: Level, area: str) -> list[Reference]:
    side = level.tile_px * level.metres_per_pixel
    return [
        Reference(
            WindowPicture(f"{area}/{number}", level, (float(east), float(north))),
            str(number),
            area,
            (float(east), float(north)),
            (side, side),
        )
        for number, (east, north) in enumerate(np.asarray(level.tiles))
    ]


def _query_over(
    picture: ArrayPicture, area: str, centre: np.ndarray, tiles: np.ndarray, references: list[Reference]
) -> Query:
    """The nearest tile is right, even for a view beyond all of them: such a view cannot be found, and counts so."""
    away = np.abs(tiles - centre)
    nearest = int(np.linalg.norm(away, axis=1).argmin())
    side = references[nearest].size_m or (0.0, 0.0)
    holding = np.flatnonzero((away <= side[0] / 2).all(axis=1))
    others = tuple(int(k) for k in holding if k != nearest)
    return Query(picture, str(nearest), (nearest,), others, area, (float(centre[0]), float(centre[1])))


def _benchmark(
    protocol: str,
    queries: list[Query],
    references: list[Reference],
    notes: tuple[str, ...],
    metrics: tuple[str, ...] = METRICS,
) -> Benchmark:
    if not queries:
        raise BenchmarkError("no views", protocol, "at least one view over the map")
    return Benchmark(NAME, protocol, "test", tuple(queries), tuple(references), metrics, same_scale=True, notes=notes)


# ---- two dates of the same ground


class _Chip:
    """One GeoTIFF, read once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def content(self) -> tuple[np.ndarray, np.ndarray, float]:
        """(rgb, valid, metres per pixel) of `read_raster`. Raises BenchmarkError where the file does not open."""
        from rasterio.errors import RasterioError

        from training.data.ground import read_raster

        try:
            return read_raster(self.path)
        except RasterioError as error:
            raise BenchmarkError("GeoTIFF does not open", self.path, "RGB with a CRS", "copy it again") from error


@dataclass(frozen=True, slots=True)
class CutPicture:
    """The square of `VIEW_PX` about a chip's middle, or a view cut from it: what lies outside the chip is masked.

    `canvas_from_view` is None for the square itself; else what leads from the view's pixels (col, row) to it.
    """

    name: str
    chip: _Chip
    canvas_from_view: np.ndarray | None = None
    footprint_px: tuple[float, float] = (0.0, 0.0)

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Picture.read`."""
        rgb, valid, _ = self.chip.content
        shift = np.eye(3)
        shift[:2, 2] = (rgb.shape[1] - VIEW_PX) / 2, (rgb.shape[0] - VIEW_PX) / 2
        warp = shift if self.canvas_from_view is None else shift @ self.canvas_from_view
        size, inverse = (VIEW_PX, VIEW_PX), cv2.WARP_INVERSE_MAP
        out = cv2.warpAffine(rgb, warp[:2], size, flags=cv2.INTER_LINEAR | inverse)
        mask: np.ndarray = cv2.warpAffine(valid.astype(np.uint8), warp[:2], size, flags=cv2.INTER_NEAREST | inverse)
        if self.canvas_from_view is not None:
            half = (np.array(self.footprint_px) / 2).astype(int)
            seen = np.zeros((VIEW_PX, VIEW_PX), np.uint8)
            middle = VIEW_PX // 2
            seen[max(middle - half[1], 0) : middle + half[1], max(middle - half[0], 0) : middle + half[0]] = 1
            mask = mask & seen
        return cv2.bitwise_and(out, out, mask=mask), mask > 0


def _dates(root: Path, protocol: str) -> Benchmark:
    chips: dict[str, dict[str, Path]] = {}
    for path in sorted(root.glob("*_*.tif")):
        found = re.fullmatch(r"(.+)_([^_]+)", path.stem)
        if found:
            chips.setdefault(found[1], {})[found[2]] = path
    dates = sorted({date for place in chips.values() for date in place})
    viewed, separator, mapped = protocol.partition("-") if protocol else (dates[-1], "-", dates[0])
    if not separator or viewed not in dates or mapped not in dates:
        raise BenchmarkError("protocol of two dates", protocol or root, "VIEWED-MAPPED of " + ", ".join(dates))
    both = {place: days for place, days in chips.items() if viewed in days and mapped in days}
    queries, references = [], []
    for number, (place, days) in enumerate(sorted(both.items())):
        chip, seen = _Chip(days[mapped]), _Chip(days[viewed])
        metres = chip.content[2]
        if seen.content[0].shape != chip.content[0].shape:
            raise BenchmarkError("dates of one place", days[viewed], f"the size of {days[mapped].name}")
        picture, offset_px = _view(place, seen, metres)
        side = VIEW_PX * metres
        references.append(Reference(CutPicture(days[mapped].name, chip), place, place, (0.0, 0.0), (side, side)))
        position = float(offset_px[0] * metres), float(-offset_px[1] * metres)
        queries.append(Query(picture, place, (number,), (), place, position))
    notes: tuple[str, ...] = (
        f"views of {_FOOTPRINT_M[0]:g} by {_FOOTPRINT_M[1]:g} m, heading within 6 degrees, height within 10 %",
    )
    if len(both) < len(chips):
        notes += (f"{len(chips) - len(both)} places lack one of the dates",)
    return _benchmark(f"{viewed}-{mapped}", queries, references, notes)


def _view(place: str, chip: _Chip, metres: float) -> tuple[CutPicture, np.ndarray]:
    """A view under the errors of a pose, and its centre (col, row) in pixels from the chip's middle."""
    rng = np.random.default_rng(zlib.crc32(place.encode()))
    offset = rng.uniform(-_OFFSET_M, _OFFSET_M, 2) / metres
    angle = rng.uniform(-1, 1) * HEADING_ERROR_RAD
    scale = 1 + rng.uniform(-1, 1) * HEIGHT_ERROR
    middle = np.full(2, (VIEW_PX - 1) / 2)
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    canvas_from_view = np.eye(3)
    canvas_from_view[:2, :2] = linear
    canvas_from_view[:2, 2] = middle + offset - linear @ middle
    seen = _FOOTPRINT_M[0] / metres / scale, _FOOTPRINT_M[1] / metres / scale
    return CutPicture(f"view of {chip.path.name}", chip, canvas_from_view, seen), offset


# ---- rendered pairs


def _rendered(paths: list[Path], protocol: str) -> Benchmark:
    if protocol not in ("", "rendered"):
        raise BenchmarkError("protocol of rendered pairs", protocol, "rendered")
    queries, references = [], []
    for number, path in enumerate(paths):
        crop, crop_mask, view, view_mask, moved = _sample(path)
        n = len(view)
        room = (len(crop) - n) // 2
        reach = min(room - 1, _OFFSET_PX)
        step = np.random.default_rng(zlib.crc32(path.stem.encode())).integers(-reach, reach + 1, 2)
        window = tuple(slice(room + int(s), room + int(s) + n) for s in step)
        row, col = (float(v) for v in lies_px(moved, view_mask) - step)  # where the view's centre lies from the tile's
        area = path.stem
        tile = ArrayPicture(f"{area}/tile", crop[window], crop_mask[window])
        # Samples do not say their resolution: every length here is in map pixels, and METRICS_PX says so.
        references.append(Reference(tile, area, area, (0.0, 0.0), (float(n), float(n))))
        picture = ArrayPicture(f"{area}/view", view, view_mask)
        queries.append(Query(picture, area, (number,), (), area, (col, -row)))
    return _benchmark("rendered", queries, references, (), METRICS_PX)


def _sample(path: Path) -> tuple[np.ndarray, ...]:
    keys = ("crop", "crop_mask", "view", "view_mask", "moved_px")
    try:
        with np.load(path) as sample:
            return tuple(sample[key] for key in keys)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        remedy = "make it again: python -m training.data.rendered"
        raise BenchmarkError("rendered pair", f"{path} ({error})", ", ".join(keys), remedy) from error
