"""Where a training runs and in which numbers: one process, or those that torchrun started."""

from __future__ import annotations

import logging
import os
from typing import Literal, cast

import torch
from lightning_fabric import Fabric

Precision = Literal["32-true", "bf16-mixed"]


_SMALL = 5_000_000  # parameters; below, a CPU gains nothing from bfloat16: UnifyGeo tiny takes 0.8 s a step in both


def precision(wanted: str, parameters: int) -> Precision:
    """What "auto" means here and for a network of that size: bfloat16 for products where that is faster."""
    if wanted != "auto":
        return cast(Precision, wanted)
    # Twice as fast on ConvNeXt-T and ViT-S where a CPU has the instructions.
    small = parameters < _SMALL and not torch.cuda.is_available()
    return "bf16-mixed" if has_bfloat16() and not small else "32-true"


def has_bfloat16() -> bool:
    """Whether the hardware multiplies in bfloat16: emulated it is up to nine times slower than float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def launch(chosen: Precision) -> Fabric:
    """Fabric on the GPU, else the CPU; with torchrun's environment one process of several, each with its device."""
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)  # what matters of it is said in the first line
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=here,
        num_nodes=processes // here,
        # A method need not use every weight in every step: its own estimators, a side without localization.
        strategy="ddp_find_unused_parameters_true" if processes > 1 else "auto",
        precision=chosen,
    )
    fabric.launch()
    return fabric
