"""GeoLink's mixture of multi-expert block (3.2.2): Point-NN's feature to a descriptor, as several experts see it.

The paper's copy says what it is made of but not its sizes: that the experts differ in the width of their kernel along
the feature, and those widths, is our reading of "a wider receptive field".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onboard.errors import ConfigError

_HIDDEN = 4  # channels between an expert's two convolutions


class Expert(nn.Module):
    """A convolution along the feature, added to it, then a linear layer: (B, C) -> (B, D)."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv1d(1, _HIDDEN, kernel, padding=kernel // 2), nn.GELU(), nn.Conv1d(_HIDDEN, 1, 1)
        )
        self.project = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(x + self.look(x[:, None])[:, 0])


class MultiExpert(nn.Module):
    """`forward(feature (B, inputs)) -> (B, outputs)` of unit norm: the shared expert's part, then each expert's.

    `kernels` are those of the experts, all odd; the shared one's is 1. Each of them gives an equal part of `outputs`.
    """

    def __init__(self, inputs: int, outputs: int, kernels: tuple[int, ...] = (3, 5, 7)) -> None:
        super().__init__()
        parts = len(kernels) + 1
        if outputs % parts or not kernels or any(kernel % 2 == 0 for kernel in kernels):
            found = f"{outputs} numbers by kernels {kernels}"
            raise ConfigError("multi-expert block", found, f"a multiple of {parts}, odd kernels")
        self.norm = nn.LayerNorm(inputs)
        self.experts = nn.ModuleList(Expert(inputs, outputs // parts, kernel) for kernel in kernels)
        self.gate = nn.Linear(inputs, len(kernels))
        self.shared = Expert(inputs, outputs // parts, 1)

    def weights(self, feature: Tensor) -> Tensor:
        """(B, experts) the gate's, summing to one."""
        return torch.softmax(self.gate(self.norm(feature)), dim=1)

    def forward(self, feature: Tensor) -> Tensor:
        x = self.norm(feature)
        weights = torch.softmax(self.gate(x), dim=1)
        weighed = [expert(x) * weights[:, i : i + 1] for i, expert in enumerate(self.experts)]  # eq. 3
        return F.normalize(torch.cat([self.shared(x), *weighed], dim=1).float(), dim=1)  # eq. 4
