"""SALAD (Izquierdo and Civera 2024) as GenGeo uses it (3.3): optimal transport of cells to clusters, with a dustbin."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onboard.errors import ConfigError
from training.parts.config import AggregatorConfig
from training.precision import full_precision


def transport(scores: Tensor, columns: Tensor, steps: int) -> Tensor:
    """log of the transport plan (B, n, m) of scores (B, n, m), by Sinkhorn's steps on logarithms.

    Each of the n rows has mass 1, column j has mass columns[j]; they sum to n. The rows hold exactly after any
    number of steps, the columns in the limit.
    """
    with full_precision(scores):
        scores, wanted = scores.float(), columns.float().log()
        rows = scores.new_zeros(scores.shape[:2])
        for _ in range(steps):
            cols = wanted - torch.logsumexp(scores + rows[:, :, None], dim=1)
            rows = -torch.logsumexp(scores + cols[:, None, :], dim=2)
        return scores + rows[:, :, None] + cols[:, None, :]


class Salad(nn.Module):
    """Cells (B, C, h, w) and class token -> (B, clusters * cluster_dim + token_dim) of unit norm.

    A cell is moved to the clusters and the dustbin by scores of an MLP; each cluster takes one cell's mass in all,
    the dustbin the other n - clusters (GenGeo 3.3.1). Clusters hold the plan's sums of reduced cells (3.3.2).
    """

    def __init__(self, channels: int, cls_channels: int, config: AggregatorConfig) -> None:
        super().__init__()
        c = config
        self.clusters, self.steps = c.clusters, c.sinkhorn_steps
        self.score = _mlp(channels, c.hidden_dim, c.clusters, c.dropout)
        self.reduce = _mlp(channels, c.hidden_dim, c.cluster_dim, c.dropout)
        token_dim = c.token_dim if cls_channels else 0
        self.token = _mlp(cls_channels, c.hidden_dim, token_dim, 0.0) if token_dim else None
        # The dustbin's score z, the same for every cell.
        self.dustbin = nn.Parameter(torch.tensor(1.0)) if c.dustbin else None
        self.descriptor_dim = c.clusters * c.cluster_dim + token_dim

    def assign(self, cells: Tensor) -> Tensor:
        """(B, n, C) -> (B, n, clusters): what share of each cell goes to each cluster. Without a dustbin a cell goes
        to clusters whole, and each of those takes n / clusters."""
        batch, count, _ = cells.shape
        scores = self.score(cells)
        if self.dustbin is None:
            mass = scores.new_full((self.clusters,), count / self.clusters)
            return transport(scores, mass, self.steps).exp()
        if count <= self.clusters:
            remedy = "a larger picture, or fewer clusters"
            raise ConfigError("cells of SALAD with a dustbin", count, f"more than its {self.clusters} clusters", remedy)
        scores = torch.cat([scores, self.dustbin.to(scores.dtype).expand(batch, count, 1)], dim=2)
        mass = scores.new_ones(self.clusters + 1)
        mass[-1] = count - self.clusters
        return transport(scores, mass, self.steps).exp()[:, :, :-1]

    def forward(self, features: Tensor, cls: Tensor | None = None) -> Tensor:
        cells = features.flatten(2).transpose(1, 2)
        plan = self.assign(cells)
        parts = (plan.transpose(1, 2) @ self.reduce(cells).to(plan.dtype)).flatten(1)
        if self.token is not None:
            parts = torch.cat([parts, self.token(cls).to(plan.dtype)], dim=1)
        return F.normalize(parts.float(), dim=1)


def _mlp(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(inputs, hidden), nn.Dropout(dropout), nn.ReLU(), nn.Linear(hidden, outputs)]
    return nn.Sequential(*(layer for layer in layers if not (isinstance(layer, nn.Dropout) and dropout == 0.0)))
