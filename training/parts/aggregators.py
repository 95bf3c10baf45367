"""A map (B, C, h, w), and perhaps a class token, to one descriptor of unit norm (B, D)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onboard.errors import ConfigError
from training.parts.config import AggregatorConfig
from training.parts.salad import Salad


def gem(features: Tensor, power: Tensor) -> Tensor:
    """UnifyGeo eq. 3: (B, n, C) cells -> (B, C), their generalised mean. Values below 1e-6 count as 1e-6, for a
    power that is no whole number has no other meaning."""
    features = features.float().clamp_min(1e-6)
    return features.pow(power).mean(dim=1).pow(1.0 / power)


class Gem(nn.Module):
    """Eq. 3 alone, its power learnt from 3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(3.0))
        self.descriptor_dim = channels

    def forward(self, features: Tensor, cls: Tensor | None = None) -> Tensor:
        return F.normalize(gem(features.flatten(2).transpose(1, 2), self.power), dim=1)


class Average(nn.Module):
    """The mean over the map: UnifyGeo's baseline (IV.F)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.descriptor_dim = channels

    def forward(self, features: Tensor, cls: Tensor | None = None) -> Tensor:
        return F.normalize(features.float().mean(dim=(2, 3)), dim=1)


class AttentionGem(nn.Module):
    """UnifyGeo eq. 2, 3: one head of self-attention over the cells, no feed-forward part, then GeM.

    Q, K and V have half the channels, which a linear layer restores before the residual (IV.C). V is made of the
    cells as they are, Q and K of their LayerNorm. lambda is the length of a query.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, half, bias=False)
        self.key = nn.Linear(channels, half, bias=False)
        self.value = nn.Linear(channels, half, bias=False)
        self.restore = nn.Linear(half, channels, bias=False)
        self.power = nn.Parameter(torch.tensor(3.0))
        self.descriptor_dim = channels

    def attend(self, cells: Tensor) -> Tensor:
        """Eq. 2: (B, n, C) -> (B, n, C)."""
        normed = self.norm(cells)
        query, key, value = self.query(normed), self.key(normed), self.value(cells)
        weights = torch.softmax(query @ key.transpose(1, 2) / query.shape[-1] ** 0.5, dim=-1)
        return cells + self.restore(weights @ value)

    def forward(self, features: Tensor, cls: Tensor | None = None) -> Tensor:
        return F.normalize(gem(self.attend(features.flatten(2).transpose(1, 2)), self.power), dim=1)


class MixVpr(nn.Module):
    """MixVPR (Ali-bey et al. 2023), GeoLink's: mixers over the whole of each channel's map, then two projections.

    It is made for one size of map.
    """

    def __init__(self, channels: int, config: AggregatorConfig) -> None:
        super().__init__()
        cells = config.grid[0] * config.grid[1]
        if config.descriptor_dim < config.rows or config.descriptor_dim % config.rows:
            raise ConfigError("descriptor_dim of mixvpr", config.descriptor_dim, f"a multiple of {config.rows} rows")
        self.grid = config.grid
        self.mixers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(cells), nn.Linear(cells, cells), nn.ReLU(), nn.Linear(cells, cells))
            for _ in range(config.mixers)
        )
        for layer in self.mixers.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.channels = nn.Linear(channels, config.descriptor_dim // config.rows)
        self.rows = nn.Linear(cells, config.rows)
        self.descriptor_dim = config.descriptor_dim

    def forward(self, features: Tensor, cls: Tensor | None = None) -> Tensor:
        if tuple(features.shape[-2:]) != self.grid:
            raise ConfigError("map of mixvpr", tuple(features.shape[-2:]), f"its grid {self.grid}")
        x = features.flatten(2)
        for mixer in self.mixers:
            x = x + mixer(x)
        x = self.rows(self.channels(x.transpose(1, 2)).transpose(1, 2))
        return F.normalize(x.flatten(1).float(), dim=1)


class Projected(nn.Module):
    """An aggregator, then a linear layer to another length."""

    def __init__(self, inner: nn.Module, inner_dim: int, descriptor_dim: int) -> None:
        super().__init__()
        self.inner = inner
        self.project = nn.Linear(inner_dim, descriptor_dim)
        self.descriptor_dim = descriptor_dim

    def forward(self, features: Tensor, cls: Tensor | None = None) -> Tensor:
        return F.normalize(self.project(self.inner(features, cls)).float(), dim=1)


def build_aggregator(config: AggregatorConfig, channels: int, cls_channels: int = 0) -> nn.Module:
    """The aggregator of a config for maps of so many channels: `forward(map, cls) -> (B, descriptor_dim)`.

    `cls_channels` is 0 where the encoder has no class token. Raises ConfigError for sizes that contradict.
    """
    if config.kind == "mixvpr":
        return MixVpr(channels, config)
    if config.kind == "salad":
        inner: nn.Module = Salad(channels, cls_channels, config)
    else:
        inner = {"attention_gem": AttentionGem, "gem": Gem, "average": Average}[config.kind](channels)
    if config.descriptor_dim == 0:
        return inner
    return Projected(inner, int(inner.descriptor_dim), config.descriptor_dim)  # type: ignore[arg-type]
