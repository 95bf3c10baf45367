"""The launch files: what they ask for is what the node has. On a real ROS 2 they start it, and play it a bag."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from onboard.config import Config
from onboard.frames import FLU_FROM_FRD, rotation_from_quaternion
from onboard.live.cli import parse_mount

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


@pytest.fixture
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


@pytest.fixture
def node_parameters(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(NODE_PACKAGE))
    return importlib.import_module("pilotage_ros.parameters")


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


# ---- parameters


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


# ---- topics


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


# ---- arguments, mount, needs


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
    with pytest.raises(RuntimeError, match="mount: sideways; expected down, or ROLL,PITCH,YAW"):
        without_ros("onboard.launch.py").mount_quaternion("sideways", "v4l2")


@pytest.mark.parametrize("name", ["onboard.launch.py", "replay.launch.py"])
def test_a_package_that_is_missing_is_named_with_the_remedy(
    without_ros: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("ROS_DISTRO", "humble")
    with pytest.raises(RuntimeError, match="x:=y needs the package a_b; sudo apt install ros-humble-a-b"):
        without_ros(name).needs("a_b", "x:=y")


# ---- the watchdog


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


# ---- the package


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


# ---- on a real ROS 2

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
