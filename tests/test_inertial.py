"""The lean of the vehicle's attitude: its sign, its integrals, and that a filter which knows of it finds it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onboard.config import Config, TrackConfig
from onboard.frames import (
    ENU_FROM_NED,
    quaternion_from_euler,
    quaternion_from_rotation,
    rotation_from_euler,
    rotation_from_quaternion,
)
from onboard.mavlink.vehicle.inertia import InertialSums
from onboard.records import Fix, Inertia, Reason, Telemetry
from onboard.telemetry import TelemetryBuffer
from onboard.track.inertial import InertialFilter, Leaned
from onboard.track.tracker import Tracker

G_MPS2 = 9.80665
STEP_NS = 20_000_000
LEVEL = (1.0, 0.0, 0.0, 0.0)
AT_REST = (0.0, 0.0, -G_MPS2)


def settled(
    sums: InertialSums, quat: tuple[float, ...], force: tuple[float, ...], steps: int, start: int = 0
) -> Inertia:
    found = None
    for k in range(start, start + steps):
        sums.attitude(k * STEP_NS, quat, (0.0, 0.0, 0.0))  # type: ignore[arg-type]
        found = sums.force(k * STEP_NS, force)  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize("heading_deg", [0.0, 130.0])
@pytest.mark.parametrize(("roll_deg", "pitch_deg"), [(1.0, 0.0), (0.0, 1.0), (-0.7, 0.4)])
def test_a_leaned_attitude_errs_by_gravity_and_moves_a_fix_to_the_same_side(
    heading_deg: float, roll_deg: float, pitch_deg: float
) -> None:
    """The vehicle stands level; its attitude is leaned in one step. Both effects are worked out here by rotations."""
    yaw = math.radians(heading_deg)
    level = quaternion_from_euler(0.0, 0.0, yaw)
    leaned_matrix = rotation_from_euler(math.radians(roll_deg), math.radians(pitch_deg), yaw)
    leaned = quaternion_from_rotation(leaned_matrix)
    sums = InertialSums()
    before = settled(sums, level, AT_REST, 10)
    after = settled(sums, leaned, AT_REST, 101, start=10)
    lean = np.subtract(after.lean_enu_rad, before.lean_enu_rad)
    gained = np.subtract(after.velocity_enu_mps, before.velocity_enu_mps)
    assert gained / 2.0 == pytest.approx(G_MPS2 * lean, abs=0.004)  # two seconds long
    # The ground that the camera sees straight below is believed to lie aside; the vehicle, to the other side of it.
    height_m = 100.0
    below_ned = leaned_matrix @ np.array([0.0, 0.0, 1.0])
    believed_ned_m = below_ned / below_ned[2] * height_m
    fix_moved_enu_m = -(ENU_FROM_NED @ believed_ned_m)[:2]
    assert fix_moved_enu_m == pytest.approx(height_m * lean, abs=0.02)


def test_turning_as_the_gyroscopes_say_is_no_lean_and_no_gain_of_speed() -> None:
    """Half a turn a second about a leaning axis: the body's rates explain all of the change."""
    sums, rates = InertialSums(), np.array([0.3, -0.2, 3.0])
    attitude, sample = rotation_from_euler(0.2, -0.1, 0.0), None
    for k in range(250):
        force = attitude.T @ np.array([0.0, 0.0, -G_MPS2])
        sums.attitude(k * STEP_NS, quaternion_from_rotation(attitude), tuple(rates))
        sample = sums.force(k * STEP_NS, tuple(force))
        angle = np.linalg.norm(rates) * STEP_NS * 1e-9
        x, y, z = rates / np.linalg.norm(rates)
        half = math.sin(angle / 2)
        attitude = attitude @ rotation_from_quaternion((math.cos(angle / 2), x * half, y * half, z * half))
    assert sample is not None
    assert sample.lean_enu_rad == pytest.approx((0.0, 0.0), abs=1e-4)
    assert sample.velocity_enu_mps == pytest.approx((0.0, 0.0), abs=1e-3)


def test_an_acceleration_is_summed_in_the_map_frame() -> None:
    sums = InertialSums()
    heading = quaternion_from_euler(0.0, 0.0, math.radians(90))
    before = settled(sums, heading, AT_REST, 2)
    after = settled(sums, heading, (1.0, 0.0, -G_MPS2), 51, start=2)  # a second forward, which is east
    assert np.subtract(after.velocity_enu_mps, before.velocity_enu_mps) == pytest.approx([1.0, 0.0], abs=0.02)


@pytest.mark.parametrize("what", ["gap", "replaced"])
def test_after_a_gap_or_a_new_alignment_another_run_begins(what: str) -> None:
    sums = InertialSums()
    before = settled(sums, LEVEL, AT_REST, 5)
    if what == "gap":
        after = settled(sums, LEVEL, AT_REST, 3, start=100)
    else:
        after = settled(sums, quaternion_from_euler(0.0, 0.0, 1.0), AT_REST, 3, start=5)
    assert after.run != before.run


def test_telemetry_has_inertia_between_samples_of_one_run_only() -> None:
    buffer = TelemetryBuffer(250_000_000)
    for k in range(4):
        buffer.add_attitude(k * 100, LEVEL)
        buffer.add_height(k * 100, 50.0)
    buffer.add_inertia(0, Inertia(1, (0.0, 2.0), (0.0, 0.0)))
    buffer.add_inertia(100, Inertia(1, (1.0, 4.0), (0.1, -0.1)))
    buffer.add_inertia(200, Inertia(2, (0.0, 0.0), (0.0, 0.0)))
    between = buffer.at(50)
    assert isinstance(between, Telemetry)
    assert between.inertia == Inertia(1, (0.5, 3.0), (0.05, -0.05))
    for t_ns in (150, 300):  # from one run to the next; after the last
        told = buffer.at(t_ns)
        assert not isinstance(told, Reason)
        assert told.inertia is None


def test_the_filter_finds_the_lean_and_tells_the_position_without_it() -> None:
    """At rest under an attitude that leans by 0.6 degrees: fixes lie 1 m aside, accelerations say 0.1 m/s2."""
    lean = np.array([math.radians(0.6), -math.radians(0.3)])
    rng = np.random.default_rng(4)
    height_m, half_s_ns = 100.0, 500_000_000
    position = np.array([30.0, -20.0])
    belief = InertialFilter(0, position + height_m * lean, np.eye(2), np.zeros(2), TrackConfig(), height_m)
    assert belief.position_sigma_m > 1.7  # the first fix may be off by the height times a degree
    errors = []
    for k in range(1, 120):
        belief.predict(k * half_s_ns, G_MPS2 * lean * 0.5, 0.1, Leaned(np.zeros(2)))
        belief.update_position(position + height_m * lean + rng.normal(0, 0.5, 2), np.eye(2) * 0.25)
        errors.append(belief.state[:2] - position)
    assert np.abs(belief.state[4:6] - lean).max() < math.radians(0.15)
    assert np.sqrt(np.mean(np.square(errors[-60:]))) < 0.45
    sigma = np.sqrt(np.diag(belief.covariance))
    assert (np.abs(errors[-1]) < 4 * sigma[:2]).all()


def test_a_lean_by_the_estimator_is_known_at_once() -> None:
    belief = InertialFilter(0, np.zeros(2), np.eye(2), np.zeros(2), TrackConfig(), 100.0)
    belief.predict(1_000_000, np.zeros(2), 0.1, Leaned(np.array([0.01, 0.0])))
    assert belief.state[4] == pytest.approx(0.01)
    # and the fix that is moved by it is no surprise
    assert belief.distance2(np.array([1.0, 0.0]), np.eye(2)) < 0.01


def nodding_turn(lag_s: float, told_lag_s: float) -> float:
    """The largest lean summed, in degrees, within a right turn of 90 degrees, nodding down and up.

    No estimator leans anything: all of it is the error. Rates are told as they were `lag_s` before.
    """
    sums, step_s = InertialSums(round(told_lag_s * 1e9)), 0.02

    def attitude_at(t_s: float) -> np.ndarray:
        part = (1 - math.cos(math.pi * min(max((t_s - 0.5) / 1.5, 0.0), 1.0))) / 2
        yaw = math.pi / 2 * part
        pitch = math.radians(20) * math.sin(2 * math.pi * part)
        return rotation_from_euler(0.0, pitch, yaw)

    def rates_at(t_s: float) -> tuple[float, float, float]:
        small = 1e-4
        turn = attitude_at(t_s - small).T @ attitude_at(t_s + small)
        x, y, z = (turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1])
        return tuple(float(v) / (4 * small) for v in (x, y, z))  # type: ignore[return-value]

    largest_rad = 0.0
    for k in range(150):
        t_s = k * step_s
        sums.attitude(k * STEP_NS, quaternion_from_rotation(attitude_at(t_s)), rates_at(t_s - lag_s))
        found = sums.force(k * STEP_NS, AT_REST)
        largest_rad = max(largest_rad, math.hypot(*found.lean_enu_rad) if found is not None else 0.0)
    return math.degrees(largest_rad)


def test_rates_that_are_told_late_lean_nothing_where_their_lag_is_known() -> None:
    assert nodding_turn(lag_s=0.011, told_lag_s=0.0) > 0.5
    assert nodding_turn(lag_s=0.011, told_lag_s=0.011) < 0.1


def test_a_gyroscopes_bias_turns_with_the_vehicle() -> None:
    """Found on a course to the north by a lean to the east that grows; on the way back it leans to the west."""
    rng = np.random.default_rng(2)
    belief, height_m, rate_radps = (
        InertialFilter(0, np.zeros(2), np.eye(2), np.zeros(2), TrackConfig(), 100.0),
        100.0,
        5e-4,
    )
    lean, half_s_ns = np.zeros(2), 500_000_000
    for k in range(1, 121):
        lean = lean + np.array([rate_radps * 0.5, 0.0])
        belief.predict(k * half_s_ns, G_MPS2 * lean * 0.5, 0.03, Leaned(np.zeros(2), heading_rad=0.0))
        belief.update_position(height_m * lean + rng.normal(0, 0.3, 2), np.eye(2) * 0.09)
    assert belief.state[7] == pytest.approx(rate_radps, rel=0.3)  # about the axis that leans it to the right
    before = belief.state[4]
    belief.predict(140 * half_s_ns, G_MPS2 * lean * 10.0, 0.03, Leaned(np.zeros(2), heading_rad=math.pi))
    assert belief.state[4] < before - 0.5 * rate_radps * 10.0


def test_a_hundred_fixes_of_one_place_prove_no_more_than_the_place_does() -> None:
    """Standing still, all of them share the error of that ground; flying on, another takes its place."""
    good_imu = TrackConfig(lean_sigma_deg=0.01, lean_noise_deg=1e-4, gyro_bias_sigma_dps=1e-4)
    still, flying = (InertialFilter(0, np.zeros(2), np.eye(2), np.array([v, 0.0]), good_imu, 100.0) for v in (0.0, 8.0))
    for k in range(1, 101):
        for belief, speed in ((still, 0.0), (flying, 8.0)):
            belief.predict(k * 500_000_000, np.zeros(2), 0.01, Leaned(np.zeros(2)))
            belief.update_position(np.array([speed * k * 0.5, 0.0]), np.eye(2) * 0.25)
    assert still.position_sigma_m > 0.75 * TrackConfig().fix_bias_m
    assert flying.position_sigma_m < 0.9 * still.position_sigma_m


def test_a_turn_makes_the_lean_less_sure() -> None:
    def sigma_after(turned_rad: float) -> float:
        belief = InertialFilter(0, np.zeros(2), np.eye(2), np.zeros(2), TrackConfig(lean_sigma_deg=0.01), 100.0)
        belief.predict(500_000_000, np.zeros(2), 0.03, Leaned(np.zeros(2), turned_rad=turned_rad))
        return math.degrees(math.sqrt(belief.covariance[4, 4]))

    assert sigma_after(math.radians(90)) > 3 * sigma_after(0.0)


def test_the_tracker_tells_the_filter_how_far_the_vehicle_turned() -> None:
    def lean_sigma(yaw_deg: float) -> float:
        tracker = Tracker(Config(track=TrackConfig(velocity_use="inertial", lean_sigma_deg=0.01)), tilt_sigma_deg=1.0)
        for k in range(5):
            at_ns = k * 500_000_000
            quat = quaternion_from_euler(0.0, 0.0, math.radians(yaw_deg) * (k == 4))
            tracker.predict(
                at_ns, np.zeros(2), Telemetry(at_ns, quat, 100.0, inertia=Inertia(0, (0.0, 0.0), (0.0, 0.0)))
            )
            evidence = {"heading_offset_rad": 0.0}
            fix = Fix(at_ns, np.zeros(2), np.eye(2) * 3.2, 0.0, 1.0, 0.999, evidence)
            if tracker.filter is None:
                tracker.acquire(at_ns, [fix], np.zeros(2))
        assert isinstance(tracker.filter, InertialFilter)
        return float(np.sqrt(tracker.filter.covariance[4, 4]))

    assert lean_sigma(90.0) > 2 * lean_sigma(0.0)


def test_an_attitude_that_is_none_leaves_the_belief_a_number() -> None:
    tracker = Tracker(Config(track=TrackConfig(velocity_use="inertial")), tilt_sigma_deg=1.0)
    sums = Inertia(0, (0.0, 0.0), (0.0, 0.0))
    for k, quat in enumerate((LEVEL, LEVEL, LEVEL, (math.nan,) * 4, LEVEL)):
        at_ns = k * 500_000_000
        tracker.predict(at_ns, np.zeros(2), Telemetry(at_ns, quat, 100.0, inertia=sums))  # type: ignore[arg-type]
        fix = Fix(at_ns, np.zeros(2), np.eye(2) * 3.2, 0.0, 1.0, 0.999, {"heading_offset_rad": 0.0})
        if tracker.filter is None:
            tracker.acquire(at_ns, [fix], np.zeros(2))
    assert tracker.filter is not None
    assert np.isfinite(tracker.filter.state).all()
    assert np.isfinite(tracker.filter.covariance).all()


def test_without_the_imu_the_tracker_goes_on_with_the_velocitys_changes() -> None:
    """The stream stops in flight, with and without fixes; the belief stays and its doubt grows."""
    tracker = Tracker(Config(track=TrackConfig(velocity_use="inertial")), tilt_sigma_deg=1.0)
    velocity = np.array([5.0, -2.0])
    for k in range(12):
        at_ns = k * 500_000_000
        inertia = Inertia(0, (5.0, -2.0), (0.0, 0.0)) if k < 6 else None
        tracker.predict(at_ns, velocity, Telemetry(at_ns, LEVEL, 100.0, inertia=inertia))
        evidence = {"heading_offset_rad": 0.0}
        fix = Fix(at_ns, velocity * k * 0.5, np.eye(2) * 3.2, 0.0, 1.0, 0.999, evidence)
        if tracker.filter is None:
            tracker.acquire(at_ns, [fix], velocity)
        else:
            tracker.update(fix if k < 8 else None, None if k < 8 else Reason.WEAK_MATCH)
    assert isinstance(tracker.filter, InertialFilter)
    assert np.abs(tracker.filter.state[:2] - velocity * 11 * 0.5).max() < 1.5
    estimate = tracker.estimate(Telemetry(0, LEVEL, 100.0), None, 0.5, 1.7)
    assert estimate is not None
    assert estimate.covariance.shape == (4, 4)
    assert estimate.covariance[0, 0] > 1.2
