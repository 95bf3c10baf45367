"""Print results as the papers do, and keep them as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from training.evaluation.run import Result

_WIDTH = 150  # of the widest table; a narrow terminal wraps lines, it does not lose digits


def print_results(results: Sequence[Result], console: Console | None = None) -> None:
    """One table a data set: a row a protocol and weather, the drop of R@1 from `normal` where there are several."""
    console = console or Console(width=max(_WIDTH, Console().width))
    for name, group in groupby(results, key=lambda result: result.benchmark):
        rows = list(group)
        console.print(_table(name, with_mean(rows)))
        for note in dict.fromkeys(note for row in rows for note in row.notes):
            console.print(f"  {note}", highlight=False, soft_wrap=True)


def with_mean(rows: list[Result]) -> list[Result]:
    """The rows, and the mean of each weather over the protocols where there are several (SUES-200's heights)."""
    if len({row.protocol for row in rows}) < 2:
        return rows
    out = list(rows)
    for weather in dict.fromkeys(row.weather for row in rows):
        same = [row for row in rows if row.weather == weather]
        metrics: dict[str, float | None] = {}
        for key in same[0].metrics:
            values = [value for row in same if (value := row.metrics[key]) is not None]
            metrics[key] = sum(values) / len(values) if values else None
        queries = sum(row.queries for row in same)
        out.append(dataclasses.replace(same[0], protocol="mean", metrics=metrics, queries=queries))
    return out


def drop(row: Result, rows: Sequence[Result]) -> float | None:
    """By how much R@1 lies below that of clear weather in the same protocol, as a share; None without both."""
    clear = next((r for r in rows if r.protocol == row.protocol and r.weather == "normal"), None)
    if clear is None or clear.metrics.get("R@1") is None or row.metrics.get("R@1") is None:
        return None
    return float(clear.metrics["R@1"] or 0.0) - float(row.metrics["R@1"] or 0.0)


def _table(name: str, rows: list[Result]) -> Table:
    table = Table(title=f"{name}, {rows[0].split}", title_justify="left")
    table.add_column("protocol", no_wrap=True)
    weathers = len({row.weather for row in rows}) > 1
    if weathers or rows[0].weather != "normal":
        table.add_column("weather")
    for heading in ("queries", "gallery", *map(_heading, rows[0].metrics)):
        table.add_column(heading, justify="right", no_wrap=True)
    if weathers:
        table.add_column("R@1 drop\npoints", justify="right", no_wrap=True)
    for row in rows:
        cells = [row.protocol + (f", re-ranked {row.rerank}" if row.rerank else "")]
        if weathers or rows[0].weather != "normal":
            cells.append(row.weather)
        cells += [f"{row.queries:,}", f"{row.references:,}"]
        cells += [_cell(key, value) for key, value in row.metrics.items()]
        if weathers:
            fall = drop(row, rows)
            cells.append("-" if fall is None or row.weather == "normal" else f"{100 * fall:.2f}")
        table.add_row(*cells)
    return table


def _heading(metric: str) -> str:
    what, separator, unit = metric.partition(" ")
    return f"{what}\n{unit}" if separator else f"{metric}\n%"


def _cell(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if " " in metric else f"{100 * value:.2f}"


def write_json(path: Path, results: Sequence[Result], model: Mapping[str, str], options: Mapping[str, Any]) -> Path:
    """What was asked, the model's facts and every number, beside and then renamed."""
    content = {
        "options": dict(options),
        "model": dict(model),
        "units": "shares 0..1; lengths in the unit of their name; seconds",
        "results": [dataclasses.asdict(row) | {"R@1 drop": drop(row, results)} for row in results],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".partial")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)
    return path
