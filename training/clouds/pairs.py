"""Training pairs of a public data set with the clouds of their places, of a folder that `train clouds` made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from training.clouds.points import CloudError

if TYPE_CHECKING:
    from training.fitting.pairs import PairSource


class WithClouds:
    """`PairSource` of another's pairs, of which `places` names each one's place, and `clouds` (1024, 3) by place.

    Raises CloudError where a place has none: a batch has clouds of all its pairs or is of no use.
    """

    def __init__(self, pairs: PairSource, places: Sequence[str], clouds: Mapping[str, np.ndarray]) -> None:
        wanted = set(places)
        missing = sorted(wanted - set(clouds))
        if missing:
            found = f"missing for {len(missing)} of {len(wanted)} places, the first {missing[0]}"
            raise CloudError("clouds", found, "one of each", "make them with: pilotage train clouds")
        self.name, self.label, self.where_m = pairs.name, pairs.label, pairs.where_m
        self._pairs, self._places, self._clouds = pairs, places, clouds

    def __len__(self) -> int:
        return len(self._pairs)

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `PairSource.draw`."""
        return self._pairs.draw(index, rng) | {"cloud": self._clouds[self._places[index]]}
