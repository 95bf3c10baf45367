"""Kinds and sizes of the parts. No torch here: a program may list presets without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """An encoder of any size. `weights` names a local folder or an id on the hub, both as `transformers` saves
    them; empty: random weights, which a warning says."""

    kind: Literal["convnext", "dinov2", "compact"] = "convnext"
    widths: tuple[int, ...] = (96, 192, 384, 768)  # channels of each stage; dinov2: one number
    depths: tuple[int, ...] = (3, 3, 9, 3)  # blocks of each stage; dinov2: one number
    stem_stride: int = 4  # pixels of a cell of the first stage; dinov2: of its only map, the patch
    heads: int = 12  # dinov2
    position_px: int = 518  # dinov2: side of the picture that its position embedding was made for
    trained_blocks: int = -1  # dinov2: how many of the last blocks learn, the rest is frozen; -1: everything learns
    layer_scale: float = 1e-6  # convnext and dinov2: first value of each block's scale, where weights are random
    weights: str = ""
    paper_weights: str = ""  # what the paper starts from: named in the warning


@dataclass(frozen=True, slots=True)
class AggregatorConfig:
    """What makes one descriptor of a map. Fields of other kinds are ignored."""

    kind: Literal["attention_gem", "gem", "average", "salad", "mixvpr"] = "attention_gem"
    descriptor_dim: int = 0  # a linear layer to so many numbers; 0: as they come (mixvpr: must be given)
    clusters: int = 64  # salad
    cluster_dim: int = 128  # salad
    token_dim: int = 256  # salad: of the projected CLS token; 0, or an encoder without one: left out
    hidden_dim: int = 512  # salad: of its three MLPs
    dropout: float = 0.3  # salad: inside the MLPs of scores and features
    dustbin: bool = True  # salad
    sinkhorn_steps: int = 3  # salad
    grid: tuple[int, int] = (16, 16)  # mixvpr: rows, cols of the map, which its mixers are made for
    mixers: int = 4  # mixvpr
    rows: int = 4  # mixvpr: numbers left of each channel; descriptor_dim / rows channels


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """UnifyGeo's localization decoder."""

    # column: one vector a level, by azimuth (panoramas); template: the view's own map, correlated (overhead views)
    query: Literal["column", "template"] = "column"
    template_cells: int = 11  # template: side of the middle of the view that is matched, odd, in cells of each level
