"""`pilotage bench`: milliseconds by stage, memory, sizes, and what an Orin could do at best."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def bench(
    map_path: Annotated[Path | None, typer.Option("--map", help="A region map; else 25 km2 are drawn.")] = None,
    model: Annotated[Path | None, typer.Option(help="Model file; else the shipped one.")] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Models to measure beside it, a float32 one first.")
    ] = None,
    frames: Annotated[int, typer.Option(min=4, help="Frames while tracking.")] = 120,
    lost_frames: Annotated[int, typer.Option(min=4, help="Frames over the whole map.")] = 12,
    turned_frames: Annotated[int, typer.Option(min=1, help="Frames over the whole map without a heading.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each model.")] = 30,
    threads: Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime.")] = 2,
    engines: Annotated[str, typer.Option(help="Folder of TensorRT engines; else beside the model.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for bench.json and for drawn ground.")] = Path("runs/bench"),
) -> None:
    """Measure this machine: frame to fix, models, memory; write bench.json and print the tables."""
    import cv2

    from onboard.bench.ground import map_to_measure_on
    from onboard.bench.machine import describe_machine
    from onboard.bench.roofline import DEVICES, frame_work, least_ms, network_work
    from onboard.bench.run import LOST, LOST_UNTURNED, TRACKING, measure_models, measure_whole, open_all
    from onboard.config import Config, EngineConfig
    from onboard.engine import SHIPPED_MODEL, open_engine
    from onboard.region import RegionMap

    source = SHIPPED_MODEL if model is None else model
    models = [*(against or []), source]
    on_cpu = EngineConfig("onnxruntime", threads)
    probe = open_engine(source, on_cpu)
    path = map_path if map_path is not None else map_to_measure_on(out, source)
    region = RegionMap.open(path, probe.facts)
    facts = probe.facts
    probe.close()
    cv2.setNumThreads(threads)
    machine = describe_machine()
    # Frames first: the models beside it would count among this process's memory.
    config = dataclasses.replace(Config(), engine=EngineConfig(threads=threads, folder=engines))
    flown = {TRACKING: frames, LOST: lost_frames, LOST_UNTURNED: turned_frames}
    rows, memory = measure_whole(region, source, config, flown, _progress())
    opened, absent = open_all(models, threads, engines)
    embed = measure_models(opened, rounds)
    for _, engine in opened:
        engine.close()
    network = network_work(source, facts)
    work = {
        "tracking": frame_work(facts, network, images=3, blocks=1, block=64),
        "lost": frame_work(facts, network, images=28, blocks=_blocks(region), block=128),
    }
    result: dict[str, Any] = {
        "machine": dataclasses.asdict(machine),
        "threads": threads,
        "map": {"km2": region.coverage_km2, "bytes": sum(part.bytes for part in region.manifest.parts)},
        "models": [dataclasses.asdict(row) for row in embed],
        "frames": [dataclasses.asdict(row) for row in rows],
        "memory": dataclasses.asdict(memory),
        "work": {mode: [dataclasses.asdict(stage) for stage in stages] for mode, stages in work.items()},
        "estimate_least_ms": {
            device.name: {mode: {w.stage: least_ms(w, device) for w in stages} for mode, stages in work.items()}
            for device in DEVICES
        },
        "absent": absent,
    }
    out.mkdir(parents=True, exist_ok=True)
    beside = out / "bench.json.partial"
    beside.write_text(json.dumps(_null_for_nan(result), indent=1, allow_nan=False))
    beside.replace(out / "bench.json")
    _print(result)
    print(f"written: {out / 'bench.json'}")


def _null_for_nan(value: Any) -> Any:
    """JSON has no word for what is not a number."""
    if isinstance(value, dict):
        return {key: _null_for_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_null_for_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _blocks(region: Any) -> int:
    """Blocks of 128 cells that a search of the whole map looks at, at most as many as the config allows."""
    from onboard.config import SearchConfig
    from onboard.match.correlate import LARGE_BLOCK

    rows, cols, _ = region.levels[0].detail.shape
    step = LARGE_BLOCK - region.levels[0].tile_px // 8 + 1
    return min(-(-rows // step) * -(-cols // step), SearchConfig().max_blocks)


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TaskID, TextColumn

    progress = Progress(TextColumn("{task.description}"), MofNCompleteColumn(), console=Console(stderr=True))
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        progress.start()
        if stage not in tasks:
            tasks[stage] = progress.add_task(stage, total=total)
        progress.update(tasks[stage], completed=done)
        if done == total:
            progress.stop()

    return report


def _print(result: dict[str, Any]) -> None:
    """The tables of bench.json."""
    from rich.console import Console
    from rich.table import Table

    from onboard.bench.memory import TELLING_FRAMES

    machine = result["machine"]
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 120)  # of tables in a file or a pipe
    console.print(
        f"{machine['name']}, {machine['cpu']}, {machine['cores']} cores ({' '.join(machine['flags'])}), "
        f"{machine['memory_mb']} MB, load {machine['load']}; {result['threads']} threads"
    )
    table = Table("model", "backend", "kB", "batch", "ms an image", "p95", "faster", title="models, in turns")
    for row in result["models"]:
        ms = row["ms"]
        table.add_row(
            f"{row['model']} ({row['precision'].split(' ')[0]})",
            row["backend"],
            f"{row['bytes'] / 1e3:.0f}",
            str(row["batch"]),
            f"{ms['median']:.1f}",
            f"{ms['p95']:.1f}",
            f"{row['speedup']:.2f} x",
        )
    console.print(table)
    for frame in result["frames"]:
        table = Table("stage", "median ms", "p95 ms", title=f"frame to fix, {frame['mode']}, {frame['backend']}")
        for stage, ms in (*frame["stages"].items(), ("frame to fix", frame["total"])):
            table.add_row(stage, f"{ms['median']:.1f}", f"{ms['p95']:.1f}")
        console.print(table)
        console.print(
            f"{frame['frames_per_s']:.1f} frames/s, {frame['published']} of {frame['total']['count']} published, "
            f"median error {frame['median_error_m']:.2f} m"
        )
    memory, region = result["memory"], result["map"]
    grown = memory["growth"]
    table = Table("resident MB", "peak", "at its end", "owned", "pages of files", title="memory of the process")
    for mode, held in (("before the first frame", memory["after_open"]), *memory["modes"].items()):
        table.add_row(mode, *(f"{held[key]:.0f}" for key in ("peak_mb", "now_mb", "owned_mb", "files_mb")))
    console.print(table)
    console.print(f"map {region['km2']:.1f} km2, {region['bytes'] / 1e6:.0f} MB")
    rate = grown["mb_per_1000_frames"]
    telling = f"growth {rate:+.2f} MB per 1000 frames"
    if math.isnan(rate):
        telling = f"too few to tell growth, --frames {TELLING_FRAMES} or more"
    console.print(
        f"tracking, {grown['frames']} frames: {grown['after_warm_up_mb']:.1f} MB resident after the first "
        f"{grown['warm_up_frames']}, {grown['at_end_mb']:.1f} MB at the end; {telling}"
    )
    table = Table(
        "stage",
        "1e6 multiply-adds",
        "MB",
        *result["estimate_least_ms"],
        title="ESTIMATE: least ms, by stage while tracking",
    )
    for stage in result["work"]["tracking"]:
        table.add_row(
            stage["stage"],
            f"{stage['multiply_adds'] / 1e6:.0f}",
            f"{stage['bytes'] / 1e6:.1f}",
            *(f"{modes['tracking'][stage['stage']]:.2f}" for modes in result["estimate_least_ms"].values()),
        )
    for mode in result["work"]:
        least = (sum(modes[mode].values()) for modes in result["estimate_least_ms"].values())
        table.add_row(f"all, {mode}", "", "", *(f"{ms:.2f}" for ms in least))
    console.print(table)
    console.print("bounds from published peaks, never measured on an Orin: real times are several times as long")
    for line in result["absent"]:
        console.print(f"not measured: {line}")
