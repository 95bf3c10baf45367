"""DenseUAV (Dai et al., TIP 2024).

Layout, of README.md in Dmmm1997/DenseUAV: `train/{drone,satellite}/ID/*`,
`test/{query_drone,gallery_satellite,query_satellite,gallery_drone}/ID/*`, and `Dense_GPS_ALL.txt` (and _train, _test)
with lines "path E<longitude> N<latitude> height"; a picture's coordinates are those of the folder it lies in
(evaluateDistance.py there, which reads the second word as east whatever the README's order says). Six satellite
pictures, three heights of two dates, are right for a query; SDM@K takes their coordinates instead.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from training.benchmarks.base import Benchmark, BenchmarkError, one_of, require_text
from training.benchmarks.university1652 import between_folders

NAME = "DenseUAV"
PROTOCOLS = ("drone-satellite", "satellite-drone")
METRICS = ("R@1", "R@5", "R@10", "R@1%", "AP", "SDM@1", "SDM@3", "SDM@5", "SDM@10")
_REMEDY = "get it from github.com/Dmmm1997/DenseUAV and unpack it whole"
_PUBLISHED = {"query_drone": 2331, "query_satellite": 4662, "gallery_drone": 9099, "gallery_satellite": 18198}


def load(root: Path, protocol: str = PROTOCOLS[0], split: str = "test") -> tuple[Benchmark, ...]:
    """One protocol. Raises BenchmarkError where folders, images or coordinates are missing."""
    asked, given = one_of("protocol of DenseUAV", protocol, PROTOCOLS).split("-")
    test = one_of("split", split, ("test", "train")) == "test"
    names = (f"test/query_{asked}", f"test/gallery_{given}") if test else (f"train/{asked}", f"train/{given}")
    benchmark = between_folders(root, names, NAME, protocol, split, _REMEDY, _PUBLISHED if test else {}, METRICS)
    degrees = _coordinates(root / "Dense_GPS_ALL.txt")
    lacking = sorted({sample.place for sample in benchmark.references} - set(degrees))
    if lacking:
        value = f"{len(lacking)} places without coordinates in Dense_GPS_ALL.txt"
        raise BenchmarkError("incomplete data set", value, lacking[0], _REMEDY)
    return (
        dataclasses.replace(
            benchmark,
            queries=tuple(dataclasses.replace(query, degrees=degrees[query.place]) for query in benchmark.queries),
            references=tuple(dataclasses.replace(seen, degrees=degrees[seen.place]) for seen in benchmark.references),
        ),
    )


def _coordinates(path: Path) -> dict[str, tuple[float, float]]:
    """(latitude, longitude) in degrees by place."""
    found = {}
    for words in require_text(path, _REMEDY):
        try:
            longitude, latitude = float(words[1].lstrip("E")), float(words[2].lstrip("N"))
            found[words[0].split("/")[-2]] = latitude, longitude
        except (IndexError, ValueError) as error:
            raise BenchmarkError("coordinates", f"{path.name}: {' '.join(words)}", "path E... N... height") from error
    return found
