"""Engine files: what they are called, what stands beside them, and which of them may be run here.

TensorRT makes an engine for one model, one version of itself and one kind of GPU. All of that is in the file's name
and, in full, in a side-car `NAME.engine.json`, with the SHA-256 of the engine: TensorRT never sees a file that is
broken or that was made for something else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onboard.engine.base import ModelFacts
from onboard.errors import EngineError

FORMAT = "pilotage-engine-1"


class NoEngine(EngineError):
    """There is no engine that may run here; building one helps."""


@dataclass(frozen=True, slots=True)
class Target:
    """What an engine is made for: TensorRT's version, the GPU as CUDA names it, its compute capability ("8.7").

    `dla_core`: the deep learning accelerator that takes what it can, -1 for none.
    """

    tensorrt: str
    device: str
    compute_capability: str
    dla_core: int = -1

    def __str__(self) -> str:
        dla = f", DLA {self.dla_core}" if self.dla_core >= 0 else ""
        return f"TensorRT {self.tensorrt} on {self.device} (compute capability {self.compute_capability}{dla})"


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """The side-car of an engine. `metadata` is the ONNX file's own; `model_sha256` is that file's, not the engine's.

    `batches`: how many pictures each of its profiles takes, ascending.
    """

    model: str
    model_sha256: str
    metadata: Mapping[str, str]
    target: Target
    batches: tuple[int, ...]
    engine_sha256: str
    engine_bytes: int

    @property
    def precision(self) -> str:
        return precision_of(self.metadata)


def precision_of(metadata: Mapping[str, str]) -> str:
    """float32, float16, int8: the first word of what the model says of itself."""
    return metadata.get("precision", "").split(" ")[0] or "unknown"


def engine_name(facts: ModelFacts, target: Target) -> str:
    """The file name of a model's engine: model hash, TensorRT version, device and precision."""
    parts = [
        facts.name,
        facts.sha256[:12],
        f"trt{target.tensorrt}",
        f"sm{target.compute_capability.replace('.', '')}",
        target.device,
        precision_of(facts.metadata),
        *([f"dla{target.dla_core}"] if target.dla_core >= 0 else []),
    ]
    return "-".join(re.sub(r"[^A-Za-z0-9._]+", "_", part).strip("_") for part in parts) + ".engine"


def engine_folder(model: Path, folder: str) -> Path:
    """Where a model's engines lie: the folder of the settings, else the model's own."""
    return Path(folder) if folder else model.parent


def rebuild(model: Path, folder: Path, dla_core: int = -1) -> str:
    """The remedy for every engine that cannot be used."""
    dla = f" --dla-core {dla_core}" if dla_core >= 0 else ""
    return f"build it here with: pilotage export engine {model} --out {folder}{dla}"


def sha256_of(model: Path) -> str:
    return hashlib.sha256(model.read_bytes()).hexdigest()


def candidates(model_sha256: str, folder: Path) -> list[Path]:
    """The engines of a model, by its hash in their names, whatever they were made for."""
    return sorted(folder.glob(f"*-{model_sha256[:12]}-trt*.engine"))


def find_engine(model: Path, folder: Path, target: Target) -> tuple[Path, EngineRecord]:
    """The engine of exactly this model file for exactly this target.

    Raises NoEngine, with the command that builds it, when there is none or all that there are differ.
    """
    remedy = rebuild(model, folder, target.dla_core)
    model_sha256 = sha256_of(model)
    problem = NoEngine("no TensorRT engine for this model", model, f"one in {folder}", remedy)
    for path in candidates(model_sha256, folder):
        try:
            record = read_record(path, remedy)
        except NoEngine as error:
            problem = error
            continue
        if record.model_sha256 != model_sha256:
            problem = NoEngine("engine of another model", f"{path} ({record.model_sha256[:12]})", str(model), remedy)
        elif record.target != target:
            problem = NoEngine("engine for another machine", f"built for {record.target}", str(target), remedy)
        else:
            return path, record
    raise problem


def read_record(engine: Path, remedy: str) -> EngineRecord:
    """The side-car of an engine file. Raises NoEngine when it is missing or says something else."""
    path = sidecar(engine)
    if not path.is_file():
        raise NoEngine("engine without its side-car", engine, path.name, remedy)
    try:
        told = json.loads(path.read_text())
        if told["format"] != FORMAT:
            raise ValueError(f"format {told['format']}, not {FORMAT}")
        return _record_from(told)
    except (ValueError, KeyError, TypeError) as error:
        raise NoEngine("unreadable side-car", f"{path} ({error!r})", FORMAT, remedy) from error


def _record_from(told: dict[str, Any]) -> EngineRecord:
    fields = {field.name: told[field.name] for field in dataclasses.fields(EngineRecord)}
    fields["metadata"] = dict(fields["metadata"])
    fields["target"] = Target(**fields["target"])
    fields["batches"] = tuple(int(batch) for batch in fields["batches"])
    return EngineRecord(**fields)


def read_engine(engine: Path, record: EngineRecord, remedy: str) -> bytes:
    """The bytes of an engine file. Raises NoEngine unless they are those that were written."""
    content = engine.read_bytes()
    if len(content) != record.engine_bytes:
        raise NoEngine(
            "engine file is cut short", f"{engine} has {len(content)} bytes", f"{record.engine_bytes}", remedy
        )
    if hashlib.sha256(content).hexdigest() != record.engine_sha256:
        raise NoEngine("engine file is broken", engine, f"SHA-256 {record.engine_sha256[:12]}", remedy)
    return content


def write_engine(
    folder: Path, model: Path, facts: ModelFacts, target: Target, batches: tuple[int, ...], content: bytes
) -> Path:
    """Write an engine and its side-car, each beside and then renamed; returns the engine's path."""
    path = folder / engine_name(facts, target)
    digest = hashlib.sha256(content).hexdigest()
    record = EngineRecord(model.name, facts.sha256, dict(facts.metadata), target, batches, digest, len(content))
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(path, content)
    told = {"format": FORMAT} | dataclasses.asdict(record)
    replace_file(sidecar(path), (json.dumps(told, indent=1) + "\n").encode())
    return path


def sidecar(engine: Path) -> Path:
    return engine.with_name(engine.name + ".json")


def replace_file(path: Path, content: bytes) -> None:
    """Never half-written: beside, then renamed."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
