"""Which layers do not bear INT8: measured, not guessed.

Each group of layers is quantized alone and the error of the network's outputs is read off calibration frames. When the
whole network in INT8 errs more than is tolerated, the group that errs most alone goes back to float, then the next,
until it holds. The error is one less the mean cosine to the float model, of the worst of the three outputs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from export.facts import read_model
from export.quantize import CONVOLUTIONAL, Target, View, float_nodes, quantize
from onboard.config import EngineConfig
from onboard.engine import Embeddings
from onboard.engine.onnx import OnnxEngine

TOLERATED = 0.005
FRAMES = 24  # of the calibration set: enough to rank a dozen groups
PARTS = ("descriptors", "detail", "fine")


@dataclass(frozen=True, slots=True)
class GroupError:
    """What quantizing one group alone does: one less the mean cosine of each output."""

    group: str
    nodes: tuple[str, ...]
    descriptors: float
    detail: float
    fine: float

    @property
    def worst(self) -> float:
        return max(self.descriptors, self.detail, self.fine)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """`groups` worst first; `kept_float` are names of groups, `errors` those of the whole after each was kept."""

    groups: tuple[GroupError, ...]
    kept_float: tuple[str, ...]
    errors: tuple[float, ...]
    tolerated: float

    @property
    def nodes(self) -> tuple[str, ...]:
        """Nodes to hand to `quantize` as `keep_float`."""
        return tuple(name for group in self.groups if group.group in self.kept_float for name in group.nodes)


def measure(
    model: Path, frames: Sequence[View], target: Target = Target.ONNXRUNTIME, tolerated: float = TOLERATED
) -> Sensitivity:
    """Rank the groups of a float model and keep float what must be. Raises EngineError as `quantize` does."""
    few = list(frames)[:FRAMES]
    wanted = _embed(model, few)
    groups = groups_of(read_model(model))
    everything = {name for names in groups.values() for name in names}
    with tempfile.TemporaryDirectory() as folder:
        trial, ranges = Path(folder) / "trial.onnx", Path(folder) / "ranges.json"

        def error(keep_float: set[str]) -> tuple[float, ...]:
            found = _embed(quantize(model, trial, few, target, keep_float, ranges), few)
            return tuple(_distance(getattr(wanted, part), getattr(found, part)) for part in PARTS)

        alone = [GroupError(g, n, *error(everything - set(n))) for g, n in groups.items()]
        ranked = tuple(sorted(alone, key=lambda group: -group.worst))
        kept: list[GroupError] = []
        errors = [max(error(set()))]
        while errors[-1] > tolerated and len(kept) < len(ranked):
            kept.append(ranked[len(kept)])
            errors.append(max(error({name for group in kept for name in group.nodes})))
    return Sensitivity(ranked, tuple(group.group for group in kept), tuple(errors), tolerated)


def groups_of(proto: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Names of the nodes that would be quantized, by the module that their weights belong to.

    What has no weights (additions, growth) goes with the convolution before it.
    """
    excluded = set(float_nodes(proto))
    weights = {tensor.name for tensor in proto.graph.initializer}
    group_of: dict[str, str] = {}  # of a tensor
    groups: dict[str, list[str]] = {}
    for node in proto.graph.node:
        named = next((name for name in node.input if name in weights), "") if node.op_type == "Conv" else ""
        before = next((group_of[name] for name in reversed(node.input) if name in group_of), "")
        group = _module(named) if named else before
        for name in node.output:
            group_of[name] = group
        if node.op_type in CONVOLUTIONAL and node.name not in excluded and group:
            groups.setdefault(group, []).append(node.name)
    return {group: tuple(names) for group, names in groups.items()}


def _module(weight: str) -> str:
    """net.trunk.3.widen.weight belongs to trunk.3; what the rewriting renamed keeps its own first name."""
    parts = [part for part in weight.split(".") if part != "net"]
    return ".".join(parts[:2]) if len(parts) > 2 else weight.rsplit("/", 1)[0]


def _embed(model: Path, frames: Sequence[View]) -> Embeddings:
    engine = OnnxEngine(model, EngineConfig())
    found = [engine.embed(image[None], mask[None].astype(bool)) for image, mask in frames]
    engine.close()
    return Embeddings(*(np.concatenate([getattr(one, part) for one in found]) for part in PARTS))


def _distance(wanted: np.ndarray, found: np.ndarray) -> float:
    """One less the mean cosine of unit vectors along the last axis."""
    return float(1 - (wanted * found).sum(axis=-1).mean())


def print_sensitivity(found: Sensitivity) -> None:
    """The groups, worst first, and what was kept float because of it."""
    table = Table("quantized alone", "descriptor", "detail", "fine", "stays")
    for group in found.groups:
        errors = (f"{value:.5f}" for value in (group.descriptors, group.detail, group.fine))
        table.add_row(group.group, *errors, "float" if group.group in found.kept_float else "int8")
    Console().print(table)
    steps = ", then ".join(f"{error:.5f}" for error in found.errors)
    print(f"error of the whole (1 - mean cosine of the worst output): {steps}; tolerated {found.tolerated}")
