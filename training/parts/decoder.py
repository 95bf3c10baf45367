"""UnifyGeo's localization decoder (III.C): hierarchical matching of a query's detail with a reference's maps.

Levels run from 0, the coarsest, to n, the finest. The same decoder serves two kinds of query descriptor: one vector a
level (the paper's, for panoramas) and a template, the view's own map, for overhead views of the reference's scale.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.parts.projectors import channels_first_norm
from training.precision import full_precision


@dataclass(frozen=True, slots=True)
class Located:
    scores: tuple[Tensor, ...]  # M^0 to M^n, each (B, h, w): similarities in -1..1
    logits: Tensor  # (B, L, L'): their softmax over all pixels is the distribution D


class Decoder(nn.Module):
    """Scores of every level guide the deconvolution to the next; the last becomes a distribution over pixels."""

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        """channels and strides of levels 0 to n; each stride is half of the one before."""
        super().__init__()
        self.map_norms = nn.ModuleList(nn.LayerNorm(width) for width in channels)
        self.query_norms = nn.ModuleList(nn.LayerNorm(width) for width in channels)
        pairs = list(itertools.pairwise(channels))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(1 + coarse, fine, 2, stride=2) for coarse, fine in pairs)
        self.mixes = nn.ModuleList(_double_conv(2 * fine, fine) for _, fine in pairs)
        self.last = _to_pixels(1 + channels[-1], channels[-1], strides[-1])

    def match(self, level: int, query: Tensor, reference: Tensor) -> Tensor:
        """M^level (B, h, w) of each query's descriptor with its own reference's map (B, C, h, w)."""
        return self._scores(level, query, self._cells(level, reference))

    def match_all(self, query: Tensor, reference: Tensor) -> Tensor:
        """M^0 (B, R, h, w) of each of B queries with each of R references."""
        cells, query = self._cells(0, reference), self._query(0, query)
        with full_precision(cells):
            if query.dim() == 2:
                return torch.einsum("bc,rchw->brhw", query, cells)
            raw = F.conv2d(cells, query, padding=_half(query))
            return (raw / _overlap(query, cells)).transpose(0, 1)

    def forward(self, query: tuple[Tensor, ...], reference: tuple[Tensor, ...], size: tuple[int, int]) -> Located:
        """Each query in its own reference: descriptors and maps of levels 0 to n; the distribution is of `size`."""
        scores, x = [], reference[0]
        for level, descriptor in enumerate(query):
            cells = self._cells(level, x)
            scores.append(self._scores(level, descriptor, cells))
            x = torch.cat([scores[-1][:, None], cells], dim=1)
            if level + 1 < len(query):
                up = self.ups[level](x)
                x = self.mixes[level](torch.cat([up, reference[level + 1].to(up.dtype)], dim=1))
        logits = self.last(x).float()
        if tuple(logits.shape[-2:]) != size:
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return Located(tuple(scores), logits[:, 0])

    def _cells(self, level: int, x: Tensor) -> Tensor:
        """LayerNorm over channels, then unit norm in each cell."""
        return F.normalize(channels_first_norm(self.map_norms[level], x).float(), dim=1)

    def _query(self, level: int, query: Tensor) -> Tensor:
        """A vector (B, C) as a cell of the map; a template (B, C, k, k) likewise cell by cell, then less its mean,
        which fits everywhere and tells no place, and of unit norm as a whole."""
        if query.dim() == 2:
            return F.normalize(self.query_norms[level](query).float(), dim=1)
        cells = F.normalize(channels_first_norm(self.query_norms[level], query).float(), dim=1)
        return F.normalize((cells - cells.mean(dim=(2, 3), keepdim=True)).flatten(1), dim=1).view_as(cells)

    def _scores(self, level: int, query: Tensor, cells: Tensor) -> Tensor:
        query = self._query(level, query)
        with full_precision(cells):
            if query.dim() == 2:
                return torch.einsum("bc,bchw->bhw", query, cells)
            return _correlate(query, cells) / _overlap(query, cells)[:, 0]


def _correlate(query: Tensor, cells: Tensor) -> Tensor:
    """(B, h, w): each template (B, C, k, k) laid with its middle on every cell of its own map (B, C, h, w)."""
    batch, channels = query.shape[:2]
    raw = F.conv2d(
        cells.flatten(0, 1)[None], query.flatten(0, 1)[:, None], padding=_half(query), groups=batch * channels
    )
    return raw[0].unflatten(0, (batch, channels)).sum(dim=1)


def _half(query: Tensor) -> tuple[int, int]:
    return query.shape[-2] // 2, query.shape[-1] // 2


def _overlap(query: Tensor, cells: Tensor) -> Tensor:
    """(1, 1, h, w) the root of how many of the template's cells lie on the map there, of a quarter of them at least."""
    rows, cols = query.shape[-2:]
    ones = cells.new_ones(1, 1, *cells.shape[-2:])
    count = F.conv2d(ones, ones.new_ones(1, 1, rows, cols), padding=_half(query))
    return count.clamp_min(0.25 * rows * cols).sqrt()


def _double_conv(inputs: int, outputs: int) -> nn.Sequential:
    """CCVPE's step between levels, which UnifyGeo follows."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1))


def _to_pixels(inputs: int, channels: int, stride: int) -> nn.Sequential:
    """From level n to one logit a pixel: deconvolutions by two, as far as whole ones go."""
    layers: list[nn.Module] = []
    while stride >= 2:
        channels = max(channels // 2, 8)
        layers += [nn.ConvTranspose2d(inputs, channels, 2, stride=2), nn.ReLU()]
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
        inputs, stride = channels, stride // 2
    layers.append(nn.Conv2d(inputs, 1, 3, padding=1))
    return nn.Sequential(*layers)
