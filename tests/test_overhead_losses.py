"""The losses of the overhead network, held against plain sums."""

from __future__ import annotations

import math

import numpy as np
import pytest

from training.data.pairs import displacements

torch = pytest.importorskip("torch")
torch.set_num_threads(2)

from training import losses  # noqa: E402


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def smooth_ground(batch: int, channels: int, size: int) -> torch.Tensor:
    """Features whose neighbours resemble each other, as real ones do."""
    blurred = torch.nn.functional.avg_pool2d(random(1, batch, channels, size + 4, size + 4), 5, 1)
    return torch.nn.functional.normalize(blurred, dim=1)


def masks(seed: int, *shape: int) -> torch.Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) > 0.2).float()


def test_retrieval_is_infonce_with_smoothed_labels_as_computed_by_hand() -> None:
    view, tile = (torch.nn.functional.normalize(random(k, 4, 6), dim=1) for k in (1, 2))
    v, t = view.double().numpy(), tile.double().numpy()
    target = np.full((4, 4), 0.1 / 4) + np.eye(4) * 0.9

    def cross_entropy(asked: np.ndarray, wanted: np.ndarray) -> float:
        across, beside = 7.0 * asked @ wanted.T, 7.0 * asked @ asked.T
        costs = []
        for i in range(4):  # the other side, and all of the own side but oneself
            rivals = np.exp(across[i]).sum() + np.exp(np.delete(beside[i], i)).sum()
            costs.append(-(target[i] * (across[i] - np.log(rivals))).sum())
        return float(np.mean(costs))

    wanted = 0.5 * (cross_entropy(v, t) + cross_entropy(t, v))
    assert float(losses.retrieval_loss(view, tile, torch.tensor(7.0))) == pytest.approx(wanted, abs=1e-5)


def test_the_gaussian_truth_sums_to_one_and_lies_where_it_should() -> None:
    displacement = torch.tensor([[0.0, 0.0], [2.4, -1.3], [9.0, 0.0]])  # the last lies outside
    truth = losses.gaussian_truth(displacement, 5, 0.8)
    np.testing.assert_allclose(truth[:2].sum(dim=(1, 2)).numpy(), 1.0, atol=1e-5)
    axis = torch.arange(-5, 6).float()
    middle = torch.stack([(truth[1].sum(dim=1) * axis).sum(), (truth[1].sum(dim=0) * axis).sum()])
    np.testing.assert_allclose(middle.numpy(), [2.4, -1.3], atol=0.02)
    assert torch.isfinite(truth).all()


def test_correlation_by_spectra_is_correlation_cell_by_cell() -> None:
    size, reach = 6, 3
    template_mask, map_mask = masks(3, 2, 1, size, size), masks(4, 3, 1, size, size)
    templates = losses.zero_mean_template(random(1, 2, 4, size, size), template_mask)
    maps = random(2, 3, 4, size, size) * map_mask
    scores, share = losses.correlate(templates, template_mask, maps, map_mask, reach)
    assert scores.shape == share.shape == (2, 3, 7, 7)
    for q in range(2):
        total = float(template_mask[q].sum())
        for m in range(3):
            for dr in range(-reach, reach + 1):
                for dc in range(-reach, reach + 1):
                    score = count = 0.0
                    for r in range(size):
                        for c in range(size):
                            if 0 <= r + dr < size and 0 <= c + dc < size:
                                score += float(templates[q, :, r, c] @ maps[m, :, r + dr, c + dc])
                                count += float(template_mask[q, 0, r, c] * map_mask[m, 0, r + dr, c + dc])
                    at = (q, m, dr + reach, dc + reach)
                    assert float(share[at]) == pytest.approx(count / total, abs=1e-5)
                    assert float(scores[at]) == pytest.approx(score / math.sqrt(max(count, 0.25 * total)), abs=1e-5)


def test_a_gradient_flows_through_the_correlation_to_both_sides() -> None:
    template, tile = random(1, 2, 2, 3, 3).double().requires_grad_(), random(2, 2, 2, 3, 3).double().requires_grad_()
    ones = torch.ones(2, 1, 3, 3).double()
    assert torch.autograd.gradcheck(
        lambda a, b: losses.correlate(a, ones, b, ones, 1)[0], (template, tile), check_undefined_grad=False
    )


def test_a_view_that_lies_right_costs_less_than_one_that_lies_wrong() -> None:
    ground = smooth_ground(3, 8, 48)
    tile, view = ground[:, :, 8:40, 8:40], ground[:, :, 11:43, 6:38]  # the view's middle lies at row +3, col -2
    ones = torch.ones(3, 1, 32, 32)
    scores, share = losses.correlate(losses.zero_mean_template(view, ones), ones, tile, ones, 6)

    def cost(row: float, col: float) -> float:
        truth = losses.gaussian_truth(torch.tensor([[row, col]]).repeat(3, 1), 6, 0.6)
        return float(losses.matching_loss(scores, share, truth, torch.tensor(30.0)))

    assert cost(3, -2) + 2.0 < min(cost(-3, 2), cost(3, 2), cost(-2, 3), cost(0, 0))


STRIDE = 4


def shifted(row: float, col: float, turn_rad: float = 0.0, side_px: int = 64 * STRIDE) -> torch.Tensor:
    """(2, 3, 3): view pixels turned about the middle, then moved by so many cells."""
    middle, c, s = (side_px - 1) / 2, math.cos(turn_rad), math.sin(turn_rad)
    linear = np.array([[c, -s], [s, c]])
    moved = np.array([middle + col * STRIDE, middle + row * STRIDE]) - linear @ [middle, middle]
    matrix = np.vstack([np.hstack([linear, moved[:, None]]), [0, 0, 1]])
    return torch.tensor(matrix, dtype=torch.float32).repeat(2, 1, 1)


def patch_cost(view: torch.Tensor, tile: torch.Tensor, told: torch.Tensor, spoilt: slice | None = None) -> float:
    """L_M under a homography that is told; of the field's columns `spoilt` nothing is known."""
    torch.manual_seed(0)
    ones = torch.ones(2, 1, 64, 64)
    field = np.stack([displacements(one.double().numpy(), 64 * STRIDE) for one in told]).transpose(0, 3, 1, 2)
    middle = torch.tensor(field[:, :, 15:17, 15:17].mean(axis=(2, 3)))
    if spoilt is not None:
        field[..., spoilt] = np.nan
    scale = torch.tensor(20.0)
    return float(losses.patch_matching_loss(view, ones, tile, ones, torch.tensor(field), middle, scale, STRIDE))


def test_patches_find_the_offset_that_was_told_and_not_its_opposite() -> None:
    ground = smooth_ground(2, 6, 96)
    tile, view = ground[:, :, 16:80, 16:80], ground[:, :, 21:85, 12:76]  # the view's middle lies at row +5, col -4
    wrong = [patch_cost(view, tile, shifted(*to)) for to in ((-5, 4), (5, 4), (-4, 5))]
    assert patch_cost(view, tile, shifted(5, -4)) + 2.0 < min(wrong)


def test_each_patch_of_a_turned_view_has_a_truth_of_its_own() -> None:
    tile = smooth_ground(2, 6, 64)
    turn = math.radians(5.0)  # cells at the edge move by 2.5
    grid = torch.nn.functional.affine_grid(
        torch.tensor([[math.cos(turn), -math.sin(turn), 0.0], [math.sin(turn), math.cos(turn), 0.0]]).repeat(2, 1, 1),
        [2, 6, 64, 64],
        align_corners=False,
    )
    view = torch.nn.functional.grid_sample(tile, grid, align_corners=False)
    right, level, opposite = (patch_cost(view, tile, shifted(0, 0, sign * turn)) for sign in (1, 0, -1))
    assert right + 0.3 < level < opposite


def test_a_field_is_that_of_the_homography_at_each_eighth_pixel() -> None:
    matrix = shifted(2.0, -1.5, math.radians(3.0))[0].double().numpy()
    field = displacements(matrix, 64 * STRIDE)
    for row, col in ((0, 0), (3, 20), (31, 7)):
        at = np.array([8 * col + 3.5, 8 * row + 3.5, 1.0])
        np.testing.assert_allclose(field[row, col], ((matrix @ at)[:2] - at[:2])[::-1], atol=1e-4)


def test_a_patch_lies_where_the_greater_part_of_it_lies_and_nowhere_if_little_is_known() -> None:
    field = torch.zeros(1, 2, 16, 16)
    field[:, 0, :8, :8] = 6.0
    field[:, :, :3, :8] = 40.0  # a roof in the first patch
    field[:, :, 8:13, 8:] = math.nan
    lies, known = losses.patch_displacements(field, 2)
    assert lies[0, :3].tolist() == [[6.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    assert known.tolist() == [[True, True, True, False]]


def test_patches_of_which_nobody_knows_where_they_lie_have_no_say() -> None:
    ground = smooth_ground(2, 6, 96)
    tile, view = ground[:, :, 16:80, 16:80], ground[:, :, 21:85, 12:76]
    wrong = view.clone()
    wrong[:, :, :16, 48:] = ground[:, :, 70:86, 70:86]  # a patch of the last columns shows other ground
    right = shifted(5, -4)
    assert patch_cost(wrong, tile, right) > patch_cost(view, tile, right) + 0.01
    assert patch_cost(wrong, tile, right, slice(24, 32)) == pytest.approx(patch_cost(view, tile, right, slice(24, 32)))
    assert patch_cost(view, tile, right, slice(None)) == 0.0


@pytest.mark.parametrize("missing", ["ground", "truth"])
def test_a_batch_without_a_usable_patch_costs_nothing_and_can_be_learned_from(missing: str) -> None:
    view = random(1, 2, 4, 64, 64).requires_grad_()
    mask = torch.zeros(2, 1, 64, 64) if missing == "ground" else torch.ones(2, 1, 64, 64)
    field = torch.full((2, 2, 32, 32), 0.0 if missing == "ground" else math.nan)
    tile = random(2, 2, 4, 64, 64)
    scale = torch.tensor(12.0)
    loss = losses.patch_matching_loss(view, mask, tile, mask, field, torch.zeros(2, 2), scale, STRIDE)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(view.grad.abs().max()) == 0.0


def test_temperatures_are_kept_below_a_hundred() -> None:
    temperatures = losses.Temperatures()
    with torch.no_grad():
        temperatures.log_scale += 10
    assert float(temperatures().max()) <= 100.01
