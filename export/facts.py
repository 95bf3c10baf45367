"""What a model file says of itself, in its ONNX metadata: `onboard.engine.ModelFacts` reads it back."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

import onnx

from onboard.errors import EngineError

# How the ports are to be fed and read, for a reader who has the file alone.
PORTS = {
    "inputs": "image uint8 (B, N, N, 3) RGB; mask uint8 (B, N, N), 1 where there is ground",
    "outputs": "descriptor (B, D); detail (B, N/8, N/8, C); fine (B, N/4, N/4, F); float32, unit norm, channels last",
    "normalisation": "inside: bytes in",
}


def read_model(path: Path) -> onnx.ModelProto:
    """Raises EngineError for what is no ONNX file."""
    if not path.is_file():
        raise EngineError("no model file", path, "an ONNX file")
    try:
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
    except Exception as error:  # protobuf and onnx raise classes of their own
        first = str(error).splitlines()[0]
        raise EngineError("unreadable model", f"{path} ({first})", "an ONNX file", "copy or export it again") from error
    return proto


def facts_of(proto: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in proto.metadata_props}


def set_facts(proto: onnx.ModelProto, changes: Mapping[str, object]) -> None:
    """Put facts beside those that a model has; each value becomes text."""
    facts = facts_of(proto) | {key: str(value) for key, value in changes.items()}
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, facts)


def save_model(proto: onnx.ModelProto, out: Path) -> Path:
    """Check and write a model beside `out`, then rename it."""
    onnx.checker.check_model(proto)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_suffix(".partial.onnx")
    onnx.save(proto, beside)
    beside.replace(out)
    return out


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def git_revision() -> str:
    result = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"
