"""Engine files: names and side-cars, which backend is taken, and what is refused in one line."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from fake_tensorrt import World
from toy_onnx import METADATA, assert_one_line, facts_of, toy_model

from onboard.config import EngineConfig
from onboard.engine import open as opening
from onboard.engine import open_engine
from onboard.engine.cache import Target, engine_name, find_engine, read_engine, sidecar, write_engine
from onboard.errors import EngineError

ORIN = Target("10.3.0", "Orin", "8.7")


# ---- names, side-cars, refusals


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return toy_model(tmp_path / "toy.onnx")


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
