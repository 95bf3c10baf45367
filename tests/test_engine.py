"""The engine: what the shipped model promises, and model files that cannot be used."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import toy_world

from onboard.config import EngineConfig
from onboard.engine import SHIPPED_MODEL, Engine, ModelFacts, open_engine
from onboard.errors import EngineError

SIZES = {
    "format": "pilotage-overhead-1",
    "view_px": "64",
    "detail_stride": "8",
    "detail_channels": "3",
    "descriptor_dim": "5",
    "fine_stride": "4",
    "fine_channels": "3",
}


@pytest.fixture(scope="module")
def pictures(world: toy_world.World) -> tuple[np.ndarray, np.ndarray]:
    """Four pieces of ground (4, 256, 256, 3), the last one masked to a turned rectangle's worth of it."""
    corners = ((0, 0), (300, 100), (150, 500), (600, 600))
    images = np.stack([world.rgb[r : r + 256, c : c + 256] for r, c in corners])
    masks = np.ones((4, 256, 256), bool)
    masks[3, :64] = masks[3, :, 176:] = False
    images[3][~masks[3]] = 0
    return images, masks


def test_the_shipped_model_says_what_it_is(shipped_engine: Engine) -> None:
    facts = shipped_engine.facts
    assert (facts.view_px, facts.detail_stride, facts.fine_stride) == (256, 8, 4)
    assert len(facts.sha256) == 64
    assert "int8" in facts.metadata["precision"]
    assert facts.metadata["training_data"], "imagery under CC BY must be named in the file that it made"
    assert SHIPPED_MODEL.stat().st_size < 10e6


def test_outputs_have_the_shapes_of_the_facts_and_unit_norms(
    shipped_engine: Engine, pictures: tuple[np.ndarray, np.ndarray]
) -> None:
    facts, found = shipped_engine.facts, shipped_engine.embed(*pictures)
    assert found.descriptors.shape == (4, facts.descriptor_dim)
    assert found.detail.shape == (4, 32, 32, facts.detail_channels)
    assert found.fine.shape == (4, 64, 64, facts.fine_channels)
    for part in (found.descriptors, found.detail, found.fine):
        assert part.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(part, axis=-1), 1.0, atol=2e-3)


def test_a_batch_says_what_its_pictures_say_alone(
    shipped_engine: Engine, pictures: tuple[np.ndarray, np.ndarray]
) -> None:
    images, masks = pictures
    together = shipped_engine.embed(images, masks)
    for k in range(4):
        alone = shipped_engine.embed(images[k : k + 1], masks[k : k + 1])
        for name in ("descriptors", "detail", "fine"):
            np.testing.assert_allclose(getattr(alone, name)[0], getattr(together, name)[k], atol=1e-3)


def test_the_same_picture_twice_gives_the_same_bytes(
    shipped_engine: Engine, pictures: tuple[np.ndarray, np.ndarray]
) -> None:
    first, again = shipped_engine.embed(*pictures), shipped_engine.embed(*pictures)
    assert first.detail.tobytes() == again.detail.tobytes()
    assert first.fine.tobytes() == again.fine.tobytes()


def test_what_lies_outside_the_mask_does_not_count(
    shipped_engine: Engine, pictures: tuple[np.ndarray, np.ndarray]
) -> None:
    image, mask = pictures[0][3:], pictures[1][3:]
    changed = image.copy()
    changed[~mask] = np.random.default_rng(0).integers(0, 256, (int((~mask).sum()), 3), dtype=np.uint8)
    plain, other = shipped_engine.embed(image, mask), shipped_engine.embed(changed, mask)
    inside = (slice(None), slice(10, 32), slice(0, 20))  # cells more than a cell from the mask's edge
    assert np.abs(plain.detail[inside] - other.detail[inside]).max() < 0.05
    assert float((plain.descriptors * other.descriptors).sum()) > 0.99
    unmasked = shipped_engine.embed(changed, np.ones_like(mask))  # and the mask is what keeps it out
    assert np.abs(plain.detail - unmasked.detail)[inside].max() > 0.05


def test_another_light_changes_the_features_less_than_another_place(
    shipped_engine: Engine, pictures: tuple[np.ndarray, np.ndarray]
) -> None:
    images, masks = pictures[0][:2], pictures[1][:2]
    darker = (images * 0.7 + 8).astype(np.uint8)
    here, dark = shipped_engine.embed(images, masks), shipped_engine.embed(darker, masks)
    same = (here.detail * dark.detail).sum(axis=-1).mean()
    other = (here.detail[0] * dark.detail[1]).sum(axis=-1).mean()
    assert same > 0.9
    assert other < 0.6


# ---- files that cannot be used


def assert_one_line(error: pytest.ExceptionInfo[EngineError], *words: str) -> None:
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def tiny_onnx(
    path: Path, metadata: dict[str, str], outputs: tuple[str, ...] = ("descriptor", "detail", "fine")
) -> Path:
    """An ONNX file whose outputs are casts of its image."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [helper.make_node("Cast", ["image"], [name], to=kinds.FLOAT) for name in outputs]
    graph = helper.make_graph(
        [*nodes, helper.make_node("Identity", ["mask"], ["mask_again"])],
        "tiny",
        [
            helper.make_tensor_value_info("image", kinds.UINT8, ["b", 64, 64, 3]),
            helper.make_tensor_value_info("mask", kinds.UINT8, ["b", 64, 64]),
        ],
        [helper.make_tensor_value_info(name, kinds.FLOAT, ["b", 64, 64, 3]) for name in outputs]
        + [helper.make_tensor_value_info("mask_again", kinds.UINT8, ["b", 64, 64])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def test_no_file_is_said_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as error:
        open_engine(tmp_path / "absent.onnx")
    assert_one_line(error, "no model file", "absent.onnx", "--model")


@pytest.mark.parametrize("content", [b"", b"this is no model", b"\x08\x07" * 100], ids=["empty", "text", "noise"])
def test_a_file_that_is_no_onnx_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(EngineError) as error:
        open_engine(tmp_path / "broken.onnx")
    assert_one_line(error, "broken.onnx")


def test_half_a_model_is_refused_in_one_line(tmp_path: Path) -> None:
    whole = SHIPPED_MODEL.read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EngineError) as error:
        open_engine(tmp_path / "half.onnx")
    assert_one_line(error, "half.onnx", "export it again")


def test_somebody_elses_onnx_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as error:
        open_engine(tiny_onnx(tmp_path / "other.onnx", {}))
    assert_one_line(error, "not a Pilotage model", "pilotage export")


@pytest.mark.parametrize("change", [{"fine_channels": None}, {"view_px": "many"}])
def test_metadata_without_its_sizes_is_refused(change: dict[str, str | None], tmp_path: Path) -> None:
    metadata = {k: v for k, v in (SIZES | change).items() if v is not None}
    with pytest.raises(EngineError) as error:
        open_engine(tiny_onnx(tmp_path / "sizeless.onnx", metadata))
    assert_one_line(error, "model metadata", next(iter(change)) if None in change.values() else "many")


def test_a_model_that_lacks_an_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as error:
        open_engine(tiny_onnx(tmp_path / "short.onnx", SIZES, ("descriptor", "detail")))
    assert_one_line(error, "model inputs and outputs", "fine")


def test_a_model_with_all_it_needs_is_opened(tmp_path: Path) -> None:
    engine = open_engine(tiny_onnx(tmp_path / "tiny.onnx", SIZES))
    assert (engine.facts.name, engine.facts.view_px) == ("tiny", 64)
    assert engine.backend.startswith("onnxruntime")


def test_an_engine_that_is_not_built_in_is_refused() -> None:
    with pytest.raises(EngineError) as error:
        open_engine(None, EngineConfig(backend="abacus"))
    assert_one_line(error, "abacus", "onnxruntime")


def test_facts_carry_the_hash_of_the_very_file(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        (tmp_path / "m.onnx").write_bytes(content)
        facts = ModelFacts.from_metadata(tmp_path / "m.onnx", SIZES)
        assert facts.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("count", [2, 3, 5, 9, 16, 17, 28])
def test_pictures_go_through_the_cpu_in_few_slices_of_which_none_holds_one_alone(count: int) -> None:
    from onboard.engine.onnx import slices

    lengths = [part.stop - part.start for part in slices(count, 4)]
    assert sum(lengths) == count
    assert len(lengths) == -(-count // 4)
    assert 2 <= min(lengths) <= max(lengths) <= 4


def test_numbers_do_not_depend_on_how_many_pictures_come_at_once(shipped_engine: Engine) -> None:
    rng = np.random.default_rng(3)
    images, masks = rng.integers(0, 256, (9, 256, 256, 3), dtype=np.uint8), np.ones((9, 256, 256), bool)
    whole, part = shipped_engine.embed(images, masks), shipped_engine.embed(images[3:7], masks[3:7])
    for name in ("descriptors", "detail", "fine"):
        np.testing.assert_array_equal(getattr(whole, name)[3:7], getattr(part, name))
