"""What TensorRT would refuse or read wrongly is found in the model before it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onboard.engine import SHIPPED_MODEL
from onboard.errors import EngineError

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402
from toy_onnx import assert_one_line, toy_model  # noqa: E402

from export.engine import BuildOptions, parse_batches, read_model  # noqa: E402
from export.lint import lint  # noqa: E402

# ---- the lint


def findings(path: Path, *nodes: Any, opset: int = 18, **constants: np.ndarray) -> list[str]:
    return lint(onnx.load(toy_model(path / "linted.onnx", list(nodes), constants, opset=opset)))


SCALE = np.float32(0.1)


@pytest.mark.parametrize(
    ("dtype", "zero_point", "words"),
    [
        (np.int8, 0, ()),
        (np.int8, 3, ("zero point 3",)),
        (np.uint8, 128, ("zero point 128",)),
        (np.uint8, 0, ("uint8",)),
    ],
)
def test_quantization_must_be_symmetric_int8(
    dtype: type, zero_point: int, words: tuple[str, ...], tmp_path: Path
) -> None:
    node = helper.make_node("QuantizeLinear", ["detail", "s", "z"], ["q"], "quantizer")
    found = findings(tmp_path, node, s=np.array(SCALE), z=np.array(zero_point, dtype))
    assert len(found) == bool(words)
    assert all(word in found[0] for word in (*words, "QuantizeLinear quantizer") if words)


def test_one_zero_point_of_many_is_found(tmp_path: Path) -> None:
    node = helper.make_node("DequantizeLinear", ["w", "s", "z"], ["x"], "weights", axis=0)
    zeros = np.array([0, 0, -5], np.int8)
    found = findings(tmp_path, node, w=np.ones((3, 2), np.int8), s=np.full(3, SCALE), z=zeros)
    assert found == ["DequantizeLinear weights has zero point -5: TensorRT wants 0 (symmetric quantization)."]


def test_a_zero_point_that_is_computed_is_found(tmp_path: Path) -> None:
    cast = helper.make_node("Cast", ["mask"], ["z"], to=TensorProto.INT8)
    node = helper.make_node("QuantizeLinear", ["detail", "s", "z"], ["q"], "quantizer")
    assert "computed" in findings(tmp_path, cast, node, s=np.array(SCALE))[0]


def test_bytes_that_are_not_cast_at_once_are_found(tmp_path: Path) -> None:
    node = helper.make_node("Transpose", ["image"], ["planes"], "front", perm=[0, 3, 1, 2])
    (found,) = findings(tmp_path, node)
    assert "Transpose front" in found
    assert "image" in found


def test_an_integer_bias_is_found(tmp_path: Path) -> None:
    node = helper.make_node("DequantizeLinear", ["b", "s"], ["x"], "bias")
    (found,) = findings(tmp_path, node, b=np.array([7], np.int32), s=np.array(SCALE))
    assert "bias" in found
    assert "INT32" in found


@pytest.mark.parametrize("antialias", [0, 1])
def test_an_antialiased_resize_is_found(antialias: int, tmp_path: Path) -> None:
    node = helper.make_node("Resize", ["detail", "", "f"], ["x"], "positions", mode="linear", antialias=antialias)
    found = findings(tmp_path, node, f=np.ones(4, np.float32))
    assert len(found) == antialias
    assert all("Resize positions" in line for line in found)


@pytest.mark.parametrize("opset", [17, 18, 23])
def test_only_opset_18_is_let_through(opset: int, tmp_path: Path) -> None:
    found = findings(tmp_path, opset=opset)
    assert len(found) == (opset != 18)
    assert all(f"opset {opset}" in line for line in found)


def layer_norm(axes: list[int]) -> tuple[list[Any], dict[str, np.ndarray]]:
    nodes = [
        helper.make_node("ReduceMean", ["detail", "axes"], ["m"]),
        helper.make_node("Sub", ["detail", "m"], ["d"]),
        helper.make_node("Pow", ["d", "two"], ["d2"]),
        helper.make_node("ReduceMean", ["d2", "axes"], ["v"]),
        helper.make_node("Add", ["v", "eps"], ["ve"]),
        helper.make_node("Sqrt", ["ve"], ["r"]),
        helper.make_node("Div", ["d", "r"], ["n"], "norm"),
    ]
    constants = {"axes": np.array(axes), "two": np.array(2, np.float32), "eps": np.array(1e-6, np.float32)}
    return nodes, constants


def test_a_layer_norm_in_parts_is_found_and_one_over_pixels_is_none(tmp_path: Path) -> None:
    nodes, constants = layer_norm([-1])
    (found,) = findings(tmp_path, *nodes, **constants)
    assert "Div norm" in found
    assert "LayerNormalization" in found
    nodes, constants = layer_norm([1, 2])
    assert findings(tmp_path, *nodes, **constants) == []


def test_a_foreign_op_is_found(tmp_path: Path) -> None:
    node = helper.make_node("QLinearAdd", ["detail"], ["x"], "fused", domain="com.microsoft")
    proto = onnx.load(toy_model(tmp_path / "m.onnx", [node]))
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    (found,) = lint(proto)
    assert "com.microsoft" in found


def test_the_shipped_model_is_for_onnx_runtime_and_the_lint_says_so() -> None:
    found = lint(onnx.load(SHIPPED_MODEL))
    assert any("INT32" in line for line in found)
    assert any("zero point 128" in line for line in found)


# ---- models that are refused before TensorRT is asked


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outputs": ("descriptor", "detail")}, ("model lacks", "fine")),
        ({"metadata": {}}, ("not a Pilotage model", "pilotage export")),
        ({"metadata": {"format": "pilotage-overhead-1"}}, ("model metadata", "view_px")),
        ({"opset": 17}, ("not fit for TensorRT", "opset 17")),
    ],
)
def test_a_model_that_cannot_fly_is_refused_in_one_line(
    changes: dict[str, Any], words: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(EngineError) as error:
        read_model(toy_model(tmp_path / "bad.onnx", **changes))
    assert_one_line(error, *words)


@pytest.mark.parametrize("content", [b"this is no model", b"\x08\x07" * 100], ids=["text", "noise"])
def test_a_file_that_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(EngineError) as error:
        read_model(tmp_path / "broken.onnx")
    assert_one_line(error, "broken.onnx")
    with pytest.raises(EngineError, match="no model file"):
        read_model(tmp_path / "absent.onnx")


@pytest.mark.parametrize("text", ["", "1,two", "2,1", "0,1", "1,1"])
def test_batches_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(EngineError) as error:
        BuildOptions(batches=parse_batches(text))
    assert_one_line(error, "batches")


def test_a_workspace_in_bytes_is_refused() -> None:
    with pytest.raises(EngineError, match="MB"):
        BuildOptions(workspace_mb=1 << 30)
