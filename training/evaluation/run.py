"""Evaluate one model on benchmarks: describe, search, re-rank, locate, count."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.progress import track

from onboard.errors import EngineError
from training.benchmarks.base import Benchmark, Picture
from training.data.weather import degrade
from training.evaluation.describer import Describer, Match, Seen
from training.evaluation.metrics import (
    average_precision,
    mean_and_median,
    of_95_percent,
    one_percent,
    recall_at,
    sdm,
    within,
)
from training.evaluation.retrieve import Ranking, covers, rerank, search

_LISTED = 10  # references listed a query: what SDM@10 needs


@dataclass(frozen=True, slots=True)
class Options:
    """How to evaluate. `rerank`: how many of the first references are re-ranked by matching, 0: none."""

    weathers: tuple[str, ...] = ("normal",)
    rerank: int = 0
    batch: int = 32
    progress: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """One row of a table. `metrics`: shares 0..1, and lengths in the unit of their name; None where it has no value."""

    benchmark: str
    protocol: str
    split: str
    weather: str
    rerank: int
    queries: int
    references: int
    metrics: dict[str, float | None]
    seconds: float
    notes: tuple[str, ...] = ()


def evaluate(benchmark: Benchmark, describer: Describer, options: Options = Options()) -> list[Result]:
    """One result a weather. The side without drone pictures is described once."""
    notes = benchmark.notes + _about_places(benchmark, describer, options)
    clear: dict[str, np.ndarray] = {}
    results = []
    for weather in options.weathers:
        began = time.perf_counter()
        ranking = _ranked(benchmark, describer, options, weather, clear)
        metrics = _metrics(benchmark, describer, options, weather, ranking)
        results.append(
            Result(
                benchmark.name,
                benchmark.protocol,
                benchmark.split,
                weather,
                options.rerank if describer.can_match(benchmark) else 0,
                len(benchmark.queries),
                len(benchmark.references),
                metrics,
                round(time.perf_counter() - began, 2),
                notes,
            )
        )
    return results


def take(benchmark: Benchmark, count: int) -> Benchmark:
    """The benchmark with at most `count` queries, evenly spread over it; the gallery stays whole."""
    if count <= 0 or count >= len(benchmark.queries):
        return benchmark
    chosen = np.linspace(0, len(benchmark.queries) - 1, count).round().astype(int)
    note = f"{count:,} of {len(benchmark.queries):,} queries: a trial, not the protocol"
    queries = tuple(benchmark.queries[k] for k in chosen)
    return dataclasses.replace(benchmark, queries=queries, notes=(*benchmark.notes, note))


def _about_places(benchmark: Benchmark, describer: Describer, options: Options) -> tuple[str, ...]:
    matches, lengths = describer.can_match(benchmark), any(" " in name for name in benchmark.metrics)
    notes: tuple[str, ...] = ()
    if lengths and matches:
        notes += ("R@<length>: matched in the reference found first; mean and median: in the right reference",)
    elif lengths:
        notes += ("this model does not match here: every place is the middle of its reference",)
    if options.rerank and not matches:
        notes += ("this model does not match here: nothing is re-ranked",)
    return notes


def _ranked(
    benchmark: Benchmark, describer: Describer, options: Options, weather: str, clear: dict[str, np.ndarray]
) -> Ranking:
    """Descriptors of both sides, the search, and UnifyGeo's re-ranking where it is asked for."""
    sides: dict[str, tuple[list[Picture], Callable[[Sequence[Seen]], np.ndarray]]] = {
        "queries": ([q.picture for q in benchmark.queries], describer.describe_queries),
        "references": ([r.picture for r in benchmark.references], describer.describe_references),
    }
    made = {}
    for side, (pictures, describe) in sides.items():
        style = weather if side == benchmark.drone else "normal"
        if style == "normal" and side in clear:
            made[side] = clear[side]
            continue
        parts = [describe(_seen(part, style)) for part in _batches(pictures, options, f"{side}, {style}")]
        made[side] = np.concatenate(parts).astype(np.float32)
        if not np.isfinite(made[side]).all():
            raise EngineError("descriptors", "not finite", "finite numbers", "the model is broken or of another build")
        if style == "normal":
            clear[side] = made[side]
    ranking = search(made["queries"], made["references"], benchmark.queries, max(_LISTED, options.rerank))
    if not options.rerank or not describer.can_match(benchmark):
        return ranking
    k = min(options.rerank, ranking.found.shape[1])
    pairs = [(q, int(ranking.found[q, i])) for q in range(len(benchmark.queries)) for i in range(k)]
    scores = _matched(benchmark, describer, options, weather, pairs).score
    return rerank(ranking, scores.reshape(-1, k), benchmark.queries)


def _matched(
    benchmark: Benchmark, describer: Describer, options: Options, weather: str, pairs: list[tuple[int, int]]
) -> Match:
    """Match queries in references, pair by pair."""
    asked_style = weather if benchmark.drone == "queries" else "normal"
    seen_style = weather if benchmark.drone == "references" else "normal"
    parts = []
    for batch in _batches(pairs, options, f"matching, {weather}"):
        asked = _seen([benchmark.queries[q].picture for q, _ in batch], asked_style)
        seen = _seen([benchmark.references[r].picture for _, r in batch], seen_style)
        parts.append(describer.match(asked, seen))
    return Match(np.concatenate([p.place for p in parts]), np.concatenate([p.score for p in parts]))


def _metrics(
    benchmark: Benchmark, describer: Describer, options: Options, weather: str, ranking: Ranking
) -> dict[str, float | None]:
    best = ranking.best_ranks
    lengths: dict[str, np.ndarray] = {}
    if any(" " in name for name in benchmark.metrics):
        first = [(q, int(r)) for q, r in enumerate(ranking.found[:, 0])]
        right = [(q, query.positives[0]) for q, query in enumerate(benchmark.queries)]
        for what, pairs in (("first", first), ("right", right)):
            lengths[what] = _errors(benchmark, describer, options, weather, pairs)
    out: dict[str, float | None] = {}
    for name in benchmark.metrics:
        value = _metric(name, benchmark, ranking, best, lengths)
        out[name] = None if math.isnan(value) else value
    return out


def _metric(
    name: str, benchmark: Benchmark, ranking: Ranking, best: np.ndarray, lengths: dict[str, np.ndarray]
) -> float:
    if name == "R@1%":
        return recall_at(best, one_percent(len(benchmark.references), benchmark.one_percent))
    if name == "AP":
        return float(np.mean([average_precision(ranks) for ranks in ranking.ranks]))
    if name == "hit":
        return float(ranking.hits.mean())
    if name == "covers":
        return covers(ranking.found[:, 0], benchmark.queries)
    if name.startswith(("mean ", "median ")):
        return mean_and_median(lengths["right"])[0 if name.startswith("mean") else 1]
    if name.startswith("95 % "):
        return of_95_percent(lengths["right"])
    if name.startswith("SDM@"):
        k = int(name[4:])
        return float(np.mean([_sdm(benchmark, q, ranking.found[q, :k], k) for q in range(len(benchmark.queries))]))
    if limit := re.fullmatch(r"R@(\d+)(m|px)", name):
        return within(lengths["first"], float(limit[1]))
    return recall_at(best, int(name[2:]))


def _sdm(benchmark: Benchmark, query: int, found: Iterable[int], k: int) -> float:
    here = benchmark.queries[query].degrees or (math.nan, math.nan)
    return sdm(here, [benchmark.references[int(r)].degrees or (math.nan, math.nan) for r in found], k)


def _errors(
    benchmark: Benchmark, describer: Describer, options: Options, weather: str, pairs: list[tuple[int, int]]
) -> np.ndarray:
    """(Q,) how far each answer is from the query's true place; infinite where it is in another area."""
    if describer.can_match(benchmark):
        places = _matched(benchmark, describer, options, weather, pairs).place
    else:
        places = np.full((len(pairs), 2), 0.5)
    errors = np.full(len(pairs), np.inf)
    for number, ((query, reference), place) in enumerate(zip(pairs, places, strict=True)):
        truth, size = benchmark.position_in(query, reference), benchmark.references[reference].size_m
        if truth is not None and size is not None:
            errors[number] = math.hypot(*((place - truth) * np.array(size)))
    return errors


def _seen(pictures: Sequence[Picture], style: str) -> list[Seen]:
    """The pictures as they are given to a model; what weather adds stays inside the mask."""
    seen = []
    for picture in pictures:
        rgb, mask = picture.read()
        if style != "normal":
            rgb = np.where(mask[..., None], degrade(rgb, style, picture.name), 0).astype(np.uint8)
        seen.append((rgb, mask))
    return seen


def _batches(items: list, options: Options, description: str) -> Iterable[list]:
    starts = range(0, len(items), options.batch)
    for first in track(starts, description=description, disable=not options.progress, transient=True):
        yield items[first : first + options.batch]
