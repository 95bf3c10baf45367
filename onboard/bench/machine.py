"""The machine that figures were measured on: without it they say nothing."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# What 8-bit products run on: x86 names first, then those of aarch64.
_TELLING = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm")
_PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "tensorrt", "faiss-cpu")


@dataclass(frozen=True, slots=True)
class Machine:
    """`flags` are those of the CPU that matter for INT8; `load` is the mean run queue of the last minute."""

    name: str
    cpu: str
    cores: int
    flags: tuple[str, ...]
    memory_mb: int
    system: str
    python: str
    packages: dict[str, str]
    load: float

    @property
    def has_vnni(self) -> bool:
        return any("vnni" in flag for flag in self.flags)


def describe_machine(proc: Path = Path("/proc"), device_tree: Path = Path("/proc/device-tree")) -> Machine:
    """What Linux says of itself; what it does not say is left empty."""
    cpu, flags = _cpu(_read(proc / "cpuinfo"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        _read(device_tree / "model").strip("\0\n") or platform.machine(),
        cpu,
        cores,
        flags,
        _total_memory_mb(_read(proc / "meminfo")),
        f"{platform.system()} {platform.release()}",
        platform.python_version(),
        _versions(),
        float((_read(proc / "loadavg").split() or ["nan"])[0]),
    )


def _cpu(text: str) -> tuple[str, tuple[str, ...]]:
    """Name and telling flags of the first CPU in /proc/cpuinfo."""
    first = dict(
        (key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in reversed(text.splitlines()))
    )
    has = set(first.get("flags", first.get("Features", "")).split())
    return first.get("model name", first.get("CPU part", "")), tuple(flag for flag in _TELLING if flag in has)


def _total_memory_mb(text: str) -> int:
    line = next((line for line in text.splitlines() if line.startswith("MemTotal:")), "MemTotal: 0 kB")
    return int(line.split()[1]) // 1024


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
