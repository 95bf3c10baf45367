"""The classical baselines: correlation and SIFT find a view of the map itself, and SIFT is silent on blank ground."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import toy_world

from calibration.trials.baseline import finder_of
from calibration.trials.sift import SiftFinder
from onboard.records import GroundView
from onboard.region import Level

METRES = 0.5


def level_of(rgb: np.ndarray) -> Level:
    """A level that holds a picture; what the network would have said of it is left empty."""
    rows, cols = (n // 8 for n in rgb.shape[:2])
    return Level(
        METRES,
        -100.0,
        200.0,
        8 * METRES,
        256,
        rgb,
        np.ones(rgb.shape[:2], np.uint8),
        np.zeros((rows, cols, 1), np.int8),
        np.full((rows, cols), 255, np.uint8),
        np.empty((0, 1), np.float16),
        np.empty((0, 2)),
    )


def view_of(rgb: np.ndarray, row: int, col: int, turn_deg: float = 0.0) -> GroundView:
    """256 pixels round a pixel of the map, a turned rectangle of them seen, darker and noisy."""
    turn = cv2.getRotationMatrix2D((float(col), float(row)), turn_deg, 1.0)
    turn[:, 2] += 127.5 - np.array([col, row])
    image = cv2.warpAffine(rgb, turn, (256, 256)).astype(float) * 0.7
    image += np.random.default_rng(3).normal(0, 4, image.shape)
    mask = np.zeros((256, 256), np.uint8)
    cv2.fillConvexPoly(mask, cv2.boxPoints(((127.5, 127.5), (180, 130), 25)).astype(np.int32), 1)
    seen = np.where(mask[..., None] > 0, image.clip(0, 255), 0).astype(np.uint8)
    return GroundView(0, seen, mask > 0, METRES, (0.0, 0.0), 0.0, 0.0, 1.0)


@pytest.mark.parametrize(("method", "turn_deg"), [("gradient", 0.0), ("grey", 0.0), ("sift", 0.0), ("sift", 5.0)])
def test_a_view_is_found_where_it_was_cut(method: str, turn_deg: float) -> None:
    rgb = toy_world.make_world(seed=31, size_px=800).rgb
    level, find = level_of(rgb), finder_of(method)
    for row, col in ((300, 500), (520, 350)):
        found = find(level, view_of(rgb, row, col, turn_deg))
        assert np.linalg.norm(found - level.enu_of_pixel(row, col)) < 1.0


def test_sift_finds_nothing_where_nothing_can_be_told_apart() -> None:
    rgb = toy_world.make_world(seed=31, size_px=600).rgb
    view, blank = view_of(rgb, 300, 300), np.full_like(rgb, 90)
    assert np.isnan(SiftFinder()(level_of(rgb), dataclasses.replace(view, image_rgb=blank[:256, :256]))).all()
    assert np.isnan(SiftFinder()(level_of(blank), view)).all()
