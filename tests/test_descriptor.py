"""A new descriptor on a model that flies: what is learnt, that it goes on where it stopped, what it may not touch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import toy_world
from toy_imagery import toy_data

from onboard.engine import SHIPPED_MODEL, open_engine
from onboard.errors import ConfigError, EngineError
from training.data.ground import Ground

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
torch.set_num_threads(2)

from typer.testing import CliRunner  # noqa: E402

from export import descriptor as splice  # noqa: E402
from export.cli import app as export_app  # noqa: E402
from export.quantize import MIN_CALIBRATION  # noqa: E402
from training.descriptor.draw import VARIANTS, LayoutConfig, draw_layout  # noqa: E402
from training.descriptor.head import DescriptorHead, HeadConfig, load_head, save_head  # noqa: E402
from training.descriptor.heldback import EACH, make_gallery, recalls, to_numbers  # noqa: E402
from training.descriptor.learn import LearnConfig, learn  # noqa: E402
from training.descriptor.store import CELLS, Store, cell_share, fill, middle, sha256_of  # noqa: E402
from training.descriptor.trunk import FrozenTrunk, Rounding  # noqa: E402
from training.sampling import SamplingConfig  # noqa: E402

TINY = HeadConfig(8, 12, 4, 6, 16)
BRIEF = LearnConfig(12, 8, warm_up=2, sampling=SamplingConfig("similarity", 4, 6, 1), judge_every=1000)


@pytest.fixture(scope="module")
def grounds() -> list[Ground]:
    """Two pieces of toy ground on two dates."""
    rgb = toy_world.make_world(seed=5, size_px=640).rgb
    pieces = [rgb[:320, :320], rgb[320:, 320:]]
    return [Ground(f"toy/{k}", (p, 255 - p), np.ones((320, 320), bool), 0.6) for k, p in enumerate(pieces)]


def test_a_view_lies_within_a_quarter_of_a_window_of_its_tile_and_both_show_ground(grounds: list[Ground]) -> None:
    config = LayoutConfig(weather_share=0.0)
    for seed in range(8):
        layout = draw_layout(grounds[0], grounds[1], seed % VARIANTS, np.random.default_rng(seed), config)
        assert layout.tile[1].mean() >= config.least_valid
        for view, mask in (layout.large, layout.small):
            assert view.shape == (256, 256, 3)
            assert mask[100:156, 100:156].mean() > 0.5
            assert not view[~mask].any()
        assert layout.small[1].sum() < layout.large[1].sum()


def test_the_border_of_a_view_that_is_left_out_is_empty(grounds: list[Ground]) -> None:
    for seed in range(6):
        layout = draw_layout(grounds[0], grounds[1], 0, np.random.default_rng(seed))
        for kind in ("large", "small"):
            share = cell_share(getattr(layout, kind)[1][None])
            assert middle(share, CELLS[kind]).sum() >= 0.97 * share.sum(dtype=float)


def test_features_are_kept_as_the_model_sees_them_and_filling_goes_on(grounds: list[Ground], tmp_path: Path) -> None:
    trunk, sha256 = FrozenTrunk(SHIPPED_MODEL), "ab"
    store = fill(tmp_path / "f", trunk, sha256, grounds, 3, 1)
    assert (len(store), trunk.channels) == (3, 128)
    layout = draw_layout(
        grounds[store.label[0] // VARIANTS], grounds[_donor(0)], int(store.label[0] % VARIANTS), _after_donor(0)
    )
    np.testing.assert_array_equal(store.features["tile"][0], trunk.features(*(x[None] for x in layout.tile))[0])
    before = np.array(store.features["small"])
    np.testing.assert_array_equal(fill(tmp_path / "f", trunk, sha256, grounds, 3, 1).features["small"], before)
    with pytest.raises(ConfigError, match="model_sha256"):
        fill(tmp_path / "f", trunk, "cd", grounds, 3, 1)


def _after_donor(number: int) -> np.random.Generator:
    rng = np.random.default_rng([1, number])
    rng.integers(2)
    return rng


def _donor(number: int) -> int:
    return int(np.random.default_rng([1, number]).integers(2))


def toy_store(places: int = 24, channels: int = 8) -> Store:
    """Features that tell places: of each place a vector, in all of its cells, under noise."""
    rng = np.random.default_rng(0)
    own = rng.integers(0, 200, (places, channels, 1, 1))
    noise = {kind: rng.integers(0, 50, (places, channels, n, n)) for kind, n in CELLS.items()}
    features = {kind: (own + noise[kind]).astype(np.uint8) for kind in CELLS}
    masks = {kind: np.full((places, n, n), 255, np.uint8) for kind, n in CELLS.items()}
    return Store(features, masks, np.arange(places, dtype=np.int32), Rounding(0.02, 0))


def test_the_head_learns_to_tell_places(tmp_path: Path) -> None:
    lines: list[str] = []
    learn(toy_store(), TINY, dataclasses.replace(BRIEF, steps=60), tmp_path, {}, None, lines.append)
    head, facts = load_head(tmp_path / "head.pt")
    store = toy_store()
    with torch.no_grad():
        view, tile = (head(*to_numbers(store.features[k], store.masks[k], store.rounding)) for k in ("small", "tile"))
    assert facts["steps"] == 60
    assert ((view @ tile.T).argmax(dim=1) == torch.arange(24)).float().mean() > 0.8


def test_an_interrupted_training_ends_with_the_same_head(tmp_path: Path) -> None:
    quiet = lambda line: None  # noqa: E731
    learn(toy_store(), TINY, BRIEF, tmp_path / "whole", {}, None, quiet)
    for stop in (5, 0):
        learn(toy_store(), TINY, dataclasses.replace(BRIEF, stop_after=stop), tmp_path / "cut", {}, None, quiet)
    whole, cut = (load_head(tmp_path / name / "head.pt")[0].state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_cells_alone_give_what_the_whole_picture_gives() -> None:
    torch.manual_seed(0)
    head = DescriptorHead(TINY)
    head.rings.data.normal_()
    trunk, mask = torch.rand(2, 8, 16, 16), torch.rand(2, 1, 16, 16)
    weights = (mask * head.importance(16)).flatten(1)
    found = head.of_cells(trunk.flatten(2).transpose(1, 2), weights)
    np.testing.assert_allclose(found.detach(), head(trunk, mask).detach(), atol=1e-5)
    np.testing.assert_allclose(found.detach().norm(dim=1), 1.0, atol=1e-3)


class Colours:
    """In place of a trunk: eight channels, each the brightness of a cell."""

    channels, rounding = 8, Rounding(1 / 255, 0)

    def features(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        cells = images.reshape(len(images), 32, 8, 32, 8, 3).mean(axis=(2, 4, 5)) * cell_share(masks) / 255
        return np.repeat(cells[:, None].astype(np.uint8), 8, axis=1)


def test_views_of_places_held_back_lie_in_the_tiles_that_are_right(tmp_path: Path) -> None:
    gallery = make_gallery(toy_data(tmp_path), Colours())  # type: ignore[arg-type]
    tiles, _ = gallery.tiles
    for kind, right in gallery.right.items():
        assert len(right) == len(gallery.views[kind][0]) == 3 * EACH
        assert gallery.holding[kind].shape == (len(right), len(tiles))
        assert gallery.holding[kind][np.arange(len(right)), right].all()
        assert gallery.holding[kind].sum(axis=1).max() <= 4
    found = recalls(DescriptorHead(TINY), gallery)
    assert set(found) == {f"{kind} {name}" for kind in ("large", "small") for name in ("@1", "@5", "@1%", "holds")}
    assert all(0 <= share <= 1 for share in found.values())


@pytest.fixture(scope="module")
def views(grounds: list[Ground]) -> tuple[np.ndarray, np.ndarray]:
    layouts = [draw_layout(grounds[0], grounds[1], k, np.random.default_rng(k)) for k in range(MIN_CALIBRATION // 2)]
    seen = [one for layout in layouts for one in (layout.tile, layout.large)]
    return np.stack([image for image, _ in seen]), np.stack([mask for _, mask in seen])


@pytest.fixture(scope="module")
def headed(views: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("headed")
    fitting = DescriptorHead(HeadConfig(FrozenTrunk(SHIPPED_MODEL).channels))
    save_head(folder / "head.pt", fitting, {"model_sha256": sha256_of(SHIPPED_MODEL), "learnt_from": "toys"})
    frames = list(zip(*views, strict=True))
    return folder / "head.pt", splice.with_head(folder / "head.pt", SHIPPED_MODEL, folder / "new.int8.onnx", frames)


def test_another_head_leaves_detail_and_fine_as_they_are_bit_for_bit(headed: tuple[Path, Path]) -> None:
    rng = np.random.default_rng(4)
    images, masks = rng.integers(0, 256, (5, 256, 256, 3), dtype=np.uint8), rng.random((5, 256, 256)) > 0.2
    old, new = open_engine(SHIPPED_MODEL).embed(images, masks), open_engine(headed[1]).embed(images, masks)
    np.testing.assert_array_equal(new.detail, old.detail)
    np.testing.assert_array_equal(new.fine, old.fine)
    beside = new.descriptors[:, : old.descriptors.shape[1]]
    np.testing.assert_allclose(beside, old.descriptors * np.sqrt(1 - splice.SHARE), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(new.descriptors, axis=1), 1.0, atol=1e-3)


def test_its_descriptor_is_that_of_torch(headed: tuple[Path, Path], views: tuple[np.ndarray, np.ndarray]) -> None:
    trunk, (head, _) = FrozenTrunk(SHIPPED_MODEL), load_head(headed[0])
    with torch.no_grad():
        wanted = head(*to_numbers(trunk.features(*views), cell_share(views[1]), trunk.rounding)).numpy()
    found = open_engine(headed[1]).embed(*views).descriptors[:, -256:] / np.sqrt(splice.SHARE)
    assert (found * wanted).sum(axis=1).mean() > 0.995


def test_with_all_of_the_share_the_old_head_is_gone(
    headed: tuple[Path, Path], views: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    out = splice.with_head(headed[0], SHIPPED_MODEL, tmp_path / "alone.onnx", list(zip(*views, strict=True)), 1.0)
    beside, alone = (open_engine(path).embed(*views) for path in (headed[1], out))
    np.testing.assert_allclose(alone.descriptors, beside.descriptors[:, -256:] / np.sqrt(splice.SHARE), atol=1e-5)
    np.testing.assert_array_equal(alone.fine, beside.fine)
    assert open_engine(out).facts.descriptor_dim == 256
    assert out.stat().st_size < headed[1].stat().st_size


def test_the_file_says_whose_head_it_has_and_is_not_larger_than_it_may_be(headed: tuple[Path, Path]) -> None:
    head, model = headed
    facts = open_engine(model).facts
    old = open_engine(SHIPPED_MODEL).facts
    assert facts.metadata["descriptor_learnt_from"] == "toys"
    assert facts.descriptor_dim == old.descriptor_dim + 256
    assert facts.metadata["descriptor_head_share"] == str(splice.SHARE)
    assert facts.metadata["descriptor_head_sha256"] == sha256_of(head)
    assert facts.metadata["descriptor_onto_sha256"] == old.sha256
    assert {key: facts.metadata[key] for key in ("training_data", "precision", "runtime")} == {
        key: old.metadata[key] for key in ("training_data", "precision", "runtime")
    }
    assert model.stat().st_size < SHIPPED_MODEL.stat().st_size + 0.65e6
    assert sorted(path.name for path in model.parent.iterdir()) == ["head.pt", "new.int8.onnx"]


def test_a_head_of_another_model_is_refused(tmp_path: Path, views: tuple[np.ndarray, np.ndarray]) -> None:
    frames = list(zip(*views, strict=True))
    save_head(tmp_path / "other.pt", DescriptorHead(), {"model_sha256": "00"})
    save_head(tmp_path / "tiny.pt", DescriptorHead(TINY), {})
    for name, said in (
        ("other.pt", "head of another model"),
        ("tiny.pt", "8 channels; expected 128"),
        ("none.pt", "no head"),
    ):
        with pytest.raises(EngineError, match=said):
            splice.with_head(tmp_path / name, SHIPPED_MODEL, tmp_path / "out.onnx", frames)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.pt", "tiny.pt"]


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    run = CliRunner().invoke(export_app, ["descriptor", "none.pt", "--onto", str(SHIPPED_MODEL), "--out", "x.onnx"])
    assert isinstance(run.exception, EngineError)
