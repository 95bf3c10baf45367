"""The TensorRT backend against a played GPU: order and sizes of what it does, and that it gives all of it back."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import fake_tensorrt
import numpy as np
import pytest
from fake_tensorrt import N, World

from onboard.config import EngineConfig
from onboard.engine import open_engine
from onboard.engine.base import ModelFacts
from onboard.engine.cache import Target, write_engine
from onboard.errors import EngineError

METADATA = {
    "format": "pilotage-overhead-1",
    "name": "toy",
    "precision": "float16",
    "view_px": str(N),
    "detail_stride": "8",
    "detail_channels": "3",
    "descriptor_dim": str(fake_tensorrt.DESCRIPTOR),
    "fine_stride": "4",
    "fine_channels": "3",
}
ORIN = Target("10.3.0", "Orin", "8.7")
TENSORRT = EngineConfig(backend="tensorrt")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An ONNX file (nobody reads it here) with its engine for the played Orin beside it."""
    path = tmp_path / "toy.onnx"
    path.write_bytes(b"an onnx file")
    write_engine(tmp_path, path, ModelFacts.from_metadata(path, METADATA), ORIN, (1, 4), b"engine")
    return path


def pictures(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, N, N, 3), dtype=np.uint8), rng.random((count, N, N)) > 0.3


def assert_right(engine, count: int, seed: int = 0, atol: float = 1e-6) -> None:
    images, masks = pictures(count, seed)
    wanted = fake_tensorrt.network(images.astype(np.float32), masks)
    found = engine.embed(images, masks)
    for name, part in zip(wanted, (found.descriptors, found.detail, found.fine), strict=True):
        assert part.dtype == np.float32
        np.testing.assert_allclose(part, wanted[name], atol=atol, rtol=1e-6 if atol < 1e-3 else 1e-2)


def assert_one_line(error: pytest.ExceptionInfo[EngineError], *words: str) -> None:
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


# ---- what it gives


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 16])
def test_a_batch_of_any_size_gives_what_each_picture_gives(
    count: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World().install(monkeypatch)
    engine = open_engine(model, TENSORRT)
    assert_right(engine, count, seed=1)
    assert_right(engine, count, seed=2)
    engine.close()
    world.assert_all_is_freed()


def test_half_precision_outputs_come_out_as_float32(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.output_dtype = np.float16
    world.install(monkeypatch)
    engine = open_engine(model, TENSORRT)
    assert_right(engine, 3, atol=1e-2)


def test_an_answer_outlives_the_next_question(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    World().install(monkeypatch)
    engine = open_engine(model, TENSORRT)
    first = engine.embed(*pictures(2, seed=1))
    kept = first.fine.copy()
    engine.embed(*pictures(2, seed=2))
    np.testing.assert_array_equal(first.fine, kept)


def test_it_says_what_it_is_and_keeps_the_hash_of_the_onnx_file(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    World().install(monkeypatch)
    engine = open_engine(model, TENSORRT)
    assert engine.facts.sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (engine.facts.name, engine.facts.view_px) == ("toy", N)
    assert engine.backend == "tensorrt 10.3.0 on Orin, float16"


def test_auto_takes_tensorrt_where_everything_is_there(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    World().install(monkeypatch)
    engine = open_engine(model, EngineConfig(backend="auto"))
    assert engine.backend.startswith("tensorrt")
    assert_right(engine, 3)


# ---- how it works


def test_memory_is_allocated_and_work_recorded_once_and_a_frame_only_launches(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(batches=(1, 4)).install(monkeypatch)
    engine = open_engine(model, TENSORRT)
    assert world.counts["mem_alloc"] == world.counts["pagelocked_empty"] == 2 * 5  # profiles, tensors
    assert world.counts["cuStreamBeginCapture_v2"] == world.counts["cuGraphInstantiateWithFlags"] == 2
    assert world.counts["set_tensor_address"] == 2 * 5
    world.calls.clear()
    for _ in range(50):
        engine.embed(*pictures(1))
        engine.embed(*pictures(3))
    assert world.calls == ["push", "cuGraphLaunch", "synchronize", "pop"] * 100


def test_a_large_batch_goes_in_the_fewest_pieces(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(batches=(1, 4)).install(monkeypatch)
    engine = open_engine(model, TENSORRT)
    world.calls.clear()
    engine.embed(*pictures(9))  # 4 + 4 + 1
    assert world.calls.count("cuGraphLaunch") == 3


def test_a_profile_is_run_before_it_is_recorded_and_set_before_it_is_shaped(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(batches=(4, 1)).install(monkeypatch)  # the played context itself refuses the wrong order
    engine = open_engine(model, TENSORRT)
    first = world.calls.index("cuStreamBeginCapture_v2")
    assert world.calls.index("execute_async_v3") < first
    assert world.calls.index("set_optimization_profile_async") < world.calls.index("set_input_shape")
    assert_right(engine, 4)


def test_an_engine_with_one_profile_needs_no_choice_of_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(batches=(1,)).install(monkeypatch)
    engine = open_engine(model, TENSORRT)
    assert world.counts["set_optimization_profile_async"] == 0
    assert_right(engine, 3)


@pytest.mark.parametrize(
    "fails", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "memcpy_htod_async"]
)
def test_without_a_graph_the_kernels_are_launched_singly_and_it_says_so(
    fails: str, model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on = 3 if fails == "memcpy_htod_async" else 1  # two copies of the plain run, then the recording's
    world = World(fail_at=fails, fail_on=on).install(monkeypatch)
    engine = open_engine(model, TENSORRT)
    assert engine.backend.endswith("without CUDA graphs")
    assert "no CUDA graph" in caplog.text
    assert_right(engine, 3)
    engine.close()
    world.assert_all_is_freed()


def test_a_driver_without_graphs_is_no_hindrance(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World().install(monkeypatch)

    def absent() -> None:
        raise EngineError("the CUDA driver cannot be loaded")

    monkeypatch.setattr("onboard.engine.tensorrt.load_driver", absent)
    engine = open_engine(model, TENSORRT)
    assert_right(engine, 4)
    engine.close()
    world.assert_all_is_freed()


def test_opened_here_asked_in_another_thread_and_closed_here(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World().install(monkeypatch)
    engine = open_engine(model, TENSORRT)
    failed: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for count in (1, 3, 5):
                assert_right(engine, count, seed)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    engine.close()
    world.assert_all_is_freed()


# ---- how it ends

CALLS = (
    "init",
    "Device",
    "retain_primary_context",
    "push",
    "Runtime",
    "deserialize_cuda_engine",
    "Engine",
    "Stream",
    "Context",
    "set_optimization_profile_async",
    "set_input_shape",
    "pagelocked_empty",
    "mem_alloc",
    "set_tensor_address",
    "memcpy_htod_async",
    "execute_async_v3",
    "memcpy_dtoh_async",
    "synchronize",
)


# The second push is that of close: without a context nothing can be freed.
FAILURES = [(fails, on) for fails in CALLS for on in (1, 2) if (fails, on) != ("push", 2)]


@pytest.mark.parametrize(("fails", "on"), FAILURES)
def test_whatever_fails_in_the_beginning_all_is_freed_once_and_told_in_one_line(
    fails: str, on: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(fail_at=fails, fail_on=on).install(monkeypatch)
    told = None
    try:
        engine = open_engine(model, TENSORRT)
    except EngineError as error:
        told = str(error)
    else:
        assert world.counts[fails] < on or engine.backend.endswith("without CUDA graphs"), "it failed unnoticed"
        engine.close()
    assert told is None or ("out of luck" in told and "\n" not in told)
    world.assert_all_is_freed()


@pytest.mark.parametrize("fails", ["cuGraphLaunch", "synchronize", "push"])
def test_whatever_fails_in_a_frame_is_told_and_all_is_freed_in_the_end(
    fails: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World().install(monkeypatch)
    engine = open_engine(model, TENSORRT)
    world.fail_at, world.fail_on = fails, world.counts[fails] + 1
    with pytest.raises(EngineError) as error:
        engine.embed(*pictures(2))
    assert_one_line(error, "CUDA failed")
    world.fail_at = ""
    engine.close()
    world.assert_all_is_freed()


def test_a_network_that_tensorrt_will_not_run_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(fail_at="execute refuses").install(monkeypatch)
    with pytest.raises(EngineError) as error:
        open_engine(model, TENSORRT)
    assert_one_line(error, "TensorRT cannot run the engine")
    world.assert_all_is_freed()


def test_gpu_memory_that_is_too_little_for_a_context_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(fail_at="no context").install(monkeypatch)
    with pytest.raises(EngineError) as error:
        open_engine(model, TENSORRT)
    assert_one_line(error, "TensorRT gives no context", "memory")
    world.assert_all_is_freed()


def test_closing_twice_frees_once_and_a_closed_engine_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World().install(monkeypatch)
    engine = open_engine(model, TENSORRT)
    engine.close()
    engine.close()
    world.assert_all_is_freed()
    with pytest.raises(EngineError, match="closed"):
        engine.embed(*pictures(1))


def test_it_can_be_opened_again_after_it_was_closed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    World().install(monkeypatch)
    open_engine(model, TENSORRT).close()
    world = World().install(monkeypatch)
    engine = open_engine(model, TENSORRT)
    assert_right(engine, 2)
    engine.close()
    world.assert_all_is_freed()


@pytest.mark.parametrize("shape", [(1, N, N + 1, 3), (1, N, N, 4), (0, N, N, 3)])
def test_pictures_of_another_size_are_refused(
    shape: tuple[int, ...], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    World().install(monkeypatch)
    engine = open_engine(model, TENSORRT)
    with pytest.raises(EngineError) as error:
        engine.embed(np.zeros(shape, np.uint8), np.ones(shape[:3], bool))
    assert_one_line(error, "pictures for the engine", str(shape))
