"""`pilotage flight`: make a flight folder of photos; tell what a flight holds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from onboard.errors import FlightError
from onboard.flight.choose import parse_topics
from onboard.flight.open import open_flight
from onboard.records import Reason, Telemetry

app = typer.Typer(no_args_is_help=True, help="Recorded flights: make a flight folder of photos, look into a flight.")
_console = Console(stderr=True)


@app.command("from-photos")
def from_photos(
    photos: Annotated[list[Path], typer.Argument(help="Geotagged JPEG photos, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", help="The flight folder to make.")],
    height_above_ground_m: Annotated[float | None, typer.Option(help="One height for all photos.")] = None,
    ground_altitude_m: Annotated[
        float | None, typer.Option(help="Altitude of the ground; height is EXIF altitude minus this.")
    ] = None,
    camera: Annotated[Path | None, typer.Option(help="A calibrated camera.yaml instead of the tags.")] = None,
    skip_without_gps: Annotated[bool, typer.Option("--skip-without-gps", help="Leave photos without GPS out.")] = False,
    ignore_yaw: Annotated[bool, typer.Option("--ignore-yaw", help="Leave the heading unknown.")] = False,
) -> None:
    """Geotagged drone photos (EXIF, DJI or Parrot XMP) become a flight folder. Their GPS is truth for scoring only."""
    from onboard.flight.photos import PhotoOptions, flight_from_photos

    if height_above_ground_m is not None and ground_altitude_m is not None:
        raise FlightError("two heights", "--height-above-ground-m and --ground-altitude-m", "one of them")
    for name, value in (("height-above-ground-m", height_above_ground_m), ("ground-altitude-m", ground_altitude_m)):
        if value is not None and not math.isfinite(value):
            raise FlightError(f"--{name}", value, "a number of metres")
    if height_above_ground_m is not None and height_above_ground_m <= 0:
        raise FlightError("--height-above-ground-m", height_above_ground_m, "a positive number of metres")
    options = PhotoOptions(height_above_ground_m, ground_altitude_m, camera, skip_without_gps, ignore_yaw)
    with _bar() as bar:
        summary = flight_from_photos(photos, out, options, _shown_on(bar))
    low, high = summary.heights_m
    skipped = f" ({summary.skipped} without GPS left out)" if summary.skipped else ""
    _say(f"{summary.photos} photos{skipped}, {low:.1f} to {high:.1f} m above ground by {summary.height_source}")
    _say(f"camera: {summary.camera}; attitude: {summary.attitude_source}")
    if summary.assumptions:
        _say("assumed: " + "; ".join(summary.assumptions))
    _say(f"flight folder: {out}")


@app.command("info")
def info(
    flight: Annotated[Path, typer.Argument(help="A rosbag2 folder, an MCAP file or a flight folder.")],
    topic: Annotated[
        list[str] | None, typer.Option("--topic", metavar="PART=NAME", help="A bag's topic, e.g. image=/cam/image.")
    ] = None,
) -> None:
    """What a flight holds: frames, duration, camera, where each part comes from, heights, truth."""
    opened = open_flight(flight, topics=parse_topics(topic or ()))
    times_ns: list[int] = []
    told: list[Telemetry] = []
    reasons: Counter[Reason] = Counter()
    with _bar() as bar:
        show = _shown_on(bar)
        for item in opened.items():
            times_ns.append(item.captured_at_ns)
            if item.frame is None:
                reasons[Reason.NO_IMAGE] += 1
            if isinstance(item.telemetry, Reason):
                reasons[item.telemetry] += 1
            else:
                told.append(item.telemetry)
            show("reading", len(times_ns), opened.frame_count)
    camera, truth = opened.camera, opened.truth()
    _say(f"{opened.name}: {len(times_ns)} frames in {(max(times_ns) - min(times_ns)) / 1e9:.1f} s")
    _say(f"camera: {camera.width}x{camera.height}, {camera.distortion_model}, f = {camera.focal_px:.0f} px")
    for part, source in opened.facts.items():
        _say(f"{part.replace('_', ' ')}: {source}")
    if told:
        heights = [t.height_above_ground_m for t in told]
        headings = sum(t.heading_known for t in told)
        _say(f"height above ground: {min(heights):.1f} to {max(heights):.1f} m; heading known in {headings} frames")
    _say("not usable: " + (", ".join(f"{why.value} {n}" for why, n in sorted(reasons.items())) or "none"))
    _say(f"truth: {len(truth.captured_at_ns)} positions" if truth is not None else "truth: none")


def _say(line: str) -> None:
    Console().print(line, highlight=False, markup=False, soft_wrap=True)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=_console, transient=True, disable=not _console.is_terminal)


def _shown_on(bar: Progress) -> Callable[[str, int, int], None]:
    """A callback that keeps one bar a subject."""
    tasks: dict[str, TaskID] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done)

    return show
