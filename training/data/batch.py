"""What one batch of training pairs holds, whatever the data set it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from torch import Tensor


class _Pairs(TypedDict):
    query: Tensor  # (B, 3, H, W) uint8 RGB
    reference: Tensor  # (B, 3, h, w) uint8 RGB
    label: Tensor  # (B,) int64, one number a place
    position: Tensor  # (B, 2) float32 row, col of the query's place in the reference, as a share 0..1; NaN: unknown
    metres_per_pixel: Tensor  # (B,) float32, of the reference; NaN: unknown
    where_m: Tensor  # (B, 2) float64 east, north of the place, for sampling neighbours; NaN: unknown


class Batch(_Pairs, total=False):
    """`_Pairs`, and the places' point clouds where the data set has them."""

    cloud: Tensor  # (B, 1024, 3) float32 metres about the place: east, north, up
