"""The package pilotage_bringup: what colcon takes it for, what it installs, what its guide and its watchdog say."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import toy_launch
from toy_launch import FILES, LAUNCH, ROOT, load


@pytest.fixture
def without_ros(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    return toy_launch.without_ros(monkeypatch)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([("pilotage: node", 0, {"lifecycle": "active"})], True),
        ([("pilotage: node", 0, {"lifecycle": "active"}), ("pilotage: localizer", 1, {})], True),
        ([("pilotage: node", 0, {"lifecycle": "active"}), ("pilotage: input", 2, {})], True),
        ([("pilotage: node", 0, {"lifecycle": "active"}), ("pilotage: localizer", 2, {})], False),
        ([("pilotage: node", 2, {"lifecycle": "active"})], False),
        ([("pilotage: node", 0, {"lifecycle": "inactive"})], False),
        ([("camera: node", 0, {"lifecycle": "active"})], False),
        ([], False),
    ],
)
def test_the_watchdog_is_fed_by_an_active_node_alone(statuses: list[Any], expected: bool) -> None:
    assert load(LAUNCH / "watchdog").gets_on(statuses) is expected


def test_the_package_is_found_by_way_of_the_workspace() -> None:
    link = ROOT / "ros2_ws" / "src" / "pilotage_bringup"
    assert link.is_symlink()
    assert os.readlink(link) == "../../launch"
    assert (link / "package.xml").is_file()
    assert list(LAUNCH.rglob("__init__.py")) == []


def test_all_that_is_read_is_installed() -> None:
    cmake = (LAUNCH / "CMakeLists.txt").read_text()
    for path in LAUNCH.glob("*.launch.py"):
        assert path.name in cmake
    for folder in ("config", "rviz", "foxglove"):
        assert re.search(rf"DIRECTORY[^)]*\b{folder}\b", cmake)
    assert re.search(r"PROGRAMS watchdog", cmake)
    assert os.access(LAUNCH / "watchdog", os.X_OK)


def test_colcon_takes_the_package_for_what_it_is() -> None:
    """An odd e-mail address would make it plain CMake, silently."""
    package = (LAUNCH / "package.xml").read_text()
    assert re.search(r'email="[\w.]+@[\w.]+\.\w+"', package)
    assert "<build_type>ament_cmake</build_type>" in package


def test_the_footprints_of_the_guide_are_right() -> None:
    guide = (LAUNCH / "README.md").read_text()
    heights_m = [
        float(text) for text in re.findall(r"(\d+) m(?= \|)", guide.split("| sensor and lens |")[1].split("\n")[0])
    ]
    assert heights_m == [50, 100, 150, 300]
    rows = re.findall(r"^\| .*?(\d+)×(\d+).* \| (\d+) px \| (.*) \|$", guide, re.MULTILINE)
    assert len(rows) >= 4
    for width, height, focal, cells in rows:
        for height_m, cell in zip(heights_m, cells.split(" | "), strict=True):
            across, along, finest = map(float, re.findall(r"[\d.]+", cell))
            metres_per_pixel = height_m / int(focal)
            assert across == pytest.approx(int(width) * metres_per_pixel, abs=0.51)
            assert along == pytest.approx(int(height) * metres_per_pixel, abs=0.51)
            assert finest == pytest.approx(metres_per_pixel, abs=0.0051)


def test_the_guide_names_arguments_that_there_are(without_ros: Any) -> None:
    guide = (LAUNCH / "README.md").read_text()
    arguments = {argument.name for name in FILES for argument in without_ros(name).ARGUMENTS}
    named = set(re.findall(r"\b(\w+):=", guide))
    assert len(named) > 10
    assert named <= arguments
