"""The figure that a training ends with: R@1 on held-out pictures beside chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.benchmarks.base import Benchmark
from training.evaluation.describer import Describer
from training.evaluation.retrieve import Ranking, search

_BATCH, _LISTED = 32, 10


@dataclass(frozen=True, slots=True)
class HeldOut:
    """R@1 of one benchmark as a share, and that of a blind draw from its gallery."""

    benchmark: Benchmark
    ranking: Ranking
    recall: float
    chance: float

    @property
    def line(self) -> str:
        """What a person reads."""
        b = self.benchmark
        name = " ".join(dict.fromkeys((b.name, b.protocol, b.split)))
        times = f"{self.recall / self.chance:.1f} times chance ({100 * self.chance:.2f} %)"
        count = f"{len(b.queries):,} queries, gallery of {len(b.references):,}"
        return f"held-out R@1 {100 * self.recall:.1f} %, {times}: {name}, {count}"


def held_out(benchmark: Benchmark, describer: Describer) -> HeldOut:
    """Retrieve without re-ranking. Chance is the mean share of the gallery that is right."""
    asked, gallery = [], []
    queries, references = [q.picture for q in benchmark.queries], [r.picture for r in benchmark.references]
    for first in range(0, len(queries), _BATCH):
        asked.append(describer.describe_queries([p.read() for p in queries[first : first + _BATCH]]))
    for first in range(0, len(references), _BATCH):
        gallery.append(describer.describe_references([p.read() for p in references[first : first + _BATCH]]))
    ranking = search(np.concatenate(asked), np.concatenate(gallery), benchmark.queries, _LISTED)
    chance = float(np.mean([len(q.positives) for q in benchmark.queries])) / len(references)
    return HeldOut(benchmark, ranking, float(np.mean(ranking.best_ranks < 1)), chance)
