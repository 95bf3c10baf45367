"""Metrics: hand-worked numbers, the ties that must not help, and rankings against a plain sort."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from training.benchmarks.base import FilePicture, Query
from training.evaluation.metrics import (
    average_precision,
    hit,
    mean_and_median,
    of_95_percent,
    one_percent,
    recall_at,
    sdm,
    within,
)
from training.evaluation.retrieve import covers, rerank, search


def query(positives: tuple[int, ...], covering: tuple[int, ...] = ()) -> Query:
    return Query(FilePicture(Path("x"), "x"), "", positives, covering)


def unit(*rows: tuple[float, ...]) -> np.ndarray:
    array = np.array(rows, dtype=np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def test_recall_counts_the_first_right_reference() -> None:
    ranks = np.array([0, 3, 1, 9])
    assert [recall_at(ranks, k) for k in (1, 2, 5, 10)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(("gallery", "university", "others"), [(951, 11, 9), (8884, 90, 88), (50, 1, 1), (200, 3, 2)])
def test_one_percent_is_read_as_each_published_code_reads_it(gallery: int, university: int, others: int) -> None:
    assert one_percent(gallery, "university") == university
    assert one_percent(gallery, "sample4geo") == others


def test_average_precision_is_the_trapezoid_of_university_1652() -> None:
    assert average_precision([0]) == 1.0
    # One right reference, at the third place: precision 0 before, 1/3 at it.
    assert average_precision([2]) == pytest.approx((0 + 1 / 3) / 2)
    # Two, first and fourth: (1 + 1) / 2, then (1/3 + 2/4) / 2, averaged.
    assert average_precision([3, 0]) == pytest.approx((1 + (1 / 3 + 1 / 2) / 2) / 2)


def test_a_hit_forgives_only_references_that_show_the_place() -> None:
    assert hit([], [])
    assert hit([4, 7], [7, 4, 9])
    assert not hit([4, 8], [4, 7, 9])


def test_sdm_weighs_places_by_rank_and_degrees() -> None:
    here = (30.0, 120.0)
    at = [(30.0, 120.0), (30.0, 120.0 + 2e-4), (31.0, 120.0)]
    assert sdm(here, at, 1) == pytest.approx(1.0)
    # K = 2: weights 2 and 1; the second lies 2e-4 degree off, exp(-5000 * 2e-4) = exp(-1).
    assert sdm(here, at, 2) == pytest.approx((2 + math.exp(-1)) / 3)
    # K = 3: weights 3, 2, 1; the third is a degree off and gives nothing.
    assert sdm(here, at, 3) == pytest.approx((3 + 2 * math.exp(-1)) / 6)


def test_places_not_found_count_against_the_share_and_not_in_the_mean() -> None:
    errors = np.array([0.5, 1.0, 9.0, math.inf])
    assert within(errors, 1.0) == 0.5
    assert within(errors, 10.0) == 0.75
    assert mean_and_median(errors) == (pytest.approx(3.5), pytest.approx(1.0))
    assert all(math.isnan(value) for value in mean_and_median(np.array([math.inf])))
    assert of_95_percent(np.array([*range(101), math.inf])) == pytest.approx(95.0)
    assert math.isnan(of_95_percent(np.array([math.inf])))


def test_a_model_that_says_the_same_of_everything_finds_nothing() -> None:
    asked, gallery = np.ones((4, 3), np.float32) / math.sqrt(3), np.ones((10, 3), np.float32) / math.sqrt(3)
    ranking = search(asked, gallery, [query((k,)) for k in range(4)], 5)
    assert ranking.best_ranks.tolist() == [9, 9, 9, 9]
    assert not ranking.hits.any()


def test_ranks_agree_with_a_plain_sort() -> None:
    rng = np.random.default_rng(4)
    asked, gallery = (unit(*rng.normal(size=(n, 6))) for n in (7, 40))
    queries = [query(tuple(int(k) for k in rng.choice(40, 3, replace=False))) for _ in range(7)]
    ranking = search(asked, gallery, queries, 10)
    for number, asked_one in enumerate(queries):
        order = np.argsort(-(gallery @ asked[number])).tolist()
        assert ranking.ranks[number].tolist() == [order.index(k) for k in asked_one.positives]
        assert ranking.found[number].tolist() == order[:10]


def test_hits_are_those_of_the_published_code() -> None:
    asked = unit((1.0, 0.0))
    gallery = unit((1.0, 0.1), (1.0, 0.2), (1.0, 0.3), (1.0, 0.4))  # found in this order
    assert search(asked, gallery, [query((1,), (0,))], 4).hits.tolist() == [True]
    assert search(asked, gallery, [query((2,), (0,))], 4).hits.tolist() == [False]  # 1 is wrong and stands before 2
    assert search(asked, gallery, [query((1,))], 4).hits.tolist() == [False]


def test_a_first_reference_that_shows_the_place_covers_whatever_stands_behind_it() -> None:
    asked = unit((1.0, 0.0))
    gallery = unit((1.0, 0.1), (1.0, 0.2), (1.0, 0.3))
    for asked_one, wanted, is_hit in (
        (query((2,), (0,)), 1.0, False),
        (query((0,)), 1.0, True),
        (query((2,)), 0.0, False),
    ):
        ranking = search(asked, gallery, [asked_one], 3)
        assert covers(ranking.found[:, 0], [asked_one]) == wanted
        assert ranking.hits.tolist() == [is_hit]


def test_reranking_reorders_the_first_and_leaves_the_rest() -> None:
    asked = unit((1.0, 0.0), (1.0, 0.0))
    gallery = unit((1.0, 0.1), (1.0, 0.2), (1.0, 0.3), (1.0, 0.4))
    queries = [query((1, 3)), query((2,))]
    before = search(asked, gallery, queries, 4)
    after = rerank(before, np.array([[0.0, 0.9], [0.0, 0.9]]), queries)
    assert before.best_ranks.tolist() == [1, 2]
    assert after.best_ranks.tolist() == [0, 2]
    assert after.ranks[0].tolist() == [0, 3]
    assert after.found[0].tolist() == [1, 0, 2, 3]
    assert after.hits.tolist() == [True, False]
