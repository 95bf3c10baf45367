"""An open region map: checked at the door, then read in place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onboard.errors import MapError
from onboard.frames import MapFrame
from onboard.region.elevation import Elevation
from onboard.region.level import Level
from onboard.region.manifest import REBUILD, ElevationFacts, LevelFacts, Manifest, Part, read_manifest, sha256_of
from onboard.region.picture import overview, shrink_factor

if TYPE_CHECKING:
    from onboard.engine import ModelFacts

ELEVATION = "elevation.npy"
_ALWAYS_VERIFIED_BYTES = 1_000_000  # smaller parts are hashed at every opening


class RegionMap:
    """A region map opened with `RegionMap.open`; `levels` are finest first.

    `sha256` is that of the manifest, which names every part's: it stands for the whole content. `elevation` is None
    where the map was built without heights of the ground. `other_dates` are levels like `levels`, on the same grids, of
    the same ground at other times.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        sha256: str,
        levels: tuple[Level, ...],
        elevation: Elevation | None = None,
        other_dates: tuple[tuple[Level, ...], ...] = (),
    ) -> None:
        self.path, self.manifest, self.sha256, self.levels = path, manifest, sha256, levels
        self.elevation, self.other_dates = elevation, other_dates
        self.frame = MapFrame(manifest.anchor_latitude_deg, manifest.anchor_longitude_deg)

    @classmethod
    def open(cls, path: Path | str, facts: ModelFacts | None = None, verify: bool = False) -> RegionMap:
        """Open and check a map; `facts` are those of the model that will search it, `verify` hashes every part.

        Raises MapError where the map is missing, broken, of another format version or made with another model.
        """
        path = Path(path)
        manifest, sha256 = read_manifest(path)
        if facts is not None and facts.sha256 != manifest.model_sha256:
            raise MapError(
                "map of another model",
                f"made with {manifest.model_name} ({manifest.model_sha256[:12]})",
                f"{facts.name} ({facts.sha256[:12]})",
                REBUILD,
            )
        for part in manifest.parts:
            check_part(path, part, verify or part.bytes < _ALWAYS_VERIFIED_BYTES)
        listed = {part.file for part in manifest.parts}
        levels, *others = (
            tuple(_open_level(path, prefix_of(number), index, level, listed) for index, level in enumerate(date))
            for number, date in enumerate((manifest.levels, *(date.levels for date in manifest.other_dates)))
        )
        elevation = None if manifest.elevation is None else _open_elevation(path, manifest.elevation, listed)
        return cls(path, manifest, sha256, levels, elevation, tuple(others))

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def bounds_enu_m(self) -> tuple[float, float, float, float]:
        """West, south, east, north in metres."""
        return self.manifest.bounds_enu_m

    @property
    def coverage_km2(self) -> float:
        """Area that has imagery; that of the bounds may be far larger."""
        return self.manifest.coverage_km2

    def contains(self, position_enu_m: np.ndarray) -> bool:
        """Whether there is imagery at a point (2,) east, north."""
        level = self.levels[0]
        row, col = (float(index) for index in level.pixel_of(position_enu_m))
        height, width = level.valid.shape
        if not (-0.5 <= row < height - 0.5 and -0.5 <= col < width - 0.5):  # false for nan too
            return False
        return bool(level.valid[int(row + 0.5), int(col + 0.5)])

    def elevation_at(self, positions_enu_m: np.ndarray) -> np.ndarray:
        """Heights (N,) of the ground in metres at points (N, 2) east, north; nan where they are not known.

        Their datum is the one of the file that they came from: only differences mean anything.
        """
        positions = np.asarray(positions_enu_m, dtype=float).reshape(-1, 2)
        return np.full(len(positions), np.nan) if self.elevation is None else self.elevation.at(positions)

    def level_for(self, ground_side_m: float, view_px: int) -> int:
        """Index of the finest level at which ground of that side (nearly) fits into a view of `view_px` pixels."""
        for index, level in enumerate(self.levels):
            if ground_side_m <= 1.15 * view_px * level.metres_per_pixel:
                return index
        return len(self.levels) - 1

    def dates_of(self, index: int) -> tuple[Level, ...]:
        """A level at each date of the map: its own first."""
        return (self.levels[index], *(date[index] for date in self.other_dates))

    def window(
        self, level: int, centre_enu_m: np.ndarray, size_px: int, date: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """(rgb, mask) of `Level.window`, at a date of the map: its own by default."""
        return self.dates_of(level)[date].window(centre_enu_m, size_px)

    def picture(self, max_px: int = 1600) -> tuple[np.ndarray, tuple[float, float, float, float]]:
        """(rgb uint8 (h, w, 3), its own bounds west, south, east, north in metres); black where no imagery is."""
        fine_enough = [level for level in self.levels if max(level.valid.shape) >= max_px]
        level = fine_enough[-1] if fine_enough else self.levels[0]
        rgb, _ = overview(level.image, level.valid, max_px)
        step_m = shrink_factor(level.valid.shape, max_px) * level.metres_per_pixel
        south = level.north_m - rgb.shape[0] * step_m
        return rgb, (level.west_m, south, level.west_m + rgb.shape[1] * step_m, level.north_m)


def check_part(folder: Path, part: Part, verify: bool) -> None:
    """Raise MapError unless a part is there with its size and, where asked, its hash."""
    file = folder / part.file
    if not file.is_file():
        raise MapError("map part is missing", part.file, f"{part.bytes} bytes in {folder}", REBUILD)
    size = file.stat().st_size
    if size != part.bytes:
        raise MapError("map part is broken", f"{part.file} has {size} bytes", f"{part.bytes}", REBUILD)
    if verify and (found := sha256_of(file)) != part.sha256:
        raise MapError("map part is broken", f"{part.file} has hash {found[:12]}", part.sha256[:12], REBUILD)


def prefix_of(date: int) -> str:
    """Where the parts of a date lie in the map's folder; those of its own date, number 0, lie in the folder itself."""
    return f"date{date}/" if date else ""


def _open_level(folder: Path, prefix: str, index: int, facts: LevelFacts, listed: set[str]) -> Level:
    size, cells = (facts.height_px, facts.width_px), (facts.cell_rows, facts.cell_cols)
    expected: dict[str, tuple[type, tuple[int | None, ...]]] = {
        "image": (np.uint8, (*size, 3)),
        "valid": (np.uint8, size),
        "detail": (np.int8, (*cells, None)),
        "detail_valid": (np.uint8, cells),
        "descriptors": (np.float16, (facts.tiles, None)),
        "tiles": (np.float64, (facts.tiles, 2)),
    }
    arrays = {}
    for part, (dtype, shape) in expected.items():
        arrays[part] = _load(folder, f"{prefix}level{index}/{part}.npy", np.dtype(dtype), shape, listed)
    return Level(facts.metres_per_pixel, facts.west_m, facts.north_m, facts.cell_m, facts.tile_px, **arrays)


def _open_elevation(folder: Path, facts: ElevationFacts, listed: set[str]) -> Elevation:
    if min(facts.rows, facts.cols) < 2:
        raise MapError("broken manifest", f"elevation of {facts.rows} x {facts.cols} posts", "two or more", REBUILD)
    heights = _load(folder, ELEVATION, np.dtype(np.float32), (facts.rows, facts.cols), listed)
    return Elevation(facts.post_m, facts.west_m, facts.north_m, heights)


def _load(folder: Path, name: str, dtype: np.dtype, shape: tuple[int | None, ...], listed: set[str]) -> np.ndarray:
    if name not in listed:
        raise MapError("map part is missing", name, "it among the manifest's parts", REBUILD)
    try:
        array = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise MapError("map part is broken", f"{name} ({error})", "a .npy array", REBUILD) from error
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if array.dtype != dtype or not fits:
        raise MapError("map part is broken", f"{name} is {array.dtype} {array.shape}", f"{dtype} {shape}", REBUILD)
    return array
