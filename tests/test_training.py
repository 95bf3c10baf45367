"""Training: losses held against plain sums, pairs whose truth is true, and a training that goes on where it stopped."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import toy_world
from affine import Affine

from training.data.ground import Ground, cut, split
from training.data.pairs import Pair, PairConfig, displacements, draw_pair, lies_px
from training.data.rendered import RenderedPairs, _turn, _turn_offset, make_sample
from training.data.stream import Mixture, PairStream
from training.renderer.pairs import render_pairs
from training.renderer.place import generate_place

torch = pytest.importorskip("torch")
torch.set_num_threads(2)

from training import losses  # noqa: E402
from training.model import ModelConfig, OverheadNet  # noqa: E402
from training.train import TrainConfig, learning_rate, train, tuning  # noqa: E402


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def smooth_ground(batch: int, channels: int, size: int) -> torch.Tensor:
    """Features whose neighbours resemble each other, as real ones do."""
    blurred = torch.nn.functional.avg_pool2d(random(1, batch, channels, size + 4, size + 4), 5, 1)
    return torch.nn.functional.normalize(blurred, dim=1)


def masks(seed: int, *shape: int) -> torch.Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) > 0.2).float()


# ---- losses


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


# ---- the network


def small() -> ModelConfig:
    return ModelConfig(128, 8, 12, 16, 2, 6, 5, 20)


def test_the_network_keeps_its_promises_of_shape_norm_and_mask() -> None:
    torch.manual_seed(0)
    net = OverheadNet(small()).train()
    for _ in range(20):
        net(torch.rand(4, 3, 128, 128) * 255, torch.ones(4, 1, 128, 128))
    net.eval()
    image, mask = torch.rand(2, 3, 128, 128) * 255, torch.ones(2, 1, 128, 128)
    mask[:, :, :, 64:] = 0
    with torch.no_grad():
        descriptor, detail, fine = net(image, mask)
        image[:, :, :, 64:] = 0
        again = net(image, mask)
    assert (descriptor.shape, detail.shape, fine.shape) == ((2, 20), (2, 6, 16, 16), (2, 5, 32, 32))
    for part in (descriptor, detail, fine):
        np.testing.assert_allclose(part.norm(dim=1).numpy(), 1.0, atol=1e-3)
    np.testing.assert_allclose(again[0].numpy(), descriptor.numpy(), atol=1e-5)
    np.testing.assert_allclose(again[1].numpy(), detail.numpy(), atol=1e-5)


# ---- pairs


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


# ---- a training


def test_the_learning_rate_warms_up_and_ends_low() -> None:
    config = TrainConfig(steps=1000, warm_up=100, learning_rate=1.0)
    rates = [learning_rate(step, config) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert int(np.argmax(rates)) in (99, 100)
    assert rates[-1] < 0.03
    assert np.all(np.diff(rates[100:]) <= 0)


def toy_data(root: Path) -> Path:
    """Imagery in the layout that the trainer reads: two places in each of three cities, a larger orthophoto."""
    from training.data.stream import CITIES

    def write(path: Path, rgb: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"crs": "EPSG:32611", "transform": Affine(0.6, 0, 400000, 0, -0.6, 3700000), "dtype": "uint8"}
        with rasterio.open(path, "w", driver="GTiff", height=len(rgb), width=len(rgb), count=3, **facts) as file:
            file.write(np.moveaxis(rgb, -1, 0))

    for number, city in enumerate(CITIES):
        for place in range(2):
            rgb = toy_world.make_world(seed=10 * number + place, size_px=256).rgb
            for year, light in (("2016", 1.0), ("2018", 0.8)):
                write(root / "naip" / city / f"{place:03d}_{year}.tif", (rgb * light).astype(np.uint8))
    write(root / "namie" / "orthophoto_2017.tif", toy_world.make_world(seed=50, size_px=1024).rgb)
    return root


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["model"]


def test_a_training_learns_and_one_that_was_interrupted_ends_with_the_same_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(toy_data(tmp_path / "data"))
    config = TrainConfig(data=data, out=str(tmp_path / "run"), steps=4, batch=2, workers=0, warm_up=1)
    first = train(dataclasses.replace(config, stop_after=2))
    before = tensors(first)
    assert torch.load(first, weights_only=True)["step"] == 2
    assert "continuing" not in capsys.readouterr().out
    assert train(config) == first
    assert "continuing from step 2" in capsys.readouterr().out
    after = tensors(first)
    changed = [k for k, v in before.items() if v.is_floating_point() and not torch.equal(v, after[k])]
    assert len(changed) > 0.8 * sum(v.is_floating_point() for v in before.values())
    assert all(torch.isfinite(v).all() for v in after.values())
    whole = tensors(train(dataclasses.replace(config, out=str(tmp_path / "whole"))))
    assert all(torch.equal(after[k], whole[k]) for k in whole)
    assert list((tmp_path / "run").glob("*.partial")) == []


def test_a_tuning_starts_from_the_weights_that_it_is_given(tmp_path: Path) -> None:
    data = str(toy_data(tmp_path / "data"))
    config = TrainConfig(data=data, out=str(tmp_path / "run"), steps=1, batch=2, workers=0, warm_up=1)
    first = train(config)
    still = dataclasses.replace(
        tuning(first), data=data, out=str(tmp_path / "tuned"), steps=1, batch=2, workers=0, learning_rate=0.0
    )
    tuned = tensors(train(still))
    learnt = [k for k in tuned if "running" not in k and "num_batches" not in k]
    assert all(torch.equal(tuned[k], tensors(first)[k]) for k in learnt)


def test_a_pair_is_the_same_whoever_draws_it_and_the_canvas_grows_once(tmp_path: Path) -> None:
    mixture = Mixture(str(toy_data(tmp_path)), small_share=0.5)
    one, other = (PairStream(mixture, steps=4, batch=3, seed=5) for _ in range(2))
    assert len(one) == 12
    _ = other[0], other[3]
    for index in (11, 7):
        for key, value in one[index].items():
            np.testing.assert_array_equal(value, other[index][key])
    assert [one[i]["image"].shape[-1] for i in (0, 5, 6, 11)] == [192, 192, 256, 256]
    assert not np.array_equal(one[1]["image"], one[2]["image"])


def test_training_without_imagery_is_refused_in_one_line(tmp_path: Path) -> None:
    from onboard.errors import ConfigError

    with pytest.raises(ConfigError, match="no training imagery") as error:
        train(TrainConfig(data=str(tmp_path), out=str(tmp_path / "run")))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
