"""What telemetry errs by is learnt from fixes that show it, and from no others."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from onboard.config import Config, SearchConfig
from onboard.records import Fix
from onboard.track.filter import Filter
from onboard.track.told import ToldErrors
from onboard.track.tracker import Tracker

HALF_S_NS = 500_000_000


def fix(k: int, heading_deg: float, scale: float, sigma: float) -> Fix:
    """Fix number k of two a second; `sigma` of its height scale, and of its heading in rad."""
    evidence = {"heading_offset_rad": math.radians(heading_deg)}
    return Fix(k * HALF_S_NS, np.zeros(2), np.eye(2), 0.0, scale, 0.999, evidence, sigma, sigma)


def test_what_the_first_fix_shows_well_is_believed_and_what_it_hardly_shows_is_not() -> None:
    seen, unseen = ToldErrors(SearchConfig()), ToldErrors(SearchConfig())
    seen.learn(fix(0, 4.0, 0.92, 0.005), heading_known=True, local=False)
    unseen.learn(fix(0, 4.0, 0.92, 0.3), heading_known=True, local=False)
    assert math.degrees(seen.heading_offset_rad) == pytest.approx(4.0, abs=0.1)
    assert seen.height_scale == pytest.approx(0.92, abs=0.002)
    assert math.degrees(unseen.heading_offset_rad) == pytest.approx(0.0, abs=0.3)
    assert unseen.height_scale == pytest.approx(1.0, abs=0.005)


def test_a_wrong_height_scale_goes_back_to_what_is_told_where_nothing_shows_it() -> None:
    """A fix over a corner of two fields has the scale that it was sought under, and hardly any say in it."""
    told = ToldErrors(SearchConfig())
    told.learn(fix(0, 0.0, 0.9, 0.01), heading_known=True, local=False)
    assert told.height_scale < 0.91
    for k in range(1, 361):
        told.learn(fix(k, 0.0, told.height_scale, 0.3), heading_known=True, local=True)
    assert told.height_scale == pytest.approx(1.0, abs=0.006)


def test_a_heading_that_goes_wrong_in_flight_is_followed_within_seconds() -> None:
    told = ToldErrors(SearchConfig())
    for k in range(60):
        told.learn(fix(k, 0.0, 1.0, 0.01), heading_known=True, local=True)
    for k in range(60, 66):
        told.learn(fix(k, 7.0, 1.0, 0.01), heading_known=True, local=True)
    assert math.degrees(told.heading_offset_rad) == pytest.approx(7.0, abs=1.5)


def test_odometry_turns_the_heading_at_once_and_losing_the_track_forgets_it() -> None:
    told = ToldErrors(SearchConfig())
    told.turned(math.radians(-3.0))
    assert math.degrees(told.heading_offset_rad) == pytest.approx(3.0)
    told.forget()
    assert (told.heading_offset_rad, told.height_scale) == (0.0, 1.0)


def test_a_heading_that_nobody_tells_is_the_fixes() -> None:
    told = ToldErrors(SearchConfig())
    for k, heading in enumerate((217.0, 200.0, -170.0)):
        told.learn(fix(k, heading, 1.0, 0.2), heading_known=False, local=True)
        assert math.cos(told.heading_offset_rad - math.radians(heading)) == pytest.approx(1.0)


def test_a_track_that_gets_no_fixes_goes_back_to_what_is_told() -> None:
    patient = dataclasses.replace(Config().track, coast_s=30.0, max_position_sigma_m=1e3)
    tracker = Tracker(dataclasses.replace(Config(), track=patient))
    tracker.filter = Filter(0, np.zeros(2), np.eye(2), None, tracker.config.track)
    tracker.told.learn(fix(0, 4.0, 0.92, 0.005), heading_known=True, local=False)
    for k in range(1, 11):
        tracker.predict(k * HALF_S_NS, None)
    assert tracker.filter is not None
    assert math.degrees(tracker.told.heading_offset_rad) == pytest.approx(4.0 * math.exp(-5 / 60), abs=0.1)
    assert tracker.told.height_scale == pytest.approx(1 - 0.08 * math.exp(-5 / 60), abs=0.002)
