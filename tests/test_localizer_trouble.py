"""Everything that may go wrong with a flight over the toy world: named, coasted through, never told as a fix.

What holds in every scenario: nothing published lies far from the truth, and what is published says so of itself.
"""

from __future__ import annotations

import dataclasses
from enum import Enum

import numpy as np
import pytest
import toy_world
from toy_localizer import QUICK, dark, errors_m, fly, reasons, retold, with_image
from toy_world import STEP_NS, HandEngine, Moment, World

from onboard.config import Config, TrackConfig
from onboard.engine import SHIPPED_MODEL, Engine
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.localizer import Localizer
from onboard.match.evidence import read_confidence
from onboard.records import Frame, Reason, State, Step, Telemetry
from onboard.region import RegionMap


@pytest.fixture(scope="module")
def flight(world: World) -> list[Moment]:
    return toy_world.make_flight(world)


class Scenario(Enum):
    """Each is a change to a normal flight. Frames 5 to 8 are struck where it passes, all of them where it stays."""

    BLACKOUT = "black frames"
    NO_IMAGE = "frames that cannot be decoded"
    FROZEN = "the same frame over and over"
    FOG = "frames of noise"
    NO_TELEMETRY = "telemetry missing"
    NAN_ATTITUDE = "an attitude that is no number"
    NAN_HEIGHT = "a height that is no number"
    TILTED = "far too much tilt told"
    ENGINE_NAN = "the engine's numbers are none"
    YAW = "yaw wrong by 90 degrees"
    STALE = "stamps that do not advance"
    BACKWARD = "stamps that go back"
    ELSEWHERE = "ground that is not on the map"
    REPEATING = "ground that repeats itself"


STRUCK = range(5, 9)
WORKED_AROUND = {  # the reasons that frames 5 to 8 must give
    Scenario.BLACKOUT: Reason.BLANK_IMAGE,
    Scenario.NO_IMAGE: Reason.NO_IMAGE,
    Scenario.FROZEN: Reason.FROZEN_FRAME,
    Scenario.FOG: None,  # whichever doubt comes first
    Scenario.NO_TELEMETRY: Reason.NO_TELEMETRY,
    Scenario.NAN_ATTITUDE: Reason.BAD_TELEMETRY,
    Scenario.NAN_HEIGHT: Reason.NO_HEIGHT,
    Scenario.TILTED: Reason.TILT_TOO_LARGE,
    Scenario.ENGINE_NAN: Reason.ENGINE_FAULT,
}
NAN = float("nan")


def strike(scenario: Scenario, flight: list[Moment]) -> list[tuple[Frame | None, Telemetry | Reason]]:
    """(frame, telemetry) of each step of a flight with one of the passing troubles in it."""
    rng = np.random.default_rng(1)
    out: list[tuple[Frame | None, Telemetry | Reason]] = []
    for k, moment in enumerate(flight):
        frame, told = moment.frame, moment.telemetry
        if k not in STRUCK:
            out.append((frame, told))
        elif scenario is Scenario.BLACKOUT:
            out.append((dataclasses.replace(frame, image_bgr=dark(k)), told))
        elif scenario is Scenario.NO_IMAGE:
            out.append((None, told))
        elif scenario is Scenario.FROZEN:
            out.append((dataclasses.replace(frame, image_bgr=flight[4].frame.image_bgr), told))
        elif scenario is Scenario.FOG:
            fog = rng.integers(0, 255, frame.image_bgr.shape, dtype=np.uint8)
            out.append((dataclasses.replace(frame, image_bgr=fog), told))
        elif scenario is Scenario.NO_TELEMETRY:
            out.append((frame, Reason.NO_TELEMETRY))
        elif scenario is Scenario.NAN_ATTITUDE:
            out.append((frame, dataclasses.replace(told, attitude_quat_wxyz=(NAN, NAN, NAN, NAN))))
        elif scenario is Scenario.NAN_HEIGHT:
            out.append((frame, dataclasses.replace(told, height_above_ground_m=NAN)))
        elif scenario is Scenario.TILTED:
            out.append((frame, dataclasses.replace(told, attitude_quat_wxyz=toy_world.quaternion(0, 60, 30))))
        else:
            out.append((frame, told))
    return out


class FaultyNow(HandEngine):
    """Gives no numbers while `faulty`."""

    faulty = False

    def embed(self, images_rgb: np.ndarray, masks: np.ndarray) -> toy_world.Embeddings:
        found = super().embed(images_rgb, masks)
        if self.faulty:
            found.fine[...] = np.nan
        return found


@pytest.mark.parametrize("scenario", WORKED_AROUND, ids=lambda s: s.value)
def test_a_passing_trouble_is_named_coasted_through_and_recovered_from(
    scenario: Scenario, hand_map: RegionMap, flight: list[Moment]
) -> None:
    engine = FaultyNow()
    localizer = Localizer(
        engine, hand_map, toy_world.toy_camera(), BODY_FROM_CAMERA_DOWN, toy_world.HAND_CONFIDENCE, QUICK
    )
    steps = []
    for k, (frame, told) in enumerate(strike(scenario, flight)):
        engine.faulty = scenario is Scenario.ENGINE_NAN and k in STRUCK
        steps.append(localizer.step(frame, told, flight[k].frame.captured_at_ns))
    wanted = WORKED_AROUND[scenario]
    for k in STRUCK:
        assert steps[k].reason is not None
        assert wanted is None or steps[k].reason is wanted
        assert steps[k].state is State.COASTING
    assert all(s.state is State.TRACKING and s.published for s in steps[9:])
    assert errors_m(steps, flight).max() < 5.0
    for step, moment in zip(steps, flight, strict=True):
        if step.estimate is not None:
            assert np.isfinite(step.estimate.position_enu_m).all()
            miss = step.estimate.position_enu_m - moment.position_enu_m
            assert miss @ np.linalg.solve(step.estimate.covariance[:2, :2], miss) < 13.8
    if scenario in (Scenario.NO_TELEMETRY, Scenario.NAN_HEIGHT):  # a fix without a height is none
        assert not any(steps[k].published for k in STRUCK)


@pytest.mark.parametrize("output", ["descriptors", "detail", "fine"])
@pytest.mark.parametrize("from_call", [0, 1], ids=["in the view", "in the map's windows"])
def test_numbers_lost_in_the_engine_are_an_engine_fault_never_a_fix(
    output: str, from_call: int, hand_map: RegionMap, flight: list[Moment]
) -> None:
    step = fly(HandEngine(output, from_call), hand_map, flight[:1], independent=True)[0]
    assert step.reason is Reason.ENGINE_FAULT
    assert not step.published
    assert step.best_position_enu_m is None


def test_darkness_that_lasts_ends_in_lost_and_says_nothing_more(
    hand_engine: HandEngine, hand_map: RegionMap, flight: list[Moment]
) -> None:
    config = dataclasses.replace(QUICK, track=TrackConfig(coast_s=2.0))
    moments = [*flight[:4], *(with_image(m, dark(k)) for k, m in enumerate(flight[4:]))]
    steps = fly(hand_engine, hand_map, moments, config=config)
    assert [s.state for s in steps[3:8]] == [State.TRACKING] + [State.COASTING] * 4
    assert all(s.state is State.LOST and not s.published for s in steps[8:])


def test_a_height_told_30_percent_wrong_gives_no_wrong_fix(
    hand_engine: HandEngine, hand_map: RegionMap, flight: list[Moment]
) -> None:
    for factor in (1.3, 1 / 1.3):
        wrong = retold(
            flight[:4],
            lambda t, f=factor: dataclasses.replace(t, height_above_ground_m=90 * f),  # type: ignore[misc]
        )
        for independent in (False, True):
            errors = errors_m(fly(hand_engine, hand_map, wrong, config=Config(), independent=independent), wrong)
            assert (errors < 8.0).all()


def assert_silent(steps: list[Step]) -> None:
    assert not any(step.published for step in steps)
    assert all(step.reason is not None for step in steps)
    assert all(step.state in (State.LOST, State.ACQUIRING) for step in steps)


@pytest.mark.parametrize("independent", [False, True], ids=["followed", "each alone"])
@pytest.mark.parametrize("scenario", [Scenario.YAW, Scenario.ELSEWHERE, Scenario.REPEATING], ids=lambda s: s.value)
def test_what_cannot_be_known_is_not_told(
    scenario: Scenario,
    independent: bool,
    hand_engine: HandEngine,
    hand_map: RegionMap,
    chequered_map: RegionMap,
    flight: list[Moment],
) -> None:
    region, moments, config = hand_map, flight[:6], QUICK
    if scenario is Scenario.YAW:
        wrong, config = toy_world.quaternion(0, 0, 120), Config()
        moments = retold(moments, lambda t: dataclasses.replace(t, attitude_quat_wxyz=wrong))
    elif scenario is Scenario.ELSEWHERE:
        moments = toy_world.make_flight(toy_world.make_world(seed=77), 6)
    else:
        region, moments = chequered_map, toy_world.make_flight(toy_world.make_repeating_world(), 8)
    steps = fly(hand_engine, region, moments[: 4 if independent else None], config=config, independent=independent)
    assert_silent(steps)
    if scenario is Scenario.REPEATING and independent:
        assert set(reasons(steps)) == {Reason.AMBIGUOUS}


@pytest.mark.parametrize("scenario", [Scenario.YAW, Scenario.ELSEWHERE], ids=lambda s: s.value)
def test_the_shipped_model_does_not_tell_what_cannot_be_known(
    scenario: Scenario, shipped_engine: Engine, shipped_map: RegionMap, flight: list[Moment]
) -> None:
    moments = flight[:4]
    if scenario is Scenario.YAW:
        wrong = toy_world.quaternion(0, 0, 120)
        moments = retold(moments, lambda t: dataclasses.replace(t, attitude_quat_wxyz=wrong))
    else:
        moments = toy_world.make_flight(toy_world.make_world(seed=77), 4)
    for independent in (False, True):
        steps = fly(
            shipped_engine, shipped_map, moments, read_confidence(SHIPPED_MODEL), Config(), independent=independent
        )
        assert_silent(steps)


def test_one_lucky_frame_is_not_enough_to_start(
    hand_engine: HandEngine, hand_map: RegionMap, flight: list[Moment]
) -> None:
    elsewhere = toy_world.make_flight(toy_world.make_world(seed=77), 8)
    moments = [flight[k] if k in (2, 5) else elsewhere[k] for k in range(8)]
    steps = fly(hand_engine, hand_map, moments)
    assert not any(s.published for s in steps)


def test_leaving_the_map_ends_in_silence(hand_engine: HandEngine, hand_map: RegionMap, world: World) -> None:
    moments = toy_world.make_flight(world, 12, (120.0, 0.0), (40.0, 0.0), yaw_deg=90.0)  # the map ends at 225
    config = dataclasses.replace(QUICK, track=TrackConfig(coast_s=1.5))
    steps = fly(hand_engine, hand_map, moments, config=config)
    assert steps[3].published
    assert errors_m(steps, moments).max() < 8.0
    for step, moment in zip(steps, moments, strict=True):
        if moment.position_enu_m[0] > 320:
            assert not step.published


def test_a_flight_that_begins_off_the_map_says_nothing(hand_engine: HandEngine, hand_map: RegionMap) -> None:
    other = toy_world.make_world(seed=77)
    moments = toy_world.make_flight(other, 4)
    steps = fly(hand_engine, hand_map, moments, start_enu_m=np.array([5000.0, 5000.0]))
    assert_silent(steps)
    assert set(reasons(steps)) == {Reason.OUTSIDE_MAP}


@pytest.mark.parametrize("scenario", [Scenario.STALE, Scenario.BACKWARD], ids=lambda s: s.value)
def test_a_frame_whose_time_does_not_advance_moves_nothing(
    scenario: Scenario, hand_engine: HandEngine, hand_map: RegionMap, flight: list[Moment]
) -> None:
    localizer = Localizer(
        hand_engine, hand_map, toy_world.toy_camera(), BODY_FROM_CAMERA_DOWN, toy_world.HAND_CONFIDENCE, QUICK
    )
    back_ns = 0 if scenario is Scenario.STALE else 3 * STEP_NS
    for k, moment in enumerate(flight):
        at_ns = moment.frame.captured_at_ns
        if k == 6:
            belief = localizer.tracker.filter
            assert belief is not None
            before = belief.state.tobytes(), belief.valid_at_ns
            late_ns = flight[5].frame.captured_at_ns - back_ns
            step = localizer.step(dataclasses.replace(moment.frame, captured_at_ns=late_ns), moment.telemetry, late_ns)
            assert step.reason is Reason.STALE_FRAME
            assert not step.published
            assert step.captured_at_ns == late_ns
            assert (belief.state.tobytes(), belief.valid_at_ns) == before
        step = localizer.step(moment.frame, moment.telemetry, at_ns)
        assert step.reason is not Reason.STALE_FRAME
    assert step.state is State.TRACKING


def test_only_the_frames_own_clock_counts(hand_engine: HandEngine, hand_map: RegionMap, flight: list[Moment]) -> None:
    """A flight of another century is the same flight."""
    later_ns = 10**18
    later = [
        Moment(
            dataclasses.replace(m.frame, captured_at_ns=m.frame.captured_at_ns + later_ns),
            dataclasses.replace(m.telemetry, captured_at_ns=m.telemetry.captured_at_ns + later_ns),
            m.position_enu_m,
        )
        for m in flight[:5]
    ]
    pairs = zip(fly(hand_engine, hand_map, flight[:5]), fly(hand_engine, hand_map, later), strict=True)
    for one, other in pairs:
        assert (one.state, one.reason) == (other.state, other.reason)
        if one.estimate is not None:
            assert other.estimate is not None
            np.testing.assert_allclose(one.estimate.position_enu_m, other.estimate.position_enu_m, atol=1e-3)
