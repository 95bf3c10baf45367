"""`pilotage replay`: recorded flights, replayed as if live, and what came of them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from onboard.config import load_config
from onboard.errors import ConfigError, FlightError
from onboard.replay import outputs
from onboard.replay.bench import Bench
from onboard.replay.run import Progress
from onboard.replay.start import parse_start
from onboard.replay.summary import in_words, verdict

if TYPE_CHECKING:
    from onboard.flight.source import Topics
    from onboard.replay.many import Outcome


def replay(
    flight: Annotated[
        list[Path], typer.Argument(metavar="FLIGHT...", help="Rosbag2 folders, MCAP files or flight folders.")
    ],
    map_path: Annotated[Path, typer.Option("--map", help="A region map made by `pilotage map build`.")],
    out: Annotated[
        Path,
        typer.Option("--out", help="Folder for summary.json, fixes.csv, report.html; of many flights, for one each."),
    ],
    mavlink: Annotated[str | None, typer.Option(help="Send fixes there, e.g. udpout:127.0.0.1:14550.")] = None,
    start: Annotated[
        str | None, typer.Option(help="LAT,LON in degrees, where the flight begins; the home of a vehicle without one.")
    ] = None,
    independent: Annotated[bool, typer.Option("--independent", help="Every frame alone, whole map, no track.")] = False,
    config: Annotated[Path | None, typer.Option(help="YAML of the settings to change.")] = None,
    model: Annotated[Path | None, typer.Option(help="Model file instead of the shipped one.")] = None,
    listener: Annotated[bool, typer.Option("--listener", help="Also receive what is sent, and check it.")] = False,
    topic: Annotated[
        list[str] | None, typer.Option("--topic", metavar="PART=NAME", help="A bag's topic, e.g. image=/cam/image.")
    ] = None,
) -> None:
    """Replay recorded flights over a region map as if live, and tell how they went."""
    from onboard.flight import open_flight
    from onboard.flight.choose import parse_topics

    settings = load_config(config)
    start_deg = parse_start(start)
    topics = parse_topics(topic or ())
    if listener and mavlink is None:
        raise ConfigError("--listener", "without --mavlink", "both", "add --mavlink udpout:127.0.0.1:14550")
    console = Console()
    with ended_by_sigterm(), ExitStack() as stack:
        if len(flight) == 1:
            recorded = open_flight(flight[0], settings.rectify, topics)
            bench = Bench.open(map_path, model, settings, start_deg, independent, mavlink, listener, stack)
            bar = stack.enter_context(_progress_bar(console))
            summary = bench.replay(recorded, out, _shown_on(bar, "replay", recorded.frame_count))
            stack.close()  # the bar ends before the words
            _say(console, in_words(summary, out / outputs.REPORT))
            return
        missing = [path for path in flight if not path.exists()]
        if missing:
            raise FlightError("no flight", missing[0], "flights that are there", "check the path")
        bench = Bench.open(map_path, model, settings, start_deg, independent, mavlink, listener, stack)
        bar = stack.enter_context(_progress_bar(console))
        outcomes = _replay_all(bench, flight, out, topics, bar)
        stack.close()
        _tell_all(console, outcomes, out)


def _replay_all(bench: Bench, flights: Sequence[Path], out: Path, topics: Topics, bar: ProgressBar) -> list[Outcome]:
    from onboard.flight import open_flight
    from onboard.replay.many import replay_many

    over_all = bar.add_task("all flights", total=len(flights), state="", fixes=0)
    fixes = 0

    def replay_one(path: Path, name: str, folder: Path) -> dict[str, Any]:
        nonlocal fixes
        try:
            recorded = open_flight(path, bench.settings.rectify, topics)
            summary = bench.replay(recorded, folder, _shown_on(bar, name, recorded.frame_count))
            fixes += summary["fixes"]
            return summary
        finally:
            bar.update(over_all, advance=1, fixes=fixes)

    return replay_many(flights, out, replay_one)


def _tell_all(console: Console, outcomes: Sequence[Outcome], out: Path) -> None:
    """A line for each flight, and for all; FlightError names those that could not be replayed."""
    from onboard.replay.many import sentence
    from onboard.replay.runs import read_summary

    failed = [outcome for outcome in outcomes if outcome.summary is None]
    words = [f"{o.name}: {verdict(o.summary)[1]}" for o in outcomes if o.summary is not None]
    _say(console, [*words, sentence(read_summary(out)["totals"]), f"Overview: {out / outputs.INDEX}"])
    if failed:
        raise FlightError(
            f"{len(failed)} of {len(outcomes)} flights could not be replayed",
            " | ".join(f"{outcome.name}: {outcome.problem}" for outcome in failed),
        )


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the program as Ctrl-C does: what is half-written is cleared away."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _progress_bar(console: Console) -> ProgressBar:
    return ProgressBar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}, {task.fields[fixes]} fixes"),
        TimeRemainingColumn(),
        console=console,
    )


def _shown_on(bar: ProgressBar, name: str, total: int) -> Callable[[Progress], None]:
    """A callback that counts a flight's frames on a line of its own."""
    task = bar.add_task(name, total=total, state="", fixes=0)

    def show(progress: Progress) -> None:
        bar.update(task, completed=progress.done, state=progress.state.value, fixes=progress.fixes)

    return show


def _say(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
