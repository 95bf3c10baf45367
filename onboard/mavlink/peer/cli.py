"""`pilotage listen`: hear what a flight controller would hear, and write it down."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from onboard.errors import LinkError
from onboard.mavlink.peer.listener import Listener
from onboard.mavlink.peer.listener import listen as run_listener
from onboard.mavlink.wire.transport import parse_address


def listen(
    address: Annotated[
        str, typer.Argument(help="udpin:HOST:PORT (port 0: any free one), tcp:HOST:PORT or /dev/ttyX:BAUD")
    ],
    out: Annotated[Path, typer.Option(help="The CSV of received positions; the sums go beside it as .json.")],
    seconds: Annotated[float | None, typer.Option(help="How long to listen; without it until Ctrl-C.")] = None,
) -> None:
    """Count and decode MAVLink messages; write each position to a CSV and the sums to a JSON beside it."""
    if parse_address(address).kind == "udpout":
        raise LinkError("nobody answers a listener that calls out", address, "udpin:HOST:PORT")
    if seconds is not None and not seconds > 0:
        raise LinkError("time to listen", f"{seconds} s", "a positive number of seconds")
    if out.suffix == ".json":
        raise LinkError("the sums are written as .json beside it", out, "another name, such as received.csv")
    console = Console()
    stop_asked = _StopOnSignal()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with stop_asked, Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("waiting", total=None)
        began_s = time.monotonic()

        def stopped(listener: Listener) -> bool:
            progress.update(task, description=_in_words(listener.received().by_name))
            return stop_asked.asked or (seconds is not None and time.monotonic() - began_s >= seconds)

        received = run_listener(address, out, stopped, ready=lambda where: console.print(f"listening at {where}"))
    sums = out.with_suffix(".json")
    partial = sums.with_name(sums.name + ".partial")
    partial.write_text(json.dumps(received.to_dict(), indent=2) + "\n")
    os.replace(partial, sums)
    console.print(
        f"{received.total} messages ({_in_words(received.by_name)}), {received.lost} lost on the way,"
        f" {received.fixes} positions in {out}, sums in {sums}",
        soft_wrap=True,
    )


class _StopOnSignal:
    """Ctrl-C, or a polite kill, ends listening in order: what came is kept."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> _StopOnSignal:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def _in_words(by_name: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(by_name.items())) or "nothing yet"
