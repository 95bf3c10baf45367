"""Features of many tiles and views on disk: the trunk is frozen, so it sees each picture once.

FOLDER/tile.npy, large.npy, small.npy: uint8 (N, C, n, n) of the trunk, views without their empty border;
FOLDER/NAME_mask.npy: uint8 (N, n, n), the share of each of these cells that is ground, 255 is all;
FOLDER/label.npy: int32 (N,), ground * 8 + variant; FOLDER/facts.json: what they are of, and how many are done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from onboard.errors import ConfigError
from training.data.ground import Ground
from training.descriptor.draw import VARIANTS, LayoutConfig, Seen, draw_layout
from training.descriptor.trunk import FrozenTrunk, Rounding

STRIDE = 8
CELLS = {"tile": 32, "large": 28, "small": 16}  # along a side, of 256 pixels; a view's border is empty
CHUNK = 64  # layouts between two notes of how far it is


@dataclass(frozen=True)
class Store:
    """Arrays of one folder, memory-mapped; `features[kind]` and `masks[kind]` as above."""

    features: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    label: np.ndarray
    rounding: Rounding

    def __len__(self) -> int:
        return len(self.label)


def middle(array: np.ndarray, cells: int) -> np.ndarray:
    """The middle (..., cells, cells) of (..., n, n)."""
    edge = (array.shape[-1] - cells) // 2
    return array[..., edge : edge + cells, edge : edge + cells]


def cell_share(masks: np.ndarray) -> np.ndarray:
    """bool (B, N, N) -> uint8 (B, N / 8, N / 8): the share that is ground."""
    batch, side = masks.shape[0], masks.shape[1] // STRIDE
    share = masks.reshape(batch, side, STRIDE, side, STRIDE).mean(axis=(2, 4))
    return np.rint(share * 255).astype(np.uint8)


def fill(
    folder: Path,
    trunk: FrozenTrunk,
    model_sha256: str,
    grounds: list[Ground],
    count: int,
    seed: int,
    advance: Callable[[int], None] = lambda done: None,
    config: LayoutConfig = LayoutConfig(),
) -> Store:
    """Draw and describe `count` layouts; number i is the same whoever draws it, and what is done is kept.

    Raises ConfigError for a folder that holds something else.
    """
    facts = {"model_sha256": model_sha256, "count": count, "seed": seed, "grounds": [g.name for g in grounds]}
    facts |= {"layout": json.loads(json.dumps(dataclasses.asdict(config)))}
    done = _begin(folder, facts, trunk.channels, count)
    arrays = _arrays(folder, "r+")
    for first in range(done, count, CHUNK):
        numbers = range(first, min(first + CHUNK, count))
        for i in numbers:
            rng = np.random.default_rng([seed, i])
            label = _label(i, len(grounds), seed)
            donor = grounds[rng.integers(len(grounds))]
            layout = draw_layout(grounds[label // VARIANTS], donor, label % VARIANTS, rng, config)
            _write(arrays, i, trunk, {kind: getattr(layout, kind) for kind in CELLS})
            arrays["label"][i] = label
        for array in arrays.values():
            array.flush()
        _note(folder, facts, numbers.stop)
        advance(len(numbers))
    return open_store(folder, trunk.rounding)


def open_store(folder: Path, rounding: Rounding) -> Store:
    """What is done so far, read-only."""
    done = json.loads((folder / "facts.json").read_text())["done"]
    arrays = {name: array[:done] for name, array in _arrays(folder, "r").items()}
    masks = {kind: arrays[f"{kind}_mask"] for kind in CELLS}
    return Store({kind: arrays[kind] for kind in CELLS}, masks, np.asarray(arrays["label"]), rounding)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _label(number: int, grounds: int, seed: int) -> int:
    """Every variant of every ground once, in an order of its own each time round."""
    turn, place = divmod(number, grounds * VARIANTS)
    return int(np.random.default_rng([seed, 1, turn]).permutation(grounds * VARIANTS)[place])


def _write(arrays: dict[str, np.ndarray], at: int, trunk: FrozenTrunk, seen: dict[str, Seen]) -> None:
    images, masks = (np.stack([pair[k] for pair in seen.values()]) for k in (0, 1))
    found, shares = trunk.features(images, masks), cell_share(masks)
    for number, kind in enumerate(seen):
        arrays[kind][at] = middle(found[number], CELLS[kind])
        arrays[f"{kind}_mask"][at] = middle(shares[number], CELLS[kind])


def _begin(folder: Path, facts: dict[str, object], channels: int, count: int) -> int:
    """How many are done; makes the files where none are."""
    told = folder / "facts.json"
    if told.exists():
        found = json.loads(told.read_text())
        done = int(found.pop("done"))
        if found != facts:
            wrong = next(key for key in facts if found.get(key) != facts[key])
            raise ConfigError(f"stored features' {wrong}", folder, "those of this run", "give another --out")
        return done
    folder.mkdir(parents=True, exist_ok=True)
    for kind, cells in CELLS.items():
        _empty(folder / f"{kind}.npy", (count, channels, cells, cells), np.uint8)
        _empty(folder / f"{kind}_mask.npy", (count, cells, cells), np.uint8)
    _empty(folder / "label.npy", (count,), np.int32)
    _note(folder, facts, 0)
    return 0


def _empty(path: Path, shape: tuple[int, ...], dtype: type) -> None:
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _arrays(folder: Path, mode: str) -> dict[str, np.ndarray]:
    names = [*CELLS, *(f"{kind}_mask" for kind in CELLS), "label"]
    return {name: np.load(folder / f"{name}.npy", mmap_mode=mode) for name in names}  # type: ignore[call-overload]


def _note(folder: Path, facts: dict[str, object], done: int) -> None:
    beside = folder / "facts.partial"
    beside.write_text(json.dumps({**facts, "done": done}, indent=1))
    beside.replace(folder / "facts.json")


cv2.setNumThreads(1)  # one picture is too small to share
