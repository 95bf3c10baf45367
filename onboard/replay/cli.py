"""`pilotage replay`: a recorded flight, replayed as if live, and what came of it."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from onboard.config import load_config
from onboard.errors import ConfigError
from onboard.replay import outputs
from onboard.replay.run import Progress
from onboard.replay.run import replay as run
from onboard.replay.summary import in_words

if TYPE_CHECKING:
    from onboard.engine import ModelFacts
    from onboard.mavlink.link import MavlinkLink
    from onboard.mavlink.listener_process import ListenerProcess
    from onboard.region import RegionMap


def replay(
    flight: Annotated[
        Path, typer.Argument(metavar="FLIGHT", help="A rosbag2 folder, an MCAP file or a flight folder.")
    ],
    map_path: Annotated[Path, typer.Option("--map", help="A region map made by `pilotage map build`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for summary.json, fixes.csv and report.html.")],
    mavlink: Annotated[str | None, typer.Option(help="Send fixes there, e.g. udpout:127.0.0.1:14550.")] = None,
    start: Annotated[str | None, typer.Option(help="LAT,LON in degrees, where the flight begins.")] = None,
    independent: Annotated[bool, typer.Option("--independent", help="Every frame alone, whole map, no track.")] = False,
    config: Annotated[Path | None, typer.Option(help="YAML of the settings to change.")] = None,
    model: Annotated[Path | None, typer.Option(help="Model file instead of the shipped one.")] = None,
    listener: Annotated[bool, typer.Option("--listener", help="Also receive what is sent, and check it.")] = False,
) -> None:
    """Replay a recorded flight over a region map as if live, and tell how it went."""
    from onboard.engine import SHIPPED_MODEL, open_engine
    from onboard.flight import open_flight
    from onboard.localizer import Localizer
    from onboard.match.evidence import read_confidence
    from onboard.region import RegionMap

    settings = load_config(config)
    start_deg = parse_start(start)
    if listener and mavlink is None:
        raise ConfigError("--listener", "without --mavlink", "both", "add --mavlink udpout:127.0.0.1:14550")
    recorded = open_flight(flight, settings.rectify)
    console = Console()
    with ExitStack() as stack:
        engine = open_engine(model, settings.engine)
        stack.callback(engine.close)
        region = RegionMap.open(map_path, engine.facts)
        localizer = Localizer(
            engine,
            region,
            recorded.camera,
            recorded.body_from_camera,
            read_confidence(Path(model) if model else SHIPPED_MODEL),
            settings,
            start_enu_m=_start_on_map(start_deg, region),
            independent=independent,
        )
        link, peer = _open_link(mavlink, listener, region, stack)
        bar = stack.enter_context(_progress_bar(console))
        task = bar.add_task("replay", total=recorded.frame_count, state="", fixes=0)

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.done, state=progress.state.value, fixes=progress.fixes)

        summary = run(
            recorded,
            localizer,
            region,
            out,
            config=settings,
            model=model_facts(engine.facts),
            map_facts=map_facts(region),
            independent=independent,
            link=link,
            listener=peer,
            on_progress=show,
        )
    for line in in_words(summary, out / outputs.REPORT):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def parse_start(text: str | None) -> tuple[float, float] | None:
    """(latitude, longitude) in degrees of "LAT,LON"; ConfigError for anything else."""
    if text is None:
        return None
    try:
        latitude_deg, longitude_deg = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            "--start", repr(text), "LAT,LON in degrees", "for instance --start 37.4917,141.0003"
        ) from error
    if not (math.isfinite(latitude_deg + longitude_deg) and abs(latitude_deg) <= 90 and abs(longitude_deg) <= 180):
        raise ConfigError("--start", repr(text), "latitude within 90 and longitude within 180 degrees, in this order")
    return latitude_deg, longitude_deg


def model_facts(facts: ModelFacts) -> dict[str, Any]:
    """What the summary says of a model."""
    return {"name": facts.name, "sha256": facts.sha256, "view_px": facts.view_px}


def map_facts(region: RegionMap) -> dict[str, Any]:
    """What the summary says of a region map: its content, not where it lies."""
    manifest = region.manifest
    return {
        "name": manifest.name,
        "sha256": region.sha256,
        "format_version": manifest.format_version,
        "coverage_km2": manifest.coverage_km2,
        "anchor_latitude_deg": manifest.anchor_latitude_deg,
        "anchor_longitude_deg": manifest.anchor_longitude_deg,
        "bounds_enu_m": list(manifest.bounds_enu_m),
        "metres_per_pixel": [level.metres_per_pixel for level in manifest.levels],
        "sources": [
            {key: value for key, value in dataclasses.asdict(source).items() if value is not None and key != "sha256"}
            for source in manifest.sources[:5]
        ],
        "source_count": len(manifest.sources),
    }


def _start_on_map(start_deg: tuple[float, float] | None, region: RegionMap) -> np.ndarray | None:
    """(2,) east, north of the start; ConfigError where the map does not reach."""
    if start_deg is None:
        return None
    start_enu_m = region.frame.enu_from_geodetic(*start_deg)
    west, south, east, north = region.bounds_enu_m
    if not (west <= start_enu_m[0] <= east and south <= start_enu_m[1] <= north):
        south_deg, west_deg = region.frame.geodetic_from_enu(np.array([west, south]))
        north_deg, east_deg = region.frame.geodetic_from_enu(np.array([east, north]))
        raise ConfigError(
            "--start lies outside the map",
            f"{start_deg[0]},{start_deg[1]}",
            f"latitude {south_deg:.5f} to {north_deg:.5f}, longitude {west_deg:.5f} to {east_deg:.5f}",
            "leave --start out, or take the map of that place",
        )
    return start_enu_m


def _open_link(
    address: str | None, listen: bool, region: RegionMap, stack: ExitStack
) -> tuple[MavlinkLink | None, ListenerProcess | None]:
    """The link, its origin at the map's anchor, and the peer at its other end; the listener is ready first."""
    if address is None:
        return None, None
    from onboard.mavlink.link import MavlinkLink
    from onboard.mavlink.listener_process import ListenerProcess

    peer = None
    if listen:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pilotage-"))
        peer = stack.enter_context(ListenerProcess(address, Path(folder) / "received.csv"))
        address = peer.peer
    link = stack.enter_context(MavlinkLink.open(address))
    link.set_origin(region.frame.anchor_latitude_deg, region.frame.anchor_longitude_deg, 0.0, region.frame)
    return link, peer


def _progress_bar(console: Console) -> ProgressBar:
    return ProgressBar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}, {task.fields[fixes]} fixes"),
        TimeRemainingColumn(),
        console=console,
    )
