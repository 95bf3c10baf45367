"""Where mixed precision must stop: similarities and transport plans in bfloat16 would be wrong by half a per cent."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Autocast off for the device of `x`; nothing at all where it is not on, so that an export sees no trace of it."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()
