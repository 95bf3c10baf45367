"""TensorRT as NVIDIA ships it: the names that are called, and its own parser and builder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_onnx import assert_one_line, nowhere

from export import engine as building
from export.engine import BuildOptions, build, read_model
from onboard.engine import SHIPPED_MODEL
from onboard.errors import EngineError

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
