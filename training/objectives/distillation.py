"""What the 3-D side teaches the pictures: GeoLink's relation distillation (3.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from training.precision import full_precision


def affinity(feature: Tensor) -> Tensor:
    """Eq. 11, 12: Euclidean distances (B, B) between a batch's features (B, D), over the mean of those of two different
    rows."""
    with full_precision(feature):
        distance = torch.cdist(feature.float(), feature.float(), compute_mode="donot_use_mm_for_euclid_dist")
    count = len(feature)
    return distance / (distance.sum() / max(1, count * (count - 1))).clamp_min(1e-12)


def relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Eq. 13: mean squared error of the affinities of student (B, D) and teacher (B, E), the teacher held still.

    The mean is over pairs of different rows: a row's distance to itself says nothing. A batch of one has no relation.
    """
    count = len(student)
    difference = affinity(student) - affinity(teacher.detach())
    return difference.square().sum() / max(1, count * (count - 1))
