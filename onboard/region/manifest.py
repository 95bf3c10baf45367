"""What a region map says of itself: `manifest.json`.

The manifest holds no absolute path and no time of making, so that the same imagery and model give the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from onboard.errors import MapError

FORMAT_VERSION = 1
WITH_ELEVATION = 2  # version 1 and heights of the ground: what knows only version 1 refuses it by its number
WITH_DATES = 3  # either of them and other dates of the same ground
MANIFEST = "manifest.json"
REBUILD = "rebuild it: pilotage map build IMAGERY... --out MAP"


@dataclass(frozen=True, slots=True)
class LevelFacts:
    """One resolution. Pixel (row, col) has its centre at east = west_m + (col + 0.5) * metres_per_pixel and
    north = north_m - (row + 0.5) * metres_per_pixel; detail cell (i, j) covers stride_px pixels a side.

    `tile_px` is the side of the windows that got a descriptor, `tile_step_px` the step between them.
    """

    metres_per_pixel: float
    west_m: float
    north_m: float
    width_px: int
    height_px: int
    valid_px: int
    stride_px: int
    cell_m: float
    cell_rows: int
    cell_cols: int
    tile_px: int
    tile_step_px: int
    tiles: int


@dataclass(frozen=True, slots=True)
class Source:
    """A file of imagery that went in. `native_metres_per_pixel` is on the ground, not in the units of the CRS.

    `value_range` are the values that became 0 and 255, where the file is not of 8 bits.
    """

    file: str
    crs: str
    native_metres_per_pixel: float
    sha256: str
    date: str | None = None
    licence: str | None = None
    value_range: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class ElevationFacts:
    """The heights in `elevation.npy`, as `onboard.region.elevation` reads them; `known` of the posts have one.

    `source` is the file that they came from. Their datum is that file's: only differences are used.
    """

    post_m: float
    west_m: float
    north_m: float
    rows: int
    cols: int
    known: int
    lowest_m: float
    highest_m: float
    source: Source
    vertical_datum: str = "as in the file"

    @property
    def known_share(self) -> float:
        return self.known / (self.rows * self.cols)


@dataclass(frozen=True, slots=True)
class DateFacts:
    """The same ground at another date: levels of the map's own grids, and the imagery that went in.

    Its parts lie in `date1/`, `date2/` and so on, in the order of the manifest. `offset_enu_m` is how far it lies off
    the map's own date, east and north, by keypoints of both; None where those do not say.
    """

    levels: tuple[LevelFacts, ...]
    sources: tuple[Source, ...]
    offset_enu_m: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the map; `file` is relative to the map's folder, with forward slashes."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All of `manifest.json`. `bounds_enu_m` is west, south, east, north; levels are finest first.

    `elevation` is None, and not in the file, where the map has no heights: those are of version 1, the others of 2.
    Where `other_dates` has any, it is in the file, and the version 3.
    """

    name: str
    anchor_latitude_deg: float
    anchor_longitude_deg: float
    proj4: str
    bounds_enu_m: tuple[float, float, float, float]
    coverage_km2: float
    model_name: str
    model_sha256: str
    preprocessing: Mapping[str, Any]
    levels: tuple[LevelFacts, ...]
    sources: tuple[Source, ...]
    parts: tuple[Part, ...]
    created_by: str
    format_version: int = FORMAT_VERSION
    elevation: ElevationFacts | None = None
    other_dates: tuple[DateFacts, ...] = ()

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        fields = dataclasses.asdict(self)
        if self.elevation is None:
            del fields["elevation"]  # such a map is what it was before there were heights, byte for byte
        if not self.other_dates:
            del fields["other_dates"]
        return json.dumps(fields, indent=1, sort_keys=True) + "\n"


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest of a map's folder and its SHA-256, which names the map's content.

    Raises MapError where there is none, where it cannot be read, or where it is of another format version.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise MapError("no region map", folder, "a folder that `pilotage map build` made", "give the map's folder")
    if not path.is_file():
        raise MapError("not a region map", folder, f"a folder with {MANIFEST}", REBUILD)
    content = path.read_bytes()
    try:
        fields = json.loads(content)
    except ValueError as error:  # of JSON or of UTF-8
        raise MapError("broken manifest", f"{path} ({error})", "JSON", REBUILD) from error
    if not isinstance(fields, dict):
        raise MapError("broken manifest", path, "a JSON object", REBUILD)
    version = fields.get("format_version")
    if version not in (FORMAT_VERSION, WITH_ELEVATION, WITH_DATES):
        expected = f"version {FORMAT_VERSION} to {WITH_DATES}"
        raise MapError("map of another format version", version, expected, REBUILD)
    if version != WITH_DATES and (version == WITH_ELEVATION) != ("elevation" in fields):
        raise MapError("broken manifest", path, "elevation in version 2, none in version 1", REBUILD)
    if (version == WITH_DATES) != ("other_dates" in fields):
        raise MapError("broken manifest", path, "other_dates exactly in version 3", REBUILD)
    return _manifest_from(fields, path), hashlib.sha256(content).hexdigest()


def _of_one_date(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "levels": tuple(LevelFacts(**level) for level in fields["levels"]),
        "sources": tuple(Source(**source) for source in fields["sources"]),
    }


def _pair(numbers: Any) -> tuple[float, float] | None:
    if numbers is None:
        return None
    east, north = numbers
    return float(east), float(north)


def _manifest_from(fields: dict[str, Any], path: Path) -> Manifest:
    try:
        fields |= _of_one_date(fields)
        others = fields.get("other_dates", ())
        fields["other_dates"] = tuple(
            DateFacts(**_of_one_date(date), offset_enu_m=_pair(date["offset_enu_m"])) for date in others
        )
        fields["parts"] = tuple(Part(**part) for part in fields["parts"])
        if "elevation" in fields:
            source = Source(**fields["elevation"]["source"])
            fields["elevation"] = ElevationFacts(**(fields["elevation"] | {"source": source}))
        fields["bounds_enu_m"] = tuple(float(bound) for bound in fields["bounds_enu_m"])
        manifest = Manifest(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise MapError("broken manifest", f"{path} ({error})", "the keys of this format", REBUILD) from error
    if not manifest.levels or len(manifest.bounds_enu_m) != 4:
        raise MapError("broken manifest", path, "at least one level, and four bounds", REBUILD)
    for date in manifest.other_dates:
        if [grid_of(level) for level in date.levels] != [grid_of(level) for level in manifest.levels]:
            raise MapError("broken manifest", f"{path} (grids of another date)", "those of the map", REBUILD)
    for part in manifest.parts:
        inner = PurePosixPath(part.file)
        if inner.is_absolute() or ".." in inner.parts:
            raise MapError("broken manifest", part.file, "parts inside the map's folder", REBUILD)
    return manifest


def grid_of(level: LevelFacts) -> LevelFacts:
    """A level's facts less what depends on the imagery."""
    return dataclasses.replace(level, valid_px=0, tiles=0)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
