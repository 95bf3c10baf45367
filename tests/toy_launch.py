"""The launch files of pilotage_bringup, read and imported where there is no ROS."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "launch"
NODE_PACKAGE = ROOT / "ros2_ws" / "src" / "pilotage_ros"
FILES = ("onboard.launch.py", "node.launch.py", "replay.launch.py")
PARAMETER_FILES = sorted((LAUNCH / "config").glob("*/*.yaml")) + [
    LAUNCH / "config" / f"{name}.yaml" for name in ("simulation", "replay")
]
OF_ROS = {"use_sim_time"}  # parameters that every node has


class Recorded:
    """Stands for every class of `launch`: remembers what it was made with."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.arguments, self.keywords = arguments, keywords
        self.name = arguments[0] if arguments else keywords.get("name")


class NoPackage(LookupError):
    """Stands for PackageNotFoundError."""


def no_package(name: str) -> str:
    raise NoPackage(name)


def without_ros(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a file of launch/ with stand-ins for ROS's own modules, so that its functions run everywhere."""
    stand_in = {"PackageNotFoundError": NoPackage, "get_package_share_directory": no_package}
    for name in FILES:
        for node in ast.walk(ast.parse((LAUNCH / name).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] != "pathlib":
                parts = node.module.split(".")
                for length in range(1, len(parts) + 1):
                    whole = ".".join(parts[:length])
                    if whole not in sys.modules or not hasattr(sys.modules[whole], "stands_in"):
                        module = ModuleType(whole)
                        module.stands_in = True  # type: ignore[attr-defined]
                        monkeypatch.setitem(sys.modules, whole, module)
                for alias in node.names:
                    setattr(sys.modules[node.module], alias.name, stand_in.get(alias.name, Recorded))
    return lambda name: load(LAUNCH / name)


def load(path: Path) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(path.name.split(".")[0] + "_of_launch", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def parameters_in(path: Path) -> dict[str, Any]:
    return flat(yaml.safe_load(path.read_text())["/**"]["ros__parameters"])


def told(module: ModuleType, **changes: str) -> dict[str, str]:
    """The arguments of a launch file at their defaults, some changed."""
    return {a.name: a.keywords.get("default_value", "/map") for a in module.ARGUMENTS} | changes
