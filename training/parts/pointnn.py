"""Point-NN (Zhang et al. 2023): features of a point cloud without a single learnt number; GeoLink 3.2.1.

Four stages of farthest point sampling, k nearest neighbours, trigonometric encoding of where the neighbours lie, and
pooling; a stage halves the points and doubles the channels. GeoLink gives it 1024 points without colours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from onboard.errors import ConfigError
from training.precision import full_precision

_FINEST = 1000.0  # radians per unit of the finest wave, as the authors have it
_SPAN = 100.0  # how much longer the longest is, likewise


class PointNN(nn.Module):
    """`forward(cloud (B, N, 3)) -> (B, dim)`. The first `points` of N are taken, for clouds lie in no order, then
    halved `stages` times; `width` channels encode a point at first, a multiple of 6."""

    def __init__(self, points: int = 1024, width: int = 72, stages: int = 4, neighbours: int = 90) -> None:
        super().__init__()
        if width % 6 or points < 2**stages:
            raise ConfigError("Point-NN", f"width {width}, {points} points", f"a multiple of 6, at least {2**stages}")
        self.points, self.width, self.stages, self.neighbours = points, width, stages, neighbours
        self.dim = width * 2**stages

    @torch.no_grad()
    def forward(self, cloud: Tensor) -> Tensor:
        if cloud.ndim != 3 or cloud.shape[2] != 3 or cloud.shape[1] < self.points:
            raise ConfigError("clouds", tuple(cloud.shape), f"(B, {self.points} or more, 3)")
        with full_precision(cloud):
            place = in_unit_ball(cloud[:, : self.points].float())
            feature = encode(place, self.width)
            for stage in range(self.stages):
                place, feature = self._stage(place, feature, self.points >> (stage + 1))
            return feature.amax(dim=1) + feature.mean(dim=1)

    def _stage(self, place: Tensor, feature: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """(B, n, 3), (B, n, C) -> (B, count, 3), (B, count, 2 C): eq. 2."""
        chosen = farthest_points(place, count)
        centre, own = pick(place, chosen), pick(feature, chosen)
        near = torch.cdist(centre, place).topk(min(self.neighbours, place.shape[1]), largest=False).indices
        shape = (*near.shape, -1)  # (B, count, k, ...)
        away = pick(place, near.flatten(1)).view(shape) - centre[:, :, None]
        unlike = pick(feature, near.flatten(1)).view(shape) - own[:, :, None]
        # The authors' deviation is of the whole batch; of each cloud alone its features do not hang on its company.
        away = away / (away.std(dim=(1, 2, 3), keepdim=True) + 1e-5)
        unlike = unlike / (unlike.std(dim=(1, 2, 3), keepdim=True) + 1e-5)
        wide = torch.cat([unlike, own[:, :, None].expand_as(unlike)], dim=3)
        where = encode(away, wide.shape[3])
        weighed = (wide + where) * where
        return centre, nn.functional.gelu(weighed.amax(dim=2) + weighed.mean(dim=2))


def in_unit_ball(cloud: Tensor) -> Tensor:
    """Clouds (B, N, 3) moved to their centroid and shrunk into a ball of radius 1, as Point-NN takes them."""
    centred = cloud - cloud.mean(dim=1, keepdim=True)
    return centred / centred.norm(dim=2).amax(dim=1).clamp_min(1e-6)[:, None, None]


def farthest_points(cloud: Tensor, count: int) -> Tensor:
    """(B, count) indexes, from the first point on each the farthest from those before it."""
    chosen = torch.zeros(len(cloud), count, dtype=torch.long, device=cloud.device)
    nearest = torch.full(cloud.shape[:2], math.inf, device=cloud.device)
    last = cloud[:, :1]
    for step in range(1, count):
        nearest = torch.minimum(nearest, (cloud - last).square().sum(dim=2))
        index = nearest.argmax(dim=1, keepdim=True)
        chosen[:, step] = index[:, 0]
        last = pick(cloud, index)
    return chosen


def encode(place: Tensor, width: int) -> Tensor:
    """(..., 3) -> (..., width): sines and cosines of each coordinate at width / 6 wavelengths, interleaved."""
    each = width // 6
    exponent = torch.arange(each, device=place.device) / each
    angle = _FINEST * place[..., None] / _SPAN**exponent
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-3)


def pick(values: Tensor, index: Tensor) -> Tensor:
    """Rows `index` (B, m) of values (B, n, C): (B, m, C)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))
