"""Heights above home over hills: what the map's heights make of them, tracked, lost, and where something is unknown."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import toy_world
from toy_localizer import QUICK, errors_m, fly, retold
from toy_world import HandEngine, Heights, Moment, World, with_heights

from onboard.config import Config, RectifyConfig, SearchConfig
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.height import HeightByMap
from onboard.home import HeightZero
from onboard.localizer import Localizer
from onboard.records import Fix, HeightReference, State, Step, Telemetry
from onboard.region import RegionMap

LEVEL = (1.0, 0.0, 0.0, 0.0)
HOME_ENU_M = np.array([-190.0, -190.0])
HOME_DEG = toy_world.PLACE.geodetic_from_enu(HOME_ENU_M)
NOWHERE = np.array([1e5, 0.0])


def slope(at: np.ndarray) -> np.ndarray:
    """Rising 20 m over 100 m towards the east."""
    return 500 + 0.2 * at[..., 0]


def pit(at: np.ndarray) -> np.ndarray:
    """Level at 100 m, but for home's own corner, 32 m lower."""
    return 100 - 32 * (np.hypot(at[..., 0] - HOME_ENU_M[0], at[..., 1] - HOME_ENU_M[1]) < 12)


def mesa(at: np.ndarray) -> np.ndarray:
    """The flight's half of the map at 100 m, the rest and home 40 m higher."""
    away = (at[..., 1] - 0.5 * at[..., 0] > 45) | (at[..., 1] < -130)
    return 100 + 40 * away


def above_home(height_m: float = 90.0, home_deg: tuple[float, float] | None = HOME_DEG) -> Telemetry:
    return Telemetry(0, LEVEL, height_m, True, None, None, HeightReference.HOME, home_deg)


def by_map(region: RegionMap, heights: Heights | None = slope, config: Config = Config()) -> HeightByMap:
    return HeightByMap(region if heights is None else with_heights(region, heights), config)


def fix_at(east_m: float, height_scale: float) -> Fix:
    return Fix(0, np.array([east_m, 0.0]), np.eye(2), 0.0, height_scale, 0.9)


# ---- one height


def test_height_above_home_becomes_height_above_the_ground_here(hand_map: RegionMap) -> None:
    got = by_map(hand_map).here(above_home(), np.array([60.0, 10.0]))
    assert got.height_above_ground_m == pytest.approx(90 - 0.2 * 250, abs=0.01)
    assert (got.height_reference, got.home_deg) == (HeightReference.GROUND, None)
    assert by_map(hand_map).here(got, NOWHERE) is got


@pytest.mark.parametrize(
    ("told", "position", "heights", "config"),
    [
        (above_home(home_deg=None), np.zeros(2), slope, Config()),
        (above_home(home_deg=toy_world.PLACE.geodetic_from_enu(NOWHERE)), np.zeros(2), slope, Config()),
        (above_home(home_deg=(math.nan, 8.0)), np.zeros(2), slope, Config()),
        (above_home(math.nan), np.zeros(2), slope, Config()),
        (above_home(), NOWHERE, slope, Config()),
        (above_home(), np.full(2, math.nan), slope, Config()),
        (above_home(), np.zeros(2), lambda at: np.full(at.shape[:-1], np.nan), Config()),
        (above_home(), np.zeros(2), None, Config()),
        (above_home(), np.zeros(2), slope, Config(rectify=RectifyConfig(height_from_map=False))),
        (Telemetry(0, LEVEL, 90.0), np.zeros(2), slope, Config()),
    ],
)
def test_where_anything_is_unknown_the_height_stays_as_told(
    hand_map: RegionMap, told: Telemetry, position: np.ndarray, heights: Heights | None, config: Config
) -> None:
    assert by_map(hand_map, heights, config).here(told, position) is told


def test_where_the_flight_begins_stands_for_a_home_that_is_not_known(hand_map: RegionMap) -> None:
    heights = HeightByMap(with_heights(hand_map, slope), Config(), np.array([-100.0, 0.0]))
    told = above_home(home_deg=None)
    assert heights.here(told, np.array([50.0, 0.0])).height_above_ground_m == pytest.approx(90 - 0.2 * 150, abs=0.01)
    assert heights.here(above_home(), np.array([50.0, 0.0])).height_above_ground_m == pytest.approx(42, abs=0.01)
    off_map = HeightByMap(with_heights(hand_map, slope), Config(), NOWHERE)
    assert off_map.here(told, np.zeros(2)) is told


def test_a_home_that_moves_counts_from_then_on(hand_map: RegionMap) -> None:
    heights, east = by_map(hand_map), toy_world.PLACE.geodetic_from_enu(np.array([50.0, 0.0]))
    got = [heights.here(above_home(90, home), np.zeros(2)).height_above_ground_m for home in (HOME_DEG, east)]
    assert got == pytest.approx([90 - 38, 90 + 10], abs=0.01)


# ---- while lost


def test_somewhere_is_the_middle_of_the_ground_searched_and_says_how_far_it_may_be_off(hand_map: RegionMap) -> None:
    searched, share = by_map(hand_map).somewhere(above_home(150), np.array([-100.0, 0.0]), 50.0)
    assert searched.height_above_ground_m == pytest.approx(150 - 0.2 * 90, abs=0.5)
    assert share == pytest.approx(0.10 + 9 / 132, abs=0.005)  # 5 to 95 % of 100 m at a slope of 20 %


def test_all_the_ground_is_searched_where_nothing_is_known_and_the_error_has_a_limit(hand_map: RegionMap) -> None:
    heights = by_map(hand_map)
    searched, share = heights.somewhere(above_home(150), None, math.inf)
    assert searched.height_above_ground_m == pytest.approx(150 - 0.2 * 190, abs=0.5)
    assert share == 0.30
    level, share = by_map(hand_map, lambda at: np.full(at.shape[:-1], 7.0)).somewhere(above_home(), None, math.inf)
    assert (level.height_above_ground_m, share) == (90.0, 0.10)


def test_ground_that_the_vehicle_cannot_be_over_is_not_searched(hand_map: RegionMap) -> None:
    heights = by_map(hand_map)
    searched, _ = heights.somewhere(above_home(40), None, math.inf)  # east of -115 m the hill is higher than that
    assert 15 < searched.height_above_ground_m < 40
    told = above_home(40)
    assert heights.somewhere(told, np.array([100.0, 0.0]), 50.0) == (told, None)


def test_a_vehicle_that_stands_at_home_is_not_searched_for_over_the_valleys(hand_map: RegionMap) -> None:
    told = above_home(1.0, toy_world.PLACE.geodetic_from_enu(np.array([190.0, 0.0])))
    heights = by_map(hand_map)
    assert heights.somewhere(told, None, math.inf) == (told, None)
    assert heights.here(told, np.zeros(2)).height_above_ground_m == pytest.approx(39.0, abs=0.01)  # but it may be there


def test_a_fix_is_scaled_to_its_own_ground_and_refused_where_that_contradicts_it(hand_map: RegionMap) -> None:
    heights, told = by_map(hand_map), above_home(150)
    searched = dataclasses.replace(told, height_above_ground_m=100.0)
    right = fix_at(60.0, 1.02)  # 150 - 50 above its ground
    too_high, far_away = fix_at(-190.0, 1.02), fix_at(3000.0, 1.02)  # 150 above its ground; none is known
    kept = heights.agreeing([right, too_high, far_away], told, searched)
    assert [fix.height_scale for fix in kept] == pytest.approx([1.02, 1.02 * 100 / 150], abs=1e-3)
    assert kept[1].position_enu_m is far_away.position_enu_m


# ---- flights


@pytest.fixture(scope="module")
def flight(world: World) -> list[Moment]:
    return toy_world.make_flight(world)


def told_above_home(moments: list[Moment], rise_m: float) -> list[Moment]:
    """The same flight by a vehicle whose home's ground lies `rise_m` higher than that of the flight."""

    def change(told: Telemetry) -> Telemetry:
        height_m = told.height_above_ground_m - rise_m
        return dataclasses.replace(
            told, height_above_ground_m=height_m, height_reference=HeightReference.HOME, home_deg=HOME_DEG
        )

    return retold(moments, change)


def assert_flown(steps: list[Step], moments: list[Moment]) -> None:
    assert all(s.state is State.TRACKING for s in steps[3:])
    assert errors_m(steps, moments).max() < 3.0
    for step in steps[3:]:
        assert step.estimate is not None
        assert step.estimate.height_above_ground_m == pytest.approx(90 * 1.02, abs=0.1)
        assert step.estimate.told_height_m == moments[-1].telemetry.height_above_ground_m
        assert step.fix is not None
        assert step.fix.height_scale == pytest.approx(1 / 1.02, abs=0.02)


@pytest.mark.parametrize("independent", [False, True])
def test_a_flight_told_above_a_home_in_a_pit_is_flown_by_the_maps_heights_and_not_without(
    hand_engine: HandEngine, hand_map: RegionMap, flight: list[Moment], independent: bool
) -> None:
    moments, region = told_above_home(flight[:6], -32.0), with_heights(hand_map, pit)
    with_map = fly(hand_engine, region, moments, independent=independent)
    assert_flown(with_map, moments)
    off = dataclasses.replace(QUICK, rectify=RectifyConfig(height_from_map=False))
    assert not len(errors_m(fly(hand_engine, region, moments, config=off, independent=independent), moments))


def test_a_vehicle_found_off_the_middle_of_the_ground_searched_is_tracked_at_its_own_height(
    hand_engine: HandEngine, hand_map: RegionMap, flight: list[Moment]
) -> None:
    moments = told_above_home(flight[:6], 40.0)
    assert_flown(fly(hand_engine, with_heights(hand_map, mesa), moments), moments)


def test_without_heights_in_the_map_a_flight_above_home_is_the_one_it_was_bit_for_bit(
    hand_engine: HandEngine, hand_map: RegionMap, flight: list[Moment]
) -> None:
    plain, home = (fly(hand_engine, hand_map, m) for m in (flight[:5], told_above_home(flight[:5], 0.0)))
    for one, other in zip(plain, home, strict=True):
        assert (one.state, one.reason) == (other.state, other.reason)
        if one.estimate is not None and other.estimate is not None:
            assert one.estimate.position_enu_m.tobytes() == other.estimate.position_enu_m.tobytes()
            assert one.estimate.height_above_ground_m == other.estimate.height_above_ground_m
    assert any(step.estimate is not None for step in plain)


def test_heights_searched_without_a_heading_are_the_usual_two_and_reach_as_far_as_they_must(
    hand_engine: HandEngine, hand_map: RegionMap
) -> None:
    config = Config(search=SearchConfig(unknown_heading_step_deg=180))
    localizer = Localizer(
        hand_engine, hand_map, toy_world.toy_camera(), BODY_FROM_CAMERA_DOWN, toy_world.HAND_CONFIDENCE, config
    )
    told = Telemetry(0, LEVEL, 90.0, heading_known=False)
    assert {scale for _, scale in localizer.hypotheses(told)} == {1 - 0.1 / 2, 1 + 0.1 / 2}
    wide = sorted({scale for _, scale in localizer.hypotheses(told, 0.23)})
    assert wide == pytest.approx([0.75, 0.85, 0.95, 1.05, 1.15, 1.25])


# ---- which place heights are counted from

S = 1_000_000_000


def test_the_home_of_a_vehicle_that_stands_counts_and_the_newest_wins() -> None:
    zero = HeightZero()
    assert zero.height(0.3, 0) is None
    for at_s, home in ((1, (47.0, 8.0)), (60, (47.1, 8.1))):
        zero.home(*home, at_s * S)
        assert zero.height(-0.4, at_s * S) == home


def test_a_home_that_comes_or_moves_in_flight_does_not_count_until_the_vehicle_stands_again() -> None:
    zero = HeightZero()
    zero.height(0.0, 0)
    zero.home(47.0, 8.0, 20 * S)
    assert zero.height(35.0, 20 * S) is None  # ArduPilot without GPS: under the vehicle, as high as the start
    zero.home(47.0, 8.0, 80 * S)  # told again
    assert zero.height(0.5, 80 * S) == (47.0, 8.0)
    zero.home(47.1, 8.0, 90 * S)
    assert zero.height(40.0, 90 * S) is None


def test_a_program_begun_in_flight_believes_the_home_that_it_is_told_first() -> None:
    zero = HeightZero()
    zero.height(80.0, 0)
    zero.home(47.0, 8.0, 2 * S)
    assert zero.height(80.0, 3 * S) == (47.0, 8.0)
    zero.home(47.0, 8.0, 60 * S)  # told again: nothing has moved
    assert zero.height(80.0, 60 * S) == (47.0, 8.0)


@pytest.mark.parametrize("nowhere", [(math.nan, 8.0), (91.0, 8.0), (47.0, -181.0), (0.0, 0.0)])
def test_a_home_that_is_no_place_changes_nothing(nowhere: tuple[float, float]) -> None:
    zero = HeightZero()
    zero.home(47.0, 8.0, 0)
    zero.home(*nowhere, S)
    assert zero.height(math.nan, S) == zero.height(50.0, S) == (47.0, 8.0)
