"""The node on a real ROS 2: the tests of its own package, run where ROS is sourced or PILOTAGE_ROS_SETUP names it."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "ros2_ws" / "src" / "pilotage_ros"
SETUP = os.environ.get("PILOTAGE_ROS_SETUP", "")


@pytest.mark.skipif(
    not SETUP and importlib.util.find_spec("rclpy") is None,
    reason="no ROS 2: source its setup.bash, or name it in PILOTAGE_ROS_SETUP",
)
@pytest.mark.parametrize("name", ["test_node.py", "test_agreement.py"])
def test_the_node_on_ros(name: str, tmp_path: Path) -> None:
    """In a process and a shell of its own, so that ROS's plug-ins and paths are not ours; `python` is ROS's there."""
    # ROS's own Python runs them where a set-up is named: its packages may belong to another version than ours.
    python = "python3" if SETUP else sys.executable
    tests = [python, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(PACKAGE / "test" / name)]
    source = f"source {shlex.quote(SETUP)} && " if SETUP else ""
    command = f'{source}PYTHONPATH={shlex.quote(str(PACKAGE))}:"$PYTHONPATH" exec {shlex.join(tests)}'
    environment = {**os.environ, "ROS_LOG_DIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=600, cwd=tmp_path, env=environment
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    assert " passed" in ran.stdout, ran.stdout  # a package whose every test was skipped has shown nothing
