"""A small places data set made in the repo: two domains of procedural ground, kept apart, with all a method asks for.

    python -m training.data.smallplaces --out runs/smallplaces

A domain is a set of worlds, seasons and renderer style of its own; each has worlds to train on and others held out, so
that generalisation can be measured to other ground of the domain and to the other domain. Every site has map tiles,
views (`smallworld.KINDS`), a point cloud and positions. The folder holds one file a world and a manifest with their
hashes; making it continues where it was interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from onboard.errors import PilotageError
from training.benchmarks.base import Benchmark, Query, Reference
from training.benchmarks.places import ArrayPicture
from training.data.smallworld import KINDS, RECTIFIED, Style, WorldConfig, make_world
from training.renderer.season import Season

FORMAT = 1
MANIFEST = "manifest.json"
METRICS = ("R@1", "R@5", "R@10", "R@1%", "hit", "R@1m", "R@10m", "mean m", "median m")
_APART_M = 1e5  # between two worlds, so that no place of the one is a neighbour of one of the other

STYLES = {
    "lowland": Style(
        7000, 18.0, Season.SUMMER, (152.0, 50.0), 0.0, (Season.SPRING, Season.SUMMER), (40.0, 60.0), 0.0, 0.6
    ),
    "upland": Style(
        8000, 90.0, Season.AUTUMN, (205.0, 30.0), 0.5, (Season.AUTUMN, Season.WINTER), (18.0, 34.0), 0.6, 1.4
    ),
}
SPLITS = ("train", "test")


class SmallPlacesError(PilotageError):
    """A small places data set that is missing, broken or of other settings."""


@dataclass(frozen=True, slots=True)
class SmallPlacesConfig:
    """How much is made. Worlds of `train` and `test` are counted for each domain; a world has `side`^2 places."""

    train_worlds: int = 3
    test_worlds: int = 2
    world: WorldConfig = field(default_factory=WorldConfig)

    def worlds(self) -> list[tuple[str, str, int]]:
        """(domain, split, seed) of each."""
        split = ["train"] * self.train_worlds + ["test"] * self.test_worlds
        return [(name, part, STYLES[name].first_seed + k) for name in STYLES for k, part in enumerate(split)]


def make(out: Path, config: SmallPlacesConfig = SmallPlacesConfig(), processes: int = 0) -> Path:
    """Make the data set, or what is left to make of it; returns the manifest's path.

    The same settings give the same bytes, whatever `processes` (0: one a core). Raises SmallPlacesError where the
    folder holds one of other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    settings = json.loads(json.dumps({"config": dataclasses.asdict(config), "styles": _styles()}))
    kept = out / "settings.json"
    if kept.exists() and json.loads(kept.read_text()) != settings:
        raise SmallPlacesError("small places", out, "the settings that it was begun with", "choose another folder")
    _write(kept, json.dumps(settings, indent=1) + "\n")
    left = [world for world in config.worlds() if not (out / _file(world)).exists()]
    if processes == 1 or len(left) < 2:
        for world in left:
            _make_file(out, world, config.world)
    else:
        pool = ProcessPoolExecutor(processes or os.cpu_count(), multiprocessing.get_context("spawn"))
        with pool:
            for job in as_completed([pool.submit(_make_file, out, world, config.world) for world in left]):
                job.result()
    hashes = {_file(world): _sha256(out / _file(world)) for world in config.worlds()}
    whole = hashlib.sha256("".join(hashes.values()).encode()).hexdigest()
    manifest = {"format": FORMAT, "sha256": whole, **settings, "worlds": hashes}
    return _write(out / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _styles() -> dict[str, object]:
    return {name: dataclasses.asdict(style) for name, style in STYLES.items()}


def _file(world: tuple[str, str, int]) -> str:
    return "{}_{}_{}.npz".format(*world)


def _make_file(out: Path, world: tuple[str, str, int], config: WorldConfig) -> None:
    cv2.setNumThreads(1)  # one process a core
    domain, _, seed = world
    path = out / _file(world)
    beside = path.with_suffix(".partial")
    with beside.open("wb") as file:
        np.savez_compressed(file, **make_world(seed, STYLES[domain], config))  # type: ignore[arg-type]
    beside.replace(path)


def _write(path: Path, text: str) -> Path:
    beside = path.with_suffix(".partial")
    beside.write_text(text)
    beside.replace(path)
    return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Sites:
    """Worlds of one domain and split, one after the other: P sites. Fields as `make_world` gives them, and

    `where_m` (P, 2): east, north, of which those of two worlds lie far apart; `world` (P,) the world's number.
    """

    name: str
    metres_per_pixel: float
    where_m: np.ndarray
    world: np.ndarray
    reference: np.ndarray
    reference_enu_m: np.ndarray
    query: np.ndarray
    query_mask: np.ndarray
    query_enu_m: np.ndarray
    cloud: np.ndarray


def open_sites(folder: Path, domain: str, split: str) -> Sites:
    """The places of a domain, in memory. Raises SmallPlacesError where the data set is not there, not whole, or
    knows no such domain or split."""
    if domain not in STYLES or split not in SPLITS:
        raise SmallPlacesError("small places", f"{domain}, {split}", f"{' or '.join(STYLES)}, {' or '.join(SPLITS)}")
    path = folder / MANIFEST
    if not path.is_file():
        remedy = f"python -m training.data.smallplaces --out {folder}"
        raise SmallPlacesError("no small places", folder, f"a folder with {MANIFEST}", remedy)
    manifest = json.loads(path.read_text())
    if manifest.get("format") != FORMAT:
        raise SmallPlacesError("small places' format", manifest.get("format"), str(FORMAT), "make them again")
    worlds = []
    for name in (name for name in manifest["worlds"] if name.startswith(f"{domain}_{split}_")):
        if not (folder / name).is_file() or _sha256(folder / name) != manifest["worlds"][name]:
            remedy = "remove the file and make the data set again"
            raise SmallPlacesError("broken small places", folder / name, "the file of the manifest", remedy)
        with np.load(folder / name) as file:
            worlds.append({key: file[key] for key in file.files})
    if not worlds:
        raise SmallPlacesError("small places", f"{folder} has no worlds of {domain}, {split}", "at least one")
    number = np.repeat(np.arange(len(worlds)), [len(world["site_enu_m"]) for world in worlds])
    joined = {key: np.concatenate([world[key] for world in worlds]) for key in worlds[0] if key != "season"}
    where = joined.pop("site_enu_m") + _APART_M * np.stack([number, np.zeros(len(number))], axis=1)
    scale = float(manifest["config"]["world"]["metres_per_pixel"])
    return Sites(f"small {domain} {split}", scale, where, number, **joined)


class SmallPairs:
    """Pairs to train on, one for each view: `fitting.pairs.PairSource`.

    `kinds` are those of `KINDS` that are drawn; a pair's reference is one of the site's by chance. Pictures are scaled
    to `query_size` and `reference_size` (height, width); None leaves them.
    """

    def __init__(
        self,
        sites: Sites,
        kinds: Sequence[str] = RECTIFIED,
        query_size: tuple[int, int] | None = None,
        reference_size: tuple[int, int] | None = None,
    ) -> None:
        self.name, self._sites, self._sizes = sites.name, sites, (query_size, reference_size)
        self._views = _views_of(sites, kinds)
        self.label = np.repeat(np.arange(len(sites.where_m)), len(self._views))
        self.where_m = sites.where_m[self.label]

    def __len__(self) -> int:
        return len(self.label)

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One pair as `training.data.batch.Batch` holds it, with its cloud."""
        sites, site = self._sites, int(self.label[index])
        view = self._views[index % len(self._views)]
        tile = int(rng.integers(sites.reference.shape[1]))
        query = np.where(sites.query_mask[site, view, :, :, None], sites.query[site, view], 0).astype(np.uint8)
        reference = _fitted(sites.reference[site, tile], self._sizes[1])
        side_m = sites.reference.shape[2] * sites.metres_per_pixel
        east, north = sites.query_enu_m[site, view] - sites.reference_enu_m[site, tile]
        return {
            "query": _fitted(query, self._sizes[0]),
            "reference": reference,
            "label": self.label[index],
            "position": np.array([0.5 - north / side_m, 0.5 + east / side_m], dtype=np.float32),
            "metres_per_pixel": np.array(side_m / reference.shape[1], dtype=np.float32),
            "where_m": sites.where_m[site],
            "cloud": sites.cloud[site],
        }


def _views_of(sites: Sites, kinds: Sequence[str]) -> list[int]:
    """The numbers of the views of some kinds."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise SmallPlacesError("kinds of views", ", ".join(kinds), "some of " + ", ".join(KINDS))
    return [view for view in range(sites.query.shape[1]) if KINDS[view % len(KINDS)] in kinds]


def _fitted(rgb: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """(3, H, W) of (h, w, 3), scaled to `size` (height, width)."""
    if size is not None and rgb.shape[:2] != size:
        how = cv2.INTER_AREA if rgb.shape[0] >= size[0] else cv2.INTER_LINEAR
        rgb = cv2.resize(rgb, (size[1], size[0]), interpolation=how)
    return np.ascontiguousarray(rgb.transpose(2, 0, 1))


def benchmark(folder: Path, domain: str, split: str = "test", kinds: Sequence[str] = RECTIFIED) -> Benchmark:
    """Find each view's place among the first tiles of all places of the split. Rectified views alone are at the tiles'
    scale."""
    sites = open_sites(folder, domain, split)
    valid = np.ones(sites.reference.shape[2:4], dtype=bool)
    side_m = sites.reference.shape[2] * sites.metres_per_pixel
    references, queries = [], []
    for site, world in enumerate(sites.world):
        area = f"{domain}/{split}/{world}"
        centre, size = tuple(map(float, sites.reference_enu_m[site, 0])), (side_m, side_m)
        tile = ArrayPicture(f"{area}/{site}", sites.reference[site, 0], valid)
        references.append(Reference(tile, str(site), area, (centre[0], centre[1]), size))
        for view in _views_of(sites, kinds):
            seen = ArrayPicture(f"{area}/{site}/{view}", sites.query[site, view], sites.query_mask[site, view])
            east, north = map(float, sites.query_enu_m[site, view])
            queries.append(Query(seen, str(site), (site,), (), area, (east, north)))
    notes = (f"{len(references)} tiles; by chance R@1 is {100 / len(references):.1f} %",)
    protocol = "-".join((domain, *([] if tuple(kinds) == RECTIFIED else kinds)))
    rectified = "perspective" not in kinds
    return Benchmark(
        "small", protocol, split, tuple(queries), tuple(references), METRICS, same_scale=rectified, notes=notes
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/smallplaces"))
    parser.add_argument("--processes", type=int, default=0, help="0: one a core; the bytes are the same")
    args = parser.parse_args()
    print(make(args.out, processes=args.processes))
