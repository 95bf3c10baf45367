"""The metrics of the papers, as their published code computes them. Shares are 0..1; ranks count from 0.

A tie never helps: a wrong reference that scores the same as the right one stands before it (Sample4Geo would let
the right one win, which gives a model that says the same of everything a recall of 100 %).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from training.benchmarks.base import OnePercent

SDM_SCALE = 5e3  # per degree


def recall_at(best_ranks: np.ndarray, k: int) -> float:
    """R@k: the share of queries whose first right reference is among the first k. best_ranks (Q,)."""
    return float(np.mean(best_ranks < k))


def one_percent(gallery: int, rule: OnePercent) -> int:
    """How many first references R@1% looks at.

    university: CMC[round(gallery / 100)] counts from 0, so one more than that (evaluate_gpu.py of University-1652).
    sample4geo: gallery // 100 (evaluate/vigor.py there); here never less than one, for small galleries.
    """
    return round(0.01 * gallery) + 1 if rule == "university" else max(1, gallery // 100)


def average_precision(ranks: Sequence[int] | np.ndarray) -> float:
    """AP of one query from the ranks of all its right references, in any order.

    The trapezoid rule of University-1652's compute_mAP: at the i-th right reference, the mean of the precision just
    before it and at it; before the very first place precision is 1.
    """
    total = 0.0
    ordered = sorted(int(rank) for rank in ranks)
    for i, rank in enumerate(ordered):
        before = i / rank if rank else 1.0
        total += (before + (i + 1) / (rank + 1)) / 2
    return total / len(ordered)


def hit(above: Sequence[int] | np.ndarray, covering: Sequence[int]) -> bool:
    """VIGOR's hit: all references that rank above the right one also show the place.

    `above` are the references before the right one. So do validate_top of VIGOR's train_overall.py and Sample4Geo
    count; where a covering reference is first but a wrong one stands before the right one, it is no hit.
    """
    return set(int(k) for k in above) <= set(covering)


def sdm(query_deg: tuple[float, float], found_deg: Sequence[tuple[float, float]], k: int) -> float:
    """SDM@k of one query (DenseUAV, TIP 2024): sum_i (k - i + 1) exp(-s d_i) / sum_i (k - i + 1), i = 1..k.

    d_i is the Euclidean distance in degrees between the query and the i-th reference found, s = 5e3: 1e-4 degree,
    about 11 m of latitude, give exp(-0.5). Fewer than k found count as infinitely far.
    """
    weights = [k - i for i in range(k)]
    near = [math.exp(-SDM_SCALE * math.dist(query_deg, place)) for place in found_deg[:k]]
    return sum(w * n for w, n in zip(weights, near, strict=False)) / sum(weights)


def within(errors: np.ndarray, limit: float) -> float:
    """R@1m, R@10m: the share of all queries located within `limit`. errors (Q,), infinite where not located."""
    return float(np.mean(errors <= limit))


def mean_and_median(errors: np.ndarray) -> tuple[float, float]:
    """Of the finite errors; NaN where there is none."""
    finite = errors[np.isfinite(errors)]
    return (float(finite.mean()), float(np.median(finite))) if len(finite) else (math.nan, math.nan)


def of_95_percent(errors: np.ndarray) -> float:
    """What 95 of a hundred finite errors do not exceed; NaN where there is none."""
    finite = errors[np.isfinite(errors)]
    return float(np.percentile(finite, 95)) if len(finite) else math.nan
