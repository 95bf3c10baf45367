"""A profile becomes a float32 ONNX file: opset 18, fixed shapes, simplified, held against torch before it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from export.facts import save_model, set_facts
from export.lint import lint
from export.methods.profiles import Profile
from export.onnx import OPSET
from onboard.errors import EngineError

FORMAT = "pilotage-method-1"
TOLERANCE = 1e-4  # largest difference to torch, as a share of the largest number of an output (of 1 at least)


def export_profile(profile: Profile, out: Path, facts: Mapping[str, object]) -> Path:
    """Write `out` (beside, then renamed); returns it.

    Raises EngineError when it differs from torch, or when TensorRT would refuse it.
    """
    program = torch.onnx.export(
        profile.module,
        profile.example,
        input_names=list(profile.inputs),
        output_names=list(profile.outputs),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    proto = program.model_proto
    for node in proto.graph.node:  # torch leaves its stack traces
        del node.metadata_props[:]
        node.doc_string = ""
    del proto.graph.value_info[:]
    set_facts(
        proto,
        {
            "format": FORMAT,
            "profile": profile.name,
            "precision": "float32",
            "inputs": _ports(profile.inputs, profile.example),
            "outputs": ", ".join(profile.outputs),
            "normalisation": "inside: bytes in" if profile.inputs == ("image",) else "none: features in",
            **facts,
        },
    )
    if findings := lint(proto):
        raise EngineError(f"profile {profile.name} is not fit for TensorRT", findings[0], "", "report it with versions")
    worst = difference(profile, proto)
    if not worst <= TOLERANCE:
        raise EngineError("ONNX differs from torch", f"{worst:.2e} in {profile.name}", f"at most {TOLERANCE}", "report")
    return save_model(proto, out)


def difference(profile: Profile, proto: onnx.ModelProto) -> float:
    """Largest difference of an output to torch's, as a share of the output's largest number (of 1 at least)."""
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {name: value.numpy() for name, value in zip(profile.inputs, profile.example, strict=True)}
    got = session.run(list(profile.outputs), feed)
    with torch.no_grad():
        wanted = [value.numpy() for value in profile.module(*profile.example)]
    return max(float(np.abs(a - b).max() / max(1.0, np.abs(b).max())) for a, b in zip(got, wanted, strict=True))


def _ports(names: tuple[str, ...], example: tuple[torch.Tensor, ...]) -> str:
    kind = {torch.uint8: "uint8", torch.float32: "float32"}
    return "; ".join(f"{n} {kind[v.dtype]} {tuple(v.shape)}" for n, v in zip(names, example, strict=True))
