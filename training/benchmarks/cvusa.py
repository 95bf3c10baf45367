"""CVUSA, the subset of Zhai et al., CVPR 2017.

Layout as Skyy93/Sample4Geo reads it (sample4geo/dataset/cvusa.py): `splits/train-19zl.csv` and `splits/val-19zl.csv`
with rows "bingmap/19/ID.jpg,streetview/panos/ID.jpg,annotation", paths from the root. One satellite image is right for
a panorama, and its centre is the panorama's place; 35,532 pairs to train on, 8,884 to test on.
"""

from __future__ import annotations

import csv
from pathlib import Path

from training.benchmarks.base import (
    Benchmark,
    BenchmarkError,
    FilePicture,
    Query,
    Reference,
    one_of,
    published,
    require_files,
)

NAME = "CVUSA"
PROTOCOLS = ("val",)
METRICS = ("R@1", "R@5", "R@10", "R@1%")
_REMEDY = "ask for the CVPR subset at mvrl.cse.wustl.edu/datasets/cvusa and unpack it whole"
_PUBLISHED = {"train": 35532, "val": 8884}


def load(root: Path, protocol: str = PROTOCOLS[0], split: str = "test") -> tuple[Benchmark, ...]:
    """The test pairs, or those of training. Raises BenchmarkError where the list or images are missing."""
    one_of("protocol of CVUSA", protocol, PROTOCOLS)
    part = "train" if one_of("split", split, ("test", "train")) == "train" else "val"
    listing = root / "splits" / f"{part}-19zl.csv"
    require_files([listing], _REMEDY)
    with listing.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    short = next((row for row in rows if len(row) < 2), None)
    if short is not None:
        raise BenchmarkError("list of CVUSA", ",".join(short), "satellite,panorama,annotation")
    require_files([root / name for row in rows for name in row[:2]], _REMEDY)
    places = [Path(row[0]).stem for row in rows]
    return (
        Benchmark(
            NAME,
            protocol,
            split,
            tuple(
                Query(FilePicture(root / r[1], r[1]), p, (k,))
                for k, (r, p) in enumerate(zip(rows, places, strict=True))
            ),
            tuple(Reference(FilePicture(root / r[0], r[0]), p) for r, p in zip(rows, places, strict=True)),
            METRICS,
            notes=published({"pairs": (len(rows), _PUBLISHED[part])}),
        ),
    )
