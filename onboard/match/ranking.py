"""Candidates against each other: which are looked at first, and how chances share out among look-alikes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from onboard.match.heatmap import Mode
from onboard.match.retrieve import similarity_at
from onboard.records import Fix

SAME_PLACE_M = 8.0  # guesses nearer to each other than this are one
_RETRIEVAL_WEIGHT = 0.1  # 1 in the paper; here the descriptor only breaks near ties of the detail scores (not tuned)


def exclusive(fixes: list[Fix], distance_m: float) -> list[Fix]:
    """Chances that know of each other: of places further apart than `distance_m` at most one is right.

    The evidence of a fix speaks for it alone; four look-alikes at 0.99 each are a quarter each. Fixes of one
    place (alignment may lead two modes to it) share that place's chance. Fixes come best first. The figure `rivals`
    joins the evidence of each: what other places' chances were in sum, on their own evidence.
    """
    places: list[tuple[np.ndarray, float]] = []  # position, odds of the best fix there
    of_place = []
    for fix in fixes:
        odds = fix.probability_right / max(1.0 - fix.probability_right, 1e-12)
        near = [k for k, (at, _) in enumerate(places) if np.linalg.norm(fix.position_enu_m - at) < distance_m]
        of_place.append(near[0] if near else len(places))
        if not near:
            places.append((fix.position_enu_m, odds))
    total = sum(odds for _, odds in places)
    others = apart(fixes, SAME_PLACE_M)
    shared = []
    for fix, place in zip(fixes, of_place, strict=True):
        odds = fix.probability_right / max(1.0 - fix.probability_right, 1e-12)
        rivals = total - places[place][1]
        claimed = sum(o.probability_right for o in others if _metres_between(o, fix) >= SAME_PLACE_M)
        evidence = dict(fix.evidence) | {"rivals": claimed}
        shared.append(dataclasses.replace(fix, probability_right=odds / (1.0 + odds + rivals), evidence=evidence))
    return shared


def apart(fixes: Sequence[Fix], distance_m: float) -> list[Fix]:
    """The best fix of each place: alignment may lead several candidates round a place to it. Fixes come best first."""
    kept: list[Fix] = []
    for fix in fixes:
        if all(_metres_between(fix, other) >= distance_m for other in kept):
            kept.append(fix)
    return kept


def _metres_between(one: Fix, other: Fix) -> float:
    return float(np.linalg.norm(one.position_enu_m - other.position_enu_m))


def rerank(
    modes: list[Mode], tiles: np.ndarray, similarities: np.ndarray, gradients: np.ndarray | None = None
) -> list[Mode]:
    """UnifyGeo eq. 4: order by retrieval score plus the best matching score; without tiles, by the latter alone.

    `gradients` (M,) is added to it: what the imagery itself says for each mode, weighted (`onboard.match.fusion`).
    The sum is the modes' `total`.
    """
    total = np.array([mode.score for mode in modes])
    if gradients is not None:
        total = total + gradients
    if len(tiles) and modes:
        prior = similarity_at(np.stack([mode.position_enu_m for mode in modes]), tiles, similarities)
        total = prior * _RETRIEVAL_WEIGHT + total
    return [dataclasses.replace(modes[i], total=float(total[i])) for i in np.argsort(-total, kind="stable")]
