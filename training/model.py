"""The network: one shared convolutional encoder, three outputs (UnifyGeo, III.C, made small).

UnifyGeo shares an encoder between retrieval and metric localization and splits it into an F-head (detail
features) and an S-head (semantics, aggregated by self-attention and GeM into a global descriptor). This is
that plan with parts that INT8 really speeds up (dense 3x3, batch norm, ReLU: what tensor cores and VNNI like, and what
trains several times faster on a CPU than depthwise 5x5) and one set of weights for both branches, since a rectified
view and a map tile are the same kind of picture.

Shapes for a batch of B and views of N = 256 pixels:
    image (B, 3, N, N) RGB 0..255, mask (B, 1, N, N) 0 or 1
    descriptor (B, D) unit norm, detail (B, C, N/8, N/8) unit norm per cell, fine (B, F, N/4, N/4) likewise
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onboard.errors import EngineError


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the network. Strides are fixed: detail 8, fine 4."""

    view_px: int = 256
    stem_channels: int = 32
    quarter_channels: int = 48
    trunk_channels: int = 96
    trunk_blocks: int = 5  # the step down to stride 8, then residual blocks
    detail_channels: int = 32
    fine_channels: int = 32
    descriptor_dim: int = 256
    semantic_channels: int = 192


# 1.6 million weights, and 3.3 million: what ships. See "The network and its size" in training/README.md.
SIZES = {"small": ModelConfig(), "large": ModelConfig(quarter_channels=64, trunk_channels=128, trunk_blocks=8)}


class Residual(nn.Module):
    """Two dense 3x3 with batch norm and ReLU (ResNet's basic block)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_norm(channels, channels, 1)
        self.second = conv_norm(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Step(nn.Module):
    """One dense 3x3 beside an identity: a residual block at half the price."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.only = conv_norm(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.only(x))


def conv_norm(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs))


def conv_norm_relu(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(*conv_norm(inputs, outputs, stride), nn.ReLU())


class Normalise(nn.Module):
    """Six channels from RGB: raw colour, and colour less its local mean over its local deviation.

    The local half does not change with light and exposure; the raw half still tells water from a field.
    """

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        raw = (image / 127.5 - 1.0) * mask
        share = self._pool(mask) + 1e-3
        mean = self._pool(raw) / share
        spread = (self._pool(raw * raw) / share - mean * mean).clamp_min(0.0).mean(dim=1, keepdim=True)
        deviation = torch.sqrt(spread + 4e-4)
        size = [image.shape[-2], image.shape[-1]]
        mean = F.interpolate(mean, size=size, mode="bilinear", align_corners=False)
        deviation = F.interpolate(deviation, size=size, mode="bilinear", align_corners=False)
        local = (raw - mean) / deviation * mask
        return torch.cat([raw, local.clamp(-4.0, 4.0)], dim=1)

    @staticmethod
    def _pool(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.avg_pool2d(x, 16, 16), 3, 1, 1, count_include_pad=False)


class Aggregator(nn.Module):
    """Self-attention, single head, halved Q/K/V, no feed-forward part, then GeM (UnifyGeo eq. 2, 3)."""

    def __init__(self, channels: int, descriptor_dim: int) -> None:
        super().__init__()
        half = channels // 2
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, half, bias=False)
        self.key = nn.Linear(channels, half, bias=False)
        self.value = nn.Linear(channels, half, bias=False)
        self.restore = nn.Linear(half, channels, bias=False)
        self.power = nn.Parameter(torch.tensor(3.0))
        self.project = nn.Linear(channels, descriptor_dim, bias=False)
        self.scale = half**-0.5

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """features (B, C, h, w), mask (B, 1, h, w) -> (B, D) unit norm. Cells outside the mask have no say."""
        tokens = features.flatten(2).transpose(1, 2)
        weight = mask.flatten(2).transpose(1, 2)
        normed = self.norm(tokens)
        scores = self.query(normed) @ self.key(normed).transpose(1, 2) * self.scale
        attention = torch.softmax(scores + (weight.transpose(1, 2) - 1.0) * 1e4, dim=-1)
        tokens = tokens + self.restore(attention @ self.value(tokens))
        lifted = torch.exp(self.power * torch.log(tokens.clamp_min(1e-3)))
        pooled = (lifted * weight).sum(1) / (weight.sum(1) + 1e-3)
        pooled = torch.exp(torch.log(pooled.clamp_min(1e-9)) / self.power)
        return unit(self.project(pooled), dim=1)


def unit(x: Tensor, dim: int) -> Tensor:
    return x / torch.sqrt((x * x).sum(dim=dim, keepdim=True) + 1e-6)


class OverheadNet(nn.Module):
    """Shared encoder, S-head (descriptor) and F-head (detail at stride 8, fine at stride 4)."""

    def __init__(self, config: ModelConfig = ModelConfig()) -> None:
        super().__init__()
        c = config
        self.config = config
        self.normalise = Normalise()
        self.stem = conv_norm_relu(6, c.stem_channels, 2)
        self.quarter = nn.Sequential(
            conv_norm_relu(c.stem_channels, c.quarter_channels, 2), Residual(c.quarter_channels)
        )
        self.trunk = nn.Sequential(
            conv_norm_relu(c.quarter_channels, c.trunk_channels, 2),
            *(Residual(c.trunk_channels) for _ in range(c.trunk_blocks - 1)),
        )
        self.detail_head = nn.Sequential(
            Residual(c.trunk_channels),
            nn.Conv2d(c.trunk_channels, c.detail_channels, 1, bias=False),
            nn.BatchNorm2d(c.detail_channels, affine=False),
        )
        self.semantic_head = nn.Sequential(
            conv_norm_relu(c.trunk_channels, c.semantic_channels, 2), Step(c.semantic_channels)
        )
        self.aggregator = Aggregator(c.semantic_channels, c.descriptor_dim)
        # The decoder's one step up: what the trunk knows, laid over what the quarter scale saw.
        self.up = nn.Conv2d(c.trunk_channels, c.quarter_channels, 1, bias=False)
        self.fine_head = nn.Sequential(
            nn.BatchNorm2d(c.quarter_channels),
            nn.ReLU(),
            Residual(c.quarter_channels),
            nn.Conv2d(c.quarter_channels, c.fine_channels, 1, bias=False),
            nn.BatchNorm2d(c.fine_channels, affine=False),
        )

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quarter = self.quarter(self.stem(self.normalise(image, mask)))
        trunk = self.trunk(quarter)
        detail = unit(self.detail_head(trunk), dim=1)
        up = F.interpolate(self.up(trunk), scale_factor=2.0, mode="nearest")
        fine = unit(self.fine_head(quarter + up), dim=1)
        cell_mask = F.avg_pool2d(mask, 16, 16)
        descriptor = self.aggregator(self.semantic_head(trunk), cell_mask)
        return descriptor, detail, fine


def read_network(path: Path) -> OverheadNet:
    """The network of a checkpoint, in evaluation mode. Raises EngineError for a file that is none of ours."""
    if not path.is_file():
        raise EngineError("no checkpoint", path, "checkpoint.pt of `pilotage train`")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        net = OverheadNet(ModelConfig(**state["model_config"]))
        net.load_state_dict(state["model"])
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        remedy = "a model file becomes one with: pilotage export checkpoint"
        raise EngineError("checkpoint", path, "one of the overhead network", remedy) from error
    return net.eval()
