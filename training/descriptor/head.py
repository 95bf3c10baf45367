"""The S-head on the frozen trunk: each cell says which clusters it belongs to and what it adds to them.

GenGeo's aggregation (SALAD, 3.3) made small for INT8: 1x1 convolutions instead of an MLP, a softmax with a dustbin
instead of Sinkhorn's rounds (whose sums assume pictures that are all of one extent: a view of 45 m in a tile of 154 m
fills a fifteenth of what the tile does), and each cluster of nearly unit norm by itself, so that what both show counts
the same however much more the tile shows. Cells are weighed by how far from the middle they lie, as learnt: the
corners of a tile show what few of its views do.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onboard.errors import EngineError
from training.model import unit

RINGS = 16  # half of the cells along a side


@dataclass(frozen=True)
class HeadConfig:
    """Sizes of the head; `trunk_channels` are the model's, at stride 8."""

    trunk_channels: int = 96
    hidden_channels: int = 128
    clusters: int = 48
    cluster_channels: int = 48
    descriptor_dim: int = 256


class DescriptorHead(nn.Module):
    """trunk (B, C, h, w) and mask (B, 1, h, w), the share of a cell that is ground -> (B, D) of unit norm."""

    def __init__(self, config: HeadConfig = HeadConfig()) -> None:
        super().__init__()
        c = self.config = config
        self.hidden = nn.Conv2d(c.trunk_channels, c.hidden_channels, 1)
        self.assign = nn.Conv2d(c.hidden_channels, c.clusters + 1, 1)  # the last is the dustbin
        self.reduce = nn.Conv2d(c.hidden_channels, c.cluster_channels, 1)
        self.project = nn.Linear(c.clusters * c.cluster_channels, c.descriptor_dim, bias=False)
        self.rings = nn.Parameter(torch.zeros(RINGS))  # logarithms, from the middle outwards
        self.floor = nn.Parameter(torch.tensor(0.0))  # logarithm of what a cluster must sum up to, to count half

    def forward(self, trunk: Tensor, mask: Tensor) -> Tensor:
        hidden = F.relu(self.hidden(trunk))
        weights = (mask * self.importance(trunk.shape[-1])).flatten(2).transpose(1, 2)
        return self._gathered(
            self.assign(hidden).flatten(2).transpose(1, 2), self.reduce(hidden).flatten(2).transpose(1, 2), weights
        )

    def of_cells(self, cells: Tensor, weights: Tensor) -> Tensor:
        """The same of some cells alone, (B, n, C) with weights (B, n): what a training step sees of a picture."""
        hidden = F.relu(_by_cell(self.hidden, cells))
        return self._gathered(_by_cell(self.assign, hidden), _by_cell(self.reduce, hidden), weights[..., None])

    def _gathered(self, assigned: Tensor, features: Tensor, weights: Tensor) -> Tensor:
        """assigned (B, n, K + 1), features (B, n, F), weights (B, n, 1) -> (B, D)."""
        shares = torch.softmax(assigned, dim=2)[:, :, : self.config.clusters] * weights
        sums = shares.transpose(1, 2) @ features  # (B, K, F)
        size = torch.sqrt((sums * sums).sum(dim=2, keepdim=True) + torch.exp(self.floor))
        return unit(self.project((sums / size).flatten(1)), dim=1)

    def importance(self, cells: int) -> Tensor:
        """(n, n) about one: what a cell counts for, by its rows and columns from the middle of the picture."""
        at = torch.arange(cells, device=self.rings.device)
        along = self.rings[torch.where(at < cells // 2, cells // 2 - 1 - at, at - cells // 2)]
        return torch.exp(along[:, None] + along[None])


def _by_cell(convolution: nn.Conv2d, cells: Tensor) -> Tensor:
    """A 1x1 convolution of cells (B, n, C) that are no map."""
    return F.linear(cells, convolution.weight.flatten(1), convolution.bias)


def save_head(path: Path, head: DescriptorHead, facts: dict[str, object]) -> None:
    """Weights, sizes and what the head was trained for (beside, then renamed)."""
    beside = path.with_suffix(".partial")
    torch.save({"head": head.state_dict(), "head_config": dataclasses.asdict(head.config), "facts": facts}, beside)
    beside.replace(path)


def load_head(path: Path) -> tuple[DescriptorHead, dict[str, object]]:
    """The head in evaluation mode, and its facts. Raises EngineError for a file that is none of ours."""
    if not path.is_file():
        raise EngineError("no head", path, "head.pt of `pilotage train descriptor`")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if "head_config" not in state:
        raise EngineError("not a head", path, "head.pt of `pilotage train descriptor`")
    head = DescriptorHead(HeadConfig(**state["head_config"]))
    head.load_state_dict(state["head"])
    return head.eval(), state["facts"]
