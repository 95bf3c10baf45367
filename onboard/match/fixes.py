"""From matches to fixes: where each puts the vehicle, how far off that may be, and the evidence for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onboard.match.evidence import Confidence, Logistic
from onboard.match.heatmap import Heatmap, Mode
from onboard.match.refine import Alignment
from onboard.records import Fix, GroundView

_LARGE_VIEW = math.log(128.0**2)  # pixels of a view that is neither large nor small


@dataclass(frozen=True, slots=True)
class Match:
    """One mode, the view that found it, how they lie on each other, and what the witnesses say there."""

    mode: Mode
    view: GroundView
    alignment: Alignment
    grey: float
    gradient: float


@dataclass(frozen=True, slots=True)
class Found:
    """What all matches of one search share. `local`: it was made round a prediction (`onboard.match.locate.Search`)."""

    metres_per_pixel: float
    told_height_m: float
    modes: tuple[Mode, ...]
    heatmap: Heatmap
    local: bool


def ranked_fixes(matches: Sequence[Match], found: Found, confidence: Confidence) -> list[tuple[Fix, Match]]:
    """A fix of each match with its evidence, the likeliest first."""
    logistic = confidence.local if found.local else confidence.whole
    strength = [m.alignment.score * m.alignment.agreeing / m.alignment.patches for m in matches]
    ranked = []
    for k, match in enumerate(matches):
        rival = max(strength[:k] + strength[k + 1 :], default=0.0)
        evidence = _evidence(match, found) | {"fine_margin": strength[k] - rival}
        ranked.append((_fix(match, found, evidence, confidence, logistic), match))
    return sorted(ranked, key=lambda pair: -logistic.logit(pair[0].evidence))


def _evidence(match: Match, found: Found) -> dict[str, float]:
    mode, alignment, heatmap = match.mode, match.alignment, found.heatmap
    others = [m.total for m in found.modes if m.rank != mode.rank]
    return {
        "coarse": mode.score,
        "margin": mode.total - max(others, default=heatmap.mean),
        "z": (mode.score - heatmap.mean) / heatmap.deviation / 10,
        "agree": alignment.agreeing / alignment.patches,
        "votes": math.log(alignment.agreeing + 1),
        "fine": alignment.score,
        "gradient": match.gradient,
        "grey": match.grey,
        "seen": math.log(float(match.view.mask.sum())) - _LARGE_VIEW,
    }


def _fix(match: Match, found: Found, evidence: dict[str, float], confidence: Confidence, logistic: Logistic) -> Fix:
    view, alignment, metres = match.view, match.alignment, found.metres_per_pixel
    shift = np.array([alignment.shift_px[1], -alignment.shift_px[0]]) * metres  # east, north
    # The vehicle lies off the view's centre; that lever turns and grows with the view.
    lever = np.array(view.centre_from_vehicle_enu_m) * alignment.scale
    cos, sin = math.cos(alignment.turn_rad), math.sin(alignment.turn_rad)
    lever = np.array([cos * lever[0] + sin * lever[1], -sin * lever[0] + cos * lever[1]])
    swap = np.array([[0.0, 1.0], [-1.0, 0.0]]) * metres  # (row, col) -> (east, north)
    scale = view.height_scale * alignment.scale
    return Fix(
        view.captured_at_ns,
        match.mode.position_enu_m + shift - lever,
        confidence.covariance(
            swap @ alignment.covariance_px2 @ swap.T, found.told_height_m * scale, evidence["gradient"]
        ),
        view.heading_rad + alignment.turn_rad,
        scale,
        logistic.probability(evidence),
        evidence | {"heading_offset_rad": view.heading_offset_rad + alignment.turn_rad},
        alignment.turn_sigma_rad,
        alignment.scale_sigma * view.height_scale,
        match.mode.date,
    )
