"""`pilotage render`: a place as GeoTIFFs, and a flight over it as a rosbag2."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from training.renderer.errors import RenderError
from training.renderer.season import Season

app = typer.Typer(no_args_is_help=True, help="Make ground and flights: a procedural place, a rosbag over it.")
_console = Console(stderr=True)


@app.command("place")
def place_command(
    out: Annotated[Path, typer.Option(help="folder for orthophoto.tif, surface.tif and the renderer's own layers")],
    seed: Annotated[int, typer.Option(help="another seed, another place")] = 1,
    size_m: Annotated[float, typer.Option(help="side of the square")] = 2200.0,
    metres_per_pixel: Annotated[float, typer.Option(help="of the orthophoto")] = 0.5,
    relief_m: Annotated[float, typer.Option(help="highest hill over lowest valley")] = 40.0,
    latitude: Annotated[float, typer.Option(help="of the centre, degrees")] = 46.96,
    longitude: Annotated[float, typer.Option(help="of the centre, degrees")] = 2.61,
) -> None:
    """Make a place: an orthophoto in summer with its surface model."""
    from training.renderer.files import write_place
    from training.renderer.place import generate_place

    with _console.status("making the ground"):
        place = generate_place(seed, size_m, metres_per_pixel, relief_m, latitude, longitude)
    with _console.status("writing"):
        write_place(place, out)
    side = f"{size_m / 1000:.1f}"
    print(f"{out}: {side} x {side} km at {metres_per_pixel:g} m, {len(place.roof_objects)} buildings")


@app.command("flight")
def flight_command(
    place_folder: Annotated[Path, typer.Argument(metavar="PLACE", help="folder of `render place`, or a GeoTIFF")],
    out: Annotated[Path, typer.Option(help="folder of the rosbag2")],
    seed: Annotated[int, typer.Option(help="another seed, another flight")] = 1,
    seconds: Annotated[float, typer.Option(help="length of the flight")] = 200.0,
    frames_per_second: Annotated[float, typer.Option(help="at most 20")] = 2.0,
    season: Annotated[Season, typer.Option(help="when it is flown; the map's picture is of summer")] = Season.AUTUMN,
    sun_azimuth_deg: Annotated[float, typer.Option(help="clockwise from north")] = 236.0,
    sun_elevation_deg: Annotated[float, typer.Option(help="low suns throw long shadows")] = 33.0,
    snow: Annotated[float, typer.Option(help="share of open ground under snow, 0 to 1")] = 0.0,
    weather: Annotated[float, typer.Option(help="haze, blur and noise: 0 none, 1 ordinary, 2 bad")] = 1.0,
    low_m: Annotated[float, typer.Option(help="least height above ground")] = 62.0,
    high_m: Annotated[float, typer.Option(help="greatest height above ground")] = 145.0,
    attitude_noise_deg: Annotated[
        float, typer.Option(help="1 sigma of what roll and pitch are told wrong by", min=0)
    ] = 0.5,
    surface: Annotated[Path | None, typer.Option(help="surface model for a GeoTIFF")] = None,
    processes: Annotated[int, typer.Option(help="0: one a core, four at most; the bytes are the same")] = 0,
) -> None:
    """Fly over a place in another season and light, and record it as a rosbag2 (MCAP)."""
    from training.renderer.bag import write_bag
    from training.renderer.changes import changed
    from training.renderer.files import read_place
    from training.renderer.film import film
    from training.renderer.flight import FlightSettings, plan_flight
    from training.renderer.place import Place
    from training.renderer.season import appearance
    from training.renderer.sensor import Conditions, draw_conditions

    if not 5 < sun_elevation_deg <= 90 or not 0 < frames_per_second <= 20 or not 1 <= seconds <= 7200:
        found = f"elevation {sun_elevation_deg:g}, {frames_per_second:g} frames/s, {seconds:g} s"
        raise RenderError("flight options", found, "a sun of 5 to 90 degrees, 0 to 20 frames/s, 1 to 7200 s")
    with _console.status("reading the place and painting it for the day"):
        place = read_place(place_folder) if place_folder.is_dir() else Place.from_geotiff(place_folder, surface)
        settings = FlightSettings(
            seconds=seconds,
            frames_per_second=frames_per_second,
            low_m=low_m,
            high_m=high_m,
            attitude_noise_deg=attitude_noise_deg,
        )
        flight = plan_flight(place, seed, settings)
        today = changed(place, seed + 1)
        picture = appearance(today, season, sun_azimuth_deg, sun_elevation_deg, seed + 1, snow)
    rng = np.random.default_rng([seed, 30])
    conditions = draw_conditions(rng, weather) if weather > 0 else Conditions()
    frames = film(today, picture, flight, conditions, seed, processes or min(4, os.cpu_count() or 1))
    shown = track(frames, "rendering the flight", len(flight.frames.at_ns), console=_console)
    write_bag(out, flight, shown, place.frame)
    heights = flight.frames.height_above_ground_m
    span = f"{heights.min():.0f} to {heights.max():.0f} m above ground"
    print(f"{out}: {len(heights)} frames, {seconds:g} s, {span}, {season.value}")
