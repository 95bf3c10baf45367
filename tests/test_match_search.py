"""Search: every fast way is held against the slow and plain one, from templates to the places they rank."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from onboard.match.correlate import (
    LARGE_BLOCK,
    SMALL_BLOCK,
    ScoreBlock,
    SpectrumCache,
    _spectra,
    block_origins,
    block_size,
    correlate,
    covered_boxes,
    covering_origins,
)
from onboard.match.heatmap import Heatmap, Mode
from onboard.match.ranking import rerank
from onboard.match.retrieve import TileIndex, similarity_at
from onboard.match.template import cell_mask, zero_mean
from onboard.region.level import DETAIL_SCALE, Level

CELL_M = 4.0


def level_of(detail: np.ndarray, valid: np.ndarray, tiles: int = 0) -> Level:
    """A level of the given detail int8 (h, w, C) and valid uint8 (h, w) whose north-west corner is at -100, 300."""
    rng = np.random.default_rng(9)
    descriptors = rng.normal(size=(tiles, 16))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True) if tiles else 1
    h, w = valid.shape
    image = np.zeros((h * 8, w * 8, 3), np.uint8)
    return Level(
        CELL_M / 8, -100.0, 300.0, CELL_M, 256, image, image[..., 0], detail, valid,
        descriptors.astype(np.float16), rng.uniform(-100, 300, (tiles, 2)),
    )  # fmt: skip


def random_level(seed: int, shape: tuple[int, int] = (47, 61), channels: int = 5) -> Level:
    rng = np.random.default_rng(seed)
    valid = (rng.random(shape) > 0.1).astype(np.uint8) * 255
    valid[30:, 40:] = 0  # a corner without imagery
    return level_of(rng.integers(-127, 128, (*shape, channels), dtype=np.int8), valid)


def random_templates(seed: int, count: int = 3, size: int = 8, channels: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = rng.random((count, size, size)) > 0.3
    masks[1, :, : size // 2] = False
    return zero_mean(rng.normal(size=(count, size, size, channels)).astype(np.float32), masks), masks


def plain_score(level: Level, template: np.ndarray, mask: np.ndarray, row: int, col: int) -> float:
    """The score of one template with its first cell at (row, col), by going over all cells."""
    total, count = 0.0, 0
    height, width = level.detail_valid.shape
    for i, j in np.argwhere(mask):
        r, c = row + int(i), col + int(j)
        if 0 <= r < height and 0 <= c < width and level.detail_valid[r, c] >= 128:
            total += float(template[i, j] @ (level.detail[r, c].astype(float) / DETAIL_SCALE))
            count += 1
    return -1.0 if count < 0.4 * mask.sum() else total / math.sqrt(count)


def test_correlation_by_spectra_is_correlation_cell_by_cell_at_edges_and_holes_too() -> None:
    level = random_level(1)
    templates, masks = random_templates(2)
    origins = block_origins((0, 0, 47, 61), SMALL_BLOCK, 8)
    blocks = correlate(SpectrumCache(level, 100.0), templates, masks, origins, SMALL_BLOCK)
    assert blocks
    rng, refused = np.random.default_rng(3), 0
    for block in blocks:
        assert block.score.shape == (57, 57)
        for i, j in rng.integers(0, 57, (60, 2)):
            row, col = round(block.row + i - 3.5), round(block.col + j - 3.5)
            wanted = [plain_score(level, t, m, row, col) for t, m in zip(templates, masks, strict=True)]
            assert block.score[i, j] == pytest.approx(max(wanted), abs=2e-5)
            refused += max(wanted) == -1.0
            if max(wanted) > -1.0:
                assert wanted[block.template[i, j]] == pytest.approx(max(wanted), abs=2e-5)
    assert 0 < refused < 60 * len(blocks)


def test_a_template_cut_from_the_map_scores_highest_where_it_was_cut() -> None:
    level = random_level(4)
    cut = level.detail[10:18, 21:29].astype(np.float32) / DETAIL_SCALE
    mask = level.detail_valid[10:18, 21:29] > 0
    blocks = correlate(SpectrumCache(level, 100.0), zero_mean(cut[None], mask[None]), mask[None], [(0, 0)], SMALL_BLOCK)
    i, j = np.unravel_index(int(blocks[0].score.argmax()), blocks[0].score.shape)
    assert (blocks[0].row + i, blocks[0].col + j) == (13.5, 24.5)


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (5, 9, 200, 33), (-3, 2, 97, 98), (0, 0, 98, 97)], ids=str)
@pytest.mark.parametrize(("block", "template"), [(LARGE_BLOCK, 32), (SMALL_BLOCK, 32), (SMALL_BLOCK, 8)])
def test_blocks_put_the_view_on_every_cell_of_a_box(box: tuple[int, int, int, int], block: int, template: int) -> None:
    row, col, rows, cols = box
    reached = {
        (r + (template - 1) // 2 + i, c + (template - 1) // 2 + j)
        for r, c in block_origins(box, block, template)
        for i in range(block - template + 1)
        for j in range(block - template + 1)
    }
    assert {(r, c) for r in range(row, row + rows) for c in range(col, col + cols)} <= reached


def test_the_small_block_is_taken_only_where_one_suffices() -> None:
    assert block_size(33, 32) == SMALL_BLOCK
    assert block_size(34, 32) == LARGE_BLOCK
    assert len(block_origins((0, 0, 33, 33), SMALL_BLOCK, 32)) == 1


def test_pieces_of_imagery_far_apart_are_boxes_of_their_own_that_hold_every_covered_cell() -> None:
    valid = np.zeros((100, 120), np.uint8)
    valid[5:20, 7:30] = 255
    valid[22:30, 10:12] = 200  # near the first: shares its box
    valid[70:90, 90:120] = 255
    valid[50:52, 50:52] = 100  # less than half of a cell is no imagery
    boxes = covered_boxes(level_of(np.zeros((100, 120, 2), np.int8), valid))
    assert sorted(boxes.tolist()) == [[5, 7, 25, 23], [70, 90, 20, 30]]
    assert covered_boxes(level_of(np.zeros((9, 9, 2), np.int8), np.zeros((9, 9), np.uint8))).shape == (0, 4)


def test_chips_side_by_side_share_blocks_and_each_of_their_cells_is_still_searched() -> None:
    boxes = np.array([(r, c, 32, 33) for r in (0, 44, 89, 133) for c in (3, 48, 92, 137)])
    each = [o for box in boxes for o in block_origins(tuple(box), LARGE_BLOCK, 32)]
    shared = covering_origins(boxes, LARGE_BLOCK, 32)
    assert set(shared) < set(each)
    assert len(shared) <= len(each) // 3
    step, half = LARGE_BLOCK - 31, 15
    shown = {(r + half + i, c + half + j) for r, c in shared for i in range(step) for j in range(step)}
    assert {(r, c) for t, left, h, w in boxes for r in range(t, t + h) for c in range(left, left + w)} <= shown
    assert covering_origins(boxes[:0], LARGE_BLOCK, 32) == []
    apart = np.array([(0, 0, 200, 33), (0, 500, 20, 20)])
    assert covering_origins(apart, LARGE_BLOCK, 32) == [
        o for box in apart for o in block_origins(tuple(box), LARGE_BLOCK, 32)
    ]


def test_the_cache_keeps_its_limit_and_gives_the_same_spectra_again() -> None:
    level = random_level(5, (200, 200))
    one_mb = 64 * 33 * 6 * 8 / 1e6
    cache = SpectrumCache(level, 2.5 * one_mb)
    first = cache.get(0, 0, SMALL_BLOCK)
    assert first is not None
    assert cache.get(0, 0, SMALL_BLOCK) is first
    for row in (64, 100, 120):
        cache.get(row, 0, SMALL_BLOCK)
        assert cache._bytes <= 2.5 * one_mb * 1e6
        kept = [s for s in cache._kept.values() if s is not None]
        assert cache._bytes == sum(s.features.nbytes + s.valid.nbytes for s in kept if s.valid is not None)
    assert cache.get(0, 0, SMALL_BLOCK) is first
    assert cache.get(1000, 1000, SMALL_BLOCK) is None


def test_a_scan_longer_than_the_cache_finds_its_beginning_kept_and_computes_the_same_again() -> None:
    level = random_level(5, (200, 200))
    cache = SpectrumCache(level, 2.5 * 64 * 33 * 6 * 8 / 1e6)
    rows = (0, 40, 80, 120)
    once, twice = ([cache.get(row, 0, SMALL_BLOCK) for row in rows] for _ in range(2))
    assert [a is b for a, b in zip(once, twice, strict=True)] == [True, False, False, False]
    for a, b in zip(once, twice, strict=True):
        assert a is not None
        assert b is not None
        np.testing.assert_array_equal(a.features, b.features)


def test_templates_taken_a_few_at_a_time_score_as_all_of_them_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    level = random_level(6)
    templates, masks = random_templates(7, count=7)
    templates[6], masks[6] = templates[2], masks[2]  # where two are equal the first of them is named
    origins = block_origins((0, 0, 47, 61), SMALL_BLOCK, 8)

    def found(templates_at_once: int, blocks_at_once: int) -> list[ScoreBlock]:
        monkeypatch.setattr("onboard.match.correlate._TEMPLATES_AT_ONCE", templates_at_once)
        monkeypatch.setattr("onboard.match.correlate._BLOCKS_AT_ONCE", blocks_at_once)
        return correlate(SpectrumCache(level, 0.0), templates, masks, origins, SMALL_BLOCK)

    whole = found(7, 64)
    assert {int(v) for block in whole for v in np.unique(block.template)} == {0, 1, 2, 3, 4, 5}
    for parts in (found(3, 64), found(2, 1)):
        assert [(b.row, b.col) for b in parts] == [(b.row, b.col) for b in whole]
        for a, b in zip(parts, whole, strict=True):
            np.testing.assert_allclose(a.score, b.score, atol=1e-6)
            assert (a.template == b.template).mean() > 0.999  # equal ones but for the last bit may change places


def test_a_search_under_many_hypotheses_holds_no_more_than_one_under_few() -> None:
    level = random_level(8, (200, 200), channels=8)
    origins = block_origins((0, 0, 200, 200), LARGE_BLOCK, 32)

    def peak_mb(count: int) -> float:
        templates, masks = random_templates(9, count, 32, 8)
        cache = SpectrumCache(level, 0.0)
        tracemalloc.start()
        try:
            correlate(cache, templates, masks, origins, LARGE_BLOCK)
            return tracemalloc.get_traced_memory()[1] / 1e6
        finally:
            tracemalloc.stop()

    assert peak_mb(72) < 1.1 * peak_mb(18)  # all spectra of 72 would be 38 MB, four times those of 18


@pytest.mark.parametrize("size", [SMALL_BLOCK, LARGE_BLOCK])
def test_spectra_are_those_of_a_plain_transform(size: int) -> None:
    picture = np.random.default_rng(1).normal(size=(size, size, 3)).astype(np.float32)
    wanted = np.fft.rfft2(picture.transpose(2, 0, 1).astype(np.float64)).reshape(3, -1)
    np.testing.assert_allclose(_spectra(picture), wanted, atol=1e-5 * np.abs(wanted).max())


def test_blocks_that_lie_wholly_on_imagery_are_scored_as_if_they_were_counted() -> None:
    rng = np.random.default_rng(2)
    level = level_of(rng.integers(-127, 128, (90, 90, 5), dtype=np.int8), np.full((90, 90), 255, np.uint8))
    templates, masks = random_templates(3)
    [inside] = correlate(SpectrumCache(level, 0.0), templates, masks, [(5, 5)], SMALL_BLOCK)
    holed = level_of(level.detail, level.detail_valid.copy())
    holed.detail_valid[5 + 63, 5 + 63] = 0  # the last cell: only the last place sees it
    [counted] = correlate(SpectrumCache(holed, 0.0), templates, masks, [(5, 5)], SMALL_BLOCK)
    np.testing.assert_allclose(inside.score[:50, :50], counted.score[:50, :50], atol=1e-6)


def bump(rows: int, cols: int, row: float, col: float, high: float, width: float = 2.0) -> np.ndarray:
    r, c = np.mgrid[:rows, :cols]
    return high * np.exp(-((r - row) ** 2 + (c - col) ** 2) / (2 * width**2))


def test_modes_are_peaks_between_cells_and_keep_their_distance_across_blocks() -> None:
    level = level_of(np.zeros((80, 80, 2), np.int8), np.full((80, 80), 255, np.uint8))
    first = bump(40, 40, 10.3, 11.8, 0.9) + bump(40, 40, 30.0, 30.0, 0.5) + bump(40, 40, 15.5, 12.0, 0.3, 1.0)
    second = bump(40, 40, 10.0, 4.0, 0.6) + bump(40, 40, 31.0, 0.0, 0.45)  # the last is a neighbour of the 0.5
    templates = np.full((40, 40), 3, np.int16)
    blocks = [ScoreBlock(0.5, 0.5, first, templates), ScoreBlock(0.5, 30.5, second, templates + 1)]
    heatmap = Heatmap.of(level, blocks)
    assert heatmap is not None
    modes = heatmap.modes(3, 6 * CELL_M)
    assert [m.template for m in modes] == [3, 4, 3]
    wanted = [level.enu_of(0.5 + 10.3, 0.5 + 11.8), level.enu_of(10.5, 34.5), level.enu_of(30.5, 30.5)]
    np.testing.assert_allclose([m.position_enu_m for m in modes], wanted, atol=0.12 * CELL_M)
    assert modes[0].score == pytest.approx(first.max())
    everything = heatmap.modes(50, 6 * CELL_M)
    for k, mode in enumerate(everything):
        assert all(np.linalg.norm(mode.position_enu_m - m.position_enu_m) > 5 * CELL_M for m in everything[:k])


def test_places_without_enough_map_have_no_say_in_the_heatmap() -> None:
    level = level_of(np.zeros((9, 9, 2), np.int8), np.full((9, 9), 255, np.uint8))
    score = np.full((5, 5), -1.0, np.float32)
    assert Heatmap.of(level, [ScoreBlock(0, 0, score, np.zeros((5, 5), np.int16))]) is None
    assert Heatmap.of(level, []) is None
    score[2, 3] = 0.4
    heatmap = Heatmap.of(level, [ScoreBlock(0, 0, score, np.zeros((5, 5), np.int16))])
    assert heatmap is not None
    assert heatmap.mean == pytest.approx(0.4)
    assert len(heatmap.modes(9, CELL_M)) == 1


def test_retrieval_is_the_inner_product_best_first() -> None:
    level = level_of(np.zeros((9, 9, 2), np.int8), np.full((9, 9), 255, np.uint8), tiles=50)
    queries = np.random.default_rng(1).normal(size=(3, 16)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    wanted = (queries @ np.asarray(level.descriptors, np.float32).T).max(axis=0)
    index = TileIndex(level)
    found, similarities = index.search(queries, 50)
    np.testing.assert_array_equal(found, np.argsort(-wanted, kind="stable"))
    np.testing.assert_allclose(similarities, wanted[found], atol=1e-6)
    np.testing.assert_array_equal(index.search(queries, 7)[0], found[:7])
    assert len(index.search(queries, 0)[0]) == 0


def test_a_point_has_the_similarity_of_the_nearest_retrieved_tile() -> None:
    tiles, similarities = np.array([[0.0, 0], [100, 0]]), np.array([0.9, 0.2])
    np.testing.assert_allclose(similarity_at(np.array([[10.0, 5], [90, 0]]), tiles, similarities), [0.9, 0.2])
    np.testing.assert_allclose(similarity_at(np.array([[10.0, 5]]), tiles[:0], similarities[:0]), [0.0])


def test_rerank_adds_the_retrieval_score_to_the_matching_score() -> None:
    modes = [Mode(np.array([0.0, 0]), 0.50, 0), Mode(np.array([100.0, 0]), 0.48, 1), Mode(np.array([200.0, 0]), 0.1, 2)]
    tiles = np.array([[0.0, 0], [100, 0], [200, 0]])
    assert [m.template for m in rerank(modes, tiles, np.array([0.1, 0.9, 1.0]))] == [1, 0, 2]
    assert [m.template for m in rerank(modes, tiles, np.array([0.5, 0.5, 0.5]))] == [0, 1, 2]
    assert [m.template for m in rerank(modes, tiles[:0], np.empty(0))] == [0, 1, 2]


def test_gradients_are_added_to_both() -> None:
    modes = [Mode(np.array([0.0, 0]), 0.50, 0), Mode(np.array([100.0, 0]), 0.48, 1), Mode(np.array([200.0, 0]), 0.1, 2)]
    tiles, gradients = np.array([[0.0, 0], [100, 0], [200, 0]]), np.array([0.0, 0.0, 0.41])
    ranked = rerank(modes, tiles[:0], np.empty(0), gradients)
    assert [m.template for m in ranked] == [2, 0, 1]
    assert [m.total for m in ranked] == pytest.approx([0.51, 0.50, 0.48])
    assert [m.template for m in rerank(modes, tiles, np.array([0.1, 0.9, 0.1]), gradients)] == [1, 2, 0]
    assert rerank([], tiles, np.zeros(3), np.empty(0)) == []


def test_a_template_has_no_mean_unit_norm_and_nothing_outside_its_mask() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((2, 8, 8)) > 0.4
    template = zero_mean(rng.normal(3, 1, (2, 8, 8, 4)).astype(np.float32), mask)
    np.testing.assert_allclose(template.sum(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose((template**2).sum(axis=(1, 2, 3)), 1, atol=1e-5)
    assert (template[~mask] == 0).all()
    texture = zero_mean(np.full((1, 8, 8, 4), 0.5, np.float32), mask[:1])
    assert np.abs(texture).max() < 1e-3  # one texture all over says nothing


def test_a_cell_counts_when_more_than_half_of_it_was_seen() -> None:
    mask = np.zeros((1, 16, 16), bool)
    mask[0, :8, :8] = True
    mask[0, 8:, :4] = True  # exactly half of a cell
    mask[0, 8:, 8:13] = True
    assert cell_mask(mask, 8)[0].tolist() == [[True, False], [False, True]]
