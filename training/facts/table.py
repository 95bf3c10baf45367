"""What the study says of each fact: figures with their spread over seeds, whatever came out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from training.facts.ablations import FACTS, Fact
from training.facts.run import figure

_WIDTH = 160  # of the widest table; a narrow terminal wraps lines, it does not lose digits


@dataclass(frozen=True, slots=True)
class Finding:
    """A fact beside what was measured, one number a seed: `without` and `with_it` in the fact's unit."""

    fact: Fact
    seeds: tuple[int, ...]
    without: tuple[float, ...]
    with_it: tuple[float, ...]

    @property
    def gains(self) -> np.ndarray:
        """(seeds,) how much better; a negative number: worse."""
        return self.fact.sign * (np.array(self.with_it) - np.array(self.without))

    @property
    def verdict(self) -> str:
        """`holds` or `reversed` where every seed says so, `equal` where none sees a difference, else `mixed`."""
        gains = self.gains
        if (gains > 0).all():
            return "holds"
        if (gains < 0).all():
            return "reversed"
        return "mixed" if gains.any() else "equal"


def findings(cells: Sequence[dict[str, Any]], seeds: Sequence[int]) -> list[Finding]:
    """The facts of which every seed has both figures."""
    out = []
    for fact in FACTS:
        scale = 100.0 if fact.metric == "R@1" else 1.0
        sides = []
        for measure in (fact.worse, fact.better):
            values = [figure(cells, measure.variant, seed, measure.rerank, fact.domain, fact.metric) for seed in seeds]
            sides.append([scale * value for value in values if value is not None])
        if len(sides[0]) == len(sides[1]) == len(seeds):
            out.append(Finding(fact, tuple(seeds), tuple(sides[0]), tuple(sides[1])))
    return out


def print_findings(found: Sequence[Finding], console: Console | None = None) -> None:
    """One row a fact. Spread is the standard deviation over seeds."""
    console = console or Console(width=max(_WIDTH, Console().width))
    table = Table(title="What the papers say, measured at small scale", title_justify="left")
    for heading in ("fact", "paper", "places", "figure"):
        table.add_column(heading, no_wrap=True)
    for heading in ("without", "with", "gain", "seeds better", "gain in the paper"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for finding in found:
        fact, gains = finding.fact, finding.gains
        unit = "R@1 %" if fact.metric == "R@1" else fact.metric
        published = fact.sign * (fact.paper[1] - fact.paper[0])
        table.add_row(
            fact.statement,
            fact.source,
            "own domain" if fact.domain == "own" else "other domain",
            unit,
            *(_spread(values) for values in (finding.without, finding.with_it)),
            _spread(gains, signed=True),
            f"{int((gains > 0).sum())} of {len(gains)}",
            f"{published:+.2f}",
            finding.verdict,
        )
    console.print(table)
    console.print(
        "  mean and standard deviation over seeds; a gain is in the figure's unit, fewer metres are a gain. Small "
        "networks from random weights on small procedural places: directions, not the papers' figures.",
        soft_wrap=True,
        highlight=False,
    )


def write_findings(path: Path, found: Sequence[Finding], cells: Sequence[dict[str, Any]]) -> Path:
    """Every number, beside and then renamed."""
    rows = [
        dataclasses.asdict(finding) | {"gains": finding.gains.tolist(), "verdict": finding.verdict} for finding in found
    ]
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps({"facts": rows, "cells": list(cells)}, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)
    return path


def _spread(values: Sequence[float] | np.ndarray, signed: bool = False) -> str:
    mean = float(np.mean(values))
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return f"{mean:{'+' if signed else ''}.2f} ± {spread:.2f}"
