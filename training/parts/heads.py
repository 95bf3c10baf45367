"""UnifyGeo's F-head and S-head (III.C, IV.C): the encoder's last stage twice, cut to its first block, not shared."""

from __future__ import annotations

import copy

from torch import nn

from training.parts.encoders import Encoder, Stage


def split_heads(encoder: Encoder) -> tuple[Stage, Stage]:
    """Takes the last stage off the encoder and makes of it F-head (detail) and S-head (semantics).

    Each keeps the stage's downsampling and its first block, with weights of its own that start as the stage's.
    """
    last = encoder.take_last_stage()
    last.blocks = nn.ModuleList(list(last.blocks)[:1])
    return last, copy.deepcopy(last)
