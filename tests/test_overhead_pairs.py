"""Pairs to learn from: a view lies in its tile where the pair says, real or rendered, whoever draws it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import toy_world

from training.data.ground import Ground, cut, split
from training.data.pairs import Pair, PairConfig, draw_pair, lies_px
from training.data.rendered import RenderedPairs, _turn, _turn_offset, make_sample
from training.renderer.pairs import render_pairs
from training.renderer.place import generate_place


@pytest.fixture(scope="module")
def ground() -> Ground:
    world = toy_world.make_world(seed=21, size_px=640)
    return Ground("toy/000", (world.rgb,), np.ones(world.rgb.shape[:2], bool), world.metres_per_pixel)


EXACT = PairConfig(rotation_error_deg=0.0, scale_error=0.0, tilt=0.0, footprint_px=(230.0, 250.0))


def found_offset_px(pair: Pair) -> np.ndarray:
    """(row, col) by which view must be shifted to lie on tile, by correlating edges over all shifts."""

    def edges(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 2.0)
        size = np.sqrt(cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)))
        inside = cv2.erode(mask.astype(np.uint8), np.ones((15, 15), np.uint8), borderValue=1) > 0
        return np.asarray(np.where(inside, size - size[inside].mean(), 0.0), np.float32)

    spectrum = np.fft.rfft2(edges(pair.view, pair.view_mask), s=(512, 512)).conj()
    score = np.fft.irfft2(spectrum * np.fft.rfft2(edges(pair.tile, pair.tile_mask), s=(512, 512)))
    at = np.array(np.unravel_index(int(score.argmax()), score.shape))
    return (at + 256) % 512 - 256


def test_the_view_lies_in_its_tile_where_the_pair_says(ground: Ground) -> None:
    misses = []
    for seed in range(12):
        pair = draw_pair(ground, ground, np.random.default_rng(seed), EXACT)
        assert pair.view.shape == pair.tile.shape == (256, 256, 3)
        assert (pair.view[~pair.view_mask] == 0).all()
        misses.append(float(np.linalg.norm(found_offset_px(pair) - pair.offset_px)))
    assert np.median(misses) < 1.5
    assert sum(miss < 3 for miss in misses) >= 10, misses  # blur, shadows and change may hide one


def test_the_same_seed_draws_the_same_pair(ground: Ground) -> None:
    pairs = [draw_pair(ground, ground, np.random.default_rng(5)) for _ in range(2)]
    assert pairs[0].view.tobytes() == pairs[1].view.tobytes()
    assert pairs[0].offset_px.tolist() == pairs[1].offset_px.tolist()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_an_offset_turns_with_its_picture(turns: int, mirror: bool) -> None:
    picture = np.zeros((65, 65))
    picture[32 + 9, 32 - 20] = 1.0  # row +9, col -20 from the middle
    row, col = np.argwhere(_turn(picture, turns, mirror))[0] - 32
    assert _turn_offset(np.array([9, -20]), turns, mirror).tolist() == [row, col]


def test_a_rendered_view_is_known_point_by_point_over_roofs_and_relief() -> None:
    place = generate_place(5, size_m=400.0, metres_per_pixel=0.5)
    seen = next(render_pairs(place, 1, 3, height_m=(90.0, 91.0), tilt_sigma_deg=8.0))
    sample = make_sample(place, seen, np.random.default_rng(1))
    assert sample is not None
    field = cv2.resize(sample["moved_px"], (256, 256))
    mask = sample["view_mask"] & np.isfinite(field).all(axis=2)
    mask = cv2.erode(mask.astype(np.uint8), np.ones((25, 25))) > 0
    crop, view = (cv2.cvtColor(sample[name], cv2.COLOR_RGB2GRAY).astype(np.float32) for name in ("crop", "view"))
    cols, rows = np.meshgrid(*2 * [np.arange(256, dtype=np.float32) + 72])  # 72: from the view's corner to the crop's

    def alike(moved: np.ndarray) -> float:
        there = np.nan_to_num(cv2.remap(crop, cols + moved[..., 1], rows + moved[..., 0], cv2.INTER_LINEAR))
        detail = [picture - cv2.GaussianBlur(picture, (0, 0), 6) for picture in (there, view)]
        return float(np.corrcoef(detail[0][mask], detail[1][mask])[0, 1])

    level = np.float32(lies_px(sample["moved_px"], sample["view_mask"])) * np.ones((256, 256, 1), np.float32)
    assert alike(field) > alike(level) + 0.05


def test_rendered_pairs_know_where_the_view_lies_however_the_tile_was_cut(tmp_path: Path) -> None:
    world = toy_world.make_world(seed=22, size_px=400).rgb
    ones = np.ones((400, 400), bool)
    sample = {"view": world[72:328, 72:328], "view_mask": ones[:256, :256], "crop": world, "crop_mask": ones}
    np.savez(tmp_path / "000_000.npz", moved_px=np.zeros((32, 32, 2), np.float32), **sample)
    pairs = RenderedPairs(tmp_path)
    misses = []
    for seed in range(8):
        pair = pairs.draw(np.random.default_rng(seed))
        misses.append(float(np.linalg.norm(found_offset_px(pair) - pair.offset_px)))
    assert sum(miss < 2 for miss in misses) >= 7, misses


def test_every_seventh_place_is_held_back_and_never_trained_on(ground: Ground) -> None:
    grounds = [dataclasses.replace(ground, name=f"toy/{k}") for k in range(20)]
    train_on, held = split(grounds)
    assert [g.name for g in held] == ["toy/0", "toy/7", "toy/14"]
    assert not {g.name for g in held} & {g.name for g in train_on}
    assert len(held) + len(train_on) == 20


def test_empty_squares_of_a_large_raster_are_left_out(ground: Ground) -> None:
    valid = ground.valid.copy()
    valid[:320, :320] = False
    pieces = cut(dataclasses.replace(ground, valid=valid), 320)
    assert [p.name for p in pieces] == ["toy/000/0_320", "toy/000/320_0", "toy/000/320_320"]
