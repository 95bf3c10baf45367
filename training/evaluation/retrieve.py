"""Search a gallery: what each query finds first, and where its right references stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np

from training.benchmarks.base import Query
from training.evaluation.metrics import hit

_SCORES_AT_ONCE = 50_000_000  # float32: 200 MB


@dataclass(frozen=True, slots=True)
class Ranking:
    """What a search gave. `found` (Q, K) int64 indexes of references, best first, and `scores` (Q, K) their cosines.

    `ranks[q]` are the ranks of query q's positives in their order, from 0; `hits` (Q,) VIGOR's.
    """

    found: np.ndarray
    scores: np.ndarray
    ranks: tuple[np.ndarray, ...]
    hits: np.ndarray

    @property
    def best_ranks(self) -> np.ndarray:
        """(Q,) the rank of the first right reference."""
        return np.array([ranks.min() for ranks in self.ranks])


def search(asked: np.ndarray, gallery: np.ndarray, queries: Sequence[Query], count: int) -> Ranking:
    """Rank a gallery (R, D) for queries (Q, D), all of unit norm; `count` references are listed for each.

    FAISS lists the best; the ranks of the positives, which may lie far down, are counted over blocks of all scores.
    """
    asked, gallery = (np.ascontiguousarray(x, dtype=np.float32) for x in (asked, gallery))
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    scores, found = index.search(asked, min(count, len(gallery)))
    ranks: list[np.ndarray] = []
    hits = np.zeros(len(asked), dtype=bool)
    block = max(1, _SCORES_AT_ONCE // len(gallery))
    for first in range(0, len(asked), block):
        for number, row in enumerate(asked[first : first + block] @ gallery.T, start=first):
            here, hits[number] = _standing(row, queries[number])
            ranks.append(here)
    return Ranking(found, scores, tuple(ranks), hits)


def _standing(scores: np.ndarray, query: Query) -> tuple[np.ndarray, bool]:
    """Ranks of the positives among all scores (R,), and whether it is a hit. Ties go against the query."""
    positives = np.array(query.positives, dtype=np.int64)
    right = np.zeros(len(scores), dtype=bool)
    right[positives] = True
    order = positives[scores[positives].argsort()[::-1]]  # of equal positives any order gives the same ranks
    wrong = scores[~right]
    standing = {int(k): i + int((wrong >= scores[k]).sum()) for i, k in enumerate(order)}
    first = order[0]
    above = np.flatnonzero(~right & (scores >= scores[first]))
    return np.array([standing[int(k)] for k in positives]), hit(above, query.covering)


def covers(first: np.ndarray, queries: Sequence[Query]) -> float:
    """The share of queries whose first reference (Q,) shows their place, right or semi-positive.

    So GenGeo (4.1.2) and UnifyGeo (IV.B) put hit rate in words; the code that they build on counts `metrics.hit`.
    """
    shown = [int(k) in (*query.positives, *query.covering) for k, query in zip(first, queries, strict=True)]
    return float(np.mean(shown))


def rerank(ranking: Ranking, added: np.ndarray, queries: Sequence[Query]) -> Ranking:
    """UnifyGeo eq. 4: the first k found are ordered by retrieval score plus matching score; the rest stays.

    `added` (Q, k) are the matching scores of the first k.
    """
    k = added.shape[1]
    found, scores = ranking.found.copy(), ranking.scores.copy()
    ranks, hits = [], ranking.hits.copy()
    for number, query in enumerate(queries):
        total = scores[number, :k] + added[number]
        order = np.argsort(-total, kind="stable")
        found[number, :k], scores[number, :k] = found[number, :k][order], total[order]
        place = {int(reference): position for position, reference in enumerate(found[number, :k])}
        old = ranking.ranks[number]
        here = np.array([place.get(p, int(r)) for p, r in zip(query.positives, old, strict=True)])
        ranks.append(here)
        if here.min() < k:
            hits[number] = hit(found[number, : here.min()], query.covering)
    return Ranking(found, scores, tuple(ranks), hits)
