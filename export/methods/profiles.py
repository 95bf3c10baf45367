"""What of a method becomes files: its profiles, each a network of its own with fixed shapes, one picture at a time.

| profile   | takes                                  | gives                                                          |
|-----------|----------------------------------------|----------------------------------------------------------------|
| query     | image uint8 (1, H, W, 3) RGB           | descriptor (1, D) unit norm, detail_0 .. detail_n              |
| reference | image uint8 (1, h, w, 3) RGB           | descriptor (1, D) unit norm, detail_0 .. detail_n              |
| picture   | both of these, where they are the same | descriptor (1, D) unit norm                                    |
| locate    | query_0 .. query_n, reference_0 ..     | place (1, h, w) probability, score (1,) that eq. 4 adds        |

`detail` is there where a method localizes (UnifyGeo). Normalisation is inside.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.methods.base import Described, Method
from training.parts.encoders import Dinov2Encoder

PICTURE, QUERY, REFERENCE, LOCATE = "picture", "query", "reference", "locate"
PICTURES = (PICTURE, QUERY, REFERENCE)


@dataclass(frozen=True)
class Profile:
    """`module` takes `example` by position; the files name inputs and outputs as here."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: tuple[Tensor, ...]


class Describe(nn.Module):
    """One view's pictures, bytes in."""

    def __init__(self, method: Method, of_query: bool) -> None:
        super().__init__()
        self.method, self.of_query = method, of_query

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        planes = image.to(torch.float32).permute(0, 3, 1, 2)
        described = self.method.describe_query(planes) if self.of_query else self.method.describe_reference(planes)
        return described.descriptor, *(described.detail or ())


class Locate(nn.Module):
    """One query in one reference (UnifyGeo III.C), and what re-ranking adds to its retrieval score (eq. 4)."""

    def __init__(self, method: Method, levels: int) -> None:
        super().__init__()
        self.method, self.levels = method, levels

    def forward(self, *detail: Tensor) -> tuple[Tensor, Tensor]:
        none = detail[0].new_zeros(1, 1)
        query, reference = Described(none, detail[: self.levels]), Described(none, detail[self.levels :])
        place = self.method.locate(query, reference)
        assert place is not None
        return place, self.method.rerank(query, reference, none)[:, 0]


class BakedEmbeddings(nn.Module):
    """DINOv2's embeddings for one size of picture: the position embedding, resized once, is a constant."""

    def __init__(self, inner: Any, size: tuple[int, int]) -> None:
        super().__init__()
        self.patches = inner.patch_embeddings
        with torch.no_grad():
            empty = torch.zeros(1, 3, *size)
            tokens = torch.cat([inner.cls_token, self.patches(empty)], dim=1)
            position = inner.interpolate_pos_encoding(tokens, *size)
            self.register_buffer("first", inner.cls_token + position[:, :1])
            self.register_buffer("position", position[:, 1:].clone())

    def forward(self, image: Tensor) -> Tensor:
        patches = self.patches(image) + self.position
        return torch.cat([self.first.expand(len(image), -1, -1), patches], dim=1)


@contextmanager
def baked(method: Method, size: tuple[int, int]) -> Iterator[None]:
    """Inside, every DINOv2 of the method takes pictures of `size` (height, width) alone, and attends in plain steps."""
    encoders = [module for module in method.modules() if isinstance(module, Dinov2Encoder)]
    kept = [(encoder.body.embeddings, encoder.body.config._attn_implementation) for encoder in encoders]
    for encoder in encoders:
        encoder.body.embeddings = BakedEmbeddings(encoder.body.embeddings, size)
        encoder.body.set_attn_implementation("eager")
    try:
        yield
    finally:
        for encoder, (embeddings, attention) in zip(encoders, kept, strict=True):
            encoder.body.embeddings = embeddings
            encoder.body.set_attn_implementation(attention)


def profiles_of(method: Method) -> Iterator[Profile]:
    """A method's profiles one after the other; each is whole only until the next is asked for."""
    method.eval()
    config = method.config
    shared = getattr(config, "clusters", "shared") == "shared" and not hasattr(method, "query_branch")
    if shared and method.query_px == method.reference_px:
        yield from _describing(method, PICTURE, True, method.query_px)
        return
    detail: list[tuple[Tensor, ...]] = []
    for name, of_query, size in ((QUERY, True, method.query_px), (REFERENCE, False, method.reference_px)):
        for profile in _describing(method, name, of_query, size):
            yield profile
            with torch.no_grad():
                detail.append(profile.module(*profile.example)[1:])
    if getattr(method, "localizes", False):
        levels = len(detail[0])
        names = [f"{side}_{level}" for side in (QUERY, REFERENCE) for level in range(levels)]
        module = Locate(copy.copy(method), levels).eval()
        yield Profile(LOCATE, module, tuple(names), ("place", "score"), (*detail[0], *detail[1]))


def _describing(method: Method, name: str, of_query: bool, size: tuple[int, int]) -> Iterator[Profile]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8, generator=generator)
    with baked(method, size):
        module = Describe(method, of_query).eval()
        with torch.no_grad():
            count = len(module(image))
        outputs = ("descriptor", *(f"detail_{level}" for level in range(count - 1)))
        yield Profile(name, module, ("image",), outputs, (image,))
