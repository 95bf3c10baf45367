"""What a model must do to be evaluated. Numpy in, numpy out: a torch method meets it through a thin adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from onboard.errors import ConfigError
from training.benchmarks.base import Benchmark

Seen = tuple[np.ndarray, np.ndarray]  # (rgb uint8 (H, W, 3), mask bool (H, W)) as read; sizes may differ


@dataclass(frozen=True, slots=True)
class Match:
    """Where queries lie in references, pair by pair: `place` (B, 2) row, col as a share of the reference's height and
    width, and `score` (B,) of the best place (UnifyGeo eq. 4 adds it to the retrieval score)."""

    place: np.ndarray
    score: np.ndarray


class Describer(Protocol):
    """One model. Both views may share weights or not."""

    name: str
    facts: Mapping[str, str]

    def describe_queries(self, pictures: Sequence[Seen]) -> np.ndarray:
        """(B, D) float32 of unit norm."""
        ...

    def describe_references(self, pictures: Sequence[Seen]) -> np.ndarray:
        """(B, D) float32 of unit norm."""
        ...

    def can_match(self, benchmark: Benchmark) -> bool:
        """Whether `match` means something there; a model that only retrieves says no."""
        ...

    def match(self, queries: Sequence[Seen], references: Sequence[Seen]) -> Match:
        """Each query in its reference; both of the same length."""
        ...


def open_describer(path: Path) -> Describer:
    """The model of a file. Raises ConfigError or EngineError, saying the remedy."""
    if path.suffix == ".pt":
        from training.evaluation.checkpoint import open_checkpoint

        return open_checkpoint(path)
    if path.suffix != ".onnx":
        raise ConfigError("model to evaluate", path, "an ONNX file, or a method's checkpoint.pt")
    from training.evaluation.onnx import OnnxDescriber

    return OnnxDescriber(path)
