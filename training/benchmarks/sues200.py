"""SUES-200 (Zhu et al., TCSVT 2023).

Layout as downloaded: `drone_view_512/ID/{150,200,250,300}/*.jpg` (50 a height) and `satellite-view/ID/0.png`, IDs
0001 to 0200 (script/split_datasets.py in Reza-Zhu/SUES-200-Benchmark, which finds the first folder by "drone").
The 120 places of training are listed in that repository's script/indexs.yaml; the other 80 are asked for, against a
gallery of all 200. Each height is a benchmark of its own; papers print the four and often their mean.
"""

from __future__ import annotations

from pathlib import Path

from training.benchmarks.base import (
    Benchmark,
    BenchmarkError,
    FilePicture,
    Query,
    Reference,
    images_in,
    one_of,
    published,
    require_folder,
)
from training.benchmarks.university1652 import METRICS

NAME = "SUES-200"
PROTOCOLS = ("drone-satellite", "satellite-drone")
HEIGHTS_M = (150, 200, 250, 300)
PLACES = 200
_REMEDY = "get it from github.com/Reza-Zhu/SUES-200-Benchmark and unpack it whole, not split"
_TRAINING = (
    "1-7 9-11 13 15-16 20-21 24-34 36-37 39 43-45 51 55-58 60 64 66-67 69-70 73-74 76-77 80-82 84-91 94 "
    "96-97 100-106 113 116 118-120 123 125-127 129 132 134 137 139 141-142 145-149 151-152 155-160 163 "
    "166-169 171 174 179-180 182-187 191-193 196-200"
)
TRAINING = frozenset(
    number
    for first, _, last in (part.partition("-") for part in _TRAINING.split())
    for number in range(int(first), int(last or first) + 1)
)


def load(root: Path, protocol: str = PROTOCOLS[0], split: str = "test") -> tuple[Benchmark, ...]:
    """One benchmark a height. Raises BenchmarkError where places, heights or images are missing."""
    one_of("protocol of SUES-200", protocol, PROTOCOLS)
    one_of("split", split, ("test", "train"))
    drones = [folder for folder in sorted(root.glob("*drone*")) if folder.is_dir()]
    drone_root = require_folder(
        drones[0] if drones else root / "drone_view_512", "drone_view_512/0001/150/*.jpg", _REMEDY
    )
    satellite_root = require_folder(root / "satellite-view", "satellite-view/0001/0.png", _REMEDY)
    satellite = _pictures(satellite_root, "")
    return tuple(
        _at_height(root, protocol, split, height, _pictures(drone_root, str(height)), satellite) for height in HEIGHTS_M
    )


def _pictures(root: Path, height: str) -> dict[int, list[Path]]:
    """Images by place. All 200 places must be there with at least one image each."""
    found = {}
    for place in range(1, PLACES + 1):
        folder = root / f"{place:04d}" / height
        found[place] = images_in(folder) if folder.is_dir() else []
    missing = [place for place, images in found.items() if not images]
    if missing:
        value = f"{len(missing)} of {PLACES} places without images in {root}"
        raise BenchmarkError("incomplete data set", value, f"{root / f'{missing[0]:04d}' / height}", _REMEDY)
    return found


def _at_height(
    root: Path,
    protocol: str,
    split: str,
    height_m: int,
    drone: dict[int, list[Path]],
    satellite: dict[int, list[Path]],
) -> Benchmark:
    from_drone = protocol == PROTOCOLS[0]
    asked, given = (drone, satellite) if from_drone else (satellite, drone)
    references: list[Reference] = []
    index: dict[int, list[int]] = {}
    for place, paths in given.items():
        if split == "test" or place in TRAINING:
            index[place] = list(range(len(references), len(references) + len(paths)))
            references += [Reference(_picture(path, root), f"{place:04d}") for path in paths]
    queries = tuple(
        Query(_picture(path, root), f"{place:04d}", tuple(index[place]))
        for place, paths in asked.items()
        if (place in TRAINING) == (split == "train")
        for path in paths
    )
    sizes = {"drone images at this height": (sum(map(len, drone.values())), 50 * PLACES)}
    return Benchmark(
        NAME,
        f"{protocol} {height_m} m",
        split,
        queries,
        tuple(references),
        METRICS,
        "university",
        "queries" if from_drone else "references",
        notes=published(sizes),
    )


def _picture(path: Path, root: Path) -> FilePicture:
    return FilePicture(path, path.relative_to(root).as_posix())
