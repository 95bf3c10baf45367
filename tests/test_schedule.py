"""The stages of a training: rates, places, and stages made shorter."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from training.schedule import (
    LARGE,
    SMALL,
    STAGES,
    TINY,
    Stage,
    canvas_at,
    learning_rate,
    most_pairs,
    place_of,
    resized,
    total_steps,
)

ONE = Stage(1000, 1.0, ((0.85, SMALL), (0.15, LARGE)))


def test_the_learning_rate_warms_up_and_ends_low() -> None:
    rates = [learning_rate(step, (ONE,), 100) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert int(np.argmax(rates)) in (99, 100)
    assert rates[-1] < 0.03
    assert np.all(np.diff(rates[100:]) <= 0)


def test_each_stage_warms_up_again_to_its_own_height_and_begins_where_the_one_before_ended() -> None:
    half = dataclasses.replace(ONE, learning_rate=0.5)
    first, both = ([learning_rate(step, s, 100) for step in range(total_steps(s))] for s in ((ONE,), (ONE, half)))
    assert both[:1000] == first  # so that a training may be made longer by a stage
    np.testing.assert_allclose(both[1000:], np.array(first) / 2)


def test_pairs_of_different_steps_have_different_numbers_whatever_the_batches() -> None:
    stages = (dataclasses.replace(ONE, steps=3), Stage(4, 1.0, ((0.5, TINY), (0.5, SMALL)), mixed=True), ONE)
    numbers = [n for step in range(10) for n in _numbers(step, stages)]
    assert len(set(numbers)) == len(numbers)
    assert [place_of(step, stages).step for step in range(9)] == [0, 1, 2, 0, 1, 2, 3, 0, 1]


def _numbers(step: int, stages: tuple[Stage, ...]) -> list[int]:
    at = place_of(step, stages)
    return [at.first_pair + k for k in range(most_pairs(at.stage))]


@pytest.mark.parametrize(("where", "canvas"), [(0.0, SMALL), (0.849, SMALL), (0.851, LARGE), (1.0, LARGE)])
def test_canvases_follow_their_shares(where: float, canvas: object) -> None:
    assert canvas_at(ONE, where) is canvas


@pytest.mark.parametrize("steps", [1, 2, 7, total_steps(STAGES), 20_000])
def test_stages_keep_their_proportions_when_a_training_is_made_shorter_or_longer(steps: int) -> None:
    made = resized(STAGES, steps, None)
    assert total_steps(made) == steps
    if steps == total_steps(STAGES):
        assert made == STAGES


def test_batches_grow_and_shrink_together_and_hold_two_at_least() -> None:
    assert resized(STAGES, None, None) == STAGES
    canvases = [canvas for stage in resized(STAGES, None, 4) for _, canvas in stage.canvases]
    assert {canvas.batch for canvas in canvases} == {4, 10}
    assert all(canvas.batch == 2 for stage in resized(STAGES, None, 0) for _, canvas in stage.canvases)
