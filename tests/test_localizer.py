"""The whole pipeline over the toy world: a normal flight, with and without what helps it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import toy_world
from toy_localizer import QUICK, dark, errors_m, fly, reasons, retold, with_image
from toy_world import HandEngine, Moment, World

from onboard.config import Config, TrackConfig
from onboard.engine import SHIPPED_MODEL, Engine
from onboard.match.evidence import read_confidence
from onboard.records import Reason, State, Step, Telemetry
from onboard.region import RegionMap


@pytest.fixture(scope="module")
def flight(world: World) -> list[Moment]:
    return toy_world.make_flight(world)


def assert_normal(steps: list[Step], moments: list[Moment]) -> None:
    assert [s.state for s in steps[:2]] == [State.ACQUIRING] * 2
    assert reasons(steps)[:2] == [Reason.ACQUIRING] * 2
    assert all(s.state is State.TRACKING and s.reason is None for s in steps[2:])
    errors = errors_m(steps, moments)
    assert len(errors) == len(moments) - 2
    assert errors.max() < 3.0
    assert np.median(errors) < 1.5
    for step, moment in zip(steps[2:], moments[2:], strict=True):
        assert step.estimate is not None
        assert step.estimate.valid_at_ns == step.captured_at_ns == moment.frame.captured_at_ns
        miss = step.estimate.position_enu_m - moment.position_enu_m
        assert miss @ np.linalg.solve(step.estimate.covariance[:2, :2], miss) < 13.8
        np.testing.assert_allclose(step.estimate.velocity_enu_mps, [12.0, 6.0], atol=1.5)
        assert {"rectify", "embed", "correlate", "refine", "track"} <= set(step.stage_ms)


def test_a_normal_flight_is_acquired_in_three_frames_and_tracked_within_metres(
    hand_engine: HandEngine, hand_map: RegionMap, flight: list[Moment]
) -> None:
    steps = fly(hand_engine, hand_map, flight, config=Config())
    assert_normal(steps, flight)
    for k, step in enumerate(steps[2:], 2):
        assert step.estimate is not None
        true_heading = math.radians(30 + 2 * math.sin(k))  # telemetry says a degree more, the map knows better
        assert math.degrees(abs(step.estimate.heading_rad - true_heading)) < 0.7
        assert step.fix is not None
        assert step.fix.height_scale == pytest.approx(1 / 1.02, abs=0.015)


def test_the_shipped_model_flies_the_toy_world_too(
    shipped_engine: Engine, shipped_map: RegionMap, flight: list[Moment]
) -> None:
    steps = fly(shipped_engine, shipped_map, flight, read_confidence(SHIPPED_MODEL), Config())
    errors = errors_m(steps, flight)
    assert len(errors) >= 8
    assert errors.max() < 3.0


def test_a_frame_alone_is_not_believed_where_its_rivals_claim_too_much_and_frames_together_are(
    hand_engine: HandEngine, hand_map: RegionMap, flight: list[Moment]
) -> None:
    def sternly(most: float) -> Config:
        return dataclasses.replace(QUICK, fix=dataclasses.replace(QUICK.fix, max_rival_probability_alone=most))

    believed = fly(hand_engine, hand_map, flight[:3], config=sternly(1.0), independent=True)
    assert all(step.published for step in believed)
    claimed = [step.fix.evidence["rivals"] for step in believed if step.fix is not None]
    assert len(claimed) == 3
    assert all(0.0 < chance < 0.05 for chance in claimed)
    least = sternly(min(claimed) / 2)
    refused = fly(hand_engine, hand_map, flight[:3], config=least, independent=True)
    assert set(reasons(refused)) == {Reason.AMBIGUOUS}
    assert fly(hand_engine, hand_map, flight[:3], config=least)[-1].published


def test_the_same_flight_twice_gives_the_same_steps_bit_for_bit(
    shipped_engine: Engine, shipped_map: RegionMap, flight: list[Moment]
) -> None:
    def facts(step: Step) -> tuple[object, ...]:
        estimate, fix = step.estimate, step.fix
        return (
            step.captured_at_ns, step.source, step.state, step.reason, step.detail,
            None if estimate is None else (estimate.position_enu_m.tobytes(), estimate.covariance.tobytes(),
                                           estimate.heading_rad, estimate.probability_right),
            None if fix is None else (fix.position_enu_m.tobytes(), fix.covariance_enu_m2.tobytes(),
                                      dict(fix.evidence)),
        )  # fmt: skip

    runs = [fly(shipped_engine, shipped_map, flight[:5], read_confidence(SHIPPED_MODEL), Config()) for _ in range(2)]
    assert [facts(s) for s in runs[0]] == [facts(s) for s in runs[1]]
    assert any(s.fix is not None for s in runs[0])


def test_without_velocity_the_flight_is_tracked_all_the_same(
    hand_engine: HandEngine, hand_map: RegionMap, flight: list[Moment]
) -> None:
    steps = fly(hand_engine, hand_map, retold(flight, lambda t: dataclasses.replace(t, velocity_ned_mps=None)))
    assert len(errors_m(steps, flight)) >= 8
    assert errors_m(steps, flight).max() < 4.0


def test_an_unknown_heading_is_found(hand_engine: HandEngine, hand_map: RegionMap, flight: list[Moment]) -> None:
    upright = tuple(toy_world.quaternion(0.0, 0.0, 0.0))

    def forget(t: Telemetry) -> Telemetry:
        return dataclasses.replace(t, attitude_quat_wxyz=upright, heading_known=False)

    level = [
        with_image(
            m, toy_world.look(toy_world.make_world(), toy_world.toy_camera(), m.position_enu_m, 90.0, (0, 0, 217))
        )
        for m in flight[:5]
    ]
    steps = fly(hand_engine, hand_map, retold(level, forget))
    assert len(errors_m(steps, level)) >= 2
    assert errors_m(steps, level).max() < 4.0
    assert steps[-1].estimate is not None
    assert math.cos(steps[-1].estimate.heading_rad - math.radians(217)) > math.cos(math.radians(3))


def test_fine_features_that_were_not_kept_are_made_again_alike(
    hand_engine: HandEngine, hand_map: RegionMap, flight: list[Moment], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = fly(hand_engine, hand_map, retold(flight[:3], lambda told: told))
    monkeypatch.setattr("onboard.match.locate._BATCH", 4)  # fewer than the hypotheses of a search of the whole map
    again = fly(hand_engine, hand_map, retold(flight[:3], lambda told: told))
    for a, b in zip(kept, again, strict=True):
        assert a.best_position_enu_m is not None
        assert b.best_position_enu_m is not None
        np.testing.assert_allclose(a.best_position_enu_m, b.best_position_enu_m, atol=1e-6)


def test_a_start_position_keeps_the_search_to_its_surroundings(
    hand_engine: HandEngine, chequered_map: RegionMap
) -> None:
    """On ground that repeats every 60 m a start within 25 m tells which of the look-alikes it is."""
    world = toy_world.make_repeating_world()
    moments = toy_world.make_flight(world, 6, (-20.0, -10.0), (4.0, 3.0))
    config = Config(search=dataclasses.replace(QUICK.search, start_radius_m=25.0), track=TrackConfig(max_speed_mps=2.0))
    blind = fly(hand_engine, chequered_map, moments, config=config)
    led = fly(hand_engine, chequered_map, moments, config=config, start_enu_m=np.array([-15.0, -4.0]))
    assert not any(s.published for s in blind)
    assert len(errors_m(led, moments)) >= 3
    assert errors_m(led, moments).max() < 3.0


def test_a_wrong_start_position_does_not_make_a_wrong_fix(
    hand_engine: HandEngine, hand_map: RegionMap, flight: list[Moment]
) -> None:
    steps = fly(hand_engine, hand_map, flight[:4], start_enu_m=np.array([210.0, 210.0]))
    assert not any(s.published for s in steps)


def test_a_frame_alone_is_published_or_refused_on_its_own_evidence(
    hand_engine: HandEngine, hand_map: RegionMap, flight: list[Moment]
) -> None:
    shuffled = [flight[k] for k in (5, 1, 9)]
    steps = fly(hand_engine, hand_map, [*shuffled, with_image(flight[2], dark(0))], independent=True)
    assert [s.reason for s in steps] == [None, None, None, Reason.BLANK_IMAGE]
    assert [s.state for s in steps] == [State.TRACKING] * 3 + [State.LOST]
    assert errors_m(steps[:3], shuffled).max() < 3.0
    alone = fly(hand_engine, hand_map, flight[9:10], independent=True)[0]
    assert alone.estimate is not None
    assert steps[2].estimate is not None
    np.testing.assert_allclose(alone.estimate.position_enu_m, steps[2].estimate.position_enu_m, atol=1e-3)
    assert np.isnan(alone.estimate.velocity_enu_mps).all()
