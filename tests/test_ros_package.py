"""The package pilotage_ros: what colcon takes it for, and that its plain parts import no ROS."""

from __future__ import annotations

import importlib
import re
import sys
import xml.etree.ElementTree as ElementTree

from toy_ros import PACKAGE

from onboard import __version__


def test_the_package_is_one_that_colcon_takes_for_ament_python() -> None:
    """An odd e-mail in package.xml makes colcon build it as plain Python, silently."""
    manifest = ElementTree.parse(PACKAGE / "package.xml").getroot()
    mail = manifest.find("maintainer").get("email")  # type: ignore[union-attr]
    assert re.fullmatch(r"[\w.+-]+@[\w-]+(\.[\w-]+)+", mail or "")
    assert manifest.findtext("export/build_type") == "ament_python"
    assert (PACKAGE / "resource" / "pilotage_ros").is_file()
    set_up = (PACKAGE / "setup.py").read_text()
    assert f'version="{manifest.findtext("version")}"' in set_up
    assert f'email="{mail}"' in set_up
    assert manifest.findtext("version") == __version__


def test_the_parts_tested_here_import_no_ros() -> None:
    pure = ("intake", "readings", "messages", "troubles", "brain", "diagnostics")
    for name in pure:
        importlib.import_module(f"pilotage_ros.{name}")
    names = {name.split(".")[0] for name in sys.modules}
    if "rclpy" not in names:  # where ROS is sourced, other tests may have imported it
        assert not names & {"rcl_interfaces", "sensor_msgs", "geometry_msgs", "tf2_ros"}
    texts = [(PACKAGE / "pilotage_ros" / f"{name}.py").read_text() for name in pure]
    assert not any(re.search(r"^\s*(import|from) (rclpy|\w+_msgs|tf2_ros)", text, re.MULTILINE) for text in texts)
