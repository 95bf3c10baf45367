"""The imagery of a map, date by date: what there is of each, and how it is laid on the map's grids."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.region.describe import Report
from export.region.grid import LevelGrid
from export.region.imagery import Raster, find_rasters, inspect, value_range
from export.region.rasterise import BLOCK_PX, lay, shrink
from export.region.workspace import Workspace
from onboard.errors import MapError
from onboard.frames import MapFrame
from onboard.region.map import prefix_of

Image = tuple[np.ndarray, np.ndarray]  # (H, W, 3) and what of it is valid, (H, W)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Date:
    """The imagery of one date; `prefix` is where its parts lie, `values` those of black and white (or None)."""

    rasters: Sequence[Raster]
    prefix: str
    values: tuple[float, float] | None


def date_of(number: int, imagery: Sequence[Path], report: Report) -> Date:
    """What there is of a date, `number` 0 the map's own."""
    files = find_rasters(imagery)
    rasters = []
    for done, file in enumerate(files):
        rasters.append(inspect(file))
        report(f"reading imagery{_named(number)}", done + 1, len(files))
    values = value_range(rasters)
    if values:
        _log.info("imagery of more than 8 bits: %.6g becomes black, %.6g white (percentiles 0.5, 99.5)", *values)
    return Date(rasters, prefix_of(number), values)


def _named(date: int) -> str:
    return f" of date {date}" if date else ""


def check_ground(dates: Sequence[Date], valid_px: Sequence[Sequence[int]]) -> None:
    """Raise MapError where a date, valid_px[date][level], has nothing to show of the map's ground."""
    for number, (date, valid) in enumerate(zip(dates, valid_px, strict=True)):
        if min(valid) == 0:
            where = f"in {len(date.rasters)} file(s){_named(number)}"
            there = " on the map's ground" if number else ""
            raise MapError("no valid pixels", where, f"imagery{there} that is not all nodata or masked")


def lay_all(
    workspace: Workspace, dates: Sequence[Date], frame: MapFrame, plan: Sequence[LevelGrid], report: Report
) -> list[list[Image]]:
    """Of each date `_lay_date`."""
    total = sum(len(date.rasters) for date in dates) + len(dates) * (len(plan) - 1)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        report("laying imagery", done, total)

    return [_lay_date(workspace, date, frame, plan, advance) for date in dates]


def _lay_date(
    workspace: Workspace, date: Date, frame: MapFrame, plan: Sequence[LevelGrid], advance: Callable[[], None]
) -> list[Image]:
    """The images of each level: the finest from the imagery, the others from it."""
    rasters, images = date.rasters, []
    for index, grid in enumerate(plan):
        size, name = (grid.height_px, grid.width_px), f"{date.prefix}level{index}"
        image = workspace.array(f"{name}/image", (*size, 3), np.uint8)
        images.append((image, workspace.array(f"{name}/valid", size, np.uint8)))
    for done in range(len(rasters) + len(plan) - 1):
        step = f"{date.prefix}image {done}"
        if step not in workspace.done:
            if done < len(rasters):
                level = 0
                if lay(rasters[done], frame, plan[0], *images[0], date.values) == 0:
                    _log.warning("no valid pixels in %s", rasters[done].path)
            else:
                level = done - len(rasters) + 1
                shrink(*images[level - 1], *images[level])
            for array in images[level]:
                if isinstance(array, np.memmap):
                    array.flush()
            workspace.finish(step)
        advance()
    return images


def valid_pixels(valid: np.ndarray) -> int:
    return sum(int(np.count_nonzero(valid[row : row + BLOCK_PX])) for row in range(0, valid.shape[0], BLOCK_PX))
