"""Open a benchmark by its kind."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from training.benchmarks.base import Benchmark, BenchmarkError

KINDS = ("university1652", "sues200", "denseuav", "vigor", "cvusa", "cvact", "uavvisloc", "places", "small")


def open_benchmark(data: str, protocol: str | None = None, split: str = "test") -> tuple[Benchmark, ...]:
    """The benchmarks of KIND:PATH, most often one. Without a protocol the kind's first.

    Raises BenchmarkError where the kind is unknown or the data is missing, incomplete or not in its layout.
    """
    kind, separator, path = data.partition(":")
    if not separator or kind not in KINDS or not path:
        raise BenchmarkError("data", data, "KIND:PATH, KIND one of " + ", ".join(KINDS))
    if kind != "places" and not Path(path).is_dir():
        raise BenchmarkError("data set folder is missing", path, "the unpacked data set", "see training/README.md")
    load = import_module(f"training.benchmarks.{kind}").load
    found: tuple[Benchmark, ...] = (
        load(Path(path), split=split) if protocol is None else load(Path(path), protocol, split)
    )
    for benchmark in found:
        if not benchmark.queries or not benchmark.references:
            raise BenchmarkError("benchmark without pictures", data, "at least one query and one reference")
    return found
