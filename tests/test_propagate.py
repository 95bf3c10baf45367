"""Between two fixes: carried on, less and less sure, and silent in the end."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from onboard.config import LinkConfig, TrackConfig
from onboard.mavlink import Propagator
from onboard.mavlink.tell.messages import quality
from onboard.mavlink.tell.propagate import felt
from onboard.records import Estimate, Inertia
from onboard.telemetry import TelemetryBuffer
from onboard.track.filter import Filter

START_NS = 1_760_000_000_000_000_000
SECOND_NS = 1_000_000_000


def estimate(after_s: float = 0.0, **changes: object) -> Estimate:
    """At (100, 200) m after flying north-east for `after_s`."""
    covariance = np.diag([4.0, 9.0, 0.25, 0.36])
    covariance[0, 2] = covariance[2, 0] = 0.3
    values: dict = {
        "valid_at_ns": START_NS + round(after_s * SECOND_NS),
        "position_enu_m": np.array([100.0, 200.0]),
        "velocity_enu_mps": np.array([3.0, 4.0]),
        "covariance": covariance,
        "heading_rad": 0.5,
        "height_above_ground_m": 80.0,
        "probability_right": 0.99,
    }
    return Estimate(**(values | changes))


def holding(*estimates: Estimate, **link: float) -> Propagator:
    """Each of them with a fix of its own instant."""
    propagator = Propagator(TrackConfig(), LinkConfig(**link))
    for one in estimates:
        propagator.take(one, one.valid_at_ns)
    return propagator


def test_it_moves_on_with_the_velocity_and_its_own_time() -> None:
    told = holding(estimate()).at(START_NS + SECOND_NS // 2)
    assert told is not None
    assert told.valid_at_ns == START_NS + SECOND_NS // 2
    assert told.position_enu_m == pytest.approx([101.5, 202.0])
    assert told.velocity_enu_mps == pytest.approx([3.0, 4.0])
    assert told.height_above_ground_m == 80.0
    assert math.isnan(told.heading_rad)  # it was measured then, not now


def braking(runs: tuple[int, int] = (1, 1)) -> TelemetryBuffer:
    """A second at rest in the air, then braking by 4 m/s2 in the east; `runs` of the IMU's sums in both."""
    buffer = TelemetryBuffer(250_000_000)
    for k in range(101):
        at_ns = START_NS + k * SECOND_NS // 50
        buffer.add_attitude(at_ns, (1.0, 0.0, 0.0, 0.0))
        buffer.add_height(at_ns, 80.0)
        buffer.add_inertia(at_ns, Inertia(runs[k > 50], (-4.0 * max(0.0, k / 50 - 1.0), 0.0), (0.0, 0.0)))
    return buffer


def test_it_moves_on_with_what_the_imu_felt() -> None:
    buffer = braking()
    propagator = Propagator(TrackConfig(), LinkConfig(), lambda a, b: felt(buffer, a, b))
    propagator.take(estimate(), START_NS)
    told = propagator.at(START_NS + 2 * SECOND_NS)
    assert told is not None
    assert told.velocity_enu_mps == pytest.approx([-1.0, 4.0])
    assert told.position_enu_m == pytest.approx([100 + 6.0 - 2.0, 208.0], abs=0.3)  # not 4 m, as if it came evenly
    blind = holding(estimate()).at(START_NS + 2 * SECOND_NS)
    assert blind is not None
    assert told.covariance[2, 2] < blind.covariance[2, 2]


def test_where_the_imus_sums_begin_anew_it_moves_on_with_the_velocity() -> None:
    assert felt(braking((1, 2)), START_NS, START_NS + 2 * SECOND_NS) is None
    assert felt(braking(), START_NS, START_NS + 3 * SECOND_NS) is None  # nothing was heard so late


def test_the_covariance_grows_as_the_trackers_own_does() -> None:
    told = holding(estimate()).at(START_NS + 2 * SECOND_NS)
    filter_ = Filter(START_NS, np.array([100.0, 200.0]), np.eye(2), np.array([3.0, 4.0]), TrackConfig())
    filter_.covariance = estimate().covariance
    filter_.predict(START_NS + 2 * SECOND_NS)
    assert told is not None
    assert told.covariance == pytest.approx(filter_.covariance)
    # by hand, east: 4 + 2 * 0.3 * 2 + 0.25 * 2^2 + 1 * 2^3 / 3
    assert told.covariance[0, 0] == pytest.approx(4 + 1.2 + 1 + 8 / 3)


def test_at_its_own_time_an_estimate_is_told_as_it_is() -> None:
    one = estimate()
    told = holding(one).at(START_NS)
    assert told is not None
    assert told.heading_rad == 0.5
    assert told.probability_right == 0.99
    assert (told.position_enu_m, told.covariance) == (
        pytest.approx(one.position_enu_m),
        pytest.approx(one.covariance),
    )


def test_the_newest_estimate_that_is_not_after_the_moment_is_carried() -> None:
    later = estimate(1.0, position_enu_m=np.array([500.0, 500.0]))
    propagator = holding(estimate(), later)
    before, after = propagator.at(START_NS + SECOND_NS - 1), propagator.at(START_NS + SECOND_NS)
    assert before is not None
    assert before.position_enu_m == pytest.approx([103.0, 204.0])
    assert after is not None
    assert after.position_enu_m == pytest.approx([500.0, 500.0])


def test_nothing_is_told_of_the_time_before_the_first_estimate() -> None:
    assert holding().at(START_NS) is None
    assert holding(estimate()).at(START_NS - 1) is None


def test_it_is_silent_after_the_limit_counted_from_the_last_real_fix() -> None:
    propagator = holding(estimate(), silent_after_s=3.0)
    coasting = estimate(2.0)
    propagator.take(coasting, START_NS)  # alive on motion alone: the fix is still that of the start
    assert propagator.at(START_NS + 3 * SECOND_NS) is not None
    assert propagator.at(START_NS + 3 * SECOND_NS + 1) is None


def test_it_is_silent_where_the_tracker_itself_would_give_up() -> None:
    track, link = TrackConfig(max_position_sigma_m=4.0), LinkConfig(silent_after_s=60.0)
    propagator = Propagator(track, link)
    propagator.take(estimate(), START_NS)
    assert propagator.at(START_NS + SECOND_NS) is not None
    # north: 9 + 0.36 t^2 + t^3 / 3 = 16 between t = 2 and t = 3
    assert propagator.at(START_NS + 2 * SECOND_NS) is not None
    assert propagator.at(START_NS + 3 * SECOND_NS) is None


def test_quality_falls_with_the_age_of_the_fix_and_is_never_the_zero_of_unknown() -> None:
    propagator = holding(estimate(), silent_after_s=5.0)
    told = [propagator.at(START_NS + k * SECOND_NS // 2) for k in range(11)]
    assert all(one is not None for one in told)
    probabilities = [one.probability_right for one in told if one is not None]
    assert probabilities == sorted(probabilities, reverse=True)
    assert len(set(probabilities)) == 11
    assert probabilities[5] == pytest.approx(0.99 * (1 - 0.9 * 2.5 / 5))
    assert probabilities[-1] == pytest.approx(0.099)
    doubtful = holding(estimate(probability_right=0.02), silent_after_s=5.0).at(START_NS + 5 * SECOND_NS)
    assert doubtful is not None
    assert quality(doubtful.probability_right) == 1


def test_a_probability_that_nobody_knows_stays_unknown() -> None:
    told = holding(estimate(probability_right=math.nan)).at(START_NS + SECOND_NS)
    assert told is not None
    assert math.isnan(told.probability_right)


def test_without_a_velocity_the_place_stays_and_its_doubt_grows_by_the_speed_that_may_be() -> None:
    bare = np.full((4, 4), math.nan)
    bare[:2, :2] = np.eye(2) * 4.0
    told = holding(estimate(velocity_enu_mps=np.full(2, math.nan), covariance=bare)).at(START_NS + SECOND_NS // 2)
    assert told is not None
    assert told.position_enu_m == pytest.approx([100.0, 200.0])
    assert np.isnan(told.velocity_enu_mps).all()
    # 4 + 20^2 * 0.5^2 + 0.5^3 / 3
    assert told.covariance[:2, :2] == pytest.approx(np.eye(2) * (104 + 0.125 / 3))
    assert np.isnan(told.covariance[2:, 2:]).all()


def test_a_stale_estimate_is_ignored_and_a_fix_from_its_future_is_a_mistake() -> None:
    propagator = holding(estimate(1.0))
    propagator.take(estimate(0.5, position_enu_m=np.array([9.0, 9.0])), START_NS)
    assert propagator.at(START_NS + SECOND_NS // 2) is None
    with pytest.raises(ValueError, match=r"0\.250 s after"):
        propagator.take(estimate(2.0), START_NS + 9 * SECOND_NS // 4)


def test_after_clearing_nothing_old_is_told() -> None:
    propagator = holding(estimate(1.0))
    propagator.clear()
    assert propagator.at(START_NS + 2 * SECOND_NS) is None
    propagator.take(estimate(0.5), START_NS)  # also where the clock was set back
    assert propagator.at(START_NS + SECOND_NS) is not None


def test_what_was_taken_is_never_changed() -> None:
    one = estimate()
    copy = dataclasses.replace(one, position_enu_m=one.position_enu_m.copy(), covariance=one.covariance.copy())
    propagator = holding(one)
    for k in range(20):
        propagator.at(START_NS + k * SECOND_NS // 10)
    assert (one.position_enu_m == copy.position_enu_m).all()
    assert (one.covariance == copy.covariance).all()
