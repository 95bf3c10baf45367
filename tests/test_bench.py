"""The bench: what it counts is right; how fast it is, no test says."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from onboard.bench.cli import bench
from onboard.bench.flight import HEIGHT, WIDTH, bench_camera, fly, start_of
from onboard.bench.machine import describe_machine
from onboard.bench.memory import forget_peak, growth, read_memory
from onboard.bench.roofline import DEVICES, Work, frame_work, least_ms, network_work
from onboard.bench.run import Spread, measure_models, open_all
from onboard.engine import SHIPPED_MODEL, Engine
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.localizer import Localizer
from onboard.match.evidence import read_confidence
from onboard.records import State
from onboard.region import RegionMap


def test_the_machine_is_described_from_what_linux_says(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(
        "processor : 0\nmodel name : Some CPU\nflags : fpu avx2 avx512_vnni\n\nprocessor : 1\nmodel name : Other\n"
    )
    (tmp_path / "meminfo").write_text("MemTotal:  2048000 kB\n")
    (tmp_path / "loadavg").write_text("1.50 1.0 1.0 1/1 1\n")
    (tmp_path / "model").write_text("NVIDIA Orin\0")
    machine = describe_machine(tmp_path, tmp_path)
    assert (machine.name, machine.cpu, machine.memory_mb, machine.load) == ("NVIDIA Orin", "Some CPU", 2000, 1.5)
    assert machine.flags == ("avx2", "avx512_vnni")
    assert machine.has_vnni


def test_a_machine_that_says_nothing_is_described_all_the_same(tmp_path: Path) -> None:
    machine = describe_machine(tmp_path, tmp_path)
    assert machine.cpu == ""
    assert not machine.has_vnni
    assert math.isnan(machine.load)


def test_memory_is_read_as_the_kernel_counts_it(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nVmHWM:\t  200000 kB\nVmRSS:\t 100000 kB\nRssAnon:\t 60000 kB\nRssFile:\t 40000 kB\n")
    memory = read_memory(status)
    assert memory.peak_mb == pytest.approx(204.8)
    assert memory.owned_mb + memory.files_mb == pytest.approx(memory.now_mb)
    assert math.isnan(read_memory(tmp_path / "absent").now_mb)


def test_a_peak_that_was_forgotten_is_that_of_what_follows(tmp_path: Path) -> None:
    forget_peak(tmp_path / "absent" / "clear_refs")  # a system without it: nothing happens
    clear = tmp_path / "clear_refs"
    clear.touch()
    forget_peak(clear)
    assert clear.read_text() == "5"
    if math.isnan(read_memory().peak_mb):
        pytest.skip("no /proc/self/status here")
    held = np.ones(30_000_000, np.uint8)
    before = read_memory().peak_mb
    del held
    forget_peak()
    assert read_memory().peak_mb < before - 20


def test_a_leak_grows_and_a_filled_cache_or_a_spike_does_not() -> None:
    leak = growth([100 + 0.01 * k for k in range(1000)])
    assert leak.mb_per_1000_frames == pytest.approx(10.0)
    assert (leak.frames, leak.warm_up_frames) == (1000, 100)
    assert leak.after_warm_up_mb == pytest.approx(101.5, abs=0.1)
    assert leak.at_end_mb == pytest.approx(109.5, abs=0.1)
    assert growth([50.0] * 90 + [100.0] * 910).mb_per_1000_frames == 0.0
    assert growth([100.0] * 700 + [300.0] * 5 + [100.0] * 295).mb_per_1000_frames == 0.0


def test_a_run_too_short_says_nothing_of_growth() -> None:
    assert math.isnan(growth([1.0, 2.0]).mb_per_1000_frames)
    short = growth([100.0 + k for k in range(60)])
    assert math.isnan(short.mb_per_1000_frames)
    assert short.at_end_mb > short.after_warm_up_mb
    assert math.isnan(growth([]).at_end_mb)


def test_multiply_adds_are_those_of_the_layers(shipped_engine: Engine) -> None:
    work, moved = network_work(SHIPPED_MODEL, shipped_engine.facts)
    stem = 128 * 128 * 32 * 6 * 9
    quarter = 64 * 64 * 9 * (32 * 64 + 2 * 64 * 64)
    trunk = 32 * 32 * 9 * (64 * 128 + 7 * 2 * 128 * 128)
    assert work > stem + quarter + trunk
    assert work < 2 * (stem + quarter + trunk), "the heads take less than all before them"
    assert moved > 3_300_000, "the weights alone"


def test_a_roofline_is_the_longer_of_work_and_memory() -> None:
    nano = DEVICES[0]
    busy = Work("embed", 1e9, 1.0, True)
    hungry = Work("embed", 1.0, 1e9, True)
    assert least_ms(busy, nano) == pytest.approx(2e9 / (nano.int8_tops * 1e12) * 1e3)
    assert least_ms(hungry, nano) == pytest.approx(1e9 / (nano.bandwidth_gbps * 1e9) * 1e3)
    assert least_ms(busy, DEVICES[2]) < least_ms(busy, nano)


def test_more_images_are_more_work(shipped_engine: Engine) -> None:
    few = frame_work(shipped_engine.facts, (1e8, 1e6), images=3, blocks=1, block=64)
    many = frame_work(shipped_engine.facts, (1e8, 1e6), images=28, blocks=200, block=128)
    assert [w.stage for w in few] == ["rectify", "embed", "correlate", "refine"]
    assert all(a.multiply_adds <= b.multiply_adds for a, b in zip(few, many, strict=True))


def test_the_flight_stays_on_the_map_and_shows_it(shipped_map: RegionMap) -> None:
    moments = list(fly(shipped_map, 200))
    assert all(shipped_map.contains(moment.position_enu_m) for moment in moments)
    assert np.linalg.norm(moments[0].position_enu_m - start_of(shipped_map)) < 1.0
    assert moments[0].frame.image_bgr.shape == (HEIGHT, WIDTH, 3)
    assert moments[0].frame.image_bgr.std() > 5
    steps = np.diff([moment.position_enu_m for moment in moments], axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 7.5, atol=0.1)
    assert bench_camera().width == WIDTH


def test_models_are_measured_in_turns_and_what_is_absent_is_said() -> None:
    opened, absent = open_all([SHIPPED_MODEL], threads=1)
    rows = measure_models(opened, rounds=2)
    assert {row.batch for row in rows} == {1, 3, 9}
    assert all(row.speedup == 1.0 for row in rows if row.model == SHIPPED_MODEL.name and row.backend == "onnxruntime")
    assert absent or any("tensorrt" in row.backend for row in rows)
    assert Spread.of([1.0, 2.0, 3.0]).median == 2.0


def test_tracking_holds_no_more_after_many_frames_than_after_few(
    shipped_map: RegionMap, shipped_engine: Engine
) -> None:
    confidence = read_confidence(SHIPPED_MODEL)
    start = start_of(shipped_map)
    brain = Localizer(shipped_engine, shipped_map, bench_camera(), BODY_FROM_CAMERA_DOWN, confidence, start_enu_m=start)
    held = []
    tracemalloc.start()
    try:
        for moment in fly(shipped_map, 20):
            brain.step(moment.frame, moment.telemetry, moment.frame.captured_at_ns)
            held.append(tracemalloc.get_traced_memory()[0] / 1e6)
    finally:
        tracemalloc.stop()
    assert brain.tracker.state is State.TRACKING
    assert abs(held[-1] - held[7]) < 0.3  # one kept spectrum would be 0.6 MB


def test_pages_of_the_map_that_were_looked_at_are_given_back(shipped_map: RegionMap) -> None:
    if not Path("/proc/self/smaps").is_file():
        pytest.skip("no /proc/self/smaps here")
    level = shipped_map.levels[0]

    def resident_kb() -> int:
        lines, inside, total = Path("/proc/self/smaps").read_text().splitlines(), False, 0
        for line in lines:
            if not line.split(" ", 1)[0].endswith(":"):
                inside = line.endswith(str(level.image.filename))
            elif inside and line.startswith("Rss:"):
                total += int(line.split()[1])
        return total

    before, _ = level.window(np.zeros(2), 256)
    assert resident_kb() >= 100
    level.release()
    assert resident_kb() == 0
    after, _ = level.window(np.zeros(2), 256)
    np.testing.assert_array_equal(before, after)


def test_the_bench_writes_all_that_it_shows(shipped_map: RegionMap, tmp_path: Path) -> None:
    app = Typer(pretty_exceptions_enable=False)
    app.command()(bench)
    arguments = ["--map", str(shipped_map.path), "--frames", "8", "--lost-frames", "4", "--turned-frames", "1"]
    run = CliRunner().invoke(app, [*arguments, "--rounds", "1", "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert run.exit_code == 0
    assert "ESTIMATE" in run.output
    result = json.loads((tmp_path / "out" / "bench.json").read_text())
    modes = ["tracking", "lost", "lost, heading unknown"]
    assert [row["mode"] for row in result["frames"]] == modes
    assert [row["total"]["count"] for row in result["frames"]] == [8, 4, 1]
    assert list(result["memory"]["modes"]) == modes
    assert all(held["peak_mb"] >= held["now_mb"] > 50 for held in result["memory"]["modes"].values())
    assert all(line in run.output for line in ("memory of the process", *modes))
    assert {"rectify", "embed", "correlate", "refine"} <= set(result["frames"][0]["stages"])
    assert result["frames"][0]["published"] > 0
    assert result["frames"][0]["median_error_m"] < 5
    assert result["map"]["bytes"] > 0
    assert result["memory"]["growth"]["frames"] == 8
    assert result["memory"]["growth"]["mb_per_1000_frames"] is None, "eight frames say nothing of it"
    assert "too few to tell growth" in run.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bench.json"]


def test_drawn_ground_is_a_map_s_imagery(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    from onboard.bench.ground import draw_ground

    path = draw_ground(tmp_path / "g.tif", 360.0)
    with rasterio.open(path) as raster:
        picture = raster.read()
        assert raster.crs.is_projected
    assert picture.shape == (3, 600, 600)
    assert picture.std() > 15
    assert [p.name for p in tmp_path.iterdir()] == ["g.tif"]
