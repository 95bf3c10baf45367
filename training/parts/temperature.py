"""A learnt temperature of a softmax."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Temperature(nn.Module):
    """tau of UnifyGeo eq. 6 and 8 and of GenGeo 3.4.1: learnt as its logarithm, at least 0.01."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self) -> Tensor:
        return self.log.exp().clamp_min(0.01)
