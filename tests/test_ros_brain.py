"""The ROS node's model, map and localizer, and where it starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toy_world

from onboard.config import Config
from onboard.errors import ConfigError, MapError
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.records import State, Step
from onboard.region import RegionMap
from pilotage_ros.brain import Brain, on_map, start_on_map


@pytest.fixture
def brain(hand_engine: toy_world.HandEngine, hand_map: RegionMap) -> Brain:
    made = Brain(hand_engine, hand_map, toy_world.HAND_CONFIDENCE, Config())  # type: ignore[arg-type]
    made.build(toy_world.toy_camera(), BODY_FROM_CAMERA_DOWN)
    return made


def test_a_reset_forgets_the_track_and_nothing_else(brain: Brain, world: toy_world.World) -> None:
    def fly(moments: list[toy_world.Moment]) -> list[Step]:
        return [brain.step(m.frame, m.telemetry, m.frame.captured_at_ns, m.frame.source) for m in moments]

    moments = toy_world.make_flight(world, 8)
    assert fly(moments[:5])[-1].state is State.TRACKING
    brain.reset()
    assert fly(moments[5:6])[0].state is not State.TRACKING
    brain.start_at(moments[0].position_enu_m)
    again = fly(moments)
    assert again[-1].published
    assert again[-1].estimate is not None
    assert float(np.hypot(*(again[-1].estimate.position_enu_m - moments[-1].position_enu_m))) < 8.0


def test_another_map_is_taken_and_a_bad_one_leaves_the_old(brain: Brain, hand_map: RegionMap, tmp_path: Path) -> None:
    brain.start_at(np.zeros(2))
    with pytest.raises(MapError):
        brain.load_map(str(tmp_path))
    assert brain.region is hand_map
    assert brain.start_enu_m is not None
    brain.load_map(str(hand_map.path))
    assert brain.region is not hand_map
    assert brain.start_enu_m is None


@pytest.mark.parametrize("start", ["here", "1,2,3", "95,0", "nan,0", "0,0"])
def test_a_start_that_is_no_place_on_the_map_is_an_error_in_one_line(hand_map: RegionMap, start: str) -> None:
    with pytest.raises(ConfigError) as error:
        start_on_map(start, hand_map)
    assert "\n" not in str(error.value)


def test_a_start_on_the_map_is_found_in_its_frame(hand_map: RegionMap) -> None:
    assert start_on_map("", hand_map) is None
    latitude, longitude = hand_map.frame.geodetic_from_enu(np.array([30.0, -20.0]))
    np.testing.assert_allclose(start_on_map(f"{latitude:.9f},{longitude:.9f}", hand_map), [30.0, -20.0], atol=1e-3)
    np.testing.assert_array_equal(on_map(np.array([1.0, 2.0]), hand_map), [1.0, 2.0])
