"""The build of an engine, with a played builder."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import fake_tensorrt
import pytest
from fake_tensorrt import World
from toy_onnx import assert_one_line, facts_of, nowhere, toy_model

from export import engine as building
from export.engine import BuildOptions, build, export_engine
from export.progress import build_progress
from onboard.config import EngineConfig
from onboard.engine import open_engine
from onboard.engine.cache import sidecar
from onboard.errors import EngineError


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


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return toy_model(tmp_path / "toy.onnx")


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
