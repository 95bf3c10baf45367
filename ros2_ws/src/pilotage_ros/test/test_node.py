"""The running node: its life, its topics, its services, its parameters, its words about bad input, and its return."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not sourced here")
pytest.importorskip("launch_testing", reason="launch_testing is not installed")
sys.path.insert(0, str(Path(__file__).parent))

import drone

if drone.TESTS is None:
    pytest.skip("the toy world of the repository's tests is not here", allow_module_level=True)
toy_world = pytest.importorskip("toy_world", reason="the toy world needs pilotage[desktop]")

import launch  # noqa: E402
import launch_testing.actions  # noqa: E402
import numpy as np  # noqa: E402
import rclpy  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rcl_interfaces.srv import DescribeParameters, SetParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import CompressedImage, NavSatFix  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from visualization_msgs.msg import Marker  # noqa: E402

from onboard.engine import open_engine  # noqa: E402

DOMAIN = str(100 + os.getpid() % 100)
_TOPICS = {
    "/pilotage/fix": NavSatFix,
    "/pilotage/pose": PoseWithCovarianceStamped,
    "/pilotage/odometry": Odometry,
    "/pilotage/ellipse": Marker,
    "/pilotage/debug_image": CompressedImage,
    "/diagnostics": DiagnosticArray,
    "/tf": TFMessage,
}


def wait_for(done: Any, spin: Any, seconds: float, what: str) -> None:
    """Spin until it is so; the test fails where it never is."""
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, f"not within {seconds:.0f} s: {what}"
        spin(0.05)


@pytest.mark.launch_test
def generate_test_description() -> tuple[launch.LaunchDescription, dict[str, Any]]:
    os.environ["ROS_DOMAIN_ID"] = DOMAIN
    folder = tempfile.TemporaryDirectory(prefix="pilotage-")
    world, engine = toy_world.make_world(), open_engine(None)
    toy_world.build_toy_map(world, engine, Path(folder.name))
    engine.close()
    node = launch.actions.ExecuteProcess(
        cmd=[sys.executable, "-m", "pilotage_ros.node", "--ros-args", "-p", "map:=/nowhere"],
        additional_env={"ROS_DOMAIN_ID": DOMAIN},
        respawn=True,
        output="screen",
    )
    description = launch.LaunchDescription([node, launch_testing.actions.ReadyToTest()])
    return description, {"node": node, "world": world, "folder": folder}


class TestNode(unittest.TestCase):
    """In order: each test begins where the one before left the node."""

    world: Any
    folder: tempfile.TemporaryDirectory[str]

    @classmethod
    def setUpClass(cls) -> None:
        rclpy.init()
        cls.ros = rclpy.create_node("test")
        cls.heard: dict[str, list[Any]] = {topic: [] for topic in _TOPICS}
        for topic, kind in _TOPICS.items():
            cls.ros.create_subscription(kind, topic, cls.heard[topic].append, 100)
        cls.drone = drone.Drone(cls.ros, toy_world.toy_camera())

    @classmethod
    def tearDownClass(cls) -> None:
        cls.ros.destroy_node()
        rclpy.shutdown()

    # ---- helpers

    def spin(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            rclpy.spin_once(self.ros, timeout_sec=left)

    def call(self, kind: Any, name: str, request: Any, seconds: float = 30.0) -> Any:
        client = self.ros.create_client(kind, f"/pilotage/{name}")
        assert client.wait_for_service(seconds), f"no service {name}"
        future = client.call_async(request)
        rclpy.spin_until_future_complete(self.ros, future, timeout_sec=seconds)
        self.ros.destroy_client(client)
        assert future.done(), f"no answer from {name}"
        return future.result()

    def answers(self) -> bool:
        """Whether a new process is there: requests may still go to the dead one, which is forgotten after a while."""
        client = self.ros.create_client(GetState, "/pilotage/get_state")
        client.wait_for_service(2.0)
        future = client.call_async(GetState.Request())
        rclpy.spin_until_future_complete(self.ros, future, timeout_sec=2.0)
        self.ros.destroy_client(client)
        return bool(future.done())

    def change(self, transition: int) -> bool:
        return bool(
            self.call(ChangeState, "change_state", ChangeState.Request(transition=Transition(id=transition))).success
        )

    def state(self) -> str:
        return str(self.call(GetState, "get_state", GetState.Request()).current_state.label)

    def set(self, **values: Any) -> str:
        """The reason why it was refused, empty where it was not."""
        changed = [Parameter(name.replace("__", "."), value=value).to_parameter_msg() for name, value in values.items()]
        [result, *_] = self.call(SetParameters, "set_parameters", SetParameters.Request(parameters=changed)).results
        return str(result.reason)

    def words(self) -> str:
        """All that diagnostics said since the last `clear`."""
        statuses = [status for array in self.heard["/diagnostics"] for status in array.status]
        return " | ".join(f"{status.name}: {status.message}" for status in statuses)

    def clear(self) -> None:
        for messages in self.heard.values():
            messages.clear()

    def fly(self, world: Any, enough: Callable[[], bool], moments: int = 80) -> dict[int, np.ndarray]:
        """Fly slowly, until it is enough; stamp -> where the drone really was."""
        places = {}
        for moment in toy_world.make_flight(world, moments, velocity_enu_mps=(5.0, 2.5)):
            at_ns = self.ros.get_clock().now().nanoseconds
            self.drone.tell_odometry_tf(at_ns - 100_000_000)
            self.drone.tell_odometry_tf(at_ns + 100_000_000)
            self.drone.tell(moment, at_ns)
            places[at_ns] = moment.position_enu_m
            self.spin(0.5)
            if enough():
                break
        return places

    def fixed(self) -> bool:
        return bool(self.heard["/pilotage/fix"])

    # ---- the tests

    def test_1_a_bad_map_fails_the_transition_and_is_named(self) -> None:
        assert self.state() == "unconfigured"
        assert not self.change(Transition.TRANSITION_CONFIGURE)
        assert self.state() == "unconfigured"
        self.clear()
        wait_for(lambda: "/nowhere" in self.words(), self.spin, 5, "the map named in diagnostics")

    def test_2_it_finds_itself_and_tells_it_on_all_topics(self, world: Any, folder: Any) -> None:
        assert self.set(map=f"{folder.name}/map", link__rate_hz=8.0) == ""
        assert self.change(Transition.TRANSITION_CONFIGURE)
        assert self.change(Transition.TRANSITION_ACTIVATE)
        self.clear()
        places = self.fly(world, lambda: len(self.heard["/pilotage/fix"]) > 3 and len(self.heard["/tf"]) > 0)
        wait_for(lambda: all(self.heard.values()), self.spin, 10, "something on every topic")
        odometry = self.heard["/pilotage/odometry"]
        for message in odometry:
            stamp = message.header.stamp
            truth = places[stamp.sec * 1_000_000_000 + stamp.nanosec]
            assert float(np.hypot(*(drone.odometry_place(message) - truth))) < 8.0
        last = odometry[0]
        fix = self.heard["/pilotage/fix"][0]  # of the same step: neither topic was heard before
        assert fix.header.stamp == last.header.stamp
        place = toy_world.PLACE.enu_from_geodetic(fix.latitude, fix.longitude)
        np.testing.assert_allclose(place, drone.odometry_place(last), atol=0.01)
        assert fix.position_covariance_type == 3
        ours = [t for message in self.heard["/tf"] for t in message.transforms if t.header.frame_id == "map"]
        assert ours[-1].child_frame_id == "odom"
        assert "localizer: tracking" in self.words()

    def test_3_parameters_are_described_and_refused_with_a_reason_while_it_works(self) -> None:
        described = self.call(
            DescribeParameters, "describe_parameters", DescribeParameters.Request(names=["track.coast_s"])
        ).descriptors[0]
        assert described.description.startswith("the longest that an estimate may live on motion alone [seconds]")
        assert described.floating_point_range[0].to_value == 3600.0
        assert "deactivate it first" in self.set(track__coast_s=5.0)
        assert "outside the map" in self.set(start="0,0")
        latitude, longitude = toy_world.PLACE.anchor_latitude_deg, toy_world.PLACE.anchor_longitude_deg
        assert self.set(start=f"{latitude},{longitude}") == ""

    def test_4_services_answer(self, folder: Any) -> None:
        assert self.call(Trigger, "reset", Trigger.Request()).success
        assert self.call(Trigger, "load_map", Trigger.Request()).success

    def test_5_bad_input_is_named_in_diagnostics(self, world: Any) -> None:
        self.clear()
        moment = toy_world.make_flight(world, 1)[0]
        for _ in range(3):
            self.drone.tell(moment, self.ros.get_clock().now().nanoseconds, encoding="yuv422")
            self.spin(0.5)
        self.drone.tell(moment, 0)
        wait_for(lambda: "'yuv422'" in self.words() and "stamp of zero" in self.words(), self.spin, 8, "both named")
        self.clear()
        wait_for(lambda: "no image arrives" in self.words(), self.spin, 10, "silence named")

    def test_6_it_goes_down_and_up_again(self, world: Any) -> None:
        assert self.change(Transition.TRANSITION_DEACTIVATE)
        assert self.set(track__coast_s=5.0) == ""
        self.clear()
        self.fly(world, self.fixed, moments=3)
        assert not self.heard["/pilotage/ellipse"]
        assert self.change(Transition.TRANSITION_ACTIVATE)
        self.fly(world, self.fixed)
        wait_for(self.fixed, self.spin, 10, "a fix")
        assert self.change(Transition.TRANSITION_DEACTIVATE)
        assert self.change(Transition.TRANSITION_CLEANUP)
        assert self.state() == "unconfigured"

    def test_7_a_killed_node_that_is_started_again_works_again(self, node: Any, world: Any, folder: Any) -> None:
        before = node.process_details["pid"]
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: node.process_details.get("pid") not in (None, before), self.spin, 20, "another process")
        wait_for(self.answers, self.spin, 30, "an answer")
        assert self.set(map=f"{folder.name}/map") == ""
        assert self.change(Transition.TRANSITION_CONFIGURE)
        assert self.change(Transition.TRANSITION_ACTIVATE)
        self.clear()
        self.fly(world, self.fixed)
        wait_for(self.fixed, self.spin, 10, "a fix")
