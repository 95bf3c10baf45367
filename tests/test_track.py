"""The tracker: a belief that is as wide as its errors, a gate that holds, and a start that is earned."""

from __future__ import annotations

import numpy as np
import pytest

from onboard.config import Config, TrackConfig
from onboard.errors import ConfigError
from onboard.records import Fix, Reason, State
from onboard.track.acquire import Acquisition
from onboard.track.filter import Filter
from onboard.track.tracker import Tracker
from onboard.track.velocity import VelocityUse, velocity_use, when_live

STEP_NS = 500_000_000
VELOCITY = np.array([12.0, -5.0])
OUTLIER = np.array([60.0, 0.0])


def fix_at(position: np.ndarray, k: int = 0, probability: float = 0.999, sigma_m: float = 1.5) -> Fix:
    return Fix(
        k * STEP_NS, np.asarray(position, float), np.eye(2) * sigma_m**2, 0.3, 1.02, probability,
        {"heading_offset_rad": 0.05},
    )  # fmt: skip


def truth(k: int) -> np.ndarray:
    return np.array([100.0, 50.0]) + VELOCITY * k * 0.5


# ---- the filter


def test_the_filter_is_as_sure_as_it_should_be() -> None:
    """Mean NEES over many flights whose motion is the filter's own: 2 and 4 for two and four dimensions."""
    config = TrackConfig(acceleration_noise_mps2=1.0)
    position_nees, whole_nees = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        state = np.array([0.0, 0.0, 10.0, 4.0])
        noise = np.kron(np.array([[0.5**3 / 3, 0.5**2 / 2], [0.5**2 / 2, 0.5]]), np.eye(2))
        spread = np.array([[4.0, 1.0], [1.0, 2.0]])
        begin = state[:2] + rng.multivariate_normal([0, 0], spread)
        velocity = state[2:] + rng.normal(0, config.velocity_noise_mps, 2)
        belief = Filter(0, begin, spread, velocity, config)
        for k in range(1, 30):
            state = np.concatenate([state[:2] + 0.5 * state[2:], state[2:]]) + rng.multivariate_normal(
                np.zeros(4), noise
            )
            belief.predict(k * STEP_NS)
            belief.update_velocity(state[2:] + rng.normal(0, config.velocity_noise_mps, 2))
            if k % 3:
                belief.update_position(state[:2] + rng.multivariate_normal([0, 0], spread), spread)
            miss = belief.state - state
            if k > 5:
                position_nees.append(miss[:2] @ np.linalg.solve(belief.covariance[:2, :2], miss[:2]))
                whole_nees.append(miss @ np.linalg.solve(belief.covariance, miss))
    assert np.mean(position_nees) == pytest.approx(2.0, abs=0.3)
    assert np.mean(whole_nees) == pytest.approx(4.0, abs=0.4)
    assert np.mean(np.array(position_nees) < 5.991) == pytest.approx(0.95, abs=0.025)


def test_one_long_prediction_is_as_good_as_many_short_ones() -> None:
    ways = [Filter(0, np.zeros(2), np.eye(2), VELOCITY, TrackConfig()) for _ in range(2)]
    ways[0].predict(3_000_000_000)
    for k in range(1, 301):
        ways[1].predict(k * 10_000_000)
    np.testing.assert_allclose(ways[0].state, [36, -15, 12, -5])
    np.testing.assert_allclose(ways[1].state, ways[0].state)
    np.testing.assert_allclose(ways[1].covariance, ways[0].covariance, rtol=1e-9)


def test_a_prediction_backwards_is_a_mistake() -> None:
    belief = Filter(STEP_NS, np.zeros(2), np.eye(2), VELOCITY, TrackConfig())
    with pytest.raises(ValueError, match="backwards"):
        belief.predict(0)


def test_without_a_velocity_the_filter_knows_that_it_does_not_know() -> None:
    known = Filter(0, np.zeros(2), np.eye(2), VELOCITY, TrackConfig())
    unknown = Filter(0, np.zeros(2), np.eye(2), None, TrackConfig())
    for belief in (known, unknown):
        belief.predict(1_000_000_000)
    assert unknown.position_sigma_m > 15 > 2 > known.position_sigma_m


def test_covariance_stays_symmetric_and_positive_over_a_long_flight() -> None:
    belief = Filter(0, np.zeros(2), np.eye(2), VELOCITY, TrackConfig())
    for k in range(1, 2000):
        belief.predict(k * STEP_NS)
        belief.update_velocity(VELOCITY)
        belief.update_position(belief.state[:2], np.eye(2) * 1e-4)
    np.testing.assert_allclose(belief.covariance, belief.covariance.T, atol=1e-12)
    assert np.linalg.eigvalsh(belief.covariance)[0] > 0


# ---- acquisition


def acquire(frames: list[list[Fix]], velocity: np.ndarray | None = VELOCITY) -> int | None:
    """The first frame at which a place is accepted."""
    acquisition = Acquisition(TrackConfig())
    for k, fixes in enumerate(frames):
        if acquisition.add(k * STEP_NS, fixes, velocity) is not None:
            return k
    return None


def test_a_start_takes_three_fixes_that_agree_in_motion() -> None:
    assert acquire([[fix_at(truth(k), k)] for k in range(6)]) == 2
    assert acquire([[fix_at(truth(0), k)] for k in range(6)]) is None  # it stands still while the vehicle flies
    assert acquire([[fix_at(truth(0), k)] for k in range(6)], np.zeros(2)) == 2


def test_one_lucky_frame_never_starts_a_track_however_sure() -> None:
    assert acquire([[fix_at(truth(0), 0, 1.0 - 1e-12)], *([[]] * 10)]) is None
    assert acquire([[fix_at(truth(k), k, 1.0 - 1e-12)] for k in range(2)] + [[]] * 10) is None


def test_fixes_that_are_not_believed_do_not_add_up_quickly() -> None:
    assert acquire([[fix_at(truth(k), k, 0.3)] for k in range(5)]) is None


def test_two_look_alikes_that_move_along_never_start_a_track() -> None:
    away = np.array([120.0, 0.0])
    both = [[fix_at(truth(k), k, 0.5), fix_at(truth(k) + away, k, 0.5)] for k in range(30)]
    assert acquire(both) is None


def test_look_alikes_that_take_turns_never_start_a_track() -> None:
    away = np.array([120.0, 0.0])
    assert acquire([[fix_at(truth(k) + away * (k % 2), k)] for k in range(40)]) is None


def test_a_place_is_earned_despite_a_wrong_fix_now_and_then() -> None:
    frames = [[fix_at(truth(k), k, 0.99)] for k in range(12)]
    frames[1] = [fix_at(truth(1) + 300, 1, 0.9)]
    began = acquire(frames)
    assert began is not None
    assert began <= 6


def test_evidence_older_than_the_window_is_forgotten() -> None:
    acquisition = Acquisition(TrackConfig(acquire_window_s=10.0))
    for k in (0, 1):
        acquisition.add(k * STEP_NS, [fix_at(truth(k), k)], VELOCITY)
    late = 30
    assert acquisition.add(late * STEP_NS, [fix_at(truth(late), late)], VELOCITY) is None
    assert acquisition.hypotheses[0].count == 1


# ---- the states


def tracking(config: Config = Config()) -> Tracker:
    """A tracker that has just begun to track, at frame 2."""
    tracker = Tracker(config)
    for k in range(3):
        tracker.predict(k * STEP_NS, VELOCITY)
        reason = tracker.acquire(k * STEP_NS, [fix_at(truth(k), k)], VELOCITY)
        assert reason is (None if k == 2 else Reason.ACQUIRING)
        assert tracker.state is (State.TRACKING if k == 2 else State.ACQUIRING)
    return tracker


def test_a_track_begins_where_the_fixes_were_with_what_they_taught() -> None:
    tracker = tracking()
    assert tracker.filter is not None
    np.testing.assert_allclose(tracker.filter.state[:2], truth(2), atol=0.5)
    assert tracker.told.heading_offset_rad == pytest.approx(0.05)
    assert tracker.told.height_scale == pytest.approx(1.02)


def test_no_candidate_at_all_is_lost_not_acquiring() -> None:
    tracker = Tracker(Config())
    assert tracker.acquire(0, [], VELOCITY) is Reason.NO_CANDIDATE
    assert tracker.state is State.LOST


def test_the_gate_refuses_an_outlier_and_the_belief_does_not_move() -> None:
    tracker = tracking()
    tracker.predict(3 * STEP_NS, VELOCITY)
    assert tracker.filter is not None
    before = tracker.filter.state.copy()
    assert tracker.update(fix_at(truth(3) + OUTLIER, 3), None) is Reason.GATED
    np.testing.assert_array_equal(tracker.filter.state, before)
    assert tracker.state is State.COASTING
    tracker.predict(4 * STEP_NS, VELOCITY)
    assert tracker.update(fix_at(truth(4), 4), None) is None
    assert tracker.state is State.TRACKING


def test_four_gated_fixes_in_a_row_end_the_track() -> None:
    tracker = tracking()
    for k in range(3, 7):
        tracker.predict(k * STEP_NS, VELOCITY)
        assert tracker.filter is not None
        tracker.update(fix_at(truth(k) + OUTLIER, k), None)
    assert tracker.state is State.LOST
    assert tracker.filter is None


def test_coasting_ends_in_lost_after_its_time_and_keeps_moving_until_then() -> None:
    tracker = tracking(Config(track=TrackConfig(coast_s=4.0)))
    for k in range(3, 11):  # 4 s after frame 2
        tracker.predict(k * STEP_NS, VELOCITY)
        assert tracker.update(None, Reason.WEAK_MATCH) is Reason.WEAK_MATCH
        assert tracker.state is State.COASTING
        assert tracker.filter is not None
        np.testing.assert_allclose(tracker.filter.state[:2], truth(k), atol=2.0)
    tracker.predict(11 * STEP_NS, VELOCITY)
    assert tracker.state is State.LOST
    assert tracker.told.heading_offset_rad == 0.0


def test_a_belief_that_grew_too_wide_is_given_up_before_its_time() -> None:
    config = Config(track=TrackConfig(coast_s=1000.0, acceleration_noise_mps2=5.0, max_position_sigma_m=10.0))
    tracker, k = tracking(config), 2
    while tracker.filter is not None:
        k += 1
        tracker.predict(k * STEP_NS, None)
        if tracker.filter is not None:
            assert tracker.filter.position_sigma_m <= 10.0
            tracker.update(None, Reason.BLANK_IMAGE)
    assert k < 30
    assert tracker.state is State.LOST


def test_other_headings_are_tried_again_after_two_frames_without_a_fix() -> None:
    tracker = tracking()
    assert not tracker.widen
    for k in (3, 4):
        tracker.predict(k * STEP_NS, VELOCITY)
        tracker.update(None, Reason.WEAK_MATCH)
    assert tracker.widen
    tracker.predict(5 * STEP_NS, VELOCITY)
    tracker.update(fix_at(truth(5), 5), None)
    assert not tracker.widen


def test_errors_that_do_not_average_out_are_added_to_what_is_told() -> None:
    from onboard.records import Telemetry

    tracker = tracking()
    telemetry = Telemetry(2 * STEP_NS, (1.0, 0, 0, 0), 80.0)
    plain = tracker.estimate(telemetry, fix_at(truth(2), 2), 0.0, 0.0)
    wider = tracker.estimate(telemetry, None, 1.2, 1.6)
    assert plain is not None
    assert wider is not None
    np.testing.assert_allclose(wider.covariance - plain.covariance, np.diag([4.0, 4.0, 0, 0]))
    assert (plain.valid_at_ns, plain.height_above_ground_m, plain.heading_rad) == (2 * STEP_NS, 80.0, 0.3)
    assert np.isnan(wider.heading_rad)
    assert Tracker(Config()).estimate(telemetry, None, 0.0, 0.0) is None


def test_the_same_fixes_twice_make_the_same_belief() -> None:
    first, second = tracking(), tracking()
    assert first.filter is not None
    assert second.filter is not None
    assert first.filter.state.tobytes() == second.filter.state.tobytes()
    assert first.filter.covariance.tobytes() == second.filter.covariance.tobytes()


# ---- what of the vehicle's own velocity is believed


def following(use: str, seconds: float, fixes_until_s: float, bias_mps: float = 0.0) -> tuple[Tracker, float]:
    """A tracker over a vehicle that takes up 6 m/s east in two seconds, and its largest error while fixes came.

    The vehicle's own velocity is wrong by `bias_mps` to the north; fixes are true, two a second.
    """
    tracker, worst = Tracker(Config(track=TrackConfig(velocity_use=use, coast_s=30.0))), 0.0
    east, speed = 0.0, 0.0
    for k in range(-40, int(2 * seconds) + 1):  # 20 s to settle in
        before, speed = speed, float(np.clip(3.0 * k * 0.5, 0.0, 6.0))
        east += 0.5 * (before + speed) / 2
        at_ns, velocity, place = (k + 50) * STEP_NS, np.array([speed, bias_mps]), np.array([east, 0.0])
        fix = fix_at(place, k + 50)
        if tracker.filter is None:
            tracker.acquire(at_ns, [fix], velocity)
            continue
        tracker.predict(at_ns, velocity)
        if tracker.filter is None:
            break
        lit = 0.5 * k <= fixes_until_s
        if lit and k >= 0:
            worst = max(worst, float(np.linalg.norm(tracker.filter.state[:2] - place)))
        tracker.update(fix if lit else None, None if lit else Reason.NO_IMAGE)
    return tracker, worst


def test_changes_of_velocity_carry_the_track_through_a_manoeuvre() -> None:
    with_changes, without = following("increment", 4.0, 4.0)[1], following("none", 4.0, 4.0)[1]
    assert with_changes < 0.1 < 0.5 < without


def test_a_bias_of_the_velocity_does_not_come_through_its_changes() -> None:
    changes, itself = (following(use, 20.0, 20.0, bias_mps=1.0)[1] for use in ("increment", "measured"))
    assert changes < 0.1 < 0.4 < itself


def test_without_fixes_the_vehicles_velocity_carries_on_and_the_doubt_covers_its_bias() -> None:
    tracker, _ = following("increment", 30.0, 10.0, bias_mps=0.6)
    assert tracker.filter is not None
    drift = abs(float(tracker.filter.state[1]))
    assert 2.0 < drift < 2 * float(np.sqrt(tracker.filter.covariance[1, 1])) < 60.0
    assert following("none", 30.0, 10.0)[0].filter is None  # too doubtful to be carried so far


def test_auto_is_the_velocity_itself_in_a_replay_and_inertia_live() -> None:
    assert velocity_use(Config().track.velocity_use) is VelocityUse.MEASURED
    assert when_live(Config()).track.velocity_use == "inertial"
    chosen = Config(track=TrackConfig(velocity_use="none"))
    assert when_live(chosen) is chosen


def test_an_unknown_use_of_the_velocity_is_named() -> None:
    with pytest.raises(ConfigError, match=r"track\.velocity_use: often; expected one of auto, measured"):
        Tracker(Config(track=TrackConfig(velocity_use="often")))
