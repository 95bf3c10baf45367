"""Engine files and what goes into them: the lint, the build, names and side-cars, and what is refused in one line."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
from fake_tensorrt import World

from onboard.config import EngineConfig
from onboard.engine import SHIPPED_MODEL, open_engine
from onboard.engine import open as opening
from onboard.engine.base import ModelFacts
from onboard.engine.cache import Target, engine_name, find_engine, read_engine, sidecar, write_engine
from onboard.errors import EngineError

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from export import engine as building  # noqa: E402
from export.engine import BuildOptions, build, export_engine, parse_batches, read_model  # noqa: E402
from export.lint import lint  # noqa: E402
from export.progress import build_progress  # noqa: E402

METADATA = {
    "format": "pilotage-overhead-1",
    "name": "toy",
    "precision": "int8 qdq (int8 activations)",
    "view_px": "64",
    "detail_stride": "8",
    "detail_channels": "3",
    "descriptor_dim": "5",
    "fine_stride": "4",
    "fine_channels": "3",
}
ORIN = Target("10.3.0", "Orin", "8.7")
OUTPUTS = ("descriptor", "detail", "fine")


def assert_one_line(error: pytest.ExceptionInfo[EngineError], *words: str) -> None:
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def toy_model(
    path: Path, nodes: list[Any] | None = None, constants: dict[str, np.ndarray] | None = None, **changes: Any
) -> Path:
    """An ONNX file whose outputs are casts of its image; `nodes` and `constants` are added to the graph."""
    metadata, outputs, opset = (
        changes.get(key, value) for key, value in (("metadata", METADATA), ("outputs", OUTPUTS), ("opset", 18))
    )
    casts = [helper.make_node("Cast", ["mask"], ["mask_float"], "cast_mask", to=TensorProto.FLOAT)]
    casts += [helper.make_node("Cast", ["image"], [name], f"cast_{name}", to=TensorProto.FLOAT) for name in outputs]
    graph = helper.make_graph(
        [*casts, *(nodes or [])],
        "toy",
        [
            helper.make_tensor_value_info("image", TensorProto.UINT8, ["b", 64, 64, 3]),
            helper.make_tensor_value_info("mask", TensorProto.UINT8, ["b", 64, 64]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 64, 64, 3]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


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


# ---- names, side-cars, refusals


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return toy_model(tmp_path / "toy.onnx")


def facts_of(model: Path) -> ModelFacts:
    return ModelFacts.from_metadata(model, METADATA)


def test_the_name_tells_model_version_device_and_precision(model: Path) -> None:
    facts = facts_of(model)
    assert engine_name(facts, ORIN) == f"toy-{facts.sha256[:12]}-trt10.3.0-sm87-Orin-int8.engine"
    dla = dataclasses.replace(ORIN, device="NVIDIA Orin/nx ", dla_core=1)
    assert engine_name(facts, dla).endswith("-sm87-NVIDIA_Orin_nx-int8-dla1.engine")


def test_an_engine_is_found_again_with_what_its_side_car_says(model: Path) -> None:
    written = write_engine(model.parent, model, facts_of(model), ORIN, (1, 4), b"engine")
    path, record = find_engine(model, model.parent, ORIN)
    assert path == written
    assert (record.batches, record.precision, record.target) == ((1, 4), "int8", ORIN)
    assert record.metadata == METADATA
    assert read_engine(path, record, "") == b"engine"
    assert sorted(p.name for p in model.parent.iterdir()) == sorted([model.name, path.name, sidecar(path).name])


@pytest.mark.parametrize(
    ("here", "words"),
    [
        (dataclasses.replace(ORIN, tensorrt="10.13.3"), ("TensorRT 10.3.0", "TensorRT 10.13.3")),
        (dataclasses.replace(ORIN, device="Thor", compute_capability="11.0"), ("Orin", "Thor")),
        (dataclasses.replace(ORIN, dla_core=0), ("DLA 0", "--dla-core 0")),
    ],
)
def test_an_engine_of_another_tensorrt_or_gpu_is_refused_with_the_command(
    here: Target, words: tuple[str, ...], model: Path
) -> None:
    write_engine(model.parent, model, facts_of(model), ORIN, (1,), b"engine")
    with pytest.raises(EngineError) as error:
        find_engine(model, model.parent, here)
    assert_one_line(error, "another machine", *words, f"pilotage export engine {model} --out {model.parent}")


def test_a_foreign_engine_does_not_hide_the_right_one(model: Path) -> None:
    for version in ("10.1.0", "10.3.0", "10.9.0"):
        target = dataclasses.replace(ORIN, tensorrt=version)
        write_engine(model.parent, model, facts_of(model), target, (1,), version.encode())
    path, record = find_engine(model, model.parent, ORIN)
    assert read_engine(path, record, "") == b"10.3.0"


def test_an_engine_of_another_model_is_not_taken(model: Path) -> None:
    write_engine(model.parent, model, facts_of(model), ORIN, (1,), b"engine")
    toy_model(model, metadata=METADATA | {"name": "retrained"})
    with pytest.raises(EngineError, match="no TensorRT engine for this model"):
        find_engine(model, model.parent, ORIN)


@pytest.mark.parametrize(
    "spoil", ["cut", "changed", "no side-car", "half a side-car", "old side-car", "odd side-car", "stranger's"]
)
def test_a_broken_engine_never_reaches_tensorrt(spoil: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(batches=(1,)).install(monkeypatch)
    path = write_engine(model.parent, model, facts_of(model), ORIN, (1,), b"engine")
    beside = sidecar(path)
    told = json.loads(beside.read_text())
    words = {
        "cut": ("cut short", "5 bytes"),
        "changed": ("broken",),
        "no side-car": ("without its side-car",),
        "half a side-car": ("unreadable side-car",),
        "old side-car": ("unreadable side-car", "pilotage-engine-0"),
        "odd side-car": ("unreadable side-car",),
        "stranger's": ("another model",),
    }[spoil]
    if spoil == "cut":
        path.write_bytes(b"engin")
    elif spoil == "changed":
        path.write_bytes(b"engina")
    elif spoil == "no side-car":
        beside.unlink()
    elif spoil == "half a side-car":
        beside.write_text(beside.read_text()[:100])
    else:
        change = {
            "old side-car": {"format": "pilotage-engine-0"},
            "odd side-car": {"metadata": 7},
            "stranger's": {"model_sha256": "00" * 32},
        }
        beside.write_text(json.dumps(told | change[spoil]))
    with pytest.raises(EngineError) as error:
        open_engine(model, EngineConfig(backend="tensorrt"))
    assert_one_line(error, *words, "pilotage export engine")
    assert world.counts["deserialize_cuda_engine"] == 0
    world.assert_all_is_freed()


def test_an_engine_that_tensorrt_itself_refuses_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(batches=(1,))
    world.refuses_engine = True
    world.install(monkeypatch)
    write_engine(model.parent, model, facts_of(model), ORIN, (1,), b"engine")
    with pytest.raises(EngineError) as error:
        open_engine(model, EngineConfig(backend="tensorrt"))
    assert_one_line(error, "TensorRT refuses the engine", "Magic tag", "pilotage export engine")
    world.assert_all_is_freed()


# ---- which backend is taken, and what it says


def test_auto_without_an_engine_is_onnx_runtime_and_never_looks_for_a_gpu(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World().install(monkeypatch)
    engine = open_engine(model, EngineConfig())
    assert engine.backend == "onnxruntime (no TensorRT engine was built for this model)"
    assert world.calls == []


def test_auto_with_an_engine_for_another_machine_says_why_it_is_not_used(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    world.version = "10.9.0"
    world.install(monkeypatch)
    write_engine(model.parent, model, facts_of(model), ORIN, (1,), b"engine")
    engine = open_engine(model, EngineConfig())
    assert engine.backend.startswith("onnxruntime (engine for another machine: built for TensorRT 10.3.0")
    assert "pilotage export engine" in caplog.text
    world.assert_all_is_freed()


def test_what_is_missing_is_said_and_tensorrt_fails_at_the_start(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_engine(model.parent, model, facts_of(model), ORIN, (1,), b"engine")
    World().install(monkeypatch)
    for library, words in (("pycuda.driver", "CUDA cannot be loaded"), ("tensorrt", "TensorRT cannot be loaded")):
        monkeypatch.setitem(sys.modules, library, None)  # `import` raises ImportError
        with pytest.raises(EngineError) as error:
            open_engine(model, EngineConfig(backend="tensorrt"))
        assert_one_line(error, words)
        assert words in open_engine(model, EngineConfig()).backend


def test_a_machine_without_a_gpu_is_said(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_engine(model.parent, model, facts_of(model), ORIN, (1,), b"engine")
    World(fail_at="init").install(monkeypatch)
    with pytest.raises(EngineError) as error:
        open_engine(model, EngineConfig(backend="tensorrt"))
    assert_one_line(error, "no usable CUDA device", "out of luck")


def test_onnxruntime_is_not_moved_by_an_engine(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    World().install(monkeypatch)
    write_engine(model.parent, model, facts_of(model), ORIN, (1,), b"engine")
    assert open_engine(model, EngineConfig(backend="onnxruntime")).backend == "onnxruntime"


def test_an_engine_in_place_of_a_model_is_refused(model: Path) -> None:
    path = write_engine(model.parent, model, facts_of(model), ORIN, (1,), b"engine")
    with pytest.raises(EngineError) as error:
        open_engine(path)
    assert_one_line(error, "not a model", "ONNX file")


def test_a_missing_engine_is_built_only_when_asked(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    World(batches=(1,)).install(monkeypatch)
    asked: list[list[str]] = []

    def run(command: list[str], check: bool) -> Any:
        asked.append(command[3:])
        write_engine(tmp_path / "engines", model, facts_of(model), ORIN, (1,), b"engine")
        return types.SimpleNamespace(returncode=0)

    monkeypatch.setattr(opening.subprocess, "run", run)
    with pytest.raises(EngineError, match="no TensorRT engine"):
        open_engine(model, EngineConfig(backend="tensorrt", folder=str(tmp_path / "engines")))
    assert asked == []
    config = EngineConfig(folder=str(tmp_path / "engines"), build_missing=True)
    for _ in range(2):
        engine = open_engine(model, config)
        assert engine.backend.startswith("tensorrt")
        engine.close()
    assert asked == [["export", "engine", str(model), "--out", str(tmp_path / "engines")]]


def test_a_build_that_fails_is_told_with_its_command(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    World().install(monkeypatch)
    monkeypatch.setattr(opening.subprocess, "run", lambda *_, **__: types.SimpleNamespace(returncode=2))
    with pytest.raises(EngineError) as error:
        open_engine(model, EngineConfig(backend="tensorrt", build_missing=True, dla_core=1))
    assert_one_line(error, "building the engine failed", "exit status 2")


# ---- the build, with a played builder


class PlayedBuilder:
    """The builder's half of the module `tensorrt`: remembers what it was told."""

    class ILogger(fake_tensorrt.Logger):
        def __init__(self) -> None:
            pass

    class IProgressMonitor:
        def __init__(self) -> None:
            pass

    NetworkDefinitionCreationFlag = types.SimpleNamespace(STRONGLY_TYPED=1)
    MemoryPoolType = types.SimpleNamespace(WORKSPACE="workspace")
    DeviceType = types.SimpleNamespace(DLA="dla")
    BuilderFlag = types.SimpleNamespace(GPU_FALLBACK="fallback")
    num_DLA_cores = 1
    num_inputs = 2

    def __init__(self, version: str = "10.3.0", batch: int = -1, errors: tuple[tuple[str, str, str], ...] = ()) -> None:
        self.__version__, self.batch, self.errors = version, batch, errors
        self.told: dict[str, Any] = {"profiles": [], "caches": []}
        self.fails = self.refuses_cache = False
        self.monitor: Any = None

    def Builder(self, log: Any) -> PlayedBuilder:
        self.log = log
        return self

    def create_network(self, flags: int) -> PlayedBuilder:
        self.told["flags"] = flags
        return self

    def OnnxParser(self, network: Any, log: Any) -> Any:
        errors = [
            types.SimpleNamespace(node_operator=lambda e=e: e[0], node_name=lambda e=e: e[1], desc=lambda e=e: e[2])
            for e in self.errors
        ]
        return types.SimpleNamespace(
            parse=lambda content: not errors, num_errors=len(errors), get_error=errors.__getitem__
        )

    def get_input(self, index: int) -> Any:
        return types.SimpleNamespace(name=("image", "mask")[index], shape=(self.batch, 64, 64, 3)[: 4 - index])

    def create_builder_config(self) -> PlayedBuilder:
        return self

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.told[pool] = size

    def create_optimization_profile(self) -> Any:
        return types.SimpleNamespace(set_shape=lambda *told: self.told["profiles"].append(told))

    def add_optimization_profile(self, profile: Any) -> int:
        return 0

    def set_flag(self, flag: str) -> None:
        self.told["flag"] = flag

    def create_timing_cache(self, content: bytes) -> bytes:
        return content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        self.told["caches"].append(cache)
        return not (self.refuses_cache and cache)

    def get_timing_cache(self) -> Any:
        return types.SimpleNamespace(serialize=lambda: b"timings")

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, "monitor" if name == "progress_monitor" else name, value)

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        self.monitor.phase_start("Building engine", None, 2)
        for step in (0, 1):
            if not self.monitor.step_complete("Building engine", step):
                return None
        self.monitor.phase_finish("Building engine")
        if self.fails:
            self.log.log(fake_tensorrt.Severity.ERROR, "out of\nmemory")
            return None
        return b"engine"


def nowhere(phase: str, share: float) -> None:
    """Progress that nobody watches."""


def test_the_build_says_all_that_it_must() -> None:
    trt, seen = PlayedBuilder(), []
    built = build(trt, b"onnx", BuildOptions(512, (1, 4)), lambda *told: seen.append(told), b"old timings")
    assert (built.engine, built.batches, built.timing) == (b"engine", (1, 4), b"timings")
    assert trt.told["flags"] == 1 << 1  # strongly typed
    assert trt.told["workspace"] == 512 * 1024 * 1024
    shapes = [(name, least) for name, least, best, most in trt.told["profiles"] if least == best == most]
    expected = [("image", (1, 64, 64, 3)), ("mask", (1, 64, 64)), ("image", (4, 64, 64, 3)), ("mask", (4, 64, 64))]
    assert shapes == expected
    assert trt.told["caches"] == [b"old timings"]
    assert seen == [("Building engine", share) for share in (0.0, 0.5, 1.0, 1.0)]


def test_a_version_without_the_strong_typing_flag_is_strongly_typed_anyway() -> None:
    trt = PlayedBuilder()
    trt.NetworkDefinitionCreationFlag = types.SimpleNamespace()
    assert build(trt, b"onnx", BuildOptions(), nowhere).engine == b"engine"
    assert trt.told["flags"] == 0


def test_a_timing_cache_of_another_driver_is_left_out() -> None:
    trt = PlayedBuilder()
    trt.refuses_cache = True
    build(trt, b"onnx", BuildOptions(), nowhere, b"foreign")
    assert trt.told["caches"] == [b"foreign", b""]


def test_a_model_of_fixed_batch_keeps_it() -> None:
    trt = PlayedBuilder(batch=3)
    assert build(trt, b"onnx", BuildOptions(), nowhere).batches == (3,)
    assert trt.told["profiles"] == []


def test_the_accelerator_is_used_where_there_is_one_and_refused_where_there_is_none() -> None:
    trt = PlayedBuilder()
    build(trt, b"onnx", BuildOptions(dla_core=0), nowhere)
    assert (trt.default_device_type, trt.DLA_core, trt.told["flag"]) == ("dla", 0, "fallback")
    with pytest.raises(EngineError) as error:
        build(PlayedBuilder(), b"onnx", BuildOptions(dla_core=1), nowhere)
    assert_one_line(error, "DLA core: 1", "--dla-core")


def test_what_the_parser_says_comes_out_in_one_line_with_the_node() -> None:
    errors = (("Resize", "positions", "antialias\nis not supported"), ("Gelu", "act", "unknown op"))
    with pytest.raises(EngineError) as error:
        build(PlayedBuilder(errors=errors), b"onnx", BuildOptions(), nowhere)
    assert_one_line(error, "Resize positions: antialias is not supported", "Gelu act: unknown op")


def test_a_build_that_fails_says_tensorrts_last_words() -> None:
    trt = PlayedBuilder()
    trt.fails = True
    with pytest.raises(EngineError) as error:
        build(trt, b"onnx", BuildOptions(), nowhere)
    assert_one_line(error, "out of memory", "--workspace-mb")


def test_ctrl_c_stops_the_builder_instead_of_going_through_it() -> None:
    def interrupted(phase: str, share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(PlayedBuilder(), b"onnx", BuildOptions(), interrupted)


def test_an_exported_engine_is_one_that_flies(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(batches=(1, 4)).install(monkeypatch)
    monkeypatch.setattr(building, "load_tensorrt", PlayedBuilder)
    path = export_engine(model, tmp_path / "engines", BuildOptions(batches=(1, 4)), nowhere)
    world.assert_all_is_freed()
    assert sorted(p.name for p in (tmp_path / "engines").iterdir()) == sorted(
        [path.name, sidecar(path).name, "timing-trt10.3.0-sm87.cache"]
    )
    engine = open_engine(model, EngineConfig(backend="tensorrt", folder=str(tmp_path / "engines")))
    assert (engine.facts, engine.backend) == (facts_of(model), "tensorrt 10.3.0 on Orin, int8")
    engine.close()


def test_the_phases_are_shown_while_they_run_and_nothing_is_shown_before() -> None:
    import io

    from rich.console import Console

    screen = io.StringIO()
    with build_progress(Console(file=screen, force_terminal=True, width=100)) as told:
        assert screen.getvalue() == ""
        told("Building engine", 0.0)
        told("Timing tactics", 0.5)
        told("Timing tactics", 1.0)
    assert "Building engine" in screen.getvalue()


# ---- the names that are called, in every version

# Read in NVIDIA's own bindings (github.com/NVIDIA/TensorRT, python/src) at v10.3.0, release/10.13, v10.16, v11.0 and
# v11.1: each name below is there in all of them. The bindings' source of 11.4 is not public yet. Of its documentation
# only parts were seen (docs.nvidia.com, 11.4.1: some members of IBuilderConfig, some of the removed Python names):
# nothing in them speaks against these names, but they are not verified for 11.4.
NAMES = {
    "Builder": "create_network create_builder_config create_optimization_profile build_serialized_network "
    "num_DLA_cores",
    "IBuilderConfig": "set_memory_pool_limit add_optimization_profile create_timing_cache set_timing_cache "
    "get_timing_cache progress_monitor default_device_type DLA_core set_flag",
    "BuilderFlag": "GPU_FALLBACK",
    "MemoryPoolType": "WORKSPACE",
    "DeviceType": "DLA",
    "NetworkDefinitionCreationFlag": "STRONGLY_TYPED",
    "IOptimizationProfile": "set_shape",
    "INetworkDefinition": "get_input num_inputs",
    "OnnxParser": "parse num_errors get_error",
    "ParserError": "node_name node_operator desc",
    "ITimingCache": "serialize",
    "IProgressMonitor": "phase_start step_complete phase_finish",
    "ILogger": "log ERROR WARNING",
    "Runtime": "deserialize_cuda_engine DLA_core",
    "ICudaEngine": "num_optimization_profiles num_io_tensors get_tensor_name get_tensor_dtype get_tensor_profile_shape "
    "create_execution_context",
    "IExecutionContext": "set_optimization_profile_async set_input_shape get_tensor_shape set_tensor_address "
    "execute_async_v3",
}
SOURCES = ("onboard/engine/tensorrt.py", "onboard/engine/device.py", "export/engine.py")
# In TensorRT 10.3 and gone or missing elsewhere: never to be used.
FORBIDDEN = (
    "EXPLICIT_BATCH FP16 INT8 int8_calibrator set_calibration_profile OBEY_PRECISION_CONSTRAINTS execute_v2 "
    "execute_async_v2 get_binding_shape max_workspace_size build_engine build_engine_with_config supports_model "
    "platform_has_fast_fp16 platform_has_fast_int8 SAME_COMPUTE_CAPABILITY device_memory_size"
)


def attributes_used() -> set[str]:
    import ast

    root = Path(building.__file__).parents[1]
    trees = [ast.parse((root / source).read_text()) for source in SOURCES]
    return {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | {
        node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    }


def test_only_names_that_every_version_has_are_used() -> None:
    used = attributes_used()
    assert not used & set(FORBIDDEN.split())
    for names in NAMES.values():
        unused = [name for name in names.split() if name not in used and name != "STRONGLY_TYPED"]
        assert not unused, "the table names what the code does not call"


@pytest.fixture(scope="module")
def rtx() -> Any:
    """NVIDIA's own parser and builder, which need no GPU: pip install 'pilotage[tensorrt-check]'."""
    return pytest.importorskip("tensorrt_rtx_bindings", reason="needs the extra tensorrt-check")


def test_nvidias_library_has_the_names(rtx: Any) -> None:
    missing = [
        f"{kind}.{name}"
        for kind, names in NAMES.items()
        for name in names.split()
        if not hasattr(getattr(rtx, kind), name)
    ]
    assert missing == []


# ---- NVIDIA's own parser and builder


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network of the shipped kind, exported as a trained one would be."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from export.onnx import export_onnx
    from training.model import ModelConfig, OverheadNet

    torch.manual_seed(0)
    config = ModelConfig(128, 8, 12, 16, 2, 6, 5, 20)
    checkpoint = tmp_path_factory.mktemp("rtx") / "checkpoint.pt"
    torch.save({"model": OverheadNet(config).state_dict(), "model_config": dataclasses.asdict(config)}, checkpoint)
    return export_onnx(checkpoint, checkpoint.with_name("float.onnx"), "random")


def for_tensorrt(precision: str, float_model: Path) -> Path:
    """The float model, or the file of another precision that is made of it."""
    out = float_model.with_name(f"{precision}.onnx")
    if precision == "float32":
        return float_model
    if precision == "float16":
        from export.half import half_model

        return half_model(float_model, out)
    from export.quantize import quantize

    rng = np.random.default_rng(0)
    frames = [(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8), np.ones((128, 128), bool)) for _ in range(16)]
    return quantize(float_model, out, frames, target="tensorrt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_nvidias_builder_builds_what_is_exported(precision: str, rtx: Any, float_model: Path) -> None:
    content, facts = read_model(for_tensorrt(precision, float_model))
    phases: list[str] = []
    built = build(rtx, content, BuildOptions(batches=(1, 4)), lambda phase, share: phases.append(phase))
    assert facts.metadata["precision"].startswith(precision)
    assert built.batches == (1, 4)
    assert len(built.engine) > 10_000
    assert "Building engine" in phases


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nvidias_parser_refuses_what_the_lint_refuses(rtx: Any) -> None:
    with pytest.raises(EngineError) as error:
        build(rtx, SHIPPED_MODEL.read_bytes(), BuildOptions(batches=(1,)), nowhere)
    assert_one_line(error, "TensorRT cannot read the model", "DequantizeLinear")
