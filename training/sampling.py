"""Which pairs meet in a batch: shuffled, neighbours on the ground, or neighbours in the descriptors' space.

After Sample4Geo (Deuser et al. 2023) as GenGeo uses it (3.4.2): at first the places that lie near each other are hard
negatives (GPS sampling); every e epochs all descriptors are made anew and the places that look alike are (dynamic
similarity sampling, DSS). Round an anchor a batch takes the k/2 nearest of its K nearest places and k/2 of the others
by chance. No place is twice in a batch, no pair is twice in an epoch, and a last batch that is not full is left out.

An epoch's batches hang on the seed, the epoch and the table of neighbours alone, so that a run that is continued in
the middle of an epoch sees what it would have seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onboard.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SamplingConfig:
    """k, K and e of GenGeo 3.4.2. Until the first descriptors come `similarity` samples by GPS, or by shuffling where a
    data set does not tell its positions."""

    kind: Literal["shuffled", "gps", "similarity"] = "shuffled"
    select: int = 64  # k: neighbours that an anchor brings with it
    among: int = 128  # K: nearest places that they are taken from
    every_epochs: int = 4  # e: epochs from one pass over all descriptors to the next

    def __post_init__(self) -> None:
        if self.kind not in ("shuffled", "gps", "similarity"):
            raise ConfigError("sampling", self.kind, "shuffled, gps or similarity")
        if not 2 <= self.select <= self.among or self.every_epochs < 1:
            found = f"select {self.select}, among {self.among}, every_epochs {self.every_epochs}"
            raise ConfigError("sampling", found, "2 <= select <= among and at least one epoch")


class PlaceBatches:
    """Batches of pair indexes, for DataLoader's `batch_sampler`.

    `labels` (N,) int64 are the places of the N pairs, `where_m` (N, 2) east, north of these places (NaN where it is
    not known: no GPS sampling then). `batch` counts the pairs of all `ranks` together; this process gets its share.
    """

    def __init__(
        self,
        labels: np.ndarray,
        batch: int,
        config: SamplingConfig = SamplingConfig(),
        seed: int = 1,
        where_m: np.ndarray | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.places, first, self.place_of = np.unique(np.asarray(labels), return_index=True, return_inverse=True)
        if not 2 <= batch <= len(self.places):
            raise ConfigError("batch", batch, f"2 to {len(self.places)}, the number of places")
        if batch % ranks or not 0 <= rank < ranks:
            raise ConfigError("batch", f"{batch} over {ranks} processes", "a multiple of their number")
        self.batch, self.config, self.seed, self.rank, self.ranks = batch, config, seed, rank, ranks
        self.epoch, self.done = 0, 0
        self.neighbours: np.ndarray | None = None  # (P, K) int64 indexes of places, nearest first
        there = None if where_m is None else np.asarray(where_m)[first]
        if config.kind == "gps" or (config.kind == "similarity" and there is not None and np.isfinite(there).all()):
            self.neighbours = near_on_ground(there, config.among)

    def set_epoch(self, epoch: int, done: int = 0) -> None:
        """What is iterated next: an epoch from its batch `done` on."""
        self.epoch, self.done = epoch, done

    def wants_descriptors(self, epoch: int) -> bool:
        """Whether `update` is due before this epoch."""
        return self.config.kind == "similarity" and epoch > 0 and epoch % self.config.every_epochs == 0

    def update(self, query: np.ndarray, reference: np.ndarray) -> None:
        """Make the table of neighbours from the descriptors of all pairs: (N, D) float32 each, of unit norm.

        A place stands for the mean of its pairs' descriptors; how alike two are is the cosine of the one's queries
        and the other's references. Raises ConfigError where the shapes do not fit.
        """
        if query.shape != reference.shape or len(query) != len(self.place_of):
            found = f"{query.shape} and {reference.shape}"
            raise ConfigError("descriptors", found, f"two of ({len(self.place_of)}, D)")
        self.neighbours = alike(self._by_place(query), self._by_place(reference), self.config.among)

    def _by_place(self, descriptors: np.ndarray) -> np.ndarray:
        total = np.zeros((len(self.places), descriptors.shape[1]))
        np.add.at(total, self.place_of, descriptors)
        return total / np.linalg.norm(total, axis=1, keepdims=True).clip(1e-12)

    def batches(self, epoch: int) -> list[list[int]]:
        """All batches of an epoch, of all processes."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.place_of))
        waiting: list[deque[int]] = [deque() for _ in self.places]  # pairs of each place, not yet used
        for pair in order:
            waiting[self.place_of[pair]].append(int(pair))
        anchors = deque(int(self.place_of[pair]) for pair in order)
        out: list[list[int]] = []
        here: dict[int, int] = {}  # the batch in the making: place to pair
        passed = 0  # anchors put back since the last that came in
        while anchors and passed < len(anchors):
            anchor = anchors.popleft()
            if not waiting[anchor]:
                continue
            if anchor in here:
                anchors.append(anchor)
                passed += 1
                continue
            passed = 0
            for place in (anchor, *self._company(anchor, rng)):
                if len(here) < self.batch and place not in here and waiting[place]:
                    here[place] = waiting[place].popleft()
            if len(here) == self.batch:
                out.append(list(here.values()))
                here = {}
        return out

    def _company(self, anchor: int, rng: np.random.Generator) -> list[int]:
        """k/2 nearest places in order, then k/2 by chance of the rest of the K nearest."""
        if self.neighbours is None:
            return []
        near = self.neighbours[anchor]
        half = self.config.select // 2
        return [int(place) for place in (*near[:half], *rng.permutation(near[half:])[:half])]

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches(self.epoch)[self.done :]:
            yield batch[self.rank :: self.ranks]

    def __len__(self) -> int:
        return len(self.batches(self.epoch)) - self.done

    def state_dict(self) -> dict[str, Any]:
        """Epoch, batches done in it, and the neighbours (int64 tensor or None): what a checkpoint must keep."""
        import torch

        table: Tensor | None = None if self.neighbours is None else torch.from_numpy(self.neighbours.copy())
        return {"epoch": self.epoch, "done": self.done, "neighbours": table}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken. Raises ConfigError where it is of other places."""
        table = state["neighbours"]
        if table is not None and len(table) != len(self.places):
            raise ConfigError("sampler's state", f"{len(table)} places", f"{len(self.places)} places")
        self.neighbours = None if table is None else table.numpy().copy()
        self.set_epoch(state["epoch"], state["done"])


def near_on_ground(where_m: np.ndarray | None, count: int) -> np.ndarray:
    """(P, K) the nearest other places by distance, nearest first; where_m (P, 2). K is at most P - 1."""
    from scipy.spatial import cKDTree

    if where_m is None or not np.isfinite(where_m).all():
        remedy = "sample by shuffling, or by similarity"
        raise ConfigError("GPS sampling", "places without a position", "east, north of each", remedy)
    count = min(count, len(where_m) - 1)
    _, found = cKDTree(where_m).query(where_m, k=count + 1)
    return _without_self(found, count)


def alike(query: np.ndarray, reference: np.ndarray, count: int) -> np.ndarray:
    """(P, K) the other places whose references look most like each place's query, best first; both (P, D)."""
    import faiss

    count = min(count, len(query) - 1)
    index = faiss.IndexFlatIP(reference.shape[1])
    index.add(np.ascontiguousarray(reference, dtype=np.float32))
    _, found = index.search(np.ascontiguousarray(query, dtype=np.float32), count + 1)
    return _without_self(found, count)


def _without_self(found: np.ndarray, count: int) -> np.ndarray:
    """(P, count) of (P, count + 1): each row without its own number, or without its last where that is not in it."""
    own = np.arange(len(found))[:, None]
    keep = found != own
    keep[keep.all(axis=1), -1] = False
    return np.ascontiguousarray(found[keep].reshape(len(found), count).astype(np.int64))
