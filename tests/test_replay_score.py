"""A replay scored against a truth that nobody else may read: errors, coverage, availability."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from toy_replay import FRAME, T0_NS, ToyLevel, ToyTruth, flight_steps, make_step, rows_of, summary_of

from onboard.records import Reason
from onboard.replay.score import CHI2_95, mahalanobis_squared, score


def test_figures_of_known_errors_are_exact() -> None:
    errors = [1.0, 2.0, 3.0, 4.0, 40.0]
    steps = [make_step(k, (e, 0.0), np.diag([e * e / 4.0, 1.0])) for k, e in enumerate(errors)]
    steps += [make_step(5, None, reason=Reason.GATED, best_error_enu_m=(0.0, 6.0)), make_step(20, (0.0, 5.0))]
    steps[4] = make_step(4, (40.0, 0.0), np.eye(2))
    found = score(rows_of(steps), ToyTruth(), FRAME)
    assert found.errors is not None
    assert found.errors.median == pytest.approx(3.5, abs=1e-3)
    assert found.errors.max == pytest.approx(40.0, abs=1e-3)
    assert found.errors.p95 == pytest.approx(np.percentile([1, 2, 3, 4, 40, 5], 95), abs=1e-3)
    assert (found.frames, found.fixes, found.false_fixes, found.found_within_8_m) == (7, 6, 1, 5)
    assert found.availability == pytest.approx(6 / 7)
    assert found.availability_after_15s == 1.0
    # Four errors of two sigma (squared 4) lie inside; 40 and 5 sigma do not.
    assert found.coverage_95 == pytest.approx(4 / 6)
    assert found.nees_mean == pytest.approx((4 * 4 + 1600 + 25) / 6, abs=0.01)
    assert found.first_fix_error_m == pytest.approx(1.0, abs=1e-3)
    assert found.best_within_m is not None
    assert {m: found.best_within_m[m] for m in (8, 10)} == {8: 6, 10: 6}  # of 1 m one lies on the edge
    assert found.five_within_10_m == 6


def test_a_later_guess_counts_among_five_and_not_as_the_first() -> None:
    wrong = make_step(0, None, reason=Reason.WEAK_MATCH, best_error_enu_m=(500.0, 0.0))
    truth = wrong.best_position_enu_m
    assert truth is not None
    later = dataclasses.replace(wrong, rivals_enu_m=(truth + np.array([90.0, 0.0]), truth - np.array([495.0, 0.0])))
    found = score(rows_of([wrong, later]), ToyTruth(), FRAME)
    assert found.five_within_10_m == 1
    assert found.best_within_m is not None
    assert found.best_within_m[10] == 0


def test_a_guess_covers_where_its_tile_of_the_map_shows_the_truth() -> None:
    truth = make_step(0, (0.0, 0.0)).best_position_enu_m
    assert truth is not None
    tile = ToyLevel().tiles[np.linalg.norm(ToyLevel().tiles - truth, axis=1).argmin()]
    inside, outside = tile + 20.0, tile + 130.0  # of another tile, whose ground begins 80 m on
    guessed = [
        dataclasses.replace(make_step(0, None, reason=Reason.WEAK_MATCH, best_error_enu_m=(0.0, 0.0)), **places)
        for places in (
            {"best_position_enu_m": inside},
            {"best_position_enu_m": outside, "rivals_enu_m": (inside,)},
            {"best_position_enu_m": outside, "rivals_enu_m": ()},
        )
    ]
    found = score(rows_of(guessed), ToyTruth(), FRAME, ToyLevel())
    assert (found.first_tile_covers, found.five_tiles_cover) == (1, 2)
    assert score(rows_of(guessed), ToyTruth(), FRAME).first_tile_covers is None
    assert score(rows_of(guessed), None, FRAME, ToyLevel()).five_tiles_cover is None


@pytest.mark.parametrize(("error_m", "inside"), [(math.sqrt(CHI2_95) - 0.01, 1.0), (math.sqrt(CHI2_95) + 0.01, 0.0)])
def test_coverage_turns_at_the_edge_of_the_ellipse(error_m: float, inside: float) -> None:
    assert score(rows_of([make_step(0, (0.0, error_m))]), ToyTruth(), FRAME).coverage_95 == inside


def test_an_error_along_the_long_axis_weighs_less_than_one_across() -> None:
    covariance = np.array([[5.0, 4.0], [4.0, 5.0]])  # 9 along the diagonal, 1 across
    diagonal = np.array([1.0, 1.0]) / math.sqrt(2)
    assert mahalanobis_squared(3 * diagonal, covariance) == pytest.approx(1.0)
    assert mahalanobis_squared(3 * diagonal * [1, -1], covariance) == pytest.approx(9.0)
    assert mahalanobis_squared(diagonal, np.zeros((2, 2))) == math.inf


def test_without_truth_the_figures_of_error_are_null() -> None:
    summary = summary_of(flight_steps(), None)
    for key in ("error_m", "false_fixes", "coverage_95", "nees_mean", "found_within_8_m", "best_guess_error_m"):
        assert summary[key] is None
    assert summary["truth"] is False
    assert summary["fixes"] == 37


def test_a_frame_without_truth_is_not_scored() -> None:
    class OnlyEarly:
        def at(self, captured_at_ns: int) -> tuple[float, float] | None:
            return ToyTruth().at(captured_at_ns) if captured_at_ns < T0_NS + 2_000_000_000 else None

    found = score(rows_of([make_step(0, (1, 0)), make_step(10, (90, 0))]), OnlyEarly(), FRAME)
    assert found.errors is not None
    assert found.errors.max == pytest.approx(1.0, abs=1e-3)
    assert (found.fixes, found.false_fixes) == (2, 0)
