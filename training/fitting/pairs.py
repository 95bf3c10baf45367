"""Where a training's pairs come from: a source says which pairs there are and draws one; batches are drawn by number.

What a draw gives depends on the seed, the epoch and the pair's number alone, never on which process or worker made
it or on what was drawn before: this is half of why a resumed training ends with the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from onboard.errors import PilotageError
from training.benchmarks.base import Benchmark
from training.data.batch import Batch
from training.evaluation.checkpoint import scaled

Sample = dict[str, np.ndarray]  # the fields of `Batch` without the first axis
Size = tuple[int, int]  # height, width in pixels

_APART_M = 1e7  # between two areas that have no distance, for sampling by neighbourhood
_METRES_PER_DEGREE = 111_320.0


class DataError(PilotageError):
    """Training data that is missing or cannot be trained on."""


class PairSource(Protocol):
    """Pairs of a query and its reference. `label` (N,) int64 is each pair's place; `where_m` (N, 2) float64 its east
    and north, NaN where unknown."""

    name: str
    label: np.ndarray
    where_m: np.ndarray

    def __len__(self) -> int: ...

    def draw(self, index: int, rng: np.random.Generator) -> Sample:
        """One pair; sizes of images are the same in every draw."""
        ...


class BenchmarkPairs:
    """The training split of a public data set: a pair a query, with the first of its right references."""

    def __init__(self, benchmarks: Sequence[Benchmark], query_size: Size, reference_size: Size) -> None:
        self.name = benchmarks[0].name
        self._sizes = query_size, reference_size
        self._pairs = [(b, q) for b in benchmarks for q in range(len(b.queries))]
        places = {(query.area, query.place) for b in benchmarks for query in b.queries}
        number = {place: k for k, place in enumerate(sorted(places))}
        areas = {area: k for k, area in enumerate(sorted({area for area, _ in places}))}
        queries = [b.queries[q] for b, q in self._pairs]
        self.places = [query.place for query in queries]
        self.label = np.array([number[query.area, query.place] for query in queries], dtype=np.int64)
        self.where_m = np.full((len(queries), 2), np.nan)
        for row, query in enumerate(queries):
            if query.position_enu_m is not None:
                self.where_m[row] = query.position_enu_m[0] + _APART_M * areas[query.area], query.position_enu_m[1]
            elif query.degrees is not None:  # neighbours only need order, not a projection
                latitude, longitude = query.degrees
                east = longitude * math.cos(math.radians(latitude))
                self.where_m[row] = np.array([east, latitude]) * _METRES_PER_DEGREE

    def __len__(self) -> int:
        return len(self._pairs)

    def draw(self, index: int, rng: np.random.Generator) -> Sample:
        """See `PairSource.draw`. The data set fixes the pair: nothing is random here."""
        benchmark, number = self._pairs[index]
        query = benchmark.queries[number]
        reference = benchmark.references[query.positives[0]]
        share = benchmark.position_in(number, query.positives[0]) or (math.nan, math.nan)
        seen = scaled(*reference.picture.read(), self._sizes[1])
        metres = reference.size_m[0] / seen.shape[1] if reference.size_m else math.nan
        return {
            "query": scaled(*query.picture.read(), self._sizes[0]),
            "reference": seen,
            "label": self.label[index],
            "position": np.array(share, dtype=np.float32),
            "metres_per_pixel": np.array(metres, dtype=np.float32),
            "where_m": self.where_m[index],
        }


class _Draws(Dataset[Sample]):
    """A source as torch's loader reads it: a key is (epoch, pair)."""

    def __init__(self, source: PairSource, seed: int) -> None:
        self._source, self._seed = source, seed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        return self._source.draw(index, np.random.default_rng([self._seed, epoch, index]))


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples. Keys are those that every sample has, so that a cloud is there for all of a batch or for none."""
    names = [name for name in samples[0] if all(name in sample for sample in samples)]
    stacked: dict[str, Any] = {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in names}
    return cast(Batch, stacked)


def batches(source: PairSource, order: Sequence[Sequence[int]], epoch: int, seed: int, workers: int) -> Iterator[Batch]:
    """The batches of an epoch, each of the pairs that `order` lists."""
    keys = [[(epoch, int(index)) for index in indexes] for indexes in order]
    loader = DataLoader(
        cast(Any, _Draws(source, seed)),
        batch_sampler=cast(Any, keys),
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator().manual_seed(seed),  # the loader draws from it; never from the training's own
        pin_memory=torch.cuda.is_available(),
    )
    yield from loader
