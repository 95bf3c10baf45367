"""The telemetry buffer: between samples interpolated, after the last one held a little, never guessed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onboard.frames import euler_from_rotation, quaternion_from_euler, rotation_from_quaternion
from onboard.records import HeightReference, Reason, Telemetry
from onboard.telemetry import TelemetryBuffer, slerp

MS = 1_000_000
LEVEL = (1.0, 0.0, 0.0, 0.0)


def yaw_deg(telemetry: Telemetry | Reason) -> float:
    assert isinstance(telemetry, Telemetry), telemetry
    rotation = rotation_from_quaternion(telemetry.attitude_quat_wxyz)
    return math.degrees(euler_from_rotation(rotation)[2])


def facing(degrees: float, roll_deg: float = 0.0) -> tuple[float, float, float, float]:
    return quaternion_from_euler(math.radians(roll_deg), 0.0, math.radians(degrees))


def filled(times_ms: range, max_age_ms: int = 250) -> TelemetryBuffer:
    buffer = TelemetryBuffer(max_age_ms * MS)
    for t in times_ms:
        buffer.add_attitude(t * MS, facing(t / 10))
        buffer.add_height(t * MS, 50 + t / 100)
        buffer.add_velocity(t * MS, (t / 100, -1.0, 0.0))
    return buffer


def test_between_two_samples_everything_is_interpolated() -> None:
    got = filled(range(0, 301, 100)).at(150 * MS)
    assert isinstance(got, Telemetry)
    assert got.captured_at_ns == 150 * MS
    assert yaw_deg(got) == pytest.approx(15.0)
    assert got.height_above_ground_m == pytest.approx(51.5)
    assert got.velocity_ned_mps == pytest.approx((1.5, -1.0, 0.0))


def test_attitude_turns_the_short_way_over_north() -> None:
    buffer = TelemetryBuffer(250 * MS)
    buffer.add_height(0, 50.0)
    buffer.add_attitude(0, facing(350))
    buffer.add_attitude(100 * MS, facing(20))
    assert yaw_deg(buffer.at(50 * MS)) == pytest.approx(5.0)


def test_slerp_takes_q_and_minus_q_for_the_same_rotation() -> None:
    a, b = facing(10, 4), facing(50, -8)
    other = tuple(-v for v in b)
    for share in (0.0, 0.3, 1.0):
        expected = rotation_from_quaternion(slerp(a, b, share))
        np.testing.assert_allclose(rotation_from_quaternion(slerp(a, other, share)), expected, atol=1e-12)
    assert slerp(a, a, 0.7) == pytest.approx(a)


def test_the_last_sample_is_held_for_max_age_and_no_longer() -> None:
    buffer = filled(range(0, 101, 100))
    assert yaw_deg(buffer.at(350 * MS)) == pytest.approx(10.0)  # held, not extrapolated
    assert buffer.at(350 * MS + 1) is Reason.NO_TELEMETRY


def test_nothing_is_known_before_the_first_sample() -> None:
    assert filled(range(100, 301, 100)).at(99 * MS) is Reason.NO_TELEMETRY
    assert TelemetryBuffer(250 * MS).at(0) is Reason.NO_TELEMETRY


def test_a_long_gap_is_not_bridged() -> None:
    buffer = TelemetryBuffer(250 * MS)
    for t in (0, 3000):
        buffer.add_attitude(t * MS, facing(t / 100))
        buffer.add_height(t * MS, 50.0)
    assert yaw_deg(buffer.at(200 * MS)) == pytest.approx(0.0)  # held: as it would be in flight
    assert buffer.at(1500 * MS) is Reason.NO_TELEMETRY
    assert buffer.at(2900 * MS) is Reason.NO_TELEMETRY
    assert yaw_deg(buffer.at(3000 * MS)) == pytest.approx(30.0)


def test_missing_old_or_nan_height_is_no_height() -> None:
    buffer = TelemetryBuffer(250 * MS)
    buffer.add_attitude(0, LEVEL)
    buffer.add_attitude(1000 * MS, LEVEL)
    assert buffer.at(0) is Reason.NO_HEIGHT
    buffer.add_height(0, 60.0)
    assert isinstance(buffer.at(0), Telemetry)
    assert buffer.at(1000 * MS) is Reason.NO_HEIGHT
    buffer.add_height(1000 * MS, math.nan)
    assert buffer.at(1000 * MS) is Reason.NO_HEIGHT


@pytest.mark.parametrize("bad", [(math.nan, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0), (math.inf, 0.0, 0.0, 0.0)])
def test_an_attitude_that_is_no_rotation_spoils_only_the_frames_beside_it(bad: tuple[float, ...]) -> None:
    buffer = filled(range(0, 501, 100))
    buffer.add_attitude(200 * MS, bad)  # type: ignore[arg-type]
    reasons = {t: buffer.at(t * MS) for t in (100, 150, 200, 250, 300)}
    assert isinstance(reasons[100], Telemetry)
    assert isinstance(reasons[300], Telemetry)
    assert [reasons[t] for t in (150, 200, 250)] == [Reason.BAD_TELEMETRY] * 3


def test_missing_old_or_nan_velocity_is_none() -> None:
    buffer = TelemetryBuffer(250 * MS)
    for t in (0, 100, 1000):
        buffer.add_attitude(t * MS, LEVEL)
        buffer.add_height(t * MS, 50.0)
    buffer.add_velocity(0, (1.0, 2.0, 3.0))
    buffer.add_velocity(100 * MS, (math.nan, 2.0, 3.0))
    velocities = [buffer.at(t * MS) for t in (0, 50, 1000)]
    assert [v.velocity_ned_mps for v in velocities if isinstance(v, Telemetry)] == [(1.0, 2.0, 3.0), None, None]


def test_an_unknown_heading_on_either_side_is_unknown_between() -> None:
    buffer = TelemetryBuffer(250 * MS)
    buffer.add_height(0, 50.0)
    buffer.add_attitude(0, LEVEL, True)
    buffer.add_attitude(100 * MS, LEVEL, False)
    known, between = buffer.at(0), buffer.at(50 * MS)
    assert isinstance(known, Telemetry)
    assert known.heading_known
    assert isinstance(between, Telemetry)
    assert not between.heading_known


def test_the_order_of_arrival_does_not_matter() -> None:
    times = list(range(0, 2001, 50))
    shuffled = TelemetryBuffer(250 * MS)
    for t in np.random.default_rng(3).permutation(times):
        shuffled.add_attitude(int(t) * MS, facing(int(t) / 10))
        shuffled.add_height(int(t) * MS, 50 + int(t) / 100)
        shuffled.add_velocity(int(t) * MS, (int(t) / 100, -1.0, 0.0))
    ordered = filled(range(0, 2001, 50))
    assert [shuffled.at(t * MS) for t in range(0, 2200, 33)] == [ordered.at(t * MS) for t in range(0, 2200, 33)]


def test_memory_is_bounded_and_a_stamp_from_the_future_does_not_empty_it() -> None:
    buffer = filled(range(0, 60_000, 10))
    assert buffer.at(40_000 * MS) is Reason.NO_TELEMETRY  # older than ten seconds: dropped
    assert isinstance(buffer.at(55_000 * MS), Telemetry)
    buffer.add_attitude(10**18, LEVEL)
    for t in range(60_000, 61_000, 10):
        buffer.add_attitude(t * MS, facing(7.0))
        buffer.add_height(t * MS, 50.0)
    assert yaw_deg(buffer.at(60_985 * MS)) == pytest.approx(7.0)


def test_passed_waits_for_every_kind_of_telemetry_that_comes() -> None:
    buffer = TelemetryBuffer(250 * MS)
    assert not buffer.passed(0)
    buffer.add_attitude(100 * MS, LEVEL)
    assert buffer.passed(100 * MS)
    assert not buffer.passed(101 * MS)
    buffer.add_height(50 * MS, 50.0)
    assert not buffer.passed(100 * MS)


def test_between_heights_above_different_ground_the_older_one_is_held() -> None:
    buffer = filled(range(0, 301, 300))
    home, moved = (47.0, 8.0), (47.1, 8.0)
    for t, metres, *above in (
        (0, 50.0, HeightReference.GROUND, None),
        (100, 80.0, HeightReference.HOME, home),
        (200, 82.0, HeightReference.HOME, home),
        (300, 0.0, HeightReference.HOME, moved),
    ):
        buffer.add_height(t * MS, metres, *above)

    def told(t: int) -> tuple[float, HeightReference, tuple[float, float] | None]:
        got = buffer.at(t * MS)
        assert isinstance(got, Telemetry)
        return got.height_above_ground_m, got.height_reference, got.home_deg

    assert told(50) == (50.0, HeightReference.GROUND, None)
    assert told(150) == (pytest.approx(81.0), HeightReference.HOME, home)
    assert told(250) == (82.0, HeightReference.HOME, home)
    assert told(300) == (0.0, HeightReference.HOME, moved)
