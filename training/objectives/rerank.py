"""UnifyGeo's re-ranking loss L_R (III.E): the contrast of eq. 8 over every reference of the batch."""

from __future__ import annotations

import torch
from torch import Tensor


def rerank_loss(
    scores: Tensor, weights: Tensor, temperature: Tensor | float, own: Tensor, label: Tensor | None = None
) -> Tensor:
    """L_R, the mean over Q queries: scores (Q, R, h, w) of each query's level-0 descriptor with the cells of all R
    references of the batch, own (Q,) which of them is its own, weights w_0 (Q, h, w) over that one's cells.

    With `label` (R,), other references of a query's own place are left out, for where they show it is not known.
    """
    logits = scores.float() / temperature
    if label is not None:
        left_out = label[own][:, None] == label[None, :]
        left_out[torch.arange(len(own), device=own.device), own] = False
        logits = logits.masked_fill(left_out[:, :, None, None], -torch.inf)
    chance = torch.log_softmax(logits.flatten(1), dim=1).view_as(logits)
    of_own = chance[torch.arange(len(own), device=own.device), own]
    return -(weights * of_own).sum(dim=(1, 2)).mean()
