"""University-1652 (Zheng et al., ACM MM 2020).

Layout, of README.md in layumi/University1652-Baseline: `train/{drone,satellite,street,google}/ID/*`,
`test/{query,gallery}_{drone,satellite,street}/ID/*`, `test/4K_drone/ID/*`. A picture's place is the number of its
folder; all pictures of that place on the other side are right (evaluate_gpu.py there). Protocols are FROM-TO:
drone-satellite, satellite-drone, the same with street, and 4K-satellite (test_4K.py).
"""

from __future__ import annotations

from pathlib import Path

from training.benchmarks.base import (
    Benchmark,
    Query,
    Reference,
    by_place,
    class_folders,
    one_of,
    published,
    require_places,
)

NAME = "University-1652"
PROTOCOLS = (
    "drone-satellite",
    "satellite-drone",
    "street-satellite",
    "satellite-street",
    "street-drone",
    "drone-street",
    "4K-satellite",
)
METRICS = ("R@1", "R@5", "R@10", "R@1%", "AP")
_REMEDY = "ask for it at github.com/layumi/University1652-Baseline (Request.md) and unpack it whole"
_PUBLISHED = {
    "query_drone": 37855,
    "query_satellite": 701,
    "query_street": 2579,
    "gallery_drone": 51355,
    "gallery_satellite": 951,
    "gallery_street": 2921,
}


def load(root: Path, protocol: str = PROTOCOLS[0], split: str = "test") -> tuple[Benchmark, ...]:
    """One protocol. Raises BenchmarkError where folders, places or images are missing."""
    asked, given = one_of("protocol of University-1652", protocol, PROTOCOLS).split("-")
    if one_of("split", split, ("test", "train")) == "train":
        names = f"train/{asked.replace('4K', 'drone')}", f"train/{given}"
    else:
        names = f"test/{'4K_drone' if asked == '4K' else f'query_{asked}'}", f"test/gallery_{given}"
    return (between_folders(root, names, NAME, protocol, split, _REMEDY, _PUBLISHED if split == "test" else {}),)


def between_folders(
    root: Path,
    names: tuple[str, str],
    name: str,
    protocol: str,
    split: str,
    remedy: str,
    sizes: dict[str, int],
    metrics: tuple[str, ...] = METRICS,
) -> Benchmark:
    """Queries in one folder of folders against references in another; the folder's name is the place.

    `sizes` are the published numbers of images, by the last part of a folder's name.
    """
    asked_folders, given_folders = (class_folders(root / part, remedy) for part in names)
    require_places(asked_folders, given_folders, root / names[1], remedy)
    asked, _ = by_place(asked_folders, root)
    given, index = by_place(given_folders, root)
    counts = {}
    for part, found in zip(names, (len(asked), len(given)), strict=True):
        what = Path(part).name
        if what in sizes:
            counts[f"images in {what}"] = (found, sizes[what])
    return Benchmark(
        name,
        protocol,
        split,
        tuple(Query(picture, place, tuple(index[place])) for place, picture in asked),
        tuple(Reference(picture, place) for place, picture in given),
        metrics,
        "university",
        "references" if protocol.endswith("-drone") else "queries",
        notes=published(counts),
    )
