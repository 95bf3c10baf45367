"""CVACT (Liu and Li, CVPR 2019).

Layout as Skyy93/Sample4Geo reads it (sample4geo/dataset/cvact.py): `ACT_data.mat` (panoIds, utm, trainSet, valSet,
valSetAll; indexes count from 1), `ANU_data_small/{streetview/ID_grdView.jpg,satview_polish/ID_satView_polish.jpg}` for
training and val, `ANU_data_test/` likewise for the test.

- val: 8,884 pairs, one satellite image right for each panorama.
- test: 92,802 pairs, one to one, as Sample4Geo and those after it count.
- test-5m: the same pairs, but any satellite image within 5 m by UTM is right: RecallGeo.m in Liumouliu/OriCNN, the data
  set's own evaluation. (The 25 m in that repository's input_data_ACT_test.py choose positives of training.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

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

NAME = "CVACT"
PROTOCOLS = ("val", "test", "test-5m")
METRICS = ("R@1", "R@5", "R@10", "R@1%")
WITHIN_M = 5.0
_REMEDY = "ask the authors at github.com/Liumouliu/OriCNN and unpack it whole"
_PUBLISHED = {"trainSet": 35532, "valSet": 8884, "valSetAll": 92802}
_MISSING_IN_TRAINING = 0.01  # Sample4Geo skips training pairs whose images are not in the release


def load(root: Path, protocol: str = PROTOCOLS[0], split: str = "test") -> tuple[Benchmark, ...]:
    """One protocol, or the training pairs. Raises BenchmarkError where the list or images are missing."""
    one_of("protocol of CVACT", protocol, PROTOCOLS)
    training = one_of("split", split, ("test", "train")) == "train"
    part = "trainSet" if training else "valSet" if protocol == "val" else "valSetAll"
    folder = root / ("ANU_data_test" if part == "valSetAll" else "ANU_data_small")
    names, utm = _listed(root / "ACT_data.mat", part)
    streets = [folder / "streetview" / f"{name}_grdView.jpg" for name in names]
    satellites = [folder / "satview_polish" / f"{name}_satView_polish.jpg" for name in names]
    both = require_files([*streets, *satellites], _REMEDY, _MISSING_IN_TRAINING if training else 0.0)
    kept = [k for k in range(len(names)) if both[k] and both[k + len(names)]]
    positions = [(float(utm[k, 0]), float(utm[k, 1])) for k in kept]
    positives = _within(np.array(positions)) if protocol == "test-5m" else [(k,) for k in range(len(kept))]
    return (
        Benchmark(
            NAME,
            protocol,
            split,
            tuple(
                Query(
                    FilePicture(streets[k], f"{folder.name}/streetview/{names[k]}"),
                    names[k],
                    positives[number],
                    position_enu_m=positions[number],
                )
                for number, k in enumerate(kept)
            ),
            tuple(
                Reference(
                    FilePicture(satellites[k], f"{folder.name}/satview_polish/{names[k]}"),
                    names[k],
                    centre_enu_m=positions[number],
                )
                for number, k in enumerate(kept)
            ),
            METRICS,
            notes=published({"pairs": (len(kept), _PUBLISHED[part])}),
        ),
    )


def _listed(path: Path, part: str) -> tuple[list[str], np.ndarray]:
    """Names of one part, and their UTM coordinates (N, 2) in metres."""
    import scipy.io

    require_files([path], "it lies in github.com/Liumouliu/OriCNN under CVACT_orientations")
    try:
        data: dict[str, Any] = scipy.io.loadmat(str(path))
        field = next(name for name in data[part].dtype.names if name.endswith("Ind"))
        index = np.asarray(data[part][field][0, 0], dtype=np.int64).ravel() - 1
        names = [str(name).strip() for name in np.asarray(data["panoIds"]).ravel()]
        return [names[k] for k in index], np.asarray(data["utm"], dtype=float)[index]
    except Exception as error:  # a broken file raises many classes, none documented
        raise BenchmarkError("list of CVACT", f"{path} ({error})", f"panoIds, utm, {part}.*Ind", _REMEDY) from error


def _within(positions: np.ndarray) -> list[tuple[int, ...]]:
    """Which positions lie within 5 m of each, itself first."""
    from scipy.spatial import cKDTree

    near = cKDTree(positions).query_ball_point(positions, WITHIN_M)
    return [(k, *sorted(set(found) - {k})) for k, found in enumerate(near)]
