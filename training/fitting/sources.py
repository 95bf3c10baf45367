"""Training data by its name: pairs to learn from, and the held-out benchmarks that say how well."""

from __future__ import annotations

import os
from pathlib import Path

from training.benchmarks.base import Benchmark
from training.benchmarks.opening import open_benchmark
from training.clouds.pairs import WithClouds
from training.clouds.points import read_clouds
from training.data.smallplaces import MANIFEST, STYLES, SmallPairs, benchmark, make, open_sites
from training.evaluation.run import take
from training.fitting.pairs import BenchmarkPairs, DataError, PairSource
from training.presets import Preset

SMALL = "small"
_QUERIES = 1000  # of a public data set's test split, spread over it; `pilotage evaluate` takes them all


def open_training(
    data: str, preset: Preset, protocol: str | None = None, clouds: Path | None = None
) -> tuple[PairSource, tuple[Benchmark, ...]]:
    """The pairs of `data` at the preset's sizes, and what they are held against.

    `small:FOLDER` or `small:FOLDER@DOMAIN` (the first domain unless it says otherwise): made where it is not there,
    held against the held-out places of its own domain and then of the other ones. KIND:PATH: a public data set, its
    training and its test split, with the clouds of a folder where one is named (small places have their own). Raises
    DataError, BenchmarkError, CloudError or SmallPlacesError where the data cannot be used.
    """
    kind, separator, path = data.partition(":")
    if not separator or not path:
        raise DataError("training data", data, "small:FOLDER, or KIND:PATH of a public data set")
    if kind == SMALL:
        folder, _, domain = path.partition("@")
        return open_small(Path(folder), domain or next(iter(STYLES)), preset)
    pairs = BenchmarkPairs(open_benchmark(data, protocol, "train"), preset.method.query_px, preset.method.reference_px)
    source = pairs if clouds is None else WithClouds(pairs, pairs.places, read_clouds(clouds))
    return source, tuple(take(held, _QUERIES) for held in open_benchmark(data, protocol, "test"))


def open_small(folder: Path, domain: str, preset: Preset) -> tuple[PairSource, tuple[Benchmark, ...]]:
    """The small places data set: see `open_training`."""
    if domain not in STYLES:
        raise DataError("domain of small places", domain, " or ".join(STYLES))
    if not (folder / MANIFEST).is_file():
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            remedy = f"make it once first: python -m training.data.smallplaces --out {folder}"
            raise DataError("no small places", folder, f"a folder with {MANIFEST}", remedy)
        print(f"making the small places data set in {folder}", flush=True)
        make(folder)
    sites = open_sites(folder, domain, "train")
    pairs = SmallPairs(sites, query_size=preset.method.query_px, reference_size=preset.method.reference_px)
    domains = (domain, *(other for other in STYLES if other != domain))
    return pairs, tuple(benchmark(folder, name) for name in domains)
