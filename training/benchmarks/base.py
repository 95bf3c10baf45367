"""What a benchmark is to those who evaluate or train: queries, references, and which belongs to which.

Public data sets decode no image before it is asked for: a benchmark of a hundred thousand pictures is a list of names.
Positions are east, north in metres about an anchor of their `area`; two areas have no distance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np

from onboard.errors import PilotageError

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
Side = Literal["queries", "references"]
OnePercent = Literal["university", "sample4geo"]  # the two readings of R@1%, see training.evaluation.metrics


class BenchmarkError(PilotageError):
    """A data set that is missing, incomplete or not in its official layout."""


class Picture(Protocol):
    """An image that can be read; `name` is unique in its benchmark and seeds what weather does to it."""

    @property
    def name(self) -> str: ...

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(rgb uint8 (H, W, 3), mask bool (H, W), true where there is ground)."""
        ...


@dataclass(frozen=True, slots=True)
class FilePicture:
    """An image file, all of it valid."""

    path: Path
    name: str

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Picture.read`. Raises BenchmarkError where the file does not decode."""
        bgr = cv2.imread(str(self.path), cv2.IMREAD_COLOR)
        if bgr is None:
            raise BenchmarkError("image does not decode", self.path, "a whole image file", "download it again")
        return np.ascontiguousarray(bgr[..., ::-1]), np.ones(bgr.shape[:2], dtype=bool)


@dataclass(frozen=True, slots=True)
class Reference:
    """One picture of the gallery. `centre_enu_m` and `size_m` (north to south, west to east) are of the ground that
    the picture covers, north up; None where the data set does not say. `degrees` is latitude, longitude."""

    picture: Picture
    place: str
    area: str = ""
    centre_enu_m: tuple[float, float] | None = None
    size_m: tuple[float, float] | None = None
    degrees: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """One picture whose place is sought.

    `positives` index the references that are right, the best one first; `covering` those that also show the
    place, which hit rate forgives. `position_enu_m` is where the picture was taken, or its centre on the ground.
    `shares` are (row, col) of that place in each of `positives + covering`, 0..1, where labels say so themselves.
    """

    picture: Picture
    place: str
    positives: tuple[int, ...]
    covering: tuple[int, ...] = ()
    area: str = ""
    position_enu_m: tuple[float, float] | None = None
    degrees: tuple[float, float] | None = None
    shares: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One protocol of one data set.

    `metrics` are the columns that its papers print, in their order. `drone` says on which side the drone's
    pictures are, for weather. `same_scale`: queries and references are north up at one resolution, so that a query
    can be laid on a reference as a template. `notes` are said under the table.
    """

    name: str
    protocol: str
    split: str
    queries: tuple[Query, ...]
    references: tuple[Reference, ...]
    metrics: tuple[str, ...]
    one_percent: OnePercent = "sample4geo"
    drone: Side = "queries"
    same_scale: bool = False
    notes: tuple[str, ...] = ()

    def position_in(self, query: int, reference: int) -> tuple[float, float] | None:
        """(row, col) of a query's place in a reference as a share of its height and width, 0..1 where the reference
        shows it; None: unknown. A label goes before geometry."""
        asked, seen = self.queries[query], self.references[reference]
        if asked.shares:
            labelled = asked.positives + asked.covering
            if reference in labelled:
                return asked.shares[labelled.index(reference)]
        if asked.position_enu_m is None or seen.centre_enu_m is None or seen.size_m is None or asked.area != seen.area:
            return None
        east, north = (a - b for a, b in zip(asked.position_enu_m, seen.centre_enu_m, strict=True))
        return 0.5 - north / seen.size_m[0], 0.5 + east / seen.size_m[1]


def require_folder(path: Path, expected: str, remedy: str = "see training/README.md for the data") -> Path:
    """The folder; raises BenchmarkError, naming it, where it is not there."""
    if not path.is_dir():
        raise BenchmarkError("data set folder is missing", path, expected, remedy)
    return path


def require_files(paths: Sequence[Path], remedy: str, allowed_share: float = 0.0) -> list[bool]:
    """Which of the files are there. Raises BenchmarkError, saying how many of how many are missing and the first,
    unless at most `allowed_share` of them is."""
    there = [path.is_file() for path in paths]
    missing = len(there) - sum(there)
    if missing > allowed_share * len(paths):
        first = paths[there.index(False)]
        raise BenchmarkError("incomplete data set", f"{missing} of {len(paths)} files missing", str(first), remedy)
    return there


def require_text(path: Path, remedy: str) -> list[list[str]]:
    """The words of each line of a text file that is not blank."""
    require_files([path], remedy)
    return [words for line in path.read_text(encoding="utf-8").splitlines() if (words := line.split())]


def class_folders(root: Path, remedy: str) -> dict[str, list[Path]]:
    """Images by the name of the folder they lie in, both sorted: the layout of torchvision's ImageFolder.

    Raises BenchmarkError where the root is missing, holds no such folder, or some of them are empty.
    """
    require_folder(root, "a folder of folders of images, one a place", remedy)
    found = {folder.name: images_in(folder) for folder in sorted(root.iterdir()) if folder.is_dir()}
    empty = [name for name, images in found.items() if not images]
    if not found or empty:
        value = f"{len(empty)} of {len(found)} places without images in {root}"
        raise BenchmarkError("incomplete data set", value, empty[0] if empty else "at least one place", remedy)
    return found


def images_in(folder: Path) -> list[Path]:
    """The image files of one folder, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES)


def require_places(asked: Iterable[str], gallery: Iterable[str], where: Path, remedy: str) -> None:
    """Raise BenchmarkError unless each place that is asked for is in the gallery."""
    wanted, there = set(asked), set(gallery)
    missing = sorted(wanted - there)
    if missing:
        value = f"{len(missing)} of {len(wanted)} places missing in {where}"
        raise BenchmarkError("incomplete data set", value, missing[0], remedy)


def by_place(folders: dict[str, list[Path]], root: Path) -> tuple[list[tuple[str, FilePicture]], dict[str, list[int]]]:
    """The pictures of `class_folders` in order with their places, and the indexes of each place's."""
    pictures = [
        (place, FilePicture(path, path.relative_to(root).as_posix()))
        for place, paths in folders.items()
        for path in paths
    ]
    index: dict[str, list[int]] = {}
    for number, (place, _) in enumerate(pictures):
        index.setdefault(place, []).append(number)
    return pictures, index


def one_of(what: str, value: str, allowed: Sequence[str]) -> str:
    """The value; raises BenchmarkError, listing what is allowed, where it is none of it."""
    if value not in allowed:
        raise BenchmarkError(what, value, " or ".join(allowed))
    return value


def published(counts: dict[str, tuple[int, int]]) -> tuple[str, ...]:
    """Notes for the sizes that differ from the published ones; counts are {what: (found, published)}."""
    return tuple(
        f"{found:,} {what}, published are {whole:,}: not comparable with the papers"
        for what, (found, whole) in counts.items()
        if found != whole
    )
