"""`pilotage map`: build a region map, and say what is in one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from onboard.region.manifest import Manifest
from onboard.region.map import RegionMap

app = typer.Typer(no_args_is_help=True, help="Region maps: build one from imagery, say what is in one.")
_log = logging.getLogger(__name__)
_SOURCES_SHOWN = 10


@app.command("build")
def build(
    imagery: Annotated[list[Path], typer.Argument(help="GeoTIFFs, or directories of them; later ones lie on top.")],
    out: Annotated[Path, typer.Option(help="The map's folder.")],
    dem: Annotated[
        Path | None, typer.Option(help="GeoTIFF of the ground's heights in metres, of any CRS; else it is level.")
    ] = None,
    other_date: Annotated[
        list[Path] | None,
        typer.Option(
            help="The same ground at another date: a GeoTIFF, or a directory of them. Once for each date; what has "
            "changed is then found where any of them shows it."
        ),
    ] = None,
    metres_per_pixel: Annotated[float | None, typer.Option(help="Finest resolution; else that of the imagery.")] = None,
    model: Annotated[Path | None, typer.Option(help="Model file; else the shipped one.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the region; else that of the folder.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence and attribution of the imagery.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a map that is there.")] = False,
) -> None:
    """Build a region map from GeoTIFFs; an interrupted build goes on where it stopped."""
    from export.region.build import BuildOptions, build_map
    from export.region.imagery import find_rasters
    from export.region.workspace import check_target
    from onboard.config import EngineConfig
    from onboard.engine import open_engine

    check_target(out, force)  # before the model takes its time to load
    for files in (imagery, *([path] for path in other_date or ())):
        find_rasters(files)
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # what it logs comes as an error, too, in one line
    embedder = open_engine(model, EngineConfig())
    options = BuildOptions(name, metres_per_pixel, licence, dem, tuple(other_date or ()))
    with _bars() as report:
        try:
            result = build_map(imagery, out, embedder, options, force, report)
        finally:
            embedder.close()
    manifest = result.manifest
    size = sum(part.bytes for part in manifest.parts)
    rate = f", {result.windows / result.embed_s:.1f} windows/s" if result.windows and result.embed_s > 0 else ""
    _log.info(
        "%s: %.3f km2 at %s m/px, %.1f MB%s",
        out,
        manifest.coverage_km2,
        ", ".join(f"{level.metres_per_pixel:g}" for level in manifest.levels),
        size / 1e6,
        rate,
    )


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each stage that reports; none where the door is as far as it goes."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True))
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        progress.start()
        if stage not in tasks:
            tasks[stage] = progress.add_task(stage, total=total)
        progress.update(tasks[stage], completed=done)

    try:
        yield report
    finally:
        if tasks:
            progress.stop()


@app.command("info")
def info(
    region: Annotated[Path, typer.Argument(metavar="MAP", help="The map's folder.")],
    verify: Annotated[bool, typer.Option("--verify", help="Check the hash of every part.")] = False,
    every_source: Annotated[bool, typer.Option("--sources", help="List every source, however many.")] = False,
) -> None:
    """Say what is in a region map, and check that it is whole."""
    opened = RegionMap.open(region, verify=verify)
    console = Console(soft_wrap=True)
    for table in tables(opened.manifest, opened.sha256, every_source):
        console.print(table)
    console.print("all parts have their size and hash" if verify else "all parts have their size (hashes: --verify)")


def tables(manifest: Manifest, sha256: str, every_source: bool = False) -> list[Table]:
    """What `pilotage map info` shows; of many sources the first few, unless every one is asked for."""
    west, south, east, north = manifest.bounds_enu_m
    facts = Table("map", manifest.name, title_justify="left")
    facts.add_row("content", sha256[:12])
    facts.add_row("anchor", f"{manifest.anchor_latitude_deg:.7f}, {manifest.anchor_longitude_deg:.7f} deg")
    facts.add_row("bounds", f"{west:.1f} to {east:.1f} m east, {south:.1f} to {north:.1f} m north of it")
    facts.add_row("area", f"{manifest.coverage_km2:.3f} km2 of {(east - west) * (north - south) / 1e6:.3f} in bounds")
    heights = manifest.elevation
    if heights is None:
        facts.add_row("elevation", "none: the ground is taken as level")
    else:
        span = f"{heights.lowest_m:.1f} to {heights.highest_m:.1f} m ({heights.vertical_datum})"
        facts.add_row("elevation", f"{span}, posts {heights.post_m:g} m apart, known {heights.known_share:.1%}")
    if manifest.other_dates:
        facts.add_row("dates", f"{1 + len(manifest.other_dates)}: the map's own and those of --other-date, in order")
    for number, other in enumerate(manifest.other_dates, 1):
        offset = other.offset_enu_m
        lies = "not told by keypoints"
        if offset is not None:
            lies = "{:.2f} m east, {:.2f} m north of the map's own".format(*offset)
        facts.add_row(f"date {number} lies", lies)
    facts.add_row("model", f"{manifest.model_name} ({manifest.model_sha256[:12]})")
    facts.add_row("made by", manifest.created_by)

    levels = Table("level", "m/px", "pixels", "valid", "cell", "cells", "descriptors")
    for date, of_date in enumerate((manifest.levels, *(other.levels for other in manifest.other_dates))):
        for index, level in enumerate(of_date):
            levels.add_row(
                f"{index} of date {date}" if date else str(index),
                f"{level.metres_per_pixel:g}",
                f"{level.width_px} x {level.height_px}",
                f"{level.valid_px / (level.width_px * level.height_px):.1%}",
                f"{level.cell_m:g} m",
                f"{level.cell_cols} x {level.cell_rows}",
                str(level.tiles),
            )

    parts = Table("part", "MB", "MB per km2 of bounds", "SHA-256")
    bounds_km2 = (east - west) * (north - south) / 1e6
    for part in manifest.parts:
        parts.add_row(part.file, f"{part.bytes / 1e6:.3f}", f"{part.bytes / 1e6 / bounds_km2:.3f}", part.sha256[:12])
    total = sum(part.bytes for part in manifest.parts)
    parts.add_row("all", f"{total / 1e6:.3f}", f"{total / 1e6 / bounds_km2:.3f}", "")

    sources = Table("source", "CRS", "m/px on ground", "date", "licence", "SHA-256")
    for column in sources.columns:
        column.overflow = "fold"
    every = [*manifest.sources, *(source for other in manifest.other_dates for source in other.sources)]
    shown = every if every_source else every[:_SOURCES_SHOWN]
    for source in (*shown, *([] if heights is None else [heights.source])):
        native = f"{source.native_metres_per_pixel:.3f}"
        sources.add_row(source.file, source.crs, native, source.date or "", source.licence or "", source.sha256[:12])
    if left := len(every) - len(shown):
        sources.add_row(f"and {left} more (--sources)", *[""] * 5)
    return [facts, levels, parts, sources]
