"""UnifyGeo's localization losses L_D (eq. 7) and L_M (eq. 8), and the truth that they are held against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def known(position: Tensor) -> Tensor:
    """(B,) whether a place (B, 2) row, col as shares lies in its reference; NaN does not."""
    return ((position >= 0.0) & (position <= 1.0)).all(dim=1)


def gaussian_truth(position: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """D_gt (B, *size): a Gaussian about position (B, 2) row, col, summing to one. Position and sigma are shares of
    the reference's side; cell i covers i / size to (i + 1) / size."""
    weights = []
    for axis, count in enumerate(size):
        centres = (torch.arange(count, device=position.device, dtype=torch.float32) + 0.5) / count
        weights.append(torch.softmax(-0.5 * ((centres - position[:, axis, None].float()) / sigma) ** 2, dim=1))
    return weights[0][:, :, None] * weights[1][:, None, :]


def location_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """L_D, eq. 7, the mean over the batch: logits and truth (B, L, L), D the softmax of logits over all pixels."""
    return -(truth.flatten(1) * torch.log_softmax(logits.float().flatten(1), dim=1)).sum(dim=1).mean()


def level_weights(truth: Tensor, size: tuple[int, int]) -> Tensor:
    """w_l (B, *size): D_gt (B, L, L) max-pooled to a level's cells and normalised again."""
    pooled = F.adaptive_max_pool2d(truth[:, None], size)[:, 0]
    return pooled / pooled.sum(dim=(1, 2), keepdim=True)


def matching_loss(scores: Tensor, weights: Tensor, temperature: Tensor | float) -> Tensor:
    """L_Ml, eq. 8, the mean over the batch: scores (B, h, w) are the similarities of each query's descriptor with the
    cells of its own reference, weights (B, h, w) say how much each cell is the right one."""
    return location_loss(scores.float() / temperature, weights)
