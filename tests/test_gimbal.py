"""A camera on a gimbal: it looks where the gimbal says, whatever the vehicle does."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import toy_world
from pymavlink.dialects.v20 import ardupilotmega as mav
from toy_line import MS, settled_line
from toy_live import a_frame, a_step, an_item

from onboard.config import Config, OdometryConfig, RectifyConfig, merge
from onboard.engine import SHIPPED_MODEL
from onboard.errors import ConfigError
from onboard.flight import open_flight
from onboard.frames import (
    BODY_FROM_CAMERA_DOWN,
    GIMBAL_FROM_CAMERA,
    quaternion_from_euler,
    rotation_from_quaternion,
)
from onboard.live.cli import on_mount, parse_mount
from onboard.live.recorder import Recorder
from onboard.localizer import Localizer
from onboard.match.evidence import read_confidence
from onboard.mavlink.vehicle import streams
from onboard.mavlink.vehicle.autopilot import Autopilot
from onboard.records import Fix, Frame, Inertia, Reason, Telemetry
from onboard.rectify import Rectifier
from onboard.telemetry import TelemetryBuffer
from onboard.track.inertial import InertialFilter
from onboard.track.odometry import VisualOdometry
from onboard.track.tracker import Tracker

LEVEL = (1.0, 0.0, 0.0, 0.0)
DOWN = quaternion_from_euler(0.0, -math.pi / 2, 0.0)
YAW_FROM_NOSE = mav.GIMBAL_DEVICE_FLAGS_YAW_IN_VEHICLE_FRAME


def axes(telemetry: Telemetry | Reason) -> np.ndarray:
    """ned_from_camera (3, 3): columns are the image's right, its down and the optical axis."""
    assert isinstance(telemetry, Telemetry)
    return rotation_from_quaternion(telemetry.carrier_quat_wxyz) @ GIMBAL_FROM_CAMERA


def buffer(attitude: tuple[float, float, float, float], on_gimbal: bool = True) -> TelemetryBuffer:
    made = TelemetryBuffer(250 * MS, on_gimbal)
    made.add_attitude(0, attitude)
    made.add_height(0, 100.0)
    return made


@pytest.mark.parametrize(
    ("from_north", "yaw_deg", "right_ned"),
    [(False, 0, (-1, 0, 0)), (True, 0, (0, 1, 0)), (False, 90, (0, -1, 0)), (True, 90, (-1, 0, 0))],
)
def test_a_gimbal_that_points_down_has_the_images_top_where_its_yaw_points(
    from_north: bool, yaw_deg: float, right_ned: tuple[float, float, float]
) -> None:
    """The vehicle heads east, pitched and rolled: a yaw from its nose turns with its heading alone."""
    told = buffer(quaternion_from_euler(0.2, -0.4, math.pi / 2))
    told.add_gimbal(0, quaternion_from_euler(0.0, -math.pi / 2, math.radians(yaw_deg)), from_north)
    seen = axes(told.at(0))
    assert seen[:, 2] == pytest.approx((0, 0, 1), abs=1e-9)
    assert seen[:, 0] == pytest.approx(right_ned, abs=1e-9)


def test_a_gimbal_sees_the_ground_as_a_level_vehicle_would() -> None:
    world, lens = toy_world.make_world(), toy_world.toy_camera()
    picture = Frame(0, toy_world.look(world, lens, np.array([10.0, -20.0]), 80.0, (0.0, 0.0, 40.0)))
    config = RectifyConfig(max_tilt_deg=10.0)
    fixed, hung = (Rectifier(lens, mount, 256, config) for mount in (BODY_FROM_CAMERA_DOWN, GIMBAL_FROM_CAMERA))
    level = Telemetry(0, quaternion_from_euler(0, 0, math.radians(40)), 80.0)
    pitched = Telemetry(0, quaternion_from_euler(0.1, -0.5, math.radians(40)), 80.0)
    down = quaternion_from_euler(0, -math.pi / 2, math.radians(40))
    on_gimbal = dataclasses.replace(pitched, gimbal_quat_wxyz=down)
    assert fixed.check(picture, pitched) is Reason.TILT_TOO_LARGE
    assert hung.check(picture, on_gimbal) is None
    wanted, got = fixed.view(picture, level, 0.5), hung.view(picture, on_gimbal, 0.5)
    assert np.abs(wanted.image_rgb.astype(int) - got.image_rgb).max() <= 1
    assert got.centre_from_vehicle_enu_m == pytest.approx(wanted.centre_from_vehicle_enu_m, abs=1e-6)
    assert got.heading_rad == pytest.approx(math.radians(40))
    broken = dataclasses.replace(pitched, gimbal_quat_wxyz=(math.nan, 0.0, 0.0, 0.0))
    assert hung.check(picture, broken) is Reason.BAD_TELEMETRY


def test_without_its_gimbals_word_a_frame_has_no_telemetry() -> None:
    told = buffer(LEVEL)
    assert told.at(0) is Reason.NO_GIMBAL
    told.add_gimbal(0, (0.0, 0.0, 0.0, 0.0), False)
    assert told.at(0) is Reason.NO_GIMBAL
    told.add_gimbal(0, DOWN, False)
    assert isinstance(told.at(0), Telemetry)
    assert told.at(251 * MS) is Reason.NO_TELEMETRY
    told.add_attitude(300 * MS, LEVEL)
    assert told.at(300 * MS) is Reason.NO_GIMBAL


def test_a_gimbal_is_waited_for_only_where_the_camera_hangs_on_it() -> None:
    fixed, hung = buffer(LEVEL, on_gimbal=False), buffer(LEVEL)
    for told in (fixed, hung):
        told.add_gimbal(-1, DOWN, False)
    assert fixed.passed(0)
    assert not hung.passed(0)
    fixed_told = fixed.at(0)
    assert isinstance(fixed_told, Telemetry)
    assert fixed_told.gimbal_quat_wxyz is None


@pytest.mark.parametrize("component", [154, 1], ids=["a device of its own", "the autopilot's"])
def test_the_link_hears_a_gimbal_and_no_second_one(component: int) -> None:
    line = settled_line(on_gimbal=True)
    line.attitude(yaw=1.0)
    line.above_home(80)

    def say(pitch: float, device: int) -> None:
        quat = list(quaternion_from_euler(0.0, pitch, 0.0))
        stamp = line.boot_ms() if component == 1 else 77
        message = mav.MAVLink_gimbal_device_attitude_status_message(
            1, 1, stamp, YAW_FROM_NOSE, quat, 0, 0, 0, 0, gimbal_device_id=device
        )
        line.say(message, component=component)

    say(-math.pi / 2, 1)
    say(0.0, 2)
    seen = axes(line.vehicle.telemetry.at(line.now_ns))
    assert seen[:, 2] == pytest.approx((0, 0, 1), abs=1e-6)
    assert -seen[:, 1] == pytest.approx((math.cos(1.0), math.sin(1.0), 0), abs=1e-6)


def test_a_gimbals_attitude_is_asked_for_only_where_it_counts_and_goes_with_the_vehicles() -> None:
    assert "GIMBAL_DEVICE_ATTITUDE_STATUS" not in streams.plan(Autopilot.ARDUPILOT, None)
    thin = streams.plan(Autopilot.ARDUPILOT, 1500.0, on_gimbal=True)
    assert list(thin)[:2] == ["ATTITUDE_QUATERNION", "GIMBAL_DEVICE_ATTITUDE_STATUS"]
    assert thin["GIMBAL_DEVICE_ATTITUDE_STATUS"] >= 10


def test_the_word_gimbal_mounts_the_camera_on_one() -> None:
    assert np.array_equal(parse_mount("gimbal"), GIMBAL_FROM_CAMERA)
    assert on_mount(Config(), "gimbal").rectify.on_gimbal
    assert not on_mount(Config(), "down").rectify.on_gimbal
    with pytest.raises(ConfigError, match="gimbal, as the config's"):
        on_mount(merge(Config(), {"rectify": {"on_gimbal": True}}), "down")


def test_a_recording_keeps_the_gimbals_attitude_to_the_last_bit(tmp_path: Path) -> None:
    camera = toy_world.toy_camera(64, 48)
    quat = quaternion_from_euler(0.01, -1.5, 0.3)
    told = Telemetry(1, LEVEL, 50.0, gimbal_quat_wxyz=quat)
    with Recorder(tmp_path / "log", camera, GIMBAL_FROM_CAMERA, toy_world.PLACE) as recorder:
        for at_ns, telemetry in ((1, told), (2, dataclasses.replace(told, captured_at_ns=2, gimbal_quat_wxyz=None))):
            item = dataclasses.replace(an_item(at_ns), source=f"frames/{at_ns}.png", telemetry=telemetry)
            recorder.offer(item, a_frame(at_ns, camera), a_step(at_ns))
    read = [item.telemetry for item in open_flight(tmp_path / "log").items()]
    assert [one.gimbal_quat_wxyz for one in read if isinstance(one, Telemetry)] == [quat, None]


@pytest.mark.parametrize(("on_gimbal", "lever_m"), [(False, 100.0), (True, 0.0)])
def test_the_vehicles_lean_does_not_move_what_a_gimbal_sees(on_gimbal: bool, lever_m: float) -> None:
    """And the gimbal's own error, which no state holds, stays in what is published."""
    config = merge(Config(), {"rectify": {"on_gimbal": on_gimbal}, "track": {"velocity_use": "inertial"}})
    tracker = Tracker(config, tilt_sigma_deg=1.0)
    for k in range(8):
        at_ns, place = k * 500 * MS, np.array([40.0 * k, 0.0])
        telemetry = Telemetry(at_ns, LEVEL, 100.0, inertia=Inertia(0, (0.0, 0.0), (0.0, 0.0)))
        fix = Fix(at_ns, place, np.eye(2) * 4.0, 0.0, 1.0, 0.999, {"heading_offset_rad": 0.0})
        velocity = np.array([80.0, 0.0])
        tracker.predict(at_ns, velocity, telemetry)
        if tracker.filter is None:
            tracker.acquire(at_ns, [fix], velocity)
        else:
            tracker.update(fix, None)
    assert isinstance(tracker.filter, InertialFilter)
    assert tracker.filter.lever_m == lever_m
    tilt_m = 100 * math.radians(1.0)
    estimate = tracker.estimate(telemetry, None, floor_m=0.5, tilt_m=tilt_m)
    assert estimate is not None
    systematic_m2 = estimate.covariance[0, 0] - tracker.filter.covariance[0, 0]
    assert systematic_m2 == pytest.approx(0.25 + (tilt_m**2 if on_gimbal else 0.0))


def test_a_fix_on_a_gimbal_is_as_exact_as_the_gimbal(tmp_path: Path) -> None:
    lens, world, engine = toy_world.toy_camera(), toy_world.make_world(), toy_world.HandEngine()
    region = toy_world.build_toy_map(world, engine, tmp_path)
    confidence = read_confidence(SHIPPED_MODEL)
    for on_gimbal, sigma_deg in ((False, confidence.tilt_sigma_deg), (True, 0.2)):
        config = merge(Config(), {"rectify": {"on_gimbal": on_gimbal, "gimbal_sigma_deg": 0.2}})
        localizer = Localizer(engine, region, lens, BODY_FROM_CAMERA_DOWN, confidence, config)
        for used in (localizer.confidence, localizer.locator.confidence):
            assert used.tilt_sigma_deg == sigma_deg


def test_odometry_on_a_gimbal_is_exact_while_the_vehicle_leans_over(world: toy_world.World) -> None:
    lens = toy_world.toy_camera()
    hung, fixed = (
        VisualOdometry(Rectifier(lens, mount, 256), OdometryConfig())
        for mount in (GIMBAL_FROM_CAMERA, BODY_FROM_CAMERA_DOWN)
    )
    moved = []
    for at_ns, place, pitch_deg in ((0, (10.0, -20.0), 0.0), (500 * MS, (16.0, -22.5), -20.0)):
        picture = Frame(at_ns, toy_world.look(world, lens, place, 80.0))
        leaning = Telemetry(at_ns, toy_world.quaternion(0.0, pitch_deg, 0.0), 80.0, gimbal_quat_wxyz=DOWN)
        moved.append((hung.step(picture, leaning), fixed.step(picture, Telemetry(at_ns, LEVEL, 80.0))))
    on_gimbal, on_body = moved[-1]
    assert on_gimbal is not None
    assert on_body is not None
    assert on_gimbal.enu_m == pytest.approx([6.0, -2.5], abs=0.12)
    assert on_gimbal.sigma_m < 0.5 * on_body.sigma_m
