"""Imagery and a model in, a region map out: resumable, whole or not at all, the same bytes each time."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
from export.region.imagery import Raster, find_rasters, inspect, value_range
from export.region.rasterise import BLOCK_PX, lay, shrink
from export.region.workspace import Workspace, check_target
from onboard import __version__
from onboard.errors import MapError
from onboard.frames import MapFrame
from onboard.region.manifest import FORMAT_VERSION, MANIFEST, WITH_ELEVATION, ElevationFacts, Manifest
from onboard.region.map import ELEVATION

if TYPE_CHECKING:
    from onboard.engine import ModelFacts

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What the user may choose. The name is the folder's where none is given; `dem` a GeoTIFF of heights in metres."""

    name: str | None = None
    metres_per_pixel: float | None = None
    licence: str | None = None
    dem: Path | None = None


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
    """Make a region map `out` of GeoTIFFs, later ones on top of earlier ones. Raises MapError."""
    check_target(out, force)
    facts = embedder.facts
    if facts.view_px % (4 * facts.detail_stride):
        raise MapError("model with unusable sizes", f"{facts.view_px} px, stride {facts.detail_stride}", "4 * stride")
    dem = None if options.dem is None else inspect_dem(options.dem)
    rasters = _inspect_all(imagery, report)
    values = value_range(rasters)
    if values:
        _log.info("imagery of more than 8 bits: %.6g becomes black, %.6g white (percentiles 0.5, 99.5)", *values)
    frame = frame_about(rasters)
    levels_m = resolutions_m([raster.native_m for raster in rasters], options.metres_per_pixel)
    plan = grids(rasters, frame, levels_m, facts.detail_stride)
    posts = None if dem is None else posts_over(dem, frame, plan[0].bounds_enu_m)
    _check_room(rasters, frame, plan, posts, facts, out)

    workspace = Workspace(out, _signature(rasters, posts, options, facts))
    if workspace.resumed:
        _log.info("going on with an interrupted build in %s", workspace.path)
    try:
        result = _fill(workspace, rasters, posts, frame, plan, values, embedder, options, report)
    except MapError:
        workspace.discard()  # the same again would fail again
        raise
    workspace.publish(force)
    return result


def _fill(
    workspace: Workspace,
    rasters: Sequence[Raster],
    posts: Posts | None,
    frame: MapFrame,
    plan: Sequence[LevelGrid],
    values: tuple[float, float] | None,
    embedder: Embedder,
    options: BuildOptions,
    report: Report,
) -> BuildResult:
    """All parts and the manifest, in the workspace."""
    facts = embedder.facts
    images = _lay_all(workspace, rasters, frame, plan, values, report)
    valid_px = [_count(valid) for _, valid in images]
    if min(valid_px) == 0:
        raise MapError("no valid pixels", f"in {len(rasters)} file(s)", "imagery that is not all nodata or masked")
    elevation = None if posts is None else _elevation(workspace, posts, frame, plan[0], images[0][1])
    began = time.monotonic()
    windows, tiles = _embed_all(workspace, plan, images, embedder, report)
    embed_s = time.monotonic() - began

    write_picture(workspace.path / PICTURE, plan[0], *images[0], frame)
    manifest = Manifest(
        name=options.name or workspace.out.name,
        anchor_latitude_deg=frame.anchor_latitude_deg,
        anchor_longitude_deg=frame.anchor_longitude_deg,
        proj4=frame.proj4,
        bounds_enu_m=plan[0].bounds_enu_m,
        coverage_km2=valid_px[0] * plan[0].metres_per_pixel ** 2 / 1e6,
        model_name=facts.name,
        model_sha256=facts.sha256,
        preprocessing=preprocessing_of(facts),
        levels=tuple(facts_of_level(*of, facts) for of in zip(plan, valid_px, tiles, strict=True)),
        sources=tuple(source_of(raster, options.licence, values) for raster in rasters),
        parts=parts_in(workspace.path, report),
        created_by=f"pilotage {__version__}",
        format_version=FORMAT_VERSION if elevation is None else WITH_ELEVATION,
        elevation=elevation,
    )
    write_manifest(workspace.path / MANIFEST, manifest)
    return BuildResult(manifest, workspace.resumed, windows, embed_s)


def _inspect_all(imagery: Sequence[Path], report: Report) -> list[Raster]:
    files = find_rasters(imagery)
    rasters = []
    for done, file in enumerate(files):
        rasters.append(inspect(file))
        report("reading imagery", done + 1, len(files))
    return rasters


def _lay_all(
    workspace: Workspace,
    rasters: Sequence[Raster],
    frame: MapFrame,
    plan: Sequence[LevelGrid],
    values: tuple[float, float] | None,
    report: Report,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The image (H, W, 3) and valid (H, W) of each level: the finest from the imagery, the others from it."""
    images = []
    for index, grid in enumerate(plan):
        size = (grid.height_px, grid.width_px)
        image = workspace.array(f"level{index}/image", (*size, 3), np.uint8)
        images.append((image, workspace.array(f"level{index}/valid", size, np.uint8)))
    total = len(rasters) + len(plan) - 1
    for done in range(total):
        step = f"image {done}"
        if step not in workspace.done:
            if done < len(rasters):
                level = 0
                if lay(rasters[done], frame, plan[0], *images[0], values) == 0:
                    _log.warning("no valid pixels in %s", rasters[done].path)
            else:
                level = done - len(rasters) + 1
                shrink(*images[level - 1], *images[level])
            for array in images[level]:
                if isinstance(array, np.memmap):
                    array.flush()
            workspace.finish(step)
        report("laying imagery", done + 1, total)
    return images


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
    plan: Sequence[LevelGrid],
    images: Sequence[tuple[np.ndarray, np.ndarray]],
    embedder: Embedder,
    report: Report,
) -> tuple[int, list[int]]:
    """Fill the features of all levels; windows embedded now, and descriptors kept in each level."""
    windows: list[WindowPlan] = [plan_windows(valid, embedder.facts.view_px) for _, valid in images]
    total = sum(int(level.embedded.sum()) for level in windows)
    done, embedded = 0, 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        report("embedding windows", done, total)

    for index, (grid, (image, valid)) in enumerate(zip(plan, images, strict=True)):
        embedded += embed_level(workspace, f"level{index}", grid, image, valid, windows[index], embedder, advance)
    return embedded, [level.descriptors for level in windows]


def _signature(
    rasters: Sequence[Raster], posts: Posts | None, options: BuildOptions, facts: ModelFacts
) -> dict[str, Any]:
    """All that the bytes of a map follow from; a build goes on only where it is the same."""
    return {
        "format_version": FORMAT_VERSION,
        "created_by": __version__,
        "imagery": [[raster.path.name, raster.sha256] for raster in rasters],
        "dem": None if posts is None else [posts.dem.path.name, posts.dem.sha256],
        "options": [options.name, options.metres_per_pixel, options.licence],
        "model": facts.sha256,
        "preprocessing": preprocessing_of(facts),
    }


def _count(valid: np.ndarray) -> int:
    return sum(int(np.count_nonzero(valid[row : row + BLOCK_PX])) for row in range(0, valid.shape[0], BLOCK_PX))


def _check_room(
    rasters: Sequence[Raster],
    frame: MapFrame,
    plan: Sequence[LevelGrid],
    posts: Posts | None,
    facts: ModelFacts,
    out: Path,
) -> None:
    """Refuse at the door what the disk cannot take: a full disk under a memory-mapped file ends the process."""
    area_m2 = 0.0
    for raster in rasters:
        west, south, east, north = raster.bounds_enu_m(frame)
        area_m2 += (east - west) * (north - south)
    needed = 0.0 if posts is None else 4.0 * posts.rows * posts.cols
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
