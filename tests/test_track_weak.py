"""Matches too weak to be believed alone, one after the other: what bears them out, and what does not."""

from __future__ import annotations

import numpy as np
import pytest

from onboard.config import Config, TrackConfig
from onboard.records import Fix, Reason, State, Telemetry
from onboard.track.tracker import Tracker

HALF_S_NS = 500_000_000
LEVEL = (1.0, 0.0, 0.0, 0.0)
SIDE_M = 80.0


def fix_at(k: int, position: np.ndarray, probability: float = 0.9) -> Fix:
    return Fix(k * HALF_S_NS, position, np.eye(2) * 4.0, 0.0, 1.0, probability, {"heading_offset_rad": 0.0})


def weak_matches(
    speed_mps: float, off_m: float, scattered_m: float, seconds: float, probability: float = 0.9
) -> tuple[Tracker, list[Reason | None]]:
    """What becomes of weak matches `off_m` beside the truth; the velocity told is wrong by 0.3 m/s to the north."""
    tracker, rng, said = (
        Tracker(Config(track=TrackConfig(velocity_use="measured", coast_s=60.0))),
        np.random.default_rng(4),
        [],
    )
    velocity, told = np.array([speed_mps, 0.0]), np.array([speed_mps, 0.3])
    for k in range(1, int(2 * seconds) + 30):
        at_ns, true = k * HALF_S_NS, velocity * k * HALF_S_NS * 1e-9
        tracker.predict(at_ns, told, Telemetry(at_ns, LEVEL, 80.0))
        if tracker.filter is None:
            tracker.acquire(at_ns, [fix_at(k, true, 0.999)], told, SIDE_M)
        elif k < 30:
            assert tracker.update(fix_at(k, true, 0.999), None, SIDE_M) is None
        else:
            place = true + np.array([0.0, off_m]) + rng.uniform(-scattered_m, scattered_m, 2)
            said.append(tracker.update(fix_at(k, place, probability), Reason.WEAK_MATCH, SIDE_M))
    return tracker, said


def test_weak_matches_that_agree_over_new_ground_hold_the_track() -> None:
    tracker, said = weak_matches(speed_mps=10.0, off_m=0.0, scattered_m=1.0, seconds=40)
    first = said.index(None)
    assert 6 <= first <= 40  # not at once: some of the ground must be new
    assert said[first:].count(None) > 0.9 * len(said[first:])
    assert tracker.state is State.TRACKING
    assert tracker.filter is not None
    assert abs(tracker.filter.state[1]) < 2.0  # 12 m by its velocity alone


@pytest.mark.parametrize(
    "case",
    [
        {"speed_mps": 0.0, "off_m": 6.0, "scattered_m": 0.5},  # one view that hovers, beside a look-alike
        {"speed_mps": 10.0, "off_m": 0.0, "scattered_m": 40.0},  # each somewhere else
        {"speed_mps": 10.0, "off_m": 0.0, "scattered_m": 1.0, "probability": 0.02},  # most likely wrong
    ],
)
def test_what_does_not_bear_out_a_weak_match(case: dict[str, float]) -> None:
    _, said = weak_matches(**case, seconds=30)
    assert said.count(None) <= 2


def test_weak_matches_that_agree_on_a_place_beside_the_track_are_gated() -> None:
    _, said = weak_matches(speed_mps=10.0, off_m=150.0, scattered_m=0.5, seconds=30)
    assert None not in said
    assert said.count(Reason.GATED) >= 4  # then it is the track that is wrong
