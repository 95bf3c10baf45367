"""UAV-VisLoc (Xu et al., 2024).

Layout, of README.md in IntelliSensing/UAV-VisLoc: `NN/drone/NN_0001.JPG`, `NN/NN.csv` with columns filename, lat, lon,
height and, but for flight 07, Phi1; `NN/satelliteNN.tif`; and `satellite_coordinates_range.csv` with columns mapname,
LT_lat_map, LT_lon_map, RB_lat_map, RB_lon_map (the archive's file has a blank after "satellite_"). Where a map comes in
pieces, satelliteNN_RR-CC.tif, they are put together by row and column.

The data set defines no gallery. Ours: every map is cut into squares of SIDE metres, half a side apart (protocol
tiles-SIDE); the square whose centre is nearest is right for a drone image, those that hold its place are forgiven by
the hit rate. Map rows and columns are linear in latitude and longitude. Drone images stay as they were taken, of
unknown scale and any heading; images taken outside their map are left out, and counted.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from onboard.frames import MapFrame
from training.benchmarks.base import (
    Benchmark,
    BenchmarkError,
    FilePicture,
    Query,
    Reference,
    one_of,
    published,
    require_files,
    require_folder,
)

NAME = "UAV-VisLoc"
PROTOCOLS = ("tiles-300", "tiles-150", "tiles-600")
METRICS = ("R@1", "R@5", "R@10", "R@1%", "hit", "covers", "R@10m", "mean m", "median m")
_REMEDY = "get it from github.com/IntelliSensing/UAV-VisLoc and unpack it whole"
_RANGES = ("satellite_coordinates_range.csv", "satellite_ coordinates_range.csv")
_READ_PX = 512  # a tile is read at no more than this
_PUBLISHED = 6742


@dataclass(frozen=True, slots=True)
class Piece:
    """One raster of a map and where its first pixel lies in the whole."""

    path: Path
    row: int
    col: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class SatelliteMap:
    """A map of one flight: its pieces, its size in pixels, and degrees of its edges (north, west, south, east)."""

    flight: str
    pieces: tuple[Piece, ...]
    height: int
    width: int
    edges: tuple[float, float, float, float]

    def degrees(self, row: float, col: float) -> tuple[float, float]:
        """(latitude, longitude) of a point in pixels from the outer corner."""
        north, west, south, east = self.edges
        return north + (south - north) * row / self.height, west + (east - west) * col / self.width


@dataclass(frozen=True, slots=True)
class TilePicture:
    """A window of a map, read when it is asked for, at most 512 pixels a side."""

    whole: SatelliteMap
    row: int
    col: int
    height: int
    width: int

    @property
    def name(self) -> str:
        return f"{self.whole.flight}/{self.row}_{self.col}"

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Picture.read`."""
        import rasterio
        from rasterio.windows import Window

        rgb: np.ndarray = np.zeros((self.height, self.width, 3), dtype=np.uint8)
        for piece in self.whole.pieces:
            top, left = max(self.row, piece.row), max(self.col, piece.col)
            bottom = min(self.row + self.height, piece.row + piece.height)
            right = min(self.col + self.width, piece.col + piece.width)
            if top < bottom and left < right:
                window = Window(left - piece.col, top - piece.row, right - left, bottom - top)
                with rasterio.open(piece.path) as raster:
                    bands = raster.read([1, 2, 3], window=window)
                there = slice(top - self.row, bottom - self.row), slice(left - self.col, right - self.col)
                rgb[there] = bands.transpose(1, 2, 0)
        shrink = min(1.0, _READ_PX / max(self.height, self.width))
        if shrink < 1.0:
            rgb = cv2.resize(rgb, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        return rgb, np.ones(rgb.shape[:2], dtype=bool)


def load(root: Path, protocol: str = PROTOCOLS[0], split: str = "test") -> tuple[Benchmark, ...]:
    """All flights against the tiles of all maps. Raises BenchmarkError where files are missing."""
    side_m = float(one_of("protocol of UAV-VisLoc", protocol, PROTOCOLS).split("-")[1])
    one_of("split of UAV-VisLoc, which has one", split, ("test",))
    ranges = _ranges(root)
    flights = sorted(path for path in root.iterdir() if path.is_dir() and re.fullmatch(r"\d\d", path.name))
    if not flights:
        raise BenchmarkError("incomplete data set", f"no flights in {root}", "folders 01 to 11", _REMEDY)
    references: list[Reference] = []
    queries: list[Query] = []
    outside = 0
    for folder in flights:
        if folder.name not in ranges:
            raise BenchmarkError(
                "incomplete data set", f"no map satellite{folder.name}.tif in {_RANGES[0]}", "one", _REMEDY
            )
        whole = _map(folder, ranges[folder.name])
        frame = MapFrame(*whole.degrees(whole.height / 2, whole.width / 2))
        first = len(references)
        references += _tiles(whole, frame, side_m)
        asked, lost = _queries(folder, whole, frame, references, first)
        queries += asked
        outside += lost
    notes = [f"gallery of {side_m:g} m tiles is ours, the data set defines none"]
    if outside:
        notes.append(f"{outside} images taken outside their map are left out")
    notes += published({"drone images": (len(queries) + outside, _PUBLISHED)})
    return (Benchmark(NAME, protocol, split, tuple(queries), tuple(references), METRICS, notes=tuple(notes)),)


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    require_files([path], _REMEDY)
    with path.open(newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            clean = {(key or "").strip(): (value or "").strip() for key, value in row.items() if isinstance(value, str)}
            lacking = [name for name in columns if not clean.get(name)]
            if lacking:
                raise BenchmarkError("table of UAV-VisLoc", f"{path} has no {lacking[0]}", ", ".join(columns), _REMEDY)
            yield clean


def _number(row: dict[str, str], name: str, path: Path) -> float:
    try:
        return float(row[name])
    except ValueError as error:
        raise BenchmarkError("table of UAV-VisLoc", f"{path}: {name} is {row[name]!r}", "a number", _REMEDY) from error


def _ranges(root: Path) -> dict[str, tuple[float, float, float, float]]:
    require_folder(root, "flights 01 to 11 and satellite_coordinates_range.csv", _REMEDY)
    path = next((root / name for name in _RANGES if (root / name).is_file()), root / _RANGES[0])
    columns = ("LT_lat_map", "LT_lon_map", "RB_lat_map", "RB_lon_map")
    found = {}
    for row in _rows(path, ("mapname", *columns)):
        number = re.search(r"\d+", row["mapname"])
        if number:
            north, west, south, east = (_number(row, name, path) for name in columns)
            found[f"{int(number.group()):02d}"] = north, west, south, east
    return found


def _map(folder: Path, edges: tuple[float, float, float, float]) -> SatelliteMap:
    import rasterio

    single = folder / f"satellite{folder.name}.tif"
    parts = {(0, 0): single} if single.is_file() else {}
    for path in sorted(folder.glob(f"satellite{folder.name}_*.tif")):
        found = re.search(r"_(\d+)-(\d+)$", path.stem)
        if found and not single.is_file():
            parts[int(found[1]), int(found[2])] = path
    require_files([single] if not parts else list(parts.values()), _REMEDY)
    sizes = {}
    for place, path in parts.items():
        try:
            with rasterio.open(path) as raster:
                sizes[place] = raster.height, raster.width
        except rasterio.errors.RasterioIOError as error:
            raise BenchmarkError("satellite map does not open", path, "a whole TIFF", _REMEDY) from error
    heights = {row: size[0] for (row, _), size in sizes.items()}
    widths = {col: size[1] for (_, col), size in sizes.items()}
    if len(sizes) != len(heights) * len(widths):
        value = f"{len(sizes)} of {len(heights) * len(widths)} pieces of {single.name}"
        raise BenchmarkError("incomplete data set", value, "a whole grid of pieces", _REMEDY)
    pieces = tuple(
        Piece(
            parts[row, col],
            sum(h for r, h in heights.items() if r < row),
            sum(w for c, w in widths.items() if c < col),
            *sizes[row, col],
        )
        for row, col in sorted(sizes)
    )
    return SatelliteMap(folder.name, pieces, sum(heights.values()), sum(widths.values()), edges)


def _tiles(whole: SatelliteMap, frame: MapFrame, side_m: float) -> list[Reference]:
    """Squares on the ground, half a side apart, over the whole map; those that would stick out are pushed in."""
    corner, far = (frame.enu_from_geodetic(*whole.degrees(r, c)) for r, c in ((0, 0), (whole.height, whole.width)))
    metres = abs(float(corner[1] - far[1])) / whole.height, abs(float(far[0] - corner[0])) / whole.width
    size = tuple(max(1, min(round(side_m / m), n)) for m, n in zip(metres, (whole.height, whole.width), strict=True))
    starts = [_starts(n, s) for n, s in zip((whole.height, whole.width), size, strict=True)]
    seen = []
    for row in starts[0]:
        for col in starts[1]:
            degrees = whole.degrees(row + size[0] / 2, col + size[1] / 2)
            east, north = (float(v) for v in frame.enu_from_geodetic(*degrees))
            ground = size[0] * metres[0], size[1] * metres[1]
            picture = TilePicture(whole, row, col, size[0], size[1])
            seen.append(Reference(picture, picture.name, whole.flight, (east, north), ground, degrees))
    return seen


def _starts(length: int, size: int) -> list[int]:
    last = length - size
    return sorted({*range(0, last + 1, max(1, size // 2)), last})


def _queries(
    folder: Path, whole: SatelliteMap, frame: MapFrame, references: list[Reference], first: int
) -> tuple[list[Query], int]:
    """The flight's images with the tiles from `first` on that are right, and how many lie outside the map."""
    table = folder / f"{folder.name}.csv"
    rows = list(_rows(table, ("filename", "lat", "lon")))
    paths = [folder / "drone" / row["filename"] for row in rows]
    require_files(paths, _REMEDY)
    centres = np.array([seen.centre_enu_m for seen in references[first:]])
    halves = np.array([seen.size_m for seen in references[first:]])[:, ::-1] / 2  # east, north
    queries, outside = [], 0
    for row, path in zip(rows, paths, strict=True):
        degrees = _number(row, "lat", table), _number(row, "lon", table)
        position = frame.enu_from_geodetic(*degrees)
        away = np.abs(centres - position)
        holding = np.flatnonzero((away <= halves).all(axis=1))
        if not len(holding):
            outside += 1
            continue
        order = holding[np.linalg.norm(centres[holding] - position, axis=1).argsort(kind="stable")] + first
        best, *others = (int(k) for k in order)
        east, north = float(position[0]), float(position[1])
        picture = FilePicture(path, f"{folder.name}/{path.name}")
        queries.append(
            Query(picture, references[best].place, (best,), tuple(others), folder.name, (east, north), degrees)
        )
    return queries, outside
