"""The launch files on a real ROS 2: they start the node, start it again, and play it a bag."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_launch import FILES, ROOT

SETUP = os.environ.get("PILOTAGE_ROS_SETUP", "")
needs_ros = pytest.mark.skipif(
    not SETUP and shutil.which("ros2") is None,
    reason="no ROS 2: source its setup.bash, or name it in PILOTAGE_ROS_SETUP",
)
LAST_S = 60


class Workspace:
    """Both packages, built by colcon in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        build = ["colcon", "--log-base", f"{folder}/log", "build", "--base-paths", str(ROOT / "ros2_ws" / "src")]
        bases = ["--build-base", f"{folder}/build", "--install-base", f"{folder}/install"]
        ran = self.run(*build, *bases, timeout_s=300, sourced=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr

    def run(self, *command: str, timeout_s: float = LAST_S, sourced: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._shell(command, sourced), timeout=timeout_s, env=self._environment(), **self._pipes()
        )

    def start(self, *command: str, log: Path) -> subprocess.Popen[str]:
        with log.open("w") as out:
            return subprocess.Popen(
                self._shell(command, True), env=self._environment(), stdout=out, stderr=out, start_new_session=True
            )

    def launch(self, file: str, *arguments: str) -> tuple[str, ...]:
        return ("ros2", "launch", "--noninteractive", "pilotage_bringup", file, *arguments)

    def state(self) -> str:
        return self.run("ros2", "lifecycle", "get", "/pilotage", "--no-daemon", "--spin-time", "2").stdout.strip()

    def _shell(self, command: tuple[str, ...], sourced: bool) -> list[str]:
        files = [SETUP] * bool(SETUP) + [f"{self.folder}/install/setup.bash"] * sourced
        return ["bash", "-c", "".join(f"source {shlex.quote(f)}; " for f in files) + f"exec {shlex.join(command)}"]

    def _environment(self) -> dict[str, str]:
        domain = str(1 + os.getpid() % 100)  # so that nobody else's node is met
        return {**os.environ, "ROS_DOMAIN_ID": domain, "ROS_LOG_DIR": f"{self.folder}/ros", "PYTHONUNBUFFERED": "1"}

    @staticmethod
    def _pipes() -> dict[str, Any]:
        return {"capture_output": True, "text": True}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def flown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered place, its map, and eight seconds of flight over it."""
    folder = tmp_path_factory.mktemp("flown")
    size = ("--size-m", "600", "--metres-per-pixel", "1")
    low = ("--seconds", "8", "--processes", "1", "--low-m", "60", "--high-m", "80")
    for command in (
        ("render", "place", "--out", "place", "--seed", "5", *size),
        ("render", "flight", "place", "--out", "flight", "--seed", "5", *low),
        ("map", "build", "place/orthophoto.tif", "--out", "map"),
    ):
        call = [sys.executable, "-c", "from onboard.cli import main; main()", *command]
        ran = subprocess.run(call, capture_output=True, text=True, timeout=300, cwd=folder)
        assert ran.returncode == 0, ran.stderr
    return folder


def wait_until(true: Callable[[], bool], what: str, log: Path) -> None:
    end = time.monotonic() + LAST_S
    while not true():
        assert time.monotonic() < end, f"{what} never came\n{log.read_text()}"
        time.sleep(0.2)


def end(process: subprocess.Popen[str]) -> int:
    """As systemd does it: the launch first, then what is left of its group."""
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def node_process(log: Path) -> int:
    """Of the node's last start, by what launch says."""
    return int(re.findall(r"\[pilotage-1\]: process started with pid \[(\d+)\]", log.read_text())[-1])


@needs_ros
@pytest.mark.parametrize("name", FILES)
def test_show_args_describes_every_argument(workspace: Workspace, name: str) -> None:
    shown = workspace.run("ros2", "launch", "pilotage_bringup", name, "--show-args")
    assert shown.returncode == 0, shown.stderr
    names = re.findall(r"^    '(\w+)':\n        (.*)$", shown.stdout, re.MULTILINE)
    assert {"map", "start", "params_file", "image_topic"} <= {argument for argument, _ in names}
    assert [argument for argument, words in names if words == "no description given"] == []


@needs_ros
@pytest.mark.parametrize(
    ("file", "arguments", "words"),
    [
        ("onboard.launch.py", (), "map"),
        ("onboard.launch.py", ("map:=x", "params_file:=/nowhere.yaml"), "params_file: /nowhere.yaml; expected"),
        ("onboard.launch.py", ("map:=x", "link:=none", "telemetry:=mavlink"), "expected link:=direct"),
        ("replay.launch.py", ("map:=x", "bag:=/nowhere"), "bag: /nowhere; expected"),
    ],
)
def test_what_cannot_be_launched_is_told_in_one_line(
    workspace: Workspace, file: str, arguments: tuple[str, ...], words: str
) -> None:
    ran = workspace.run(*workspace.launch(file, *arguments))
    errors = [line for line in (ran.stdout + ran.stderr).splitlines() if "[ERROR]" in line]
    assert ran.returncode == 1
    assert len(errors) == 1
    assert words in errors[0]
    assert "process started" not in ran.stdout  # nothing is left behind


@needs_ros
def test_the_node_becomes_active_and_again_after_it_was_killed(
    workspace: Workspace, flown: Path, tmp_path: Path
) -> None:
    log = tmp_path / "launch.log"
    arguments = (f"map:={flown}/map", "link:=none", "board:=orin_nano", "autopilot:=px4")
    launch = workspace.start(*workspace.launch("onboard.launch.py", *arguments), log=log)
    try:
        wait_until(lambda: "model" in log.read_text() and workspace.state().startswith("active"), "the node", log)
        asked = workspace.run("ros2", "param", "get", "/pilotage", "link.profile", "--no-daemon", "--spin-time", "2")
        assert "px4-global-position" in asked.stdout
        os.kill(node_process(log), signal.SIGKILL)
        wait_until(lambda: log.read_text().count("process started") == 2, "a second start", log)
        wait_until(lambda: workspace.state().startswith("active"), "the node that was started again", log)
    finally:
        code = end(launch)
    assert code == 0, log.read_text()


@needs_ros
def test_a_replay_over_a_map_that_is_none_ends_with_the_reason(workspace: Workspace, flown: Path) -> None:
    if workspace.run("ros2", "bag", "--help").returncode != 0:
        pytest.skip("no ros2 bag: the package ros2bag is not installed")
    ran = workspace.run(*workspace.launch("replay.launch.py", f"bag:={flown}/flight", f"map:={flown}/flight"))
    assert "[player" not in ran.stdout
    assert len(re.findall(r"\[ERROR\].*configure: ", ran.stdout + ran.stderr)) == 1


@needs_ros
def test_a_bag_is_played_to_the_node_from_its_first_frame_on(workspace: Workspace, flown: Path, tmp_path: Path) -> None:
    if workspace.run("ros2", "bag", "--help").returncode != 0:
        pytest.skip("no ros2 bag: the package ros2bag is not installed")
    log, seen = tmp_path / "launch.log", tmp_path / "fixes.log"
    topics = ("image_topic:=/camera/image_raw", "camera_info_topic:=/camera/camera_info")
    telemetry = ("attitude_topic:=/mavros/imu/data", "height_topic:=/height_above_ground")
    listener = workspace.start("ros2", "topic", "echo", "/pilotage/fix", "sensor_msgs/msg/NavSatFix", log=seen)
    given = (f"bag:={flown}/flight", f"map:={flown}/map", "every_frame:=true")  # however slow the machine is
    launch = workspace.start(*workspace.launch("replay.launch.py", *given, *topics, *telemetry), log=log)
    try:
        assert launch.wait(2 * LAST_S) == 0, log.read_text()
    finally:
        if launch.poll() is None:
            os.killpg(launch.pid, signal.SIGKILL)
        os.killpg(listener.pid, signal.SIGKILL)
        listener.wait(20)
    assert "mount: /tf_static" in log.read_text(), log.read_text()
    assert "acquiring -> tracking" in log.read_text(), log.read_text()
    latitudes = [float(value) for value in re.findall(r"^latitude: (.*)$", seen.read_text(), re.MULTILINE)]
    assert len(latitudes) >= 5, seen.read_text()
    assert max(latitudes) - min(latitudes) < 0.006  # the place is 600 m long
