"""The protocol of an inference engine, and what a model says of itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from onboard.errors import EngineError

SHIPPED_MODEL = Path(__file__).resolve().parent.parent / "models" / "overhead.int8.onnx"
INPUTS = ("image", "mask")
OUTPUTS = ("descriptor", "detail", "fine")
FORMAT = "pilotage-overhead-1"


@dataclass(frozen=True)
class ModelFacts:
    """What rides in the model file's own metadata. `sha256` is of the file: maps are bound to exactly it, since INT8
    and float features differ a little."""

    name: str
    sha256: str
    view_px: int
    detail_stride: int
    detail_channels: int
    descriptor_dim: int
    fine_stride: int
    fine_channels: int
    metadata: Mapping[str, str]

    @staticmethod
    def from_metadata(path: Path, metadata: Mapping[str, str]) -> ModelFacts:
        """Raises EngineError when the file does not say what is needed."""
        if metadata.get("format") != FORMAT:
            raise EngineError(
                "not a Pilotage model", path, f"metadata format={FORMAT}", "export one with: pilotage export onnx"
            )
        try:
            numbers = {
                key: int(metadata[key])
                for key in (
                    "view_px",
                    "detail_stride",
                    "detail_channels",
                    "descriptor_dim",
                    "fine_stride",
                    "fine_channels",
                )
            }
        except (KeyError, ValueError) as error:
            raise EngineError(
                "model metadata", f"{path} ({error})", "sizes of all outputs", "export it again: pilotage export onnx"
            ) from error
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return ModelFacts(metadata.get("name", path.stem), digest, metadata=dict(metadata), **numbers)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What the network says of B pictures of N by N pixels, all float32.

    `descriptors` (B, D) of unit norm; `detail` (B, N/8, N/8, C) and `fine` (B, N/4, N/4, F) of unit norm per
    cell. Cell (i, j) covers pixels [i * stride, (i + 1) * stride).
    """

    descriptors: np.ndarray
    detail: np.ndarray
    fine: np.ndarray


class Engine(Protocol):
    """Runs one model. `embed` is the only thing that a frame asks for."""

    facts: ModelFacts
    backend: str

    def embed(self, images_rgb: np.ndarray, masks: np.ndarray) -> Embeddings:
        """images_rgb uint8 (B, N, N, 3), masks bool (B, N, N), true where there is ground."""
        ...

    def close(self) -> None: ...
