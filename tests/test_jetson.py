"""The Jetson: the set-up script on a staged root, the units that it writes, the image, the bill of versions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onboard.config import Config, load_config
from onboard.live import status as live_status
from onboard.live.cli import fly
from onboard.mavlink.wire.transport import parse_address

ROOT = Path(__file__).resolve().parents[1]
JETSON = ROOT / "launch" / "jetson"
SETUP = JETSON / "setup.sh"
UNITS = JETSON / "units"
SERVICES = ("pilotage-fly.service", "pilotage-ros.service")
L4T_36 = "# R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic, EABI: aarch64, DATE: Mon Jun 16 2025\n"

# An interpreter that makes environments and installs in no time; all else is done by the real one.
PYTHON = """#!/bin/sh
case "$*" in
    *"-m venv"*)
        for venv; do :; done
        mkdir -p "$venv/bin"
        cp "$0" "$venv/bin/python"
        printf '#!/bin/sh\\ncase "$*" in *engine*) exit 2;; esac\\necho "stand-in: $*"\\n' >"$venv/bin/pilotage"
        chmod +x "$venv/bin/pilotage"
        ;;
    *"-m pip"*) echo "$*" >>"{log}" ;;
    *) exec {real} "$@" ;;
esac
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("bash") is None, reason="the set-up script is for bash on Linux"
)


class Stage:
    """A root that the script writes below, a stand-in for the board's Python, and what came of a run."""

    def __init__(self, folder: Path, release: str = L4T_36) -> None:
        self.root, self.pip = folder / "root", folder / "pip.log"
        (self.root / "etc").mkdir(parents=True)
        if release:
            (self.root / "etc" / "nv_tegra_release").write_text(release)
        self.python = folder / "python3"
        self.python.write_text(PYTHON.replace("{log}", str(self.pip)).replace("{real}", sys.executable))
        self.python.chmod(0o755)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PREFIX": str(self.root), "PYTHON": str(self.python)}
        command = ["bash", str(SETUP), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)

    def files(self) -> dict[str, tuple[int, str]]:
        """path -> when it was written, and what is in it."""
        found = (path for path in sorted(self.root.rglob("*")) if path.is_file())
        return {str(p.relative_to(self.root)): (p.stat().st_mtime_ns, p.read_text()) for p in found}

    def read(self, path: str) -> str:
        return (self.root / path).read_text()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def settings(unit: str) -> dict[str, str]:
    """The last value of each key of a unit; lines that go on are one."""
    lines = (UNITS / unit).read_text().replace("\\\n", " ").splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]\w+=", line))


# ---- the script


def test_the_scripts_are_clean_to_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    ran = subprocess.run(["shellcheck", SETUP, JETSON / "pilotage-ros"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout


def test_the_ros_unit_without_a_workspace_says_what_to_run() -> None:
    ran = subprocess.run([JETSON / "pilotage-ros"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1
    assert "run launch/jetson/setup.sh" in ran.stderr


@pytest.mark.parametrize("script", [SETUP, JETSON / "pilotage-ros"])
def test_the_scripts_parse_and_may_be_run(script: Path) -> None:
    ran = subprocess.run(["bash", "-n", script], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert os.access(script, os.X_OK)


def test_a_dry_run_says_all_and_writes_nothing(stage: Stage) -> None:
    before = stage.files()
    ran = stage.run("--dry-run", "--enable", "fly", "--clocks")
    assert ran.returncode == 0, ran.stderr
    assert stage.files() == before
    assert not stage.pip.exists()
    for unit in SERVICES:
        assert f"would write: /etc/systemd/system/{unit}" in ran.stdout
    assert "would install: pilotage" in ran.stdout


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        (L4T_36, "JetPack 6: Ubuntu 22.04, Python 3.10, CUDA 12.6, TensorRT 10.3, ROS 2 humble"),
        (L4T_36.replace("R36", "R38"), "JetPack 7: Ubuntu 24.04, Python 3.12, CUDA 13, TensorRT 10.13, ROS 2 jazzy"),
        (L4T_36.replace("R36", "R39"), "JetPack 7: "),
    ],
)
def test_the_jetpack_is_told_by_the_release_of_jetson_linux(tmp_path: Path, release: str, expected: str) -> None:
    ran = Stage(tmp_path, release).run("--dry-run")
    assert ran.returncode == 0, ran.stderr
    assert expected in ran.stdout


@pytest.mark.parametrize(
    ("release", "arguments", "words"),
    [
        ("", (), ("no Jetson found", "--jetpack 6 or 7")),
        (L4T_36.replace("R36", "R35"), (), ("R35", "expected R36")),
        (L4T_36, ("--enable", "both"), ("--enable: both", "expected fly or ros")),
        (L4T_36, ("--enable",), ("--enable needs a value",)),
        (L4T_36, ("--jetpack", "5"), ("--jetpack: 5", "expected 6 or 7")),
        (L4T_36, ("--ros",), ("no ROS 2", "expected ros-humble-ros-base")),
        (L4T_36, ("--map", "/nowhere"), ("--map: /nowhere", "pilotage map build")),
        (L4T_36, ("--nonsense",), ("unknown option --nonsense",)),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    tmp_path: Path, release: str, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    ran = Stage(tmp_path, release).run("--dry-run", *arguments)
    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1, ran.stderr
    for word in words:
        assert word in ran.stderr


def test_a_second_run_changes_nothing(stage: Stage) -> None:
    assert stage.run().returncode == 0
    before, installed = stage.files(), stage.pip.read_text()
    assert "etc/systemd/system/pilotage-fly.service" in before
    ran = stage.run()
    assert ran.returncode == 0, ran.stderr
    assert stage.files() == before
    assert stage.pip.read_text() == installed
    assert "written" not in ran.stdout


def test_what_the_integrator_wrote_is_kept_and_what_is_ours_is_put_right(stage: Stage) -> None:
    stage.run()
    (stage.root / "etc/pilotage/pilotage.env").write_text("PILOTAGE_MAP=/mine\n")
    (stage.root / "etc/systemd/system/pilotage-fly.service").write_text("[Service]\n")
    assert stage.run().returncode == 0
    assert stage.read("etc/pilotage/pilotage.env") == "PILOTAGE_MAP=/mine\n"
    assert stage.read("etc/systemd/system/pilotage-fly.service") == (UNITS / "pilotage-fly.service").read_text()


def test_an_interrupted_environment_is_made_again(stage: Stage) -> None:
    stage.run()
    (stage.root / "opt/pilotage/venv/.made").unlink()
    (stage.root / "opt/pilotage/venv/.installed").unlink()
    stage.run()
    assert (stage.root / "opt/pilotage/venv/.made").exists()
    assert len(stage.pip.read_text().splitlines()) == 2


def test_a_map_is_checked_and_copied_whole(stage: Stage, tmp_path: Path) -> None:
    source = tmp_path / "region"
    source.mkdir()
    (source / "manifest.json").write_text("{}")
    ran = stage.run("--map", str(source))
    assert ran.returncode == 0, ran.stderr
    assert f"stand-in: map info --verify {source}" in ran.stdout
    assert stage.read("var/lib/pilotage/map/manifest.json") == "{}"
    assert "there already: /var/lib/pilotage/map" in stage.run("--map", str(source)).stdout


def test_real_time_is_asked_for_in_one_place_and_off_without_asking(stage: Stage) -> None:
    drop_in = "etc/systemd/system/pilotage-.service.d/scheduling.conf"
    stage.run()
    assert not re.search(r"^CPUSchedulingPolicy", stage.read(drop_in), re.MULTILINE)
    assert re.search(r"^CPUAffinity=2-\d+$", stage.read(drop_in), re.MULTILINE)
    stage.run("--realtime")
    assert re.search(r"^CPUSchedulingPolicy=rr$", stage.read(drop_in), re.MULTILINE)
    for unit in SERVICES:
        assert {key for key in settings(unit) if key.startswith(("CPU", "Nice", "IO", "OOM"))} == set()


# ---- what it writes


def test_systemd_finds_nothing_wrong_with_the_units(stage: Stage, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    stage.run("--realtime", "--clocks")
    program = stage.root / "opt/pilotage/bin/pilotage-ros"
    program.parent.mkdir()
    shutil.copy(JETSON / "pilotage-ros", program)
    folder = stage.root / "etc/systemd/system"
    units = sorted(folder.glob("*.service"))
    assert len(units) == 3
    for unit in units:
        unit.write_text(unit.read_text().replace("/opt/pilotage/", f"{stage.root}/opt/pilotage/"))
    # A clock tool that only a Jetson has.
    clocks = folder / "pilotage-clocks.service"
    clocks.write_text(clocks.read_text().replace("/usr/bin/jetson_clocks", "/bin/true"))
    environment = os.environ | {"SYSTEMD_UNIT_PATH": f"{folder}:"}
    command = ["systemd-analyze", "verify", "--man=no", *map(str, units)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    told = [line for line in ran.stderr.splitlines() if "pilotage" in line]
    assert told == []


def test_the_fly_unit_gives_options_that_the_program_has() -> None:
    options = re.findall(r"--([a-z-]+)", settings("pilotage-fly.service")["ExecStart"])
    parameters = {"map_path" if name == "map" else name.replace("-", "_") for name in options}
    assert {"camera", "camera_model", "map_path", "mavlink", "config"} <= parameters
    assert parameters <= set(fly.__annotations__)


def test_every_variable_of_the_units_is_in_the_environment_file() -> None:
    told = set(re.findall(r"^([A-Z_]+)=", (UNITS / "pilotage.env").read_text(), re.MULTILINE))
    asked = {name for unit in SERVICES for name in re.findall(r"\$\{?([A-Z_]+)", settings(unit)["ExecStart"])}
    assert asked == told


def test_the_watchdog_is_slower_than_the_slowest_frame_that_counts_as_going() -> None:
    slowest_s = max(live_status._STEP_NS, live_status._GRAB_NS) * 1e-9
    for unit in SERVICES:
        assert settings(unit)["Type"] == "notify"
        assert int(settings(unit)["WatchdogSec"]) > slowest_s
        assert settings(unit)["Restart"] == "on-failure"
        assert int(settings(unit)["StartLimitBurst"]) > 1


def test_only_one_of_the_two_ways_runs_at_a_time() -> None:
    for unit, other in (SERVICES, SERVICES[::-1]):
        assert settings(unit)["Conflicts"] == other


def test_the_settings_of_the_aircraft_are_read_by_the_program() -> None:
    config = load_config(UNITS / "config.yaml")
    assert config != Config()
    variables = dict(re.findall(r'^([A-Z_]+)="(.*)"$', (UNITS / "pilotage.env").read_text(), re.MULTILINE))
    address = parse_address(variables["PILOTAGE_MAVLINK"])
    assert address.kind == "serial"
    assert f'KERNEL=="{Path(address.host).name}"' in (UNITS / "99-pilotage.rules").read_text()
    assert variables["PILOTAGE_MAVLINK"] in variables["PILOTAGE_LAUNCH"]


def test_the_udev_rules_are_pairs_of_known_keys() -> None:
    rules = [line for line in (UNITS / "99-pilotage.rules").read_text().splitlines() if line and line[0] != "#"]
    assert len(rules) >= 3
    for rule in rules:
        for part in rule.split(", "):
            assert re.fullmatch(
                r'(KERNEL|SUBSYSTEM|GROUP|MODE|SYMLINK|ATTRS\{\w+\}|ENV\{\w+\})(==|\+=|=)"[^"]+"', part
            ), part


# ---- the image and the bill


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", (JETSON / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


def test_the_dockerfile_is_one_that_docker_can_parse() -> None:
    lines = instructions()
    assert [word for word, _ in lines][:2] == ["ARG", "FROM"]
    assert {word for word, _ in lines} <= {"ARG", "FROM", "ENV", "SHELL", "RUN", "COPY", "ENTRYPOINT"}
    declared = {rest.split("=")[0] for word, rest in lines if word == "ARG"}
    assert {"BASE", "JETPACK"} == declared
    for word, rest in lines:
        if word == "RUN":
            ran = subprocess.run(["bash", "-n", "-c", rest], capture_output=True, text=True, timeout=60)
            assert ran.returncode == 0, ran.stderr
            assert "apt-get install" not in rest or "rm -rf /var/lib/apt/lists" in rest


def test_the_image_is_made_by_the_same_script_of_all_that_it_needs() -> None:
    built = next(rest for word, rest in instructions() if "setup.sh" in rest)
    offered = SETUP.read_text()
    for option in re.findall(r"--[a-z]+", built):
        assert f"{option})" in offered.replace(" | ", ")"), option
    rooms = re.search(r"rooms=\((.*?)\)", offered)
    assert rooms is not None
    ignored = (JETSON / "Dockerfile.dockerignore").read_text().splitlines()
    for room in (*rooms[1].split(), "launch", "ros2_ws"):
        assert f"!{room}" in ignored
        assert (ROOT / room).exists()


def test_the_bill_of_versions_agrees_with_what_the_script_expects() -> None:
    table = (JETSON / "versions.md").read_text()
    expected = re.findall(r"UBUNTU=(\S+) PYTHON_IS=(\S+) CUDA=(\S+) TENSORRT=(\S+) DISTRO=(\S+)", SETUP.read_text())
    assert len(expected) == 2
    for ubuntu, python, cuda, tensorrt, distro in expected:
        for row, value in (
            ("Ubuntu", ubuntu),
            ("Python", python),
            ("CUDA", cuda),
            ("TensorRT", tensorrt),
            ("ROS 2", distro.title()),
        ):
            assert re.search(rf"^\| {row}.*{re.escape(value)}", table, re.MULTILINE), (row, value)


def test_the_verb_of_the_makefile_asks_for_root_only_where_something_is_changed() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    of_make = ("MAKE", "MFLAGS", "ARGS")  # what a `make test ARGS=...` hands on
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(of_make)}

    def shown(*arguments: str) -> str:
        command = ["make", "-n", "jetson", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env=inherited).stdout

    assert shown().strip() == "sudo launch/jetson/setup.sh"
    assert shown("ARGS=--dry-run").strip() == "launch/jetson/setup.sh --dry-run"
