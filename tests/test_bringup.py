"""The launch files: topics, arguments, mount, and what they say of a package that is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import toy_launch
import yaml
from toy_launch import FILES, LAUNCH, NODE_PACKAGE, told

from onboard.frames import FLU_FROM_FRD, rotation_from_quaternion
from onboard.live.cli import parse_mount


@pytest.fixture
def without_ros(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    return toy_launch.without_ros(monkeypatch)


def node_topics() -> set[str]:
    """What the node publishes under its name, and what it takes under absolute or relative ones."""
    source = "\n".join(path.read_text() for path in sorted((NODE_PACKAGE / "pilotage_ros").glob("*.py")))
    own = {f"/pilotage/{name}" for name in re.findall(r'create_lifecycle_publisher\(\w+, "~/(\w+)"', source)}
    assert len(own) >= 5
    assert '"initialpose"' in source
    return own | {"/diagnostics", "/initialpose", "/gps"}


def test_the_parts_that_can_be_named_are_those_that_the_node_subscribes_to(
    without_ros: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(NODE_PACKAGE))
    from pilotage_ros.readings import KINDS

    node = without_ros("node.launch.py")
    assert set(node.TOPICS) == {*KINDS, "camera_info", "gps"}
    assert set(node.MAVROS_TOPICS) <= set(node.TOPICS)


def test_topics_are_remapped_where_they_are_named_or_mavros_names_them(without_ros: Any) -> None:
    node = without_ros("node.launch.py")
    assert node.remappings_of(told(node)) == []
    assert node.remappings_of(told(node, image_topic="/down")) == [("image", "/down")]
    by_mavros = dict(node.remappings_of(told(node, link="mavros", height_topic="/range")))
    assert by_mavros["height"] == "/range"
    assert by_mavros["attitude"] == "mavros/imu/data"


def test_rviz_shows_topics_of_the_node() -> None:
    rviz = yaml.safe_load((LAUNCH / "rviz" / "pilotage.rviz").read_text())["Visualization Manager"]
    shown = [part["Topic"]["Value"] for part in (*rviz["Displays"], *rviz["Tools"]) if "Topic" in part]
    assert len(shown) >= 4
    assert set(shown) <= node_topics()


def test_the_foxglove_layout_shows_topics_of_the_node_in_panels_that_it_has() -> None:
    text = (LAUNCH / "foxglove" / "pilotage.json").read_text()
    layout = json.loads(text)
    named = set(re.findall(r"/(?:pilotage|diagnostics|initialpose|gps)[\w/]*", text))
    assert len(named) >= 6
    assert named <= node_topics()

    def panels(part: Any) -> Iterator[str]:
        yield from [part] if isinstance(part, str) else (*panels(part["first"]), *panels(part["second"]))

    assert sorted(panels(layout["layout"])) == sorted(layout["configById"])


@pytest.mark.parametrize("name", FILES)
def test_every_argument_is_described(without_ros: Any, name: str) -> None:
    module = without_ros(name)
    assert len(module.ARGUMENTS) >= 5
    for argument in module.ARGUMENTS:
        assert len(argument.keywords["description"]) > 15, argument.name
        assert argument.keywords["description"].endswith("."), argument.name
        default, choices = argument.keywords.get("default_value"), argument.keywords.get("choices")
        assert choices is None or default in choices, argument.name


def test_the_units_give_arguments_that_the_launch_file_has(without_ros: Any) -> None:
    text = (LAUNCH / "jetson" / "units" / "pilotage.env").read_text()
    line = re.search(r'^PILOTAGE_LAUNCH="(.*)"$', text, re.MULTILINE)
    assert line is not None
    arguments = {a.name: a for name in FILES[:2] for a in without_ros(name).ARGUMENTS}
    for word in line[1].split():
        name, value = word.split(":=")
        assert value in (arguments[name].keywords.get("choices") or (value,))


@pytest.mark.parametrize("words", ["down", "0,30,0", "10,0,0", "0,0,90", "5,20,-45"])
def test_a_mount_means_the_same_to_ros_as_to_pilotage_fly(without_ros: Any, words: str) -> None:
    x, y, z, w = without_ros("onboard.launch.py").mount_quaternion(words, "v4l2")
    assert rotation_from_quaternion((w, x, y, z)) == pytest.approx(FLU_FROM_FRD @ parse_mount(words), abs=1e-12)


def test_a_realsense_is_mounted_by_its_link_which_looks_along_x(without_ros: Any) -> None:
    x, y, z, w = without_ros("onboard.launch.py").mount_quaternion("down", "realsense")
    body_from_link = rotation_from_quaternion((w, x, y, z))
    ahead, up = np.array([1.0, 0, 0]), np.array([0, 0, 1.0])
    assert body_from_link @ ahead == pytest.approx([0, 0, -1], abs=1e-12)  # looks down
    assert body_from_link @ up == pytest.approx([1, 0, 0], abs=1e-12)  # top of the image forward


def test_a_mount_that_is_none_is_told_in_one_line(without_ros: Any) -> None:
    with pytest.raises(RuntimeError, match="mount: sideways; expected down, gimbal, or ROLL,PITCH,YAW"):
        without_ros("onboard.launch.py").mount_quaternion("sideways", "v4l2")


@pytest.mark.parametrize("name", ["onboard.launch.py", "replay.launch.py"])
def test_a_package_that_is_missing_is_named_with_the_remedy(
    without_ros: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("ROS_DISTRO", "humble")
    with pytest.raises(RuntimeError, match="x:=y needs the package a_b; sudo apt install ros-humble-a-b"):
        without_ros(name).needs("a_b", "x:=y")
