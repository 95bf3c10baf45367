"""Contrast of descriptors: UnifyGeo eq. 6 and L_G, GenGeo 3.4.1, and GeoLink's L(q, R)."""

from __future__ import annotations

import torch
from torch import Tensor

from training.precision import full_precision


def infonce(
    query: Tensor, reference: Tensor, temperature: Tensor | float, smoothing: float = 0.0, label: Tensor | None = None
) -> Tensor:
    """UnifyGeo eq. 6, the mean over B queries (B, D): reference i (B, D) is query i's positive, the others its
    negatives. Of the target a share `smoothing` is spread evenly over all B.

    With `label` (B,), other references of a query's own place are neither positive nor negative: they are left out.
    """
    count = len(query)
    with full_precision(query):
        logits = query.float() @ reference.float().T / temperature
    own = torch.eye(count, dtype=torch.bool, device=logits.device)
    left_out = torch.zeros_like(own) if label is None else (label[:, None] == label[None, :]) & ~own
    chance = torch.log_softmax(logits.masked_fill(left_out, -torch.inf), dim=1).masked_fill(left_out, 0.0)
    target = smoothing / (~left_out).sum(dim=1, keepdim=True) * ~left_out + (1.0 - smoothing) * own
    return -(target * chance).sum(dim=1).mean()


def symmetric_infonce(
    query: Tensor, reference: Tensor, temperature: Tensor | float, smoothing: float = 0.0, label: Tensor | None = None
) -> Tensor:
    """L_G: the mean of both directions."""
    forward = infonce(query, reference, temperature, smoothing, label)
    return 0.5 * (forward + infonce(reference, query, temperature, smoothing, label))
