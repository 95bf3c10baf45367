"""Fit the chance of being right, and the covariance, to flights with truth over maps that the network never saw.

Every frame is searched over the whole map, round the truth, and round places where it is not. Flights over ground
that is not on the map belong to it: nothing that is found there is right. A fix within `RIGHT_M` is right. Logistic
weights are held at zero or more: more evidence never makes a match less likely.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from itertools import product, repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.progress import track
from scipy.optimize import minimize

from onboard.config import Config, EngineConfig
from onboard.engine import open_engine
from onboard.errors import ConfigError
from onboard.flight.open import open_flight
from onboard.localizer import Localizer
from onboard.match.evidence import LOCAL, WHOLE, Confidence, Logistic
from onboard.match.locate import Located, Search
from onboard.match.ranking import apart
from onboard.records import Fix, Telemetry
from onboard.region import RegionMap
from onboard.stopwatch import Stopwatch

RIGHT_M = 8.0
_RANKS = 3  # places of a whole-map search whose fixes are examples: those that might have been believed
_SEARCH_OFF_M = 60.0  # how far a search that must fail lies from the truth
_NEAR, _ELSEWHERE = 2, 4  # searches of a frame round the truth, and round places where it is not
_PLAIN = Logistic(-8.0, {"coarse": 10.0, "agree": 3.0, "fine": 5.0, "gradient": 3.0})


@dataclass
class Observations:
    """Figures of fixes and whether they were right; errors (n, 2), alignment covariances and gradients in common of the
    right ones."""

    whole: list[tuple[dict[str, float], bool]] = field(default_factory=list)
    local: list[tuple[dict[str, float], bool]] = field(default_factory=list)
    errors_enu_m: list[np.ndarray] = field(default_factory=list)
    alignment_m2: list[np.ndarray] = field(default_factory=list)
    gradients: list[float] = field(default_factory=list)

    def add(self, other: Observations) -> None:
        for name in (one.name for one in fields(self)):
            getattr(self, name).extend(getattr(other, name))


def observe_all(pairs: Sequence[tuple[Path, Path]], model: Path | None, processes: int) -> Observations:
    """`observe` each flight and map, several at a time; what comes out does not depend on how many."""
    whole = Observations()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        flights, maps = zip(*pairs, strict=True)
        rest = repeat(model), range(len(pairs)), repeat(max(1, 2 // processes))
        seen = pool.map(observe, flights, maps, *rest)
        for one in track(seen, total=len(pairs), description="searching the flights"):
            whole.add(one)
    return whole


def observe(flight: Path, map_path: Path, model: Path | None, seed: int = 0, threads: int = 2) -> Observations:
    """Search every frame of a flight with truth."""
    config, seen = Config(engine=EngineConfig(threads=threads)), Observations()
    engine = open_engine(model, config.engine)
    region = RegionMap.open(map_path, engine.facts)
    recorded = open_flight(flight, config.rectify)
    truth = recorded.truth()
    if truth is None:
        raise ConfigError("flight without truth", flight, "latitude_deg, longitude_deg in frames.csv")
    # With covariance_scale 1 and no floor, fixes carry the alignment's own covariance.
    plain = Confidence(_PLAIN, _PLAIN, 1.0, 0.0, 0.0, "none")
    localizer = Localizer(engine, region, recorded.camera, recorded.body_from_camera, plain, config, independent=True)
    rng = np.random.default_rng(seed)
    for item in recorded.items():
        if item.frame is None or not isinstance(item.telemetry, Telemetry):
            continue
        place = truth.at(item.captured_at_ns)
        if place is None or localizer.rectifier.check(item.frame, item.telemetry) is not None:
            continue
        at = region.frame.enu_from_geodetic(*place)
        hypotheses = localizer.hypotheses(item.telemetry)

        def search(where: Search) -> Sequence[Fix]:
            found = localizer.locator.locate(item.frame, item.telemetry, where, Stopwatch())  # noqa: B023
            return found.fixes if isinstance(found, Located) else ()

        for rank, fix in enumerate(apart(search(Search(hypotheses)), RIGHT_M)[:_RANKS]):
            right = bool(np.linalg.norm(fix.position_enu_m - at) < RIGHT_M)
            if rank == 0 or not right:  # a lower rank that is right is no example of anything
                seen.whole.append((dict(fix.evidence), right))
        if not region.contains(at):
            continue
        told = hypotheses[len(hypotheses) // 2 :][:1]
        near = at + rng.normal(0, 6.0, (_NEAR, 2))
        for fix in (fix for point in near for fix in search(Search(told, point, 25.0, refined=1, local=True))):
            miss = fix.position_enu_m - at
            right = bool(np.linalg.norm(miss) < RIGHT_M)
            seen.local.append((dict(fix.evidence), right))
            if right:
                seen.errors_enu_m.append(miss)
                seen.alignment_m2.append(fix.covariance_enu_m2)
                seen.gradients.append(fix.evidence["gradient"])
        tiles = np.asarray(region.levels[0].tiles)
        away = np.linalg.norm(tiles - at, axis=1)
        for tile in tiles[rng.permutation(np.flatnonzero(away > _SEARCH_OFF_M))[:_ELSEWHERE]]:
            for fix in search(Search(told, tile, 25.0, refined=1, local=True)):
                seen.local.append((dict(fix.evidence), False))
    engine.close()
    return seen


def fit_logistic(
    examples: list[tuple[dict[str, float], bool]], names: Sequence[str], penalty: float = 0.005
) -> Logistic:
    """Maximum likelihood with a small penalty on standardised weights; right and wrong weigh the same in sum."""
    labels = np.array([right for _, right in examples])
    if labels.all() or not labels.any():
        raise ConfigError("calibration examples", f"{labels.sum()} right of {len(labels)}", "some right and some wrong")
    figures = np.array([[evidence[name] for name in names] for evidence, _ in examples])
    mean, spread = figures.mean(axis=0), figures.std(axis=0) + 1e-9
    scaled = (figures - mean) / spread
    sign = np.where(labels, 1.0, -1.0)
    weight = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        z = sign * (scaled @ parameters[1:] + parameters[0])
        slope = -sign * weight / (1 + np.exp(z))
        gradient = np.concatenate([[slope.sum()], scaled.T @ slope + 2 * penalty * parameters[1:] / len(names) / 10])
        return float(
            (weight * np.logaddexp(0, -z)).sum() + penalty * (parameters[1:] ** 2).sum() / len(names) / 10
        ), gradient

    bounds = [(None, None)] + [(0.0, None)] * len(names)
    solution = minimize(loss, np.zeros(len(names) + 1), jac=True, bounds=bounds, method="L-BFGS-B").x
    weights = solution[1:] / spread
    return Logistic(float(solution[0] - weights @ mean), {n: float(w) for n, w in zip(names, weights, strict=True)})


def fit_covariance(
    errors_enu_m: np.ndarray, alignment_m2: np.ndarray, gradients: np.ndarray
) -> tuple[float, float, float]:
    """(covariance_scale, floor_m, unlike_m): the likeliest for errors (n, 2) that still cover 95 % at 95 %."""
    best, answer = math.inf, (4.0, 1.0, 0.0)
    floors = (0.5, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0)  # less would be a claim about the map's own accuracy
    for scale, floor, unlike in product(
        (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0), floors, (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
    ):
        rest = floor**2 + (unlike * (1.0 - gradients)) ** 2
        covariance = alignment_m2 * scale + np.eye(2) * rest[:, None, None]
        distance = np.einsum("ni,nij,nj->n", errors_enu_m, np.linalg.inv(covariance), errors_enu_m)
        likelihood = float((0.5 * distance + 0.5 * np.linalg.slogdet(covariance)[1]).mean())
        if (distance <= 5.991).mean() >= 0.95 and likelihood < best:
            best, answer = likelihood, (scale, floor, unlike)
    return answer


def fit(seen: Observations, tilt_sigma_deg: float, source: str) -> Confidence:
    """The calibration of all that was observed."""
    errors, alignment, gradients = (np.array(v) for v in (seen.errors_enu_m, seen.alignment_m2, seen.gradients))
    scale, floor, unlike = fit_covariance(errors, alignment, gradients)
    whole, local = fit_logistic(seen.whole, WHOLE), fit_logistic(seen.local, LOCAL)
    return Confidence(whole, local, scale, floor, tilt_sigma_deg, source, unlike)


def write(confidence: Confidence, out: Path) -> None:
    """NAME.confidence.json, written beside and renamed."""
    content = {
        "whole": {"bias": confidence.whole.bias, "weights": dict(confidence.whole.weights)},
        "local": {"bias": confidence.local.bias, "weights": dict(confidence.local.weights)},
        "covariance_scale": confidence.covariance_scale,
        "floor_m": confidence.floor_m,
        "unlike_m": confidence.unlike_m,
        "tilt_sigma_deg": confidence.tilt_sigma_deg,
        "source": confidence.source,
    }
    beside = out.with_suffix(".partial")
    beside.write_text(json.dumps(content, indent=1) + "\n")
    beside.replace(out)
