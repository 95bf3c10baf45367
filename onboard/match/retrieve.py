"""Retrieve: nearest map tiles by global descriptor (FAISS, inner product of unit vectors)."""

from __future__ import annotations

import faiss
import numpy as np

from onboard.region.level import Level


class TileIndex:
    """The descriptors of one level's tiles, at one or more dates, ready to be searched."""

    def __init__(self, *dates: Level) -> None:
        self.tiles = np.concatenate([level.tiles for level in dates])
        self._index = faiss.IndexFlatIP(dates[0].descriptors.shape[1])
        for level in dates:
            self._index.add(np.asarray(level.descriptors, dtype=np.float32))

    def search(self, descriptors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Best similarity over the queries (K, D) of up to `count` tiles: (indices, similarities), best first."""
        count = min(count, self._index.ntotal)
        if count == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        similarity, index = self._index.search(np.ascontiguousarray(descriptors, dtype=np.float32), count)
        best: dict[int, float] = {}
        for i, s in zip(index.ravel().tolist(), similarity.ravel().tolist(), strict=True):
            if i >= 0 and s > best.get(i, -2.0):
                best[i] = s
        order = sorted(best, key=lambda i: (-best[i], i))[:count]
        return np.array(order, dtype=np.int64), np.array([best[i] for i in order], dtype=np.float32)


def similarity_at(positions_enu_m: np.ndarray, tiles_enu_m: np.ndarray, similarities: np.ndarray) -> np.ndarray:
    """s_t for points (P, 2): the similarity of the nearest retrieved tile, 0 where none was retrieved.

    Tiles come best first: of one tile at several dates, the date that the view looks most like counts.
    """
    if not len(similarities):
        return np.zeros(len(positions_enu_m))
    distance = np.linalg.norm(positions_enu_m[:, None] - tiles_enu_m[None], axis=2)
    return np.asarray(similarities[distance.argmin(axis=1)], dtype=float)
