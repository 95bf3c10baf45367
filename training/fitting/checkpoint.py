"""A training's checkpoint: all that its end depends on.

Written beside and then renamed, so that a kill loses steps, not the file; read without unpickling code.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from onboard.errors import PilotageError

FORMAT = 1


class CheckpointError(PilotageError):
    """A checkpoint that cannot be read, or that another training wrote."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint, through to the disk before its name is given."""
    beside = path.with_name(path.name + ".partial")
    with beside.open("wb") as file:
        torch.save({"format": FORMAT, **content}, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def load(path: Path) -> dict[str, Any]:
    """A checkpoint of a method, on the CPU. Raises CheckpointError where the file is not one."""
    if not path.is_file():
        raise CheckpointError("no checkpoint", path, "a file that `pilotage train --preset` wrote")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError("checkpoint does not read", path, "a whole file", "train again") from error
    if not isinstance(content, dict) or "format" not in content:
        expected = "one of a method; the overhead network's is evaluated as the ONNX file of `pilotage export onnx`"
        raise CheckpointError("checkpoint", path, expected)
    if content["format"] != FORMAT:
        raise CheckpointError("checkpoint format", content["format"], str(FORMAT), "train again with this version")
    return content
