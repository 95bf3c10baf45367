"""Fusion: gradients of the imagery at the network's candidates, held against the slow and plain way."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
import toy_world
from toy_localizer import fly
from toy_world import HandEngine, World

from onboard.config import Config
from onboard.match.fusion import REACH, STRIDE, GradientCorrelation, compared, directed_gradients, gradient_scores
from onboard.match.heatmap import Mode
from onboard.records import GroundView
from onboard.region import RegionMap
from onboard.region.level import Level

SIDE_PX = 64


def texture(seed: int, side_px: int = 320) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (side_px, side_px, 3)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3.0), None, 0, 255, cv2.NORM_MINMAX)


def level_of(image: np.ndarray, valid: np.ndarray | None = None) -> Level:
    """A level of 1 m pixels with its north-west corner at 0, 0."""
    valid = np.ones(image.shape[:2], np.uint8) if valid is None else valid
    empty = np.zeros((1, 1, 1), np.int8)
    return Level(1.0, 0.0, 0.0, 8.0, 256, image, valid, empty, empty[..., 0].astype(np.uint8),
                 np.zeros((0, 4), np.float16), np.zeros((0, 2)))  # fmt: skip


def view_of(image: np.ndarray, top: int, left: int, seen: int = 40) -> GroundView:
    """What is cut from the image at a pixel: the middle `seen` pixels of it."""
    mask = np.zeros((SIDE_PX, SIDE_PX), bool)
    rim = (SIDE_PX - seen) // 2
    mask[rim : SIDE_PX - rim, rim : SIDE_PX - rim] = True
    rgb = image[top : top + SIDE_PX, left : left + SIDE_PX] * mask[..., None]
    return GroundView(0, rgb, mask, 1.0, (0.0, 0.0), 0.0, 0.0, 1.0)


def centre_of(top: int, left: int) -> np.ndarray:
    return np.array([left + SIDE_PX / 2, -(top + SIDE_PX / 2)])


def plain(view: GroundView, level: Level, centre_enu_m: np.ndarray) -> float:
    """The same by moving one picture over the other."""
    picture, mask = directed_gradients(view.image_rgb, view.mask)
    window, valid = directed_gradients(*level.window(centre_enu_m, SIDE_PX + 2 * REACH * STRIDE))
    best, n = -1.0, len(mask)
    for i, j in np.ndindex(2 * REACH + 1, 2 * REACH + 1):
        both = mask & valid[i : i + n, j : j + n]
        if both.sum() < 0.4 * mask.sum():
            best = max(best, 0.0)
            continue
        a, b = picture[both].astype(float), window[i : i + n, j : j + n][both].astype(float)
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        best = max(best, float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum())))
    return best


@pytest.mark.parametrize("hole", [False, True])
def test_correlation_of_gradients_is_that_of_one_picture_moved_over_the_other(hole: bool) -> None:
    image = texture(1)
    valid = np.ones(image.shape[:2], np.uint8)
    if hole:
        valid[:130, 150:200] = 0
    level, views = level_of(image, valid), [view_of(texture(2), 30, 40), view_of(image, 93, 125, 48)]
    correlation = GradientCorrelation(views)
    for centre in (centre_of(90, 120), centre_of(60, 150), centre_of(200, 10), centre_of(-20, 300), centre_of(900, 0)):
        wanted = max(plain(view, level, centre) for view in views)
        assert correlation.at(level, centre) == pytest.approx(wanted, abs=2e-3)


def test_a_view_is_most_alike_where_it_was_cut_though_light_and_dark_change_places() -> None:
    image = texture(3)
    level = level_of(image)
    for view in (view_of(image, 104, 52), view_of(255 - image, 104, 52)):
        views = [view_of(texture(4), 0, 0), view]
        modes = [Mode(centre_of(104 + r, 52 + c), 0.1, 0) for r, c in ((0, 0), (3, -5), (90, 0), (40, 100))]
        near, beside, *far = gradient_scores(views, modes, [level], 1.0)
        assert near > 0.9
        assert beside > 0.6
        assert max(far) < 0.5


def test_where_the_map_has_no_imagery_gradients_say_nothing() -> None:
    image = texture(5)
    correlation = GradientCorrelation([view_of(image, 10, 10)])
    assert correlation.at(level_of(image, np.zeros(image.shape[:2], np.uint8)), centre_of(10, 10)) == 0.0
    blank = GroundView(0, image[:64, :64] * 0, np.zeros((64, 64), bool), 1.0, (0.0, 0.0), 0.0, 0.0, 1.0)
    assert math.isfinite(GradientCorrelation([blank]).at(level_of(image), centre_of(10, 10)))


def test_of_large_views_and_under_many_headings_fewer_candidates_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compared(26, 9) > 256
    assert compared(24, 9) == pytest.approx(8 * compared(24, 72), abs=8)
    assert compared(48, 720) == compared(10, 20_000) == 20
    image = texture(6)
    views, modes = [view_of(image, 0, 0)], [Mode(centre_of(0, 0), 0.1, 0)] * 30
    assert np.isfinite(gradient_scores(views, modes, [level_of(image)], 0.5)).all()
    monkeypatch.setattr("onboard.match.fusion._COMPARED", 0)
    scores = gradient_scores(views, modes, [level_of(image)], 0.5)
    assert np.isfinite(scores[:20]).all()
    assert (scores[20:] == -np.inf).all()


def test_only_a_search_without_a_prediction_asks_the_gradients(
    hand_engine: HandEngine, hand_map: RegionMap, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def ask(*given: Any) -> np.ndarray:
        asked.append(given)
        return gradient_scores(*given)

    monkeypatch.setattr("onboard.match.locate.gradient_scores", ask)
    steps = fly(hand_engine, hand_map, toy_world.make_flight(world)[:5], config=Config())
    assert [s.fix is not None for s in steps] == [True] * 5
    assert len(asked) == 3  # frames until it is tracked
