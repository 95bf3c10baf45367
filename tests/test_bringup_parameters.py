"""The parameter files and arguments of the launch: what they ask for is what the node has."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import toy_launch
from toy_launch import LAUNCH, NODE_PACKAGE, OF_ROS, PARAMETER_FILES, parameters_in, told

from onboard.config import Config


@pytest.fixture
def without_ros(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    return toy_launch.without_ros(monkeypatch)


@pytest.fixture
def node_parameters(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(NODE_PACKAGE))
    return importlib.import_module("pilotage_ros.parameters")


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=lambda path: path.stem)
def test_each_key_of_a_parameter_file_is_one_that_the_node_declares(path: Path, node_parameters: Any) -> None:
    declared = {spec.name: spec for spec in node_parameters.all_specs()}
    found = {key: value for key, value in parameters_in(path).items() if key not in OF_ROS}
    assert found
    for key, value in found.items():
        assert key in declared
        assert type(value) is type(declared[key].default), f"{key}: ROS refuses another type than {declared[key]}"
        low, high = declared[key].low, declared[key].high
        assert low is None or high is None or low <= value <= high, key


def test_the_nodes_own_defaults_lie_in_the_ranges_that_it_declares(node_parameters: Any) -> None:
    """Else ROS refuses to declare them, and the node does not start at all."""
    ranged = [spec for spec in node_parameters.all_specs() if spec.low is not None and spec.high is not None]
    assert len(ranged) > 20
    for spec in ranged:
        assert spec.low <= spec.default <= spec.high, spec.name


def test_every_choice_of_files_together_is_a_configuration(without_ros: Any, node_parameters: Any) -> None:
    node = without_ros("node.launch.py")
    declared = {spec.name: spec.default for spec in node_parameters.all_specs()}
    for board in node.BOARDS[1:]:
        for autopilot in node.AUTOPILOTS:
            values: dict[str, Any] = {}
            for path in node.parameter_files(board, autopilot, True, False, ""):
                values |= parameters_in(path)
            changes = {key: value for key, value in values.items() if key not in OF_ROS}
            assert node_parameters.why_not(node_parameters.all_specs(), declared, changes, active=False) == ""
            told_nothing = (board, autopilot) == ("other", "auto")
            assert (node_parameters.config_of({**declared, **changes}) == Config()) is told_nothing


def test_each_board_and_autopilot_that_can_be_chosen_has_its_file(without_ros: Any) -> None:
    node = without_ros("node.launch.py")
    assert {path.stem for path in (LAUNCH / "config" / "board").iterdir()} == set(node.BOARDS) - {"auto", "other"}
    assert {path.stem for path in (LAUNCH / "config" / "autopilot").iterdir()} == set(node.AUTOPILOTS) - {"auto"}


def test_own_parameters_come_last_and_must_be_there(without_ros: Any, tmp_path: Path) -> None:
    node = without_ros("node.launch.py")
    own = tmp_path / "own.yaml"
    own.touch()
    files = node.parameter_files("orin_nx", "px4", True, True, str(own))
    assert [path.stem for path in files] == ["orin_nx", "px4", "simulation", "replay", "own"]
    with pytest.raises(RuntimeError, match=r"params_file: /nowhere\.yaml; expected"):
        node.parameter_files("other", "auto", False, False, "/nowhere.yaml")


@pytest.mark.parametrize(
    ("model", "board"),
    [
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "orin_nano"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "orin_nx"),
        ("NVIDIA Jetson AGX Orin Developer Kit", "orin_agx"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "other"),
        ("Raspberry Pi 5 Model B Rev 1.0", "other"),
    ],
)
def test_the_board_is_told_by_the_device_tree(without_ros: Any, model: str, board: str) -> None:
    assert without_ros("node.launch.py").board_of(model) == board


def test_the_parameters_that_arguments_stand_for_are_the_nodes(without_ros: Any, node_parameters: Any) -> None:
    node = without_ros("node.launch.py")
    declared = {spec.name: spec for spec in node_parameters.all_specs()}
    made = node.parameters_of(told(node, map="~/region", start="1,2", model="m.onnx", camera_info_file="c.yaml"))
    for key, value in made.items():
        assert type(value) is type(declared[key].default), key
        assert not declared[key].choices or value in declared[key].choices
    assert made["map"] == str(Path.home() / "region")
    assert made["autostart"] is True


@pytest.mark.parametrize(
    ("link", "telemetry", "mavlink", "mavros", "source"),
    [
        ("direct", "auto", "/dev/ttyTHS1:921600", False, "mavlink"),
        ("direct", "topics", "/dev/ttyTHS1:921600", False, "topics"),
        ("mavros", "auto", "", True, "topics"),
        ("none", "auto", "", False, "topics"),
    ],
)
def test_the_link_decides_who_is_told_and_whence_telemetry_comes(
    without_ros: Any, link: str, telemetry: str, mavlink: str, mavros: bool, source: str
) -> None:
    node = without_ros("node.launch.py")
    made = node.parameters_of(told(node, link=link, telemetry=telemetry))
    assert (made["mavlink"], made["mavros"], made["telemetry"]) == (mavlink, mavros, source)


def test_telemetry_of_a_link_that_is_not_there_is_refused(without_ros: Any) -> None:
    node = without_ros("node.launch.py")
    with pytest.raises(RuntimeError, match="link:=mavros; expected link:=direct"):
        node.parameters_of(told(node, link="mavros", telemetry="mavlink"))
