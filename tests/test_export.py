"""Export: what flies is what was trained, and it says of itself what it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toy_world

from onboard.engine import SHIPPED_MODEL, Embeddings, open_engine
from onboard.errors import EngineError

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

import dataclasses  # noqa: E402

import onnxruntime  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from export import onnx as exporter  # noqa: E402
from export.cli import app as export_app  # noqa: E402
from export.compact import round_before_joining, store_weights_in_bytes  # noqa: E402
from export.dequantize import float_model  # noqa: E402
from export.facts import read_model, save_model, sha256_of  # noqa: E402
from export.half import half_model  # noqa: E402
from export.quantize import _KEEPS_RANGES, MIN_CALIBRATION, quantize  # noqa: E402
from export.rewrite import FRONT, faster  # noqa: E402
from export.sensitivity import measure  # noqa: E402
from training.model import ModelConfig, OverheadNet, read_network  # noqa: E402

SMALL = ModelConfig(128, 8, 12, 16, 2, 6, 5, 20)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random network whose batch norms have seen something."""
    torch.manual_seed(1)
    net = OverheadNet(SMALL).train()
    pictures = torch.from_numpy(frames(8)[0]).permute(0, 3, 1, 2).float()
    for _ in range(20):
        net(pictures, torch.ones(8, 1, 128, 128))
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.pt"
    torch.save({"model": net.state_dict(), "model_config": dataclasses.asdict(SMALL)}, path)
    return path


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    return exporter.export_onnx(checkpoint, checkpoint.with_name("tiny.onnx"), "tiny", "a toy world")


def frames(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of toy ground (count, 128, 128, 3) and masks, one of them half empty."""
    world, rng = toy_world.make_world(seed=31, size_px=512).rgb, np.random.default_rng(0)
    corners = rng.integers(0, 384, (count, 2))
    masks = np.ones((count, 128, 128), bool)
    masks[0, :, 64:] = False
    return np.stack([world[r : r + 128, c : c + 128] for r, c in corners]), masks


def by_torch(checkpoint: Path, images: np.ndarray, masks: np.ndarray) -> Embeddings:
    net = read_network(checkpoint)
    with torch.no_grad():
        descriptor, detail, fine = net(
            torch.from_numpy(images).permute(0, 3, 1, 2).float(), torch.from_numpy(masks)[:, None].float()
        )
    return Embeddings(descriptor.numpy(), detail.permute(0, 2, 3, 1).numpy(), fine.permute(0, 2, 3, 1).numpy())


def test_the_exported_model_gives_what_torch_gives_for_any_batch(exported: Path, checkpoint: Path) -> None:
    engine = open_engine(exported)
    for count in (1, 3):
        images, masks = frames(count)
        found, wanted = engine.embed(images, masks), by_torch(checkpoint, images, masks)
        for name in ("descriptors", "detail", "fine"):
            np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=5e-4)


def test_the_exported_model_carries_its_facts(exported: Path) -> None:
    facts = open_engine(exported).facts
    assert (facts.name, facts.view_px, facts.detail_stride, facts.fine_stride) == ("tiny", 128, 8, 4)
    assert (facts.detail_channels, facts.fine_channels, facts.descriptor_dim) == (6, 5, 20)
    assert facts.metadata["training_data"] == "a toy world"
    assert facts.metadata["precision"] == "float32"


def test_a_model_that_differs_from_torch_is_not_kept(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "TOLERANCE", 0.0)
    with pytest.raises(EngineError, match="ONNX differs from torch"):
        exporter.export_onnx(checkpoint, tmp_path / "out.onnx")
    assert list(tmp_path.iterdir()) == []


def test_no_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no checkpoint.*absent\.pt") as error:
        exporter.export_onnx(tmp_path / "absent.pt", tmp_path / "out.onnx")
    assert "\n" not in str(error.value)


def test_int8_keeps_the_features_and_the_facts(exported: Path, tmp_path: Path) -> None:
    images, masks = frames(MIN_CALIBRATION)
    out = quantize(exported, tmp_path / "tiny.int8.onnx", zip(images, masks, strict=True))
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.int8.onnx"]
    whole, small = open_engine(exported), open_engine(out)
    assert "int8" in small.facts.metadata["precision"]
    assert small.facts.metadata["training_data"] == "a toy world"
    assert small.facts.sha256 != whole.facts.sha256
    a, b = whole.embed(images[1:4], masks[1:4]), small.embed(images[1:4], masks[1:4])
    for name in ("descriptors", "detail", "fine"):
        assert (getattr(a, name) * getattr(b, name)).sum(axis=-1).mean() > 0.9, name


def test_int8_from_too_few_frames_is_refused_and_leaves_nothing(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="calibration frames: 3") as error:
        quantize(exported, tmp_path / "tiny.int8.onnx", zip(*frames(3), strict=True))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def int8(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    images, masks = frames(MIN_CALIBRATION)
    return quantize(exported, tmp_path_factory.mktemp("int8") / "tiny.int8.onnx", list(zip(images, masks, strict=True)))


def cosines(a: Embeddings, b: Embeddings) -> list[float]:
    return [float((getattr(a, n) * getattr(b, n)).sum(-1).mean()) for n in ("descriptors", "detail", "fine")]


def test_rewriting_changes_no_output(checkpoint: Path, exported: Path) -> None:
    images, masks = frames(4)
    wanted, found = by_torch(checkpoint, images, masks), open_engine(exported).embed(images, masks)
    assert {node.op_type for node in onnx.load(exported).graph.node}.isdisjoint({"BatchNormalization"})
    assert min(cosines(wanted, found)) > 1 - 1e-5


def test_a_masked_half_does_not_reach_the_descriptor(exported: Path) -> None:
    images, masks = frames(1)
    spoiled = images.copy()
    spoiled[~masks] = 200
    engine = open_engine(exported)
    np.testing.assert_array_equal(engine.embed(images, masks).descriptors, engine.embed(spoiled, masks).descriptors)


def test_a_model_with_another_front_is_not_rewritten() -> None:
    node = onnx.helper.make_node("Identity", ["image"], ["descriptor"])
    graph = onnx.helper.make_graph([node], "g", [], [])
    with pytest.raises(EngineError, match="model front"):
        faster(onnx.helper.make_model(graph))


def test_the_whole_network_behind_the_front_is_int8(int8: Path) -> None:
    graph = onnx.load(int8).graph
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv" and not node.name.startswith(FRONT)]
    assert len(convolutions) >= 15
    assert all(node.input[0] in dequantized and node.input[1] in dequantized for node in convolutions)


def test_int8_names_its_float_parent_and_how_it_was_made(exported: Path, int8: Path) -> None:
    facts = open_engine(int8).facts.metadata
    assert facts["float_parent_sha256"] == sha256_of(exported)
    assert facts["calibration"].startswith("16 frames")
    assert facts["runtime"] == "onnxruntime"
    for key in ("inputs", "outputs", "normalisation", "resolutions_m_per_px", "git_revision", "checkpoint_sha256"):
        assert facts[key], key


def test_the_tensorrt_recipe_has_no_zero_points_and_no_quantized_bias(exported: Path, tmp_path: Path) -> None:
    images, masks = frames(MIN_CALIBRATION)
    out = quantize(exported, tmp_path / "t.onnx", zip(images, masks, strict=True), "tensorrt")
    graph = onnx.load(out).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    rounding = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(rounding) > 40
    for node in rounding:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
        if node.input[0] in constants:
            assert constants[node.input[0]].dtype == np.int8
    a, b = open_engine(exported).embed(images, masks), open_engine(out).embed(images, masks)
    assert min(cosines(a, b)) > 0.9


def test_ranges_that_were_kept_are_not_found_again(exported: Path, int8: Path, tmp_path: Path) -> None:
    if not _KEEPS_RANGES:
        pytest.skip("this ONNX Runtime calibrates anew each time")
    images, masks = frames(MIN_CALIBRATION)
    views = list(zip(images, masks, strict=True))
    ranges, dark = tmp_path / "ranges.json", [(image // 8, mask) for image, mask in views]
    first = quantize(exported, tmp_path / "first.onnx", views, ranges=ranges)
    again = quantize(exported, tmp_path / "again.onnx", dark, ranges=ranges)
    assert first.read_bytes() == again.read_bytes() == int8.read_bytes()
    assert quantize(exported, tmp_path / "dark.onnx", dark).read_bytes() != first.read_bytes()


def test_an_unknown_target_and_frames_of_another_size_are_refused(exported: Path, int8: Path, tmp_path: Path) -> None:
    images, masks = frames(MIN_CALIBRATION)
    views = list(zip(images, masks, strict=True))
    with pytest.raises(EngineError, match="quantization target: openvino"):
        quantize(exported, tmp_path / "a.onnx", views, "openvino")
    with pytest.raises(EngineError, match="calibration frame"):
        quantize(exported, tmp_path / "a.onnx", [(i[:64, :64], m[:64, :64]) for i, m in views])
    with pytest.raises(EngineError, match="INT8 already"):
        quantize(int8, tmp_path / "a.onnx", views)
    assert list(tmp_path.iterdir()) == []


def test_dequantizing_gives_back_what_int8_rounds(exported: Path, int8: Path, tmp_path: Path) -> None:
    whole = save_model(float_model(int8), tmp_path / "float.onnx")
    proto = onnx.load(whole)
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in proto.graph.node}
    images, masks = frames(4)
    parent, back, small = (open_engine(path).embed(images, masks) for path in (exported, whole, int8))
    assert min(cosines(parent, back)) > 0.999  # the rounding of weights is all that is left
    assert min(cosines(parent, back)) > min(cosines(parent, small))
    with pytest.raises(EngineError, match="nothing to dequantize"):
        float_model(exported)


def test_the_shipped_model_is_dequantized_by_the_command(tmp_path: Path) -> None:
    out = tmp_path / "whole.onnx"
    run = CliRunner().invoke(export_app, ["dequantize", str(SHIPPED_MODEL), "--out", str(out)], catch_exceptions=False)
    assert run.exit_code == 0
    n = open_engine(SHIPPED_MODEL).facts.view_px
    images, masks = np.random.default_rng(1).integers(0, 256, (1, n, n, 3), dtype=np.uint8), np.ones((1, n, n), bool)
    small, whole = (open_engine(path).embed(images, masks) for path in (SHIPPED_MODEL, out))
    assert min(cosines(small, whole)) > 0.99


def test_weights_kept_in_bytes_multiply_as_floats() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(64, 48)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("MatMul", ["x", "w"], ["z"])]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 5, 64])
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 5, 48]) for name in "yz"]
    graph = helper.make_graph(nodes, "g", [x], ports, [numpy_helper.from_array(weights, "w")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    store_weights_in_bytes(proto)
    onnx.checker.check_model(proto)
    assert sum(tensor.ByteSize() for tensor in proto.graph.initializer) < 1.3 * weights.size
    producers = {name: node for node in proto.graph.node for name in node.output}
    sources = [producers[node.input[1]].op_type for node in proto.graph.node if node.op_type == "MatMul"]
    assert sources == ["Transpose"] * 2, "straight from a DequantizeLinear a slower product would be made of it"
    value = rng.normal(size=(1, 5, 64)).astype(np.float32)
    for found in onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": value}):
        np.testing.assert_allclose(found, value @ weights, atol=0.01 * np.abs(value @ weights).max())


def test_what_is_joined_is_rounded_before(int8: Path) -> None:
    graph = onnx.load(int8).graph
    producers = {name: node for node in graph.node for name in node.output}
    [joined] = [node for node in graph.node if node.op_type == "Concat" and node.name.startswith(FRONT)]
    assert {producers[name].op_type for name in joined.input} == {"QuantizeLinear"}
    assert len({(*producers[name].input[1:],) for name in joined.input}) == 1, "all by one scale"
    [after] = [node for node in graph.node if joined.output[0] in node.input]
    assert after.op_type == "DequantizeLinear"


def test_rounding_before_joining_changes_no_number() -> None:
    x = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 3]) for name in "ab"]
    y = helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, [2, 9])
    nodes = [
        helper.make_node("Concat", ["a", "b", "b"], ["joined"], axis=1),
        helper.make_node("QuantizeLinear", ["joined", "scale", "zero"], ["y"]),
    ]
    constants = [numpy_helper.from_array(np.float32(0.02), "scale"), numpy_helper.from_array(np.uint8(9), "zero")]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", x, [y], constants), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    feed = dict(zip("ab", np.random.default_rng(0).normal(size=(2, 2, 3)).astype(np.float32), strict=True))
    wanted = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feed)[0]
    round_before_joining(proto)
    onnx.checker.check_model(proto)
    assert [node.op_type for node in proto.graph.node].count("QuantizeLinear") == 2
    np.testing.assert_array_equal(onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feed)[0], wanted)


def test_half_precision_keeps_norms_whole_and_outputs_alike(exported: Path, tmp_path: Path) -> None:
    out = half_model(exported, tmp_path / "half.onnx")
    proto = onnx.load(out)
    onnx.checker.check_model(proto, full_check=True)
    typed = {v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(proto).graph.value_info}
    typed |= {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    of = {
        op: {typed.get(n.input[0]) for n in proto.graph.node if n.op_type == op} for op in ("Softmax", "Sqrt", "Conv")
    }
    assert of["Softmax"] == of["Sqrt"] == {onnx.TensorProto.FLOAT}
    assert onnx.TensorProto.FLOAT16 in of["Conv"]
    weights = [t for t in proto.graph.initializer if len(t.dims) == 4 and not t.name.startswith(FRONT)]
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    images, masks = frames(4)
    assert min(cosines(open_engine(exported).embed(images, masks), open_engine(out).embed(images, masks))) > 0.999


def test_layers_stay_float_until_the_error_is_tolerated_and_the_report_says_which(exported: Path) -> None:
    images, masks = frames(MIN_CALIBRATION)
    views = list(zip(images, masks, strict=True))
    free = measure(exported, views, tolerated=1.0)
    assert free.kept_float == ()
    assert [group.worst for group in free.groups] == sorted((group.worst for group in free.groups), reverse=True)
    strict = measure(exported, views, tolerated=0.6 * free.errors[0])
    assert strict.kept_float == tuple(group.group for group in strict.groups[: len(strict.kept_float)])
    assert strict.kept_float
    assert strict.errors[-1] <= 0.6 * free.errors[0]


def test_what_is_no_onnx_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    for name, what in (("bad.onnx", "unreadable model"), ("absent.onnx", "no model file")):
        with pytest.raises(EngineError, match=what) as error:
            read_model(tmp_path / name)
        assert "\n" not in str(error.value)
