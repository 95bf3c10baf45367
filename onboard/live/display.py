"""A flying program's status for a person (a live table) and for a machine (a line of JSON a second)."""

from __future__ import annotations

import json
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from onboard.live.status import FlyStatus

_JSON_PERIOD_NS = 1_000_000_000
_STATES = {"lost": "bold red", "acquiring": "yellow", "tracking": "bold green", "coasting": "bold yellow"}


class JsonLines:
    """One object a line, at most once a second."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._last_ns = out, 0

    def show(self, status: FlyStatus) -> None:
        if status.at_ns - self._last_ns >= _JSON_PERIOD_NS:
            self._last_ns = status.at_ns
            print(json.dumps(status.to_dict(), allow_nan=False), file=self._out, flush=True)

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""


class Screen:
    """The table, drawn again in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def show(self, status: FlyStatus) -> None:
        self._live.update(table(status), refresh=True)

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


def table(status: FlyStatus) -> Table:
    """Name and value, one line each; what the companion says of the link comes last, in its own words."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column()
    for name, value in _rows(status):
        grid.add_row(name, value if isinstance(value, Text) else Text(value))
    return grid


def _rows(status: FlyStatus) -> list[tuple[str, str | Text]]:
    camera, worker, recorder = status.camera, status.worker, status.recorder
    state = Text(status.state, style=_STATES.get(status.state, ""))
    rows: list[tuple[str, str | Text]] = [("state", state), ("fix", _fix(status))]
    eye = "at its end" if camera.ended else "" if camera.connected else "NOT CONNECTED"
    rows.append(
        ("camera", _joined(_rate(camera.rate_hz), f"{camera.taken} taken", _some(camera.reconnects, "reconnects"), eye))
    )
    rows.append(
        (
            "localizer",
            _joined(
                _rate(worker.rate_hz),
                "" if worker.busy_share is None else f"busy {100 * worker.busy_share:.0f} %",
                _some(worker.dropped + status.overrun, "dropped"),
            ),
        )
    )
    if worker.latency_ms is not None:
        rows.append(
            ("latency", f"median {worker.latency_ms[0]:.0f} ms, 95 % within {worker.latency_ms[1]:.0f} ms of capture")
        )
    refused = sorted(status.reasons.items(), key=lambda item: -item[1])
    rows.append(("no fix because", ", ".join(f"{reason} {count}" for reason, count in refused) or "-"))
    if status.recent_reasons:
        rows.append(("last refusal", status.recent_reasons[-1]))
    if recorder is not None:
        stopped = f"STOPPED: {recorder.stopped}" if recorder.stopped else ""
        rows.append(("recorded", _joined(f"{recorder.written} frames", _some(recorder.dropped, "left out"), stopped)))
    for line in status.link.in_words():
        name, _, value = line.partition(": ")
        rows.append((name, value))
    return rows


def _fix(status: FlyStatus) -> str:
    if status.latitude_deg is None or status.longitude_deg is None or status.ellipse_95_m is None:
        return "none yet"
    long, short = status.ellipse_95_m
    age = "" if status.fix_age_s is None else f", {status.fix_age_s:.1f} s old, {status.fixes} in all"
    return f"{status.latitude_deg:.6f}, {status.longitude_deg:.6f}, 95 % within {long:.1f} x {short:.1f} m{age}"


def _rate(rate_hz: float | None) -> str:
    return "" if rate_hz is None else f"{rate_hz:.1f} Hz"


def _some(count: int, noun: str) -> str:
    return f"{count} {noun}" if count else ""


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part) or "-"
