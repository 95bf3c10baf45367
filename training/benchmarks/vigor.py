"""VIGOR (Zhu et al., CVPR 2021), with the labels corrected by SliceMatch (Lentsch et al., CVPR 2023).

Layout, of data/DATASET.md in Jeff-Zilence/VIGOR: `CITY/panorama/*,latitude,longitude,.jpg`,
`CITY/satellite/satellite_latitude_longitude.png`, `splits/CITY/{satellite_list,same_area_balanced_train,
same_area_balanced_test,pano_label_balanced}.txt`. VIGOR_corrected_labels in tudelft-iv/SliceMatch puts
`splits__corrected` in the place of `splits`, its label files ending in __corrected.txt. A line is the panorama, then
four times satellite image, delta row, delta col: the positive, and three semi-positives. The panorama lies at row
320 + delta row, col 320 - delta col of the 640 pixels (evaluate_from_npy.py draws it there).

Same-area: all four cities; cross-area: trained on New York and Seattle, tested on San Francisco and Chicago. The
gallery is every satellite image of the cities. Metres per pixel are SliceMatch's by city, 0.114 for the original
labels, which were made with that.
"""

from __future__ import annotations

from pathlib import Path

from onboard.frames import MapFrame
from training.benchmarks.base import (
    Benchmark,
    BenchmarkError,
    FilePicture,
    Query,
    Reference,
    one_of,
    published,
    require_files,
    require_folder,
    require_text,
)

NAME = "VIGOR"
PROTOCOLS = ("same-area", "cross-area", "same-area-original", "cross-area-original")
METRICS = ("R@1", "R@5", "R@10", "R@1%", "hit", "covers", "R@1m", "R@10m", "mean m", "median m")
METRES_PER_PIXEL = {"NewYork": 0.113248, "Seattle": 0.100817, "SanFrancisco": 0.118141, "Chicago": 0.111262}
ORIGINAL_METRES_PER_PIXEL = 0.114
SIDE_PX = 640
_REMEDY = "ask for it at github.com/Jeff-Zilence/VIGOR (data/DATASET.md) and unpack it whole"
_TRAINED, _TESTED = ("NewYork", "Seattle"), ("SanFrancisco", "Chicago")
_PUBLISHED_GALLERY = 90618  # all four cities


def load(root: Path, protocol: str = PROTOCOLS[0], split: str = "test") -> tuple[Benchmark, ...]:
    """One protocol; without "-original" the corrected labels are needed. Raises BenchmarkError."""
    one_of("protocol of VIGOR", protocol, PROTOCOLS)
    one_of("split", split, ("test", "train"))
    same, corrected = protocol.startswith("same"), not protocol.endswith("original")
    cities = (*_TRAINED, *_TESTED) if same else (_TRAINED if split == "train" else _TESTED)
    labels = "splits__corrected" if corrected else "splits"
    remedy = "take VIGOR_corrected_labels of github.com/tudelft-iv/SliceMatch, or a protocol ending in -original"
    require_folder(root / labels, f"{labels}/{cities[0]}/satellite_list.txt", remedy if corrected else _REMEDY)
    references: list[Reference] = []
    queries: list[Query] = []
    for city in cities:
        metres = METRES_PER_PIXEL[city] if corrected else ORIGINAL_METRES_PER_PIXEL
        seen, numbers = _references(root, root / labels / city, city, metres, len(references))
        references += seen
        stem = f"same_area_balanced_{split}" if same else "pano_label_balanced"
        lines = require_text(root / labels / city / f"{stem}{'__corrected' if corrected else ''}.txt", _REMEDY)
        queries += _queries(root, city, lines, numbers, references, metres)
    counts = {"satellite images": (len(references), _PUBLISHED_GALLERY)} if same else {}
    notes = (f"labels of {labels}", *published(counts))
    return (Benchmark(NAME, protocol, split, tuple(queries), tuple(references), METRICS, drone="queries", notes=notes),)


def _references(
    root: Path, labels: Path, city: str, metres: float, first: int
) -> tuple[list[Reference], dict[str, int]]:
    """The satellite images of a city, and their indexes in the gallery by name."""
    names = [words[0] for words in require_text(labels / "satellite_list.txt", _REMEDY)]
    paths = [root / city / "satellite" / name for name in names]
    require_files(paths, _REMEDY)
    frame: MapFrame | None = None
    seen = []
    for name, path in zip(names, paths, strict=True):
        latitude, longitude = _degrees(Path(name).stem.split("_")[1:], path)
        frame = frame or MapFrame(latitude, longitude)
        east, north = (float(v) for v in frame.enu_from_geodetic(latitude, longitude))
        side = SIDE_PX * metres
        picture = FilePicture(path, f"{city}/satellite/{name}")
        seen.append(Reference(picture, name, city, (east, north), (side, side), (latitude, longitude)))
    return seen, {name: first + number for number, name in enumerate(names)}


def _queries(
    root: Path, city: str, lines: list[list[str]], numbers: dict[str, int], seen: list[Reference], metres: float
) -> list[Query]:
    paths = [root / city / "panorama" / words[0] for words in lines]
    require_files(paths, _REMEDY)
    queries = []
    for words, path in zip(lines, paths, strict=True):
        try:
            covering = [numbers[words[k]] for k in (1, 4, 7, 10)]
            deltas = [(float(words[k + 1]), float(words[k + 2])) for k in (1, 4, 7, 10)]
        except (IndexError, KeyError, ValueError) as error:
            message = "panorama and 4 times satellite image of the list, delta row, delta col"
            raise BenchmarkError("label of VIGOR", " ".join(words)[:120], message) from error
        shares = tuple((0.5 + row / SIDE_PX, 0.5 - col / SIDE_PX) for row, col in deltas)
        east, north = seen[covering[0]].centre_enu_m or (0.0, 0.0)
        position = east - deltas[0][1] * metres, north - deltas[0][0] * metres
        degrees = _degrees(words[0].split(",")[1:3], path)
        picture = FilePicture(path, f"{city}/panorama/{words[0]}")
        queries.append(Query(picture, words[1], (covering[0],), tuple(covering[1:]), city, position, degrees, shares))
    return queries


def _degrees(words: list[str], path: Path) -> tuple[float, float]:
    try:
        return float(words[0]), float(words[1])
    except (IndexError, ValueError) as error:
        raise BenchmarkError("file name of VIGOR", path.name, "latitude and longitude in it") from error
