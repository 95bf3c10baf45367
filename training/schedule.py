"""The stages of the overhead network's training: what is drawn in each, and how the learning rate goes.

Each stage warms up, falls along half a cosine and leaves its network to the next, so that a training may be made longer
by a stage: the steps before are the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from training.data.pairs import PairConfig


@dataclass(frozen=True)
class Canvas:
    """What the pairs of one batch are drawn on. Ground resolution does not depend on it: a smaller canvas shows less
    ground, costs less and lets more pairs into a batch, each of them a wrong answer for all others."""

    pairs: PairConfig
    batch: int = 16
    fine_patch: int = 16  # cells of the fine map (4 pixels) along a patch of L_M; it must fit into the views


LARGE = Canvas(PairConfig())
SMALL = Canvas(PairConfig(view_px=192, offset_px=48.0, footprint_px=(64.0, 250.0)))
# A quarter of the usual view, such as 45 by 35 m at 0.6 m/px: hardest to tell from its likes, so they compete by 40.
TINY = Canvas(
    PairConfig(view_px=128, offset_px=32.0, footprint_px=(54.0, 128.0), crop_rendered=True), batch=40, fine_patch=8
)


@dataclass(frozen=True)
class Stage:
    """One rise and fall of the learning rate over `steps` batches."""

    steps: int
    learning_rate: float
    canvases: tuple[tuple[float, Canvas], ...]  # share of the steps, canvas
    mixed: bool = False  # canvases by chance at each step; else one after the other
    weather_share: float = 0.0  # of the views


CLEAR = Stage(3000, 2e-3, ((0.85, SMALL), (0.15, LARGE)))
WEATHER = Stage(3000, 1e-3, ((0.85, SMALL), (0.15, LARGE)), weather_share=0.15)
SMALL_VIEWS = Stage(3000, 8e-4, ((0.6, TINY), (0.25, SMALL), (0.15, LARGE)), mixed=True, weather_share=0.15)
STAGES = (CLEAR, WEATHER, SMALL_VIEWS)

# Of a training that begins from a network that has learnt: headings err by as much as the search leaves, which tries
# them 5 degrees apart. The rate is low: what it knows is to be kept.
SEARCHED = dataclasses.replace(TINY, pairs=dataclasses.replace(TINY.pairs, rotation_error_deg=4.0))
FURTHER = (Stage(1900, 6e-4, ((0.68, SEARCHED), (0.22, SMALL), (0.1, LARGE)), mixed=True, weather_share=0.12),)


@dataclass(frozen=True)
class Place:
    """Where a step stands in the stages."""

    stage: Stage
    step: int  # in the stage
    first_pair: int  # number of the first pair of this step, among all pairs of the training


def place_of(step: int, stages: tuple[Stage, ...]) -> Place:
    """Stage and place in it of `step`, 0 .. total_steps - 1; a step after the end stands at the end."""
    first = 0
    for stage in stages:
        if step < stage.steps:
            return Place(stage, step, first + step * most_pairs(stage))
        step -= stage.steps
        first += stage.steps * most_pairs(stage)
    last = stages[-1]
    return Place(last, last.steps, first)


def most_pairs(stage: Stage) -> int:
    """The largest batch of a stage: how many numbers each of its steps takes, used or not."""
    return max(canvas.batch for _, canvas in stage.canvases)


def total_steps(stages: tuple[Stage, ...]) -> int:
    return sum(stage.steps for stage in stages)


def canvas_at(stage: Stage, where: float) -> Canvas:
    """The canvas at `where`, 0..1: along the stage, or by chance."""
    for share, canvas in stage.canvases:
        if where < share:
            return canvas
        where -= share
    return stage.canvases[-1][1]


def learning_rate(step: int, stages: tuple[Stage, ...], warm_up: int) -> float:
    """Linear warm-up to the stage's own rate, then half a cosine down to a fiftieth of it."""
    at = place_of(step, stages)
    if at.step < warm_up:
        return at.stage.learning_rate * (at.step + 1) / warm_up
    along = min(1.0, (at.step - warm_up) / max(1, at.stage.steps - warm_up))
    return at.stage.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * along)))


def resized(stages: tuple[Stage, ...], steps: int | None, batch: int | None) -> tuple[Stage, ...]:
    """The same stages for `steps` in all and about `batch` pairs where it was 16; None leaves as it is."""
    whole = total_steps(stages)
    ends = [0]
    for stage in stages:
        ends.append(ends[-1] + stage.steps)
    if steps is not None:
        ends = [round(end * steps / whole) for end in ends]

    def fewer(canvas: Canvas) -> Canvas:
        return canvas if batch is None else dataclasses.replace(canvas, batch=max(2, round(canvas.batch * batch / 16)))

    def each() -> Iterator[Stage]:
        for stage, begin, end in zip(stages, ends, ends[1:], strict=False):
            if end > begin:
                canvases = tuple((share, fewer(canvas)) for share, canvas in stage.canvases)
                yield dataclasses.replace(stage, steps=end - begin, canvases=canvases)

    return tuple(each())
