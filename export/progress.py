"""The builder's phases on the terminal: those that run now, each with how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


@contextmanager
def build_progress(console: Console | None = None) -> Iterator[Callable[[str, float], None]]:
    """Gives what is to be called with (phase, share done). A phase that is done leaves the screen."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=console or Console(stderr=True), transient=True)
    shown: dict[str, TaskID] = {}

    def told(phase: str, share: float) -> None:
        progress.start()  # not before there is something to show; again does nothing
        if phase not in shown:
            shown[phase] = progress.add_task(phase, total=1.0)
        progress.update(shown[phase], completed=share)
        if share >= 1.0:
            progress.remove_task(shown.pop(phase))

    try:
        yield told
    finally:
        if progress.live.is_started:
            progress.stop()
