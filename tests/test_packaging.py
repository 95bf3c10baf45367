"""What is shipped: a wheel with all that it needs, rooms that import one way, verbs that say what is wrong."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from onboard import __version__
from onboard.engine import SHIPPED_MODEL

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("onboard", "training", "export", "calibration")
DESKTOP = ("rasterio", "rosbags", "matplotlib", "jinja2", "PIL", "scipy", "trimesh", "embreex")


def python_files() -> list[Path]:
    return [path for room in (*ROOMS, "tests") for path in sorted((ROOT / room).rglob("*.py"))]


def run_python(program: str) -> str:
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    return subprocess.run(["make", *arguments], capture_output=True, text=True, timeout=120, cwd=cwd, env=inherited)


# ---- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing of the build is left in the tree."""
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    pip_wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    ran = subprocess.run([*pip_wheel, str(source)], capture_output=True, text=True, timeout=300, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return next(folder.glob("pilotage-*.whl"))


def test_the_wheel_holds_every_module_the_model_and_the_templates(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {path for room in ROOMS for path in (ROOT / room).rglob("*") if "__pycache__" not in path.parts}
    wanted = {path for path in wanted if path.is_file() and path.suffix in (".py", ".onnx", ".json", ".j2", ".typed")}
    assert SHIPPED_MODEL in wanted
    assert {str(path.relative_to(ROOT)) for path in wanted} - held == set()


def test_the_wheel_holds_licence_and_commands_and_no_tests(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "ros2_ws/", "launch/")) for name in names)
    entries = next(name for name in names if name.endswith("entry_points.txt"))
    assert "pilotage = onboard.cli:main" in archive.read(entries).decode()


def test_an_unpacked_wheel_finds_its_model(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        f"import sys; here = {str(tmp_path)!r}; sys.path.insert(0, here);"
        "import onboard; assert here in onboard.__file__;"
        "from onboard.engine import open_engine; print(open_engine(None).facts.name)"
    )
    assert run_python(program)


def test_what_is_shipped_of_models_stays_below_10_mb() -> None:
    assert 0 < sum(path.stat().st_size for path in SHIPPED_MODEL.parent.iterdir()) < 10e6


def test_version_and_changelog_agree() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{__version__}"' in text
    assert re.search(rf"^## {re.escape(__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_every_command_of_the_program_is_there() -> None:
    entries = importlib.metadata.entry_points(group="pilotage.commands")
    assert len(entries) > 5
    for entry in entries:
        assert callable(entry.load()), entry


# ---- who needs whom


def test_onboard_imports_no_other_room_and_no_torch() -> None:
    program = (
        "import importlib, pkgutil, sys, onboard\n"
        "for module in pkgutil.walk_packages(onboard.__path__, 'onboard.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    loaded = run_python(program).split()
    assert "onboard" in loaded
    assert set(loaded) & {"torch", "rclpy", "training", "export", "calibration"} == set()


def test_what_flies_needs_nothing_of_the_desktop() -> None:
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({(*DESKTOP, 'torch')!r}))\n"
        "import onboard.localizer, onboard.mavlink.tell.link, onboard.telemetry, onboard.region, onboard.engine.onnx\n"
        "import onboard.match.locate, onboard.track.tracker; print('flies')"
    )
    assert run_python(program) == "flies"


def test_the_source_is_python_3_10() -> None:
    files = python_files()
    assert len(files) > 50
    for path in files:
        ast.parse(path.read_text(), str(path), feature_version=(3, 10))


@pytest.mark.parametrize("folder", ["launch", "tests"])
def test_folders_that_must_be_no_packages(folder: str) -> None:
    """ROS has a package `launch`, and pytest imports tests by path."""
    assert not (ROOT / folder / "__init__.py").exists()


def test_training_data_is_attributed() -> None:
    readme = (ROOT / "README.md").read_text()
    for words in ("Ventura et al. 2024", "USDA", "Namie Town", "CrisisMappers", "DRONEBIRD", "CC BY 4.0"):
        assert words in readme, words


# ---- the Makefile

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
def test_make_alone_names_every_verb() -> None:
    shown = make().stdout
    phony = re.search(r"^\.PHONY: help (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    for verb in phony[1].split():
        assert f"make {verb}" in shown


@needs_make
@pytest.mark.parametrize("verb", ["demo", "test"])
def test_a_python_that_does_not_fit_is_told_in_one_line(tmp_path: Path, verb: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    ran = make(verb, "PYTHON=false", cwd=tmp_path)
    told = [line for line in ran.stderr.splitlines() if not line.startswith("make")]
    assert ran.returncode == 2
    assert len(told) == 1, ran.stderr
    assert "3.10 to 3.12" in told[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Makefile", "pyproject.toml"]


def _fake_python(path: Path, refuses: str) -> Path:
    """A Python that lacks a module, as Debian's does without python3-venv."""
    path.write_text(f'#!/bin/sh\ncase "$*" in {refuses}) exit 1;; esac\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


@needs_make
def test_a_python_without_venv_is_told_in_one_line(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    ran = make(".venv-demo/.made", f"PYTHON={_fake_python(tmp_path / 'python', '*venv*|*pip*')}", cwd=tmp_path)
    told = [line for line in ran.stderr.splitlines() if not line.startswith("make")]
    assert ran.returncode == 2
    assert len(told) == 1, ran.stderr
    assert "sudo apt install python3-venv" in told[0]
    assert not (tmp_path / ".venv-demo").exists()
