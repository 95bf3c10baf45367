"""What every method offers to the trainer, the evaluation and the export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from training.data.batch import Batch

# Of ImageNet: what the encoders' published weights were trained with.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Described:
    """What a method says of B pictures of one view."""

    descriptor: Tensor  # (B, D) of unit norm: what is searched
    detail: tuple[Tensor, ...] | None = None  # what is matched, each (B, ...); None: the method only retrieves

    def rows(self, index: Tensor | slice) -> Described:
        """These pictures alone, in this order."""
        detail = None if self.detail is None else tuple(part[index] for part in self.detail)
        return Described(self.descriptor[index], detail)


class Method(nn.Module):
    """A retrieval network, perhaps with localization inside the tile that was found.

    Pictures come as (B, 3, H, W) RGB 0..255, uint8 or float; another size than `query_px` or `reference_px`
    (height, width) is scaled to it.
    """

    name: str
    query_px: tuple[int, int]
    reference_px: tuple[int, int]

    def training_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The parts of the loss by name, already weighted: their sum is minimised."""
        raise NotImplementedError

    def own_steps(self, batch: Batch) -> None:
        """Steps that a method takes with an optimizer of its own, after each of the trainer's."""

    def own_state(self) -> dict[str, Any]:
        """What `own_steps` must remember beyond the weights, for a resumed run."""
        return {}

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Takes up `own_state` again."""

    def main_parameters(self) -> Iterator[nn.Parameter]:
        """What the trainer's optimizer moves: all that is neither frozen nor moved by `own_steps`."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    def describe_query(self, image: Tensor) -> Described:
        raise NotImplementedError

    def describe_reference(self, image: Tensor) -> Described:
        raise NotImplementedError

    def locate(self, query: Described, reference: Described) -> Tensor | None:
        """(B, L, L) the chance that each query lies at each pixel of its own reference; None: not of this method."""
        return None

    def rerank(self, query: Described, candidates: Described, scores: Tensor) -> Tensor:
        """(B, k) better scores of the k candidates of B queries from their retrieval scores (B, k).

        `candidates` has B * k rows, the first query's k first.
        """
        return scores

    @staticmethod
    def prepare(image: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, 3, *size) float, normalised as the encoders expect it."""
        image = image.float()
        if tuple(image.shape[-2:]) != size:
            image = F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)
        mean = torch.tensor(MEAN, device=image.device)[:, None, None] * 255.0
        deviation = torch.tensor(DEVIATION, device=image.device)[:, None, None] * 255.0
        return (image - mean) / deviation
