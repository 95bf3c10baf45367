"""Imagery and a model in, a region map out: resumable, whole or not at all, the same bytes each time."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.region.dates import Date, Image, check_ground, date_of, lay_all, valid_pixels
from export.region.describe import (
    PICTURE,
    Report,
    facts_of_level,
    parts_in,
    preprocessing_of,
    source_of,
    write_manifest,
    write_picture,
)
from export.region.elevation import Posts, facts_of_heights, inspect_dem, lay_heights, posts_over
from export.region.features import Embedder, WindowPlan, embed_level, plan_windows
from export.region.grid import LevelGrid, frame_about, grids, resolutions_m
from export.region.offset import offset_m
from export.region.workspace import Workspace, check_target
from onboard import __version__
from onboard.errors import MapError
from onboard.frames import MapFrame
from onboard.region.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    WITH_DATES,
    WITH_ELEVATION,
    DateFacts,
    ElevationFacts,
    Manifest,
)
from onboard.region.map import ELEVATION

if TYPE_CHECKING:
    from onboard.engine import ModelFacts

_FAR_PX = 2.0  # dates that lie further apart are warned of

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What the user may choose. The name is the folder's where none is given; `dem` a GeoTIFF of heights in metres.

    `other_dates` are the same ground at other times, each a GeoTIFF or a directory of them.
    """

    name: str | None = None
    metres_per_pixel: float | None = None
    licence: str | None = None
    dem: Path | None = None
    other_dates: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildResult:
    """`windows` were embedded in `embed_s` seconds by this run, the rest by an interrupted one before."""

    manifest: Manifest
    resumed: bool
    windows: int
    embed_s: float


def build_map(
    imagery: Sequence[Path],
    out: Path,
    embedder: Embedder,
    options: BuildOptions = BuildOptions(),
    force: bool = False,
    report: Report = lambda stage, done, total: None,
) -> BuildResult:
    """Make a region map `out` of GeoTIFFs, later ones on top of earlier ones. Raises MapError.

    Frame, grids and resolutions are those of `imagery`; what lies beyond it at another date is left out.
    """
    check_target(out, force)
    facts = embedder.facts
    if facts.view_px % (4 * facts.detail_stride):
        raise MapError("model with unusable sizes", f"{facts.view_px} px, stride {facts.detail_stride}", "4 * stride")
    dem = None if options.dem is None else inspect_dem(options.dem)
    dates = [
        date_of(number, paths, report) for number, paths in enumerate((imagery, *([p] for p in options.other_dates)))
    ]
    rasters = dates[0].rasters
    frame = frame_about(rasters)
    levels_m = resolutions_m([raster.native_m for raster in rasters], options.metres_per_pixel)
    plan = grids(rasters, frame, levels_m, facts.detail_stride)
    posts = None if dem is None else posts_over(dem, frame, plan[0].bounds_enu_m)
    _check_room(dates, frame, plan, posts, facts, out)

    workspace = Workspace(out, _signature(dates, posts, options, facts))
    if workspace.resumed:
        _log.info("going on with an interrupted build in %s", workspace.path)
    try:
        result = _fill(workspace, dates, posts, frame, plan, embedder, options, report)
    except MapError:
        workspace.discard()  # the same again would fail again
        raise
    workspace.publish(force)
    return result


def _fill(
    workspace: Workspace,
    dates: Sequence[Date],
    posts: Posts | None,
    frame: MapFrame,
    plan: Sequence[LevelGrid],
    embedder: Embedder,
    options: BuildOptions,
    report: Report,
) -> BuildResult:
    """All parts and the manifest, in the workspace."""
    facts = embedder.facts
    images = lay_all(workspace, dates, frame, plan, report)
    valid_px = [[valid_pixels(valid) for _, valid in of_date] for of_date in images]
    check_ground(dates, valid_px)
    elevation = None if posts is None else _elevation(workspace, posts, frame, plan[0], images[0][0][1])
    began = time.monotonic()
    windows, tiles = _embed_all(workspace, dates, plan, images, embedder, report)
    embed_s = time.monotonic() - began

    write_picture(workspace.path / PICTURE, plan[0], *images[0][0], frame)
    offsets = [None, *(_told_offset(number, images, plan[0]) for number in range(1, len(dates)))]
    own, *others = (
        DateFacts(
            tuple(facts_of_level(*of, facts) for of in zip(plan, valid_px[number], tiles[number], strict=True)),
            tuple(source_of(raster, options.licence, date.values) for raster in date.rasters),
            offsets[number],
        )
        for number, date in enumerate(dates)
    )
    version = FORMAT_VERSION if elevation is None else WITH_ELEVATION
    manifest = Manifest(
        name=options.name or workspace.out.name,
        anchor_latitude_deg=frame.anchor_latitude_deg,
        anchor_longitude_deg=frame.anchor_longitude_deg,
        proj4=frame.proj4,
        bounds_enu_m=plan[0].bounds_enu_m,
        coverage_km2=valid_px[0][0] * plan[0].metres_per_pixel ** 2 / 1e6,
        model_name=facts.name,
        model_sha256=facts.sha256,
        preprocessing=preprocessing_of(facts),
        levels=own.levels,
        sources=own.sources,
        parts=parts_in(workspace.path, report),
        created_by=f"pilotage {__version__}",
        format_version=WITH_DATES if others else version,
        elevation=elevation,
        other_dates=tuple(others),
    )
    write_manifest(workspace.path / MANIFEST, manifest)
    return BuildResult(manifest, workspace.resumed, windows, embed_s)


def _told_offset(number: int, images: Sequence[Sequence[Image]], grid: LevelGrid) -> tuple[float, float] | None:
    """How far date `number` of images[date][level] lies off the map's own, east and north; it is logged, too."""
    offset = offset_m(images[0][0], images[number][0], grid.metres_per_pixel)
    if offset is None:
        _log.warning("date %d: whether it lies on the map's own date cannot be told", number)
        return None
    level = logging.WARNING if math.hypot(*offset) > _FAR_PX * grid.metres_per_pixel else logging.INFO
    said = "date %d lies %.2f m east, %.2f m north of the map's own: fixes found there err by that"
    _log.log(level, said, number, *offset)
    return offset


def _elevation(
    workspace: Workspace, posts: Posts, frame: MapFrame, grid: LevelGrid, valid: np.ndarray
) -> ElevationFacts:
    """Lay the DEM's heights and say what they are; `valid` (H, W) of `grid` is the finest level's."""
    heights = workspace.array(ELEVATION.removesuffix(".npy"), (posts.rows, posts.cols), np.float32)
    if "elevation" not in workspace.done:
        lay_heights(posts, frame, heights)
        if isinstance(heights, np.memmap):
            heights.flush()
        workspace.finish("elevation")
    return facts_of_heights(posts, heights, grid, valid)


def _embed_all(
    workspace: Workspace,
    dates: Sequence[Date],
    plan: Sequence[LevelGrid],
    images: Sequence[Sequence[Image]],
    embedder: Embedder,
    report: Report,
) -> tuple[int, list[list[int]]]:
    """Fill the features of all dates and levels; windows embedded now, and descriptors kept in each level of each."""
    view_px = embedder.facts.view_px
    windows: list[list[WindowPlan]] = [[plan_windows(valid, view_px) for _, valid in of_date] for of_date in images]
    total = sum(int(level.embedded.sum()) for of_date in windows for level in of_date)
    done, embedded = 0, 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        report("embedding windows", done, total)

    for date, pictures, planned in zip(dates, images, windows, strict=True):
        for index, (grid, picture, window) in enumerate(zip(plan, pictures, planned, strict=True)):
            name = f"{date.prefix}level{index}"
            embedded += embed_level(workspace, name, grid, *picture, window, embedder, advance)
    return embedded, [[level.descriptors for level in of_date] for of_date in windows]


def _signature(dates: Sequence[Date], posts: Posts | None, options: BuildOptions, facts: ModelFacts) -> dict[str, Any]:
    """All that the bytes of a map follow from; a build goes on only where it is the same."""
    own, *others = ([[raster.path.name, raster.sha256] for raster in date.rasters] for date in dates)
    return {
        "format_version": FORMAT_VERSION,
        "created_by": __version__,
        "imagery": own,
        "other_dates": others,
        "dem": None if posts is None else [posts.dem.path.name, posts.dem.sha256],
        "options": [options.name, options.metres_per_pixel, options.licence],
        "model": facts.sha256,
        "preprocessing": preprocessing_of(facts),
    }


def _check_room(
    dates: Sequence[Date],
    frame: MapFrame,
    plan: Sequence[LevelGrid],
    posts: Posts | None,
    facts: ModelFacts,
    out: Path,
) -> None:
    """Refuse at the door what the disk cannot take: a full disk under a memory-mapped file ends the process."""
    needed = 0.0 if posts is None else 4.0 * posts.rows * posts.cols
    for date in dates:
        area_m2 = 0.0
        for raster in date.rasters:
            west, south, east, north = raster.bounds_enu_m(frame)
            area_m2 += (east - west) * (north - south)
        for grid in plan:
            pixels = min(area_m2 / grid.metres_per_pixel**2, grid.height_px * grid.width_px)
            needed += pixels * (4 + (facts.detail_channels + 1) / facts.detail_stride**2)
    folder = out.absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise MapError(
            "not enough room for the map", f"{free / 1e9:.1f} GB free", f"{needed / 1e9:.1f} GB", "make room"
        )
