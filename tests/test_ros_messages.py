"""What the ROS node says: its messages field by field, its troubles, its diagnostics."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_world
from rosbags.highlevel import AnyReader
from toy_ros import STORE, T0, Blank, S, deserialized, estimate, step

from onboard.live.worker import WorkerStatus
from onboard.records import Reason, State
from onboard.replay.mcap import ResultsBag
from pilotage_ros import diagnostics, messages
from pilotage_ros.intake import Intake
from pilotage_ros.troubles import Trouble, Troubles


@pytest.fixture
def troubles() -> Troubles:
    return Troubles()


@pytest.fixture
def intake(troubles: Troubles) -> Intake:
    return Intake(deserialized, troubles)


def test_a_trouble_is_told_once_when_it_begins_and_once_when_it_ends(troubles: Troubles) -> None:
    for k in range(100):
        troubles.strike(Trouble.WRONG_ENCODING, T0 + k * S // 10, "'yuv422'")
    troubles.expire(T0 + 12 * S)
    [change] = troubles.changes()
    assert change.line == "image encoding not known: 'yuv422'"
    troubles.expire(T0 + 13 * S)
    assert [(c.began, c.line) for c in troubles.changes()] == [(False, "over: image encoding not known")]
    assert troubles.changes() == []


def test_diagnostics_name_the_troubles_and_how_bad_they_are(intake: Intake, troubles: Troubles) -> None:
    assert diagnostics.input_status(intake, troubles.now()).level is diagnostics.Level.OK
    troubles.set(Trouble.NO_MOUNT, True, "base_link to lens")
    assert diagnostics.input_status(intake, troubles.now()).level is diagnostics.Level.WARN
    troubles.set(Trouble.NO_CAMERA_INFO, True)
    status = diagnostics.input_status(intake, troubles.now())
    assert status.level is diagnostics.Level.ERROR
    assert (
        status.message == "no static transform from the body to the camera: base_link to lens; no camera_info arrives"
    )


def test_diagnostics_tell_state_reason_rates_and_latency() -> None:
    last = step(None, State.ACQUIRING, Reason.WEAK_MATCH)
    worker = WorkerStatus(10, 4, 6, last, 2.0, (80.0, 95.0), (60.0, 70.0), 0.5, None, "")
    status = diagnostics.localizer_status(worker, {"weak_match": 3}, 1.5)
    assert (status.level, status.message) == (diagnostics.Level.WARN, "acquiring: weak_match")
    assert status.values["frames dropped"] == "6"
    assert status.values["latency, 95 % [ms]"] == "95.00"
    assert status.values["no fix: weak_match"] == "3"
    filled = diagnostics.write_status(Blank(), status, lambda key, value: (key, value))
    assert (filled.level, filled.name) == (b"\x01", "pilotage: localizer")
    assert ("rate [Hz]", "2.00") in filled.values


def test_what_the_node_publishes_is_what_replay_writes_into_its_results(tmp_path: Path) -> None:
    told = step(estimate())
    bag = ResultsBag(toy_world.PLACE)
    bag.add(told)
    bag.write(tmp_path / "results.mcap")
    with AnyReader([tmp_path / "results.mcap"]) as reader:
        written = {c.topic.split("/")[-1]: reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages()}
    assert told.estimate is not None
    degrees = toy_world.PLACE.geodetic_from_enu(told.estimate.position_enu_m)
    ours = {
        "fix": messages.write_fix(Blank(), told.estimate, degrees, "base_link"),
        "pose": messages.write_pose(Blank(), told.estimate, "map"),
        "odometry": messages.write_odometry(Blank(), told.estimate, "map", "base_link"),
        "ellipse": messages.write_ellipse(Blank(), told, "map"),
    }
    for name, message in ours.items():
        assert_same(message, written[name], name)


def assert_same(ours: Any, theirs: Any, where: str) -> None:
    """Every field that we set has the very value that they have."""
    for field, value in vars(ours).items():
        other, name = getattr(theirs, field), f"{where}.{field}"
        if isinstance(value, Blank):
            assert_same(value, other, name)
        elif isinstance(value, str):
            assert value == other, name
        else:
            as_stored = np.float32(value) if ".color." in name else value
            np.testing.assert_array_equal(as_stored, other, err_msg=name)


def test_a_step_without_an_estimate_takes_the_ellipse_away() -> None:
    delete = STORE.types["visualization_msgs/msg/Marker"].DELETE
    assert messages.write_ellipse(Blank(), step(None, State.LOST), "map").action == delete


@pytest.mark.parametrize("heading_deg", [0.0, 33.0, 180.0, -90.0])
def test_map_from_odom_takes_the_body_to_where_the_map_says_it_is(heading_deg: float) -> None:
    """Whatever the odometry's own drift: map <- odom <- body is the estimate's place and heading."""
    told = estimate(math.radians(heading_deg))
    yaw_in_odom, x, y = 2.2, 7.0, -3.0
    odom_from_body = Blank()
    turn, place = odom_from_body.rotation, odom_from_body.translation
    turn.x, turn.y, turn.z, turn.w = 0.0, 0.0, math.sin(yaw_in_odom / 2), math.cos(yaw_in_odom / 2)
    place.x, place.y, place.z = x, y, 55.0
    found = messages.map_from_odom(told, odom_from_body)
    assert found is not None
    east, north, yaw = found
    sin, cos = math.sin(yaw), math.cos(yaw)
    assert (east + cos * x - sin * y, north + sin * x + cos * y) == pytest.approx((120.0, -45.0))
    forward = yaw + yaw_in_odom
    assert (math.sin(forward), math.cos(forward)) == pytest.approx(
        (
            math.cos(told.heading_rad),
            math.sin(told.heading_rad),
        )  # clockwise from north, against anticlockwise from east
    )
    message = messages.write_transform(Blank(), T0, found, "map", "odom")
    assert (message.header.frame_id, message.child_frame_id) == ("map", "odom")


def test_a_heading_that_was_not_measured_moves_no_transform() -> None:
    odom_from_body = Blank()
    turn, place = odom_from_body.rotation, odom_from_body.translation
    turn.x, turn.y, turn.z, turn.w = 0.0, 0.0, 0.0, 1.0
    place.x, place.y, place.z = 0.0, 0.0, 0.0
    assert messages.map_from_odom(estimate(math.nan), odom_from_body) is None
    turn.w = 0.0  # no rotation
    assert messages.map_from_odom(estimate(), odom_from_body) is None


def test_mavros_is_told_the_vehicles_own_attitude_and_velocity_in_the_body() -> None:
    """Facing east, flying 3 m/s east and 4 m/s north: 3 ahead and 4 to the left."""
    east = toy_world.quaternion(0.0, 0.0, 90.0)
    message = messages.write_mavros_odometry(Blank(), estimate(), east, "map", "base_link")
    q = message.pose.pose.orientation
    assert (q.w, q.x, q.y, q.z) == pytest.approx((1.0, 0.0, 0.0, 0.0))
    assert message.pose.pose.position.z == 88.0
    linear = message.twist.twist.linear
    assert (linear.x, linear.y, linear.z) == pytest.approx((3.0, 4.0, 0.0))
    covariance = message.twist.covariance.reshape(6, 6)
    np.testing.assert_allclose(covariance[:2, :2], [[0.25, 0.1], [0.1, 0.5]], atol=1e-9)
    pose = messages.write_mavros_pose(Blank(), estimate(), toy_world.quaternion(0.0, 0.0, 0.0), "map")
    assert pose.pose.pose.orientation.z == pytest.approx(math.sqrt(0.5))  # north is left of east
    assert pose.pose.covariance[35] > 30  # a yaw that was not measured is not told as one
