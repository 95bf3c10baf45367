"""Windows of a level: which pixels, between pixels, and where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from onboard.region import Level


def toy_level(height: int = 300, width: int = 400, metres: float = 0.5) -> Level:
    """A level of random pixels, all valid but one."""
    image = np.random.default_rng(3).integers(0, 256, (height, width, 3)).astype(np.uint8)
    valid = np.ones((height, width), np.uint8)
    valid[150, 200] = 0
    cells, empty = (height // 8, width // 8), np.zeros((0, 2))
    return Level(
        metres, -70.0, 40.0, 8 * metres, 256, image, valid, np.zeros((*cells, 4), np.int8), valid, empty, empty
    )


@pytest.mark.parametrize("size", [64, 65])
def test_a_window_on_pixel_centres_copies_the_pixels(size: int) -> None:
    level = toy_level()
    centre = level.enu_of_pixel(100 + (size - 1) / 2, 50 + (size - 1) / 2)
    rgb, mask = level.window(centre, size)
    assert mask.all()
    assert (rgb == level.image[100 : 100 + size, 50 : 50 + size]).all()


def test_a_window_between_pixels_is_bilinear_about_exactly_its_centre() -> None:
    level = toy_level()
    for down, right in np.random.default_rng(5).uniform(0, 1, (10, 2)):
        rgb, mask = level.window(level.enu_of_pixel(100 + 31.5 + down, 50 + 31.5 + right), 64)
        image = level.image.astype(float)
        rows, cols = slice(100, 164), slice(50, 114)
        next_rows, next_cols = slice(101, 165), slice(51, 115)
        above = image[rows, cols] * (1 - right) + image[rows, next_cols] * right
        below = image[next_rows, cols] * (1 - right) + image[next_rows, next_cols] * right
        assert mask.all()
        assert np.abs(rgb - (above * (1 - down) + below * down)).max() <= 1.0


def test_a_window_masks_what_is_not_there() -> None:
    level = toy_level()
    _, mask = level.window(level.enu_of_pixel(150.25, 200.0), 65)
    assert np.argwhere(~mask).tolist() == [[31, 32], [32, 32]]  # both rows that touch the missing pixel
    rgb, mask = level.window(np.array([level.west_m, level.north_m]), 64)
    assert mask[32:, 32:].all()
    assert not mask[:32].any()
    assert not mask[:, :32].any()
    assert (rgb[~mask] == 0).all()
    _, mask = level.window(np.array([level.west_m - 1e6, 0.0]), 64)
    assert not mask.any()


def test_indices_and_points_are_inverse_and_meet_at_the_corner() -> None:
    level = toy_level()
    corner = np.array([level.west_m, level.north_m])
    assert [float(index) for index in level.pixel_of(corner)] == [-0.5, -0.5]
    assert [float(index) for index in level.cell_of(corner)] == [-0.5, -0.5]
    points = np.random.default_rng(1).uniform(-50, 50, (20, 2))
    assert level.enu_of(*level.cell_of(points)) == pytest.approx(points)
    assert level.enu_of_pixel(*level.pixel_of(points)) == pytest.approx(points)
    assert level.enu_of_pixel(3.5, 3.5) == pytest.approx(level.enu_of(0, 0))  # 8 pixels of 0.5 m
