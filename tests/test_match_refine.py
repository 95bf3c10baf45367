"""Alignment and its witnesses: every sign against a known displacement."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import toy_world

from onboard.match.refine import Alignment, align
from onboard.match.witness import alignment_matrix, witnesses


def field(seed: int, size: int = 96, channels: int = 8) -> np.ndarray:
    """A smooth random feature raster, unit norm per cell."""
    noise = np.random.default_rng(seed).normal(size=(size, size, channels)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return smooth / np.linalg.norm(smooth, axis=2, keepdims=True)


def seen_through(ground: np.ndarray, shift: tuple[float, float], turn_rad: float, scale: float) -> np.ndarray:
    """The view (64, 64, C) that lies on the middle of ground (96, 96, C) turned clockwise, scaled, then shifted."""
    rows, cols = np.mgrid[:64, :64] - 31.5
    cos, sin = scale * math.cos(turn_rad), scale * math.sin(turn_rad)
    at_row, at_col = cos * rows + sin * cols + shift[0] + 47.5, cos * cols - sin * rows + shift[1] + 47.5
    view = cv2.remap(ground, at_col.astype(np.float32), at_row.astype(np.float32), cv2.INTER_LINEAR)
    return view / np.linalg.norm(view, axis=2, keepdims=True)


@pytest.mark.parametrize(
    ("shift", "turn_deg", "scale"),
    [((0, 0), 0, 1), ((3.3, -2.4), 0, 1), ((0, 0), 4, 1), ((0, 0), 0, 1.05), ((-4.6, 1.7), -3, 0.96)],
)
def test_alignment_recovers_shift_turn_and_scale_with_their_signs(
    shift: tuple[float, float], turn_deg: float, scale: float
) -> None:
    ground = field(1)
    view = seen_through(ground, shift, math.radians(turn_deg), scale)
    everywhere = np.ones((64, 64), bool)
    found = align(view, everywhere, ground[16:80, 16:80], everywhere, 4)
    assert found is not None
    np.testing.assert_allclose(found.shift_px, np.array(shift) * 4, atol=0.8)
    assert math.degrees(found.turn_rad) == pytest.approx(turn_deg, abs=0.5)
    assert found.scale == pytest.approx(scale, abs=0.01)
    assert found.agreeing > 0.85 * found.patches
    miss = found.shift_px - np.array(shift) * 4
    assert miss @ np.linalg.solve(found.covariance_px2, miss) < 30


def test_a_masked_part_of_the_view_takes_no_part_in_the_alignment() -> None:
    ground = field(1)
    view = seen_through(ground, (2.0, -3.0), 0.0, 1.0)
    mask = np.zeros((64, 64), bool)
    mask[10:50, 8:60] = True
    view[~mask] = field(7)[:64, :64][~mask]
    found = align(view, mask, ground[16:80, 16:80], np.ones((64, 64), bool), 4)
    assert found is not None
    np.testing.assert_allclose(found.shift_px, [8, -12], atol=1.0)
    assert found.agreeing > 0.7 * found.patches
    assert align(view, np.zeros((64, 64), bool), ground[16:80, 16:80], mask, 4) is None


def test_a_small_view_is_aligned_by_smaller_patches_and_a_tiny_one_not_at_all() -> None:
    ground, everywhere = field(1), np.ones((64, 64), bool)
    view = seen_through(ground, (2.0, -3.0), 0.0, 1.0)

    def seen(rows: int, cols: int) -> Alignment | None:
        mask = np.zeros((64, 64), bool)
        mask[32 - rows // 2 : 32 + rows // 2, 32 - cols // 2 : 32 + cols // 2] = True
        return align(view * mask[..., None], mask, ground[16:80, 16:80], everywhere, 4)

    small = seen(16, 20)  # cells: four patches of 16 do not fit
    assert small is not None
    np.testing.assert_allclose(small.shift_px, [8, -12], atol=1.5)
    assert small.agreeing >= 0.7 * small.patches
    assert seen(8, 8) is None


def half_wooded(ground: np.ndarray, below: tuple[float, float], share: float) -> np.ndarray:
    """The view (64, 64, C) whose left half is a wood `share` of the vehicle's height high, seen from above `below`."""
    rows, cols = np.mgrid[:64, :64] - 31.5
    nearer = np.where(cols < 0, 1 - share, 1.0)  # what is high looks further from the point below than it is
    at_row, at_col = (below[k] + nearer * (x - below[k]) + 47.5 for k, x in enumerate((rows, cols)))
    view = cv2.remap(ground, at_col.astype(np.float32), at_row.astype(np.float32), cv2.INTER_LINEAR)
    return view / np.linalg.norm(view, axis=2, keepdims=True)


@pytest.mark.parametrize("below", [(0.0, 0.0), (0.0, 8.0), (-10.0, 0.0)])
def test_a_wood_beside_open_ground_moves_the_fix_less_when_it_may_be_there(below: tuple[float, float]) -> None:
    ground, everywhere = field(3), np.ones((64, 64), bool)
    view = half_wooded(ground, below, 0.1)
    missed = []
    for rise in (0.0, 0.05):
        found = align(view, everywhere, ground[16:80, 16:80], everywhere, 4, None, np.array(below), rise)
        assert found is not None
        turned = np.array([found.turn_rad * below[1], -found.turn_rad * below[0]])
        missed.append(np.linalg.norm(found.shift_px + 4 * (turned + (found.scale - 1) * np.array(below))))
    assert missed[0] > 1.2  # pixels, of where the vehicle is
    assert missed[1] < 0.85 * missed[0]


def test_a_straight_edge_says_where_it_lies_across_and_hardly_along() -> None:
    """Furrows under a field of features that is weak beside them: what holds along them is little, and said to be."""
    ground, everywhere = field(1), np.ones((64, 64), bool)
    furrows = np.zeros_like(ground)
    furrows[..., 0] = 2.5 * np.sin(np.arange(96) / 1.5)[None, :]  # along the rows' direction: straight down

    def known(furrowed: float) -> np.ndarray:
        marked = ground + furrowed * furrows
        marked /= np.linalg.norm(marked, axis=2, keepdims=True)
        view = seen_through(marked, (0.6, -1.0), 0.0, 1.0)
        found = align(view, everywhere, marked[16:80, 16:80], everywhere, 4)
        assert found is not None
        np.testing.assert_allclose(found.shift_px, [2.4, -4.0], atol=1.0)
        return found.covariance_px2 - np.eye(2) * 0.02 * 16  # what every alignment is granted

    plain, striped = known(0.0), known(1.0)
    assert plain[0, 0] == pytest.approx(plain[1, 1], rel=0.5)
    assert striped[0, 0] > 2 * striped[1, 1]


@pytest.mark.parametrize("turn_deg", [-8, 5, 8])
def test_a_heading_told_wrong_is_found_in_a_small_view_with_little_in_it(turn_deg: float) -> None:
    """A road and a field's border in a view of 30 by 24 cells: the compass goes wrong by so much in a hard start."""
    rows, cols = np.mgrid[:96, :96] - 47.5
    ground = 0.4 * field(1)
    ground[..., 0] += 2 * np.exp(-((rows + 5 - 0.1 * cols) ** 2) / 6)
    ground[..., 1] += 2 * (cols > 4 + 0.15 * rows)
    ground /= np.linalg.norm(ground, axis=2, keepdims=True)
    seen = np.zeros((64, 64), bool)
    seen[20:44, 17:47] = True
    view = seen_through(ground, (0, 0), math.radians(turn_deg), 1.0) * seen[..., None]
    found = align(view, seen, ground[16:80, 16:80], np.ones((64, 64), bool), 4)
    assert found is not None
    assert 0.5 < math.degrees(found.turn_rad) / turn_deg < 1.1


def test_a_point_outside_the_view_is_known_the_less_the_further_it_lies_from_what_is_seen() -> None:
    """By the errors of scale and turn, which act over the way from there."""
    ground, seen = field(1), np.zeros((64, 64), bool)
    seen[20:44, 17:47] = True
    view = seen_through(ground, (0, 0), 0.0, 0.97) * seen[..., None]

    def found(below: tuple[float, float]) -> Alignment:
        alignment = align(view, seen, ground[16:80, 16:80], np.ones((64, 64), bool), 4, None, np.array(below))
        assert alignment is not None
        return alignment

    sigmas = [math.sqrt(np.trace(found((row, 0.0)).covariance_px2)) for row in (0.0, -25.0, -50.0, 50.0)]
    assert sigmas[0] < sigmas[1] < sigmas[2]
    assert sigmas[2] == pytest.approx(sigmas[3], rel=0.05)
    assert found((0.0, 0.0)).scale_sigma == pytest.approx(0.025, abs=0.015)


def test_a_large_view_tells_heading_and_height_better_than_a_small_one() -> None:
    ground = field(1)
    sigmas = []
    for edge in (0, 20):
        seen = np.zeros((64, 64), bool)
        seen[edge : 64 - edge, edge : 64 - edge] = True
        view = seen_through(ground, (0, 0), 0.0, 1.0) * seen[..., None]
        alignment = align(view, seen, ground[16:80, 16:80], np.ones((64, 64), bool), 4)
        assert alignment is not None
        sigmas.append((alignment.scale_sigma, alignment.turn_sigma_rad))
    assert sigmas[0][0] < 0.5 * sigmas[1][0]
    assert sigmas[0][1] < 0.5 * sigmas[1][1]


@pytest.mark.parametrize("seed", [11, 12, 13, 14])
def test_on_the_wrong_ground_patches_do_not_agree(seed: int) -> None:
    everywhere = np.ones((64, 64), bool)
    found = align(field(seed)[:64, :64], everywhere, field(seed + 100)[:64, :64], everywhere, 4)
    assert found is not None
    assert found.agreeing < 0.5 * found.patches
    assert found.score < 0.4


def picture_pair(alignment: Alignment) -> tuple[np.ndarray, np.ndarray]:
    """(view, tile) of toy ground such that the alignment lays the one on the other."""
    ground = toy_world.make_world(seed=8, size_px=400).rgb
    tile = np.ascontiguousarray(ground[72:328, 72:328])
    matrix = alignment_matrix(alignment, 256)
    matrix[:, 2] += 72
    return cv2.warpAffine(ground, matrix, (256, 256), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), tile


def aligned(shift: tuple[float, float] = (0, 0), turn_rad: float = 0.0, scale: float = 1.0) -> Alignment:
    return Alignment(np.array(shift, float), turn_rad, scale, np.eye(2), 9, 9, 0.5)


def test_gradients_correlate_where_the_view_lies_right_and_only_there() -> None:
    true = aligned((9.0, -14.0), 0.05, 1.03)
    view, tile = picture_pair(true)
    mask = np.ones((256, 256), bool)
    assert min(witnesses(view, mask, tile, mask, true)) > 0.85
    for wrong in (aligned(), aligned((-9, 14), 0.05, 1.03), aligned((9, -14), -0.05, 1.03), aligned((-14, 9), 0.05)):
        assert witnesses(view, mask, tile, mask, wrong)[1] < 0.45
    other = toy_world.make_world(seed=99, size_px=256).rgb
    assert abs(witnesses(view, mask, other, mask, true)[1]) < 0.3
    assert witnesses(view, np.zeros_like(mask), tile, mask, true) == (0.0, 0.0)


def test_the_alignment_matrix_turns_clockwise_about_the_middle() -> None:
    matrix = alignment_matrix(aligned((10, 20), 0.1, 1.0), 256)
    np.testing.assert_allclose(matrix @ [127.5, 127.5, 1], [147.5, 137.5])  # col, row
    assert (matrix @ [227.5, 127.5, 1])[1] > 137.5  # what lay right goes down
