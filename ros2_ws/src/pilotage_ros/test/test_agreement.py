"""Node and replay agree to the last digit: one bag through both, every published fix compared by its very bits.

The bag is a short toy flight. PILOTAGE_AGREEMENT_BAG and PILOTAGE_AGREEMENT_MAP name a longer one, for instance the
three minutes of `make demo`: runs/demo/flight and runs/demo/map.
"""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not sourced here")
pytest.importorskip("rosbags", reason="reading bags needs pilotage[desktop]")
sys.path.insert(0, str(Path(__file__).parent))

import drone
import numpy as np
import rclpy
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import NavSatFix

from onboard.config import Config
from onboard.engine import SHIPPED_MODEL, open_engine
from onboard.flight import open_flight, ros
from onboard.localizer import Localizer
from onboard.match.evidence import read_confidence
from onboard.region import RegionMap
from pilotage_ros.inputs import message_class

BAG, MAP = os.environ.get("PILOTAGE_AGREEMENT_BAG", ""), os.environ.get("PILOTAGE_AGREEMENT_MAP", "")
RATE = float(os.environ.get("PILOTAGE_AGREEMENT_RATE", "1"))
DOMAIN = str(1 + os.getpid() % 100)
_ALL = QoSProfile(history=HistoryPolicy.KEEP_ALL)
_STATIC = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_QUIET_S = 15.0
_PARTS = {
    ros.COMPRESSED_IMAGE: "image", ros.IMAGE: "image", ros.CAMERA_INFO: "camera_info", ros.IMU: "attitude",
    ros.RANGE: "height", ros.TWIST: "velocity",
}  # fmt: skip
Fix = tuple[float, ...]


@pytest.fixture(scope="module")
def flight_and_map(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if BAG and MAP:
        return Path(BAG), Path(MAP)
    if drone.TESTS is None:
        pytest.skip("the toy world of the repository's tests is not here")
    import toy_world

    folder = tmp_path_factory.mktemp("agreement")
    world, engine = toy_world.make_world(), open_engine(None)
    toy_world.build_toy_map(world, engine, folder)
    engine.close()
    write_toy_bag(folder / "flight", toy_world.make_flight(world, 20), toy_world.toy_camera())
    return folder / "flight", folder / "map"


def write_toy_bag(folder: Path, moments: list[Any], camera: Any) -> None:
    """Frames at 2 Hz; attitude, height and velocity at 20 Hz, from a second before the first frame on.

    Frames before the first telemetry are no matter of this test: which of them have any is decided by the order of
    arrival, in a recording as in a running system.
    """
    from rclpy.serialization import serialize_message

    store = get_typestore(Stores.ROS2_JAZZY)
    told: list[tuple[int, str, str, Any]] = []
    early = [dataclasses.replace(moments[0], frame=_earlier(moments[0].frame, back)) for back in (2, 1)]
    for moment in [*early, *moments]:
        at_ns = moment.frame.captured_at_ns
        for k in range(10):
            stamp_ns = at_ns + k * 50_000_000
            attitude = drone.imu(moment.telemetry.attitude_quat_wxyz, stamp_ns)
            height = drone.height(moment.telemetry.height_above_ground_m + 0.1 * math.sin(k), stamp_ns)
            velocity = drone.velocity(moment.telemetry.velocity_ned_mps, stamp_ns)
            told += [
                (stamp_ns, "/imu", ros.IMU, attitude),
                (stamp_ns, "/height", ros.RANGE, height),
                (stamp_ns, "/velocity", ros.TWIST, velocity),
            ]
    for moment in moments:
        at_ns = moment.frame.captured_at_ns
        info, image = drone.camera_info(camera, at_ns), drone.image(moment.frame.image_bgr, at_ns)
        told += [(at_ns, "/camera_info", ros.CAMERA_INFO, info), (at_ns, "/image", ros.IMAGE, image)]
    told.sort(key=lambda one: one[0])
    kinds = {topic: kind for _, topic, kind, _ in told}
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {topic: writer.add_connection(topic, kind, typestore=store) for topic, kind in kinds.items()}
        for stamp_ns, topic, _, message in told:
            writer.write(connections[topic], stamp_ns, serialize_message(message))


def _earlier(frame: Any, periods: int) -> Any:
    return dataclasses.replace(frame, captured_at_ns=frame.captured_at_ns - periods * 500_000_000)


def replayed(bag: Path, region_path: Path) -> dict[int, Fix]:
    """captured at -> (latitude, longitude, covariance) of every fix that replay publishes."""
    config, engine = Config(), open_engine(None)
    region, flight = RegionMap.open(region_path, engine.facts), open_flight(bag, config.rectify)
    confidence = read_confidence(SHIPPED_MODEL)
    localizer = Localizer(engine, region, flight.camera, flight.body_from_camera, confidence, config)
    fixes: dict[int, Fix] = {}
    for item in flight.items():
        estimate = localizer.step(item.frame, item.telemetry, item.captured_at_ns, item.source).estimate
        if estimate is not None:
            degrees = region.frame.geodetic_from_enu(estimate.position_enu_m)
            fixes[item.captured_at_ns] = (*degrees, *(float(v) for v in estimate.covariance[:2, :2].ravel()))
    engine.close()
    return fixes


def told_by_the_node(bag: Path, region_path: Path, log: Path) -> dict[int, Fix]:
    """The same of the node, the bag played to it on its own topics."""
    environment = {**os.environ, "ROS_DOMAIN_ID": DOMAIN}
    remapped = [text for topic, part in remaps(bag).items() for text in ("-r", f"{part}:={topic}")]
    parameters = {"map": str(region_path), "every_frame": "true", "autostart": "true"}
    given = [text for name, value in parameters.items() for text in ("-p", f"{name}:={value}")]
    command = [sys.executable, "-m", "pilotage_ros.node", "--ros-args", *remapped, *given]
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        return play(bag, process)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def remaps(bag: Path) -> dict[str, str]:
    with AnyReader([bag]) as reader:
        return {c.topic: _PARTS[c.msgtype] for c in reader.connections if c.msgtype in _PARTS}


def play(bag: Path, process: subprocess.Popen[bytes]) -> dict[int, Fix]:
    """Publish the bag at its own pace, and gather what comes until nothing has for a while."""
    heard: dict[int, Fix] = {}
    last_s = time.monotonic()

    def take(message: NavSatFix) -> None:
        nonlocal last_s
        covariance = message.position_covariance
        stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        heard[stamp_ns] = (message.latitude, message.longitude, *(float(covariance[k]) for k in (0, 1, 3, 4)))
        last_s = time.monotonic()

    rclpy.init(domain_id=int(DOMAIN))
    node = rclpy.create_node("player")
    node.create_subscription(NavSatFix, "/pilotage/fix", take, _ALL)
    with AnyReader([bag]) as reader:
        publishers = {}
        for connection in reader.connections:
            profile = _STATIC if connection.topic == "/tf_static" else _ALL
            publishers[connection.topic] = node.create_publisher(
                message_class(connection.msgtype), connection.topic, profile
            )
        images = next(c.topic for c in reader.connections if _PARTS.get(c.msgtype) == "image")
        until = time.monotonic() + 60
        while publishers[images].get_subscription_count() == 0:
            assert process.poll() is None, "the node ended"
            assert time.monotonic() < until, "the node never listened"
            rclpy.spin_once(node, timeout_sec=0.1)
        began_s, first_ns = time.monotonic() + 2.0, None  # the other topics are found by then
        for connection, logged_at_ns, raw in reader.messages():
            first_ns = logged_at_ns if first_ns is None else first_ns
            while (left_s := began_s + (logged_at_ns - first_ns) * 1e-9 / RATE - time.monotonic()) > 0:
                rclpy.spin_once(node, timeout_sec=left_s)
            publishers[connection.topic].publish(bytes(raw))
    last_s = time.monotonic()
    while time.monotonic() - last_s < _QUIET_S:
        rclpy.spin_once(node, timeout_sec=0.1)
    node.destroy_node()
    rclpy.shutdown()
    return heard


def test_node_and_replay_publish_the_same_fixes_to_the_last_bit(
    flight_and_map: tuple[Path, Path], tmp_path: Path
) -> None:
    bag, region_path = flight_and_map
    expected = replayed(bag, region_path)
    assert len(expected) >= 10
    log = tmp_path / "node.log"
    heard = told_by_the_node(bag, region_path, log)
    assert sorted(heard) == sorted(expected), log.read_text()[-3000:]
    differing = [at_ns for at_ns in expected if not np.array_equal(heard[at_ns], expected[at_ns])]
    assert differing == []
