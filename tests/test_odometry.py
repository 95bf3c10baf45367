"""Visual odometry: how far it was between two pictures of ground that is known, and what the filter makes of it."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest
import toy_world

from onboard.config import Config, OdometryConfig, TrackConfig
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.localizer import Localizer
from onboard.match.evidence import read_confidence
from onboard.records import Fix, Frame, State, Telemetry
from onboard.rectify import Rectifier
from onboard.region import RegionMap
from onboard.track.inertial import InertialFilter, Leaned
from onboard.track.odometry import Moved, VisualOdometry, _turn_across
from onboard.track.tracker import Tracker

G_MPS2 = 9.80665
HALF_S_NS = 500_000_000
LEVEL = (0.0, 0.0, 0.0)


def seen(
    world: toy_world.World,
    at_ns: int,
    place: tuple[float, float],
    true_deg: tuple[float, float, float] = LEVEL,
    told_deg: tuple[float, float, float] | None = None,
    height_m: float = 80.0,
    told_m: float | None = None,
) -> tuple[Frame, Telemetry]:
    """A picture from a true pose, and what the vehicle tells of it."""
    image = toy_world.look(world, toy_world.toy_camera(), place, height_m, true_deg)
    told = toy_world.quaternion(*(true_deg if told_deg is None else told_deg))
    return Frame(at_ns, image), Telemetry(at_ns, told, height_m if told_m is None else told_m)


@pytest.fixture
def odometry() -> VisualOdometry:
    return VisualOdometry(Rectifier(toy_world.toy_camera(), BODY_FROM_CAMERA_DOWN, 256), OdometryConfig())


def between(odometry: VisualOdometry, one: tuple[Frame, Telemetry], other: tuple[Frame, Telemetry]) -> Moved:
    assert odometry.step(*one) is None
    moved = odometry.step(*other)
    assert moved is not None
    return moved


@pytest.mark.parametrize(
    ("first_deg", "second_deg"), [(LEVEL, LEVEL), ((0, 0, 40), (4, -3, 55)), ((8, 5, 200), (-6, 2, 190))]
)
def test_the_way_between_two_pictures_is_found_whatever_the_attitudes(
    world: toy_world.World,
    odometry: VisualOdometry,
    first_deg: tuple[float, float, float],
    second_deg: tuple[float, float, float],
) -> None:
    one = seen(world, 0, (10.0, -20.0), first_deg)
    other = seen(world, HALF_S_NS, (16.0, -22.5), second_deg, height_m=84.0)
    moved = between(odometry, one, other)
    assert moved.enu_m == pytest.approx([6.0, -2.5], abs=0.12)
    assert moved.enu_mps == pytest.approx([12.0, -5.0], abs=0.25)
    assert (moved.from_ns, moved.to_ns) == (0, HALF_S_NS)


def test_a_lean_that_both_share_drops_out(world: toy_world.World, odometry: VisualOdometry) -> None:
    """Two degrees at 80 m are 2.8 m for a fix."""
    one = seen(world, 0, (0.0, 0.0), LEVEL, (2.0, 0.0, 0.0))
    moved = between(odometry, one, seen(world, HALF_S_NS, (4.0, 3.0), LEVEL, (2.0, 0.0, 0.0)))
    assert moved.enu_m == pytest.approx([4.0, 3.0], abs=0.25)


def test_a_heading_that_goes_wrong_between_two_pictures_neither_moves_the_vehicle_nor_is_lost(
    world: toy_world.World, odometry: VisualOdometry
) -> None:
    """Looking ahead by 15 degrees, two degrees of heading would be 0.7 m at 80 m of height."""
    one = seen(world, 0, (0.0, 0.0), (0.0, 15.0, 30.0))
    moved = between(odometry, one, seen(world, HALF_S_NS, (3.0, 2.0), (0.0, 15.0, 30.0), (0.0, 15.0, 28.0)))
    assert moved.enu_m == pytest.approx([3.0, 2.0], abs=0.15)
    assert math.degrees(moved.turn_rad) == pytest.approx(-2.0, abs=0.1)  # told too small: the picture turns back


@pytest.mark.parametrize("turn_deg", [0.0, 1.5, -2.5])
@pytest.mark.parametrize("way_px", [(9.0, 2.0), (-3.0, 8.0)])
def test_a_wood_beside_a_field_does_not_turn_the_picture(turn_deg: float, way_px: tuple[float, float]) -> None:
    """Corners on a half that is nearer move a fifth further: a similarity takes that for a turn of a degree."""
    way, turn, rng = np.array(way_px), math.radians(turn_deg), np.random.default_rng(3)
    ground = rng.uniform(-60, 60, (300, 2)) + np.array([40.0, 10.0])  # from below the vehicle
    nearer = np.where((ground - ground.mean(axis=0)) @ [-way[1], way[0]] > 0, 1.2, 1.0)[:, None]
    cos, sin = math.cos(turn), math.sin(turn)
    second = (ground - way) * nearer @ np.array([[cos, sin], [-sin, cos]])  # rows turned clockwise
    first = ground * nearer
    whole, _ = cv2.estimateAffinePartial2D(first.astype(np.float32), second.astype(np.float32))
    taken_for = math.atan2(whole[1, 0], whole[0, 0])
    assert abs(math.degrees(taken_for) - turn_deg) > 0.3
    assert math.degrees(_turn_across(first, second, taken_for)) == pytest.approx(turn_deg, abs=0.1)


@pytest.mark.parametrize("velocity_use", ["inertial", "measured"])
def test_what_the_heading_told_has_gone_wrong_by_is_added_to_what_fixes_had_shown(velocity_use: str) -> None:
    tracker = Tracker(Config(track=TrackConfig(velocity_use=velocity_use)))
    fix = Fix(0, np.zeros(2), np.eye(2), 0.0, 1.0, 0.999, {"heading_offset_rad": 0.05})
    at_ns = 0
    while tracker.filter is None:
        at_ns += HALF_S_NS
        tracker.predict(at_ns, None, Telemetry(at_ns, (1.0, 0.0, 0.0, 0.0), 80.0))
        tracker.acquire(at_ns, [dataclasses.replace(fix, captured_at_ns=at_ns)], None, side_m=80.0)
    tracker.mark()
    then_ns = at_ns + HALF_S_NS
    tracker.predict(then_ns, None, Telemetry(then_ns, (1.0, 0.0, 0.0, 0.0), 80.0))
    tracker.moved(Moved(at_ns, then_ns, np.zeros(2), 0.2, 50, math.radians(-2.0)))
    faded = 0.05 * math.exp(-0.5 / 60)  # in the half second since the fix
    assert tracker.told.heading_offset_rad == pytest.approx(faded + math.radians(2.0))


def test_a_height_told_too_large_makes_the_way_as_much_too_long(
    world: toy_world.World, odometry: VisualOdometry
) -> None:
    one = seen(world, 0, (0.0, 0.0), told_m=88.0)
    moved = between(odometry, one, seen(world, HALF_S_NS, (0.0, 10.0), told_m=88.0))
    assert moved.enu_m == pytest.approx([0.0, 11.0], abs=0.15)


def test_nothing_is_said_without_two_good_pictures(world: toy_world.World, odometry: VisualOdometry) -> None:
    one, late = seen(world, 0, (0.0, 0.0)), seen(world, 10 * HALF_S_NS, (0.0, 5.0))
    assert odometry.step(*one) is None
    assert odometry.step(None, one[1]) is None
    assert odometry.step(one[0], None) is None
    assert odometry.step(*late) is None  # the last one is too old
    elsewhere = seen(world, 11 * HALF_S_NS, (0.0, -170.0))  # nothing of the ground before is in it
    assert odometry.step(*elsewhere) is None
    grey = Frame(12 * HALF_S_NS, np.full_like(one[0].image_bgr, 90))
    assert odometry.step(grey, dataclasses.replace(one[1], captured_at_ns=grey.captured_at_ns)) is None
    assert odometry.last_ns == 11 * HALF_S_NS  # a picture of nothing is passed over


def test_a_picture_passed_over_leaves_the_way_whole(world: toy_world.World, odometry: VisualOdometry) -> None:
    one, other = seen(world, 0, (0.0, 0.0)), seen(world, 2 * HALF_S_NS, (7.0, 0.0))
    odometry.step(*one)
    dark = Frame(HALF_S_NS, np.zeros_like(one[0].image_bgr))
    assert odometry.step(dark, one[1]) is None
    moved = odometry.step(*other)
    assert moved is not None
    assert (moved.from_ns, moved.enu_m) == (0, pytest.approx([7.0, 0.0], abs=0.12))


def test_other_ground_moving_through_the_picture_does_not_carry_it_along(
    world: toy_world.World, odometry: VisualOdometry
) -> None:
    """A large vehicle drives through a fifth of the view."""
    one, other = seen(world, 0, (0.0, 0.0)), seen(world, HALF_S_NS, (3.0, 0.0))
    paint = np.random.default_rng(1).integers(0, 255, (120, 140, 3), dtype=np.uint8)
    for picture, col in ((one[0].image_bgr, 100), (other[0].image_bgr, 130)):
        picture[80:200, col : col + 140] = cv2.GaussianBlur(paint, (0, 0), 2)
    assert between(odometry, one, other).enu_m == pytest.approx([3.0, 0.0], abs=0.15)


# ---- in the filter


def told_way(k: int, way_m: np.ndarray, sigma_m: float = 0.05) -> Moved:
    return Moved((k - 1) * HALF_S_NS, k * HALF_S_NS, way_m, sigma_m, 50)


@pytest.mark.parametrize("with_odometry", [False, True])
def test_odometry_holds_the_place_while_the_lean_is_unknown(with_odometry: bool) -> None:
    """At rest 30 m up, no fix for 20 s, under an attitude that leans by half a degree: gravity says 0.086 m/s2."""
    lean = np.array([math.radians(0.5), 0.0])
    belief = InertialFilter(0, 30.0 * lean, np.eye(2) * 0.25, np.zeros(2), TrackConfig(), 30.0)
    for k in range(1, 41):
        belief.predict(k * HALF_S_NS, G_MPS2 * lean * 0.5, 0.03, Leaned(np.zeros(2)))
        if with_odometry:
            belief.update_moved(told_way(k, np.zeros(2)))
        belief.mark()
    drifted = float(np.linalg.norm(belief.state[:2]))
    assert drifted < 0.6 if with_odometry else drifted > 10.0
    if with_odometry:
        assert belief.state[4] == pytest.approx(lean[0], abs=math.radians(0.1))
        assert np.linalg.norm(belief.state[:2]) < 4 * belief.position_sigma_m


def test_the_filter_finds_by_what_share_the_way_is_too_long() -> None:
    rng = np.random.default_rng(3)
    track = TrackConfig(fix_bias_m=0.3)
    belief = InertialFilter(0, np.zeros(2), np.eye(2), np.array([8.0, 0.0]), track, 100.0)
    for k in range(1, 60):
        at = np.array([4.0 * k, 0.0])
        belief.predict(k * HALF_S_NS, np.zeros(2), 0.03, Leaned(np.zeros(2)))
        belief.update_moved(told_way(k, np.array([4.0 * 1.05, 0.0])))
        belief.update_position(at + rng.normal(0, 0.3, 2), np.eye(2) * 0.1)
        belief.mark()
    assert belief.state[2] == pytest.approx(8.0, abs=0.15)
    assert belief.state[12] == pytest.approx(0.05, abs=0.025)


def test_a_way_from_another_frame_or_out_of_reach_is_not_taken_in() -> None:
    belief = InertialFilter(0, np.zeros(2), np.eye(2), np.zeros(2), TrackConfig(), 100.0)
    belief.predict(HALF_S_NS, np.zeros(2), 0.03, Leaned(np.zeros(2)))
    before = belief.state.copy()
    belief.update_moved(told_way(2, np.zeros(2)))  # ends at another frame
    belief.update_moved(Moved(1, HALF_S_NS, np.ones(2), 0.05, 50))  # begins at another
    belief.update_moved(told_way(1, np.array([60.0, 0.0])))  # nothing flies so far in half a second
    np.testing.assert_array_equal(belief.state, before)


def test_what_fixes_showed_of_height_and_heading_corrects_the_way() -> None:
    tracker = Tracker(Config())
    tracker.told.height_scale = 0.9
    tracker.told.heading_offset_rad = math.radians(90)  # the nose points 90 degrees further right
    moved = tracker.true_motion(told_way(1, np.array([0.0, 10.0])))
    assert moved.enu_m == pytest.approx([9.0, 0.0], abs=1e-9)


# ---- in the localizer


def localizer(region: RegionMap, engine: toy_world.HandEngine, odometry: bool) -> Localizer:
    from onboard.engine import SHIPPED_MODEL

    config = Config(odometry=OdometryConfig(enabled=odometry))
    confidence = read_confidence(SHIPPED_MODEL)
    return Localizer(engine, region, toy_world.toy_camera(), BODY_FROM_CAMERA_DOWN, confidence, config)


def flown(brain: Localizer, world: toy_world.World, fixes: int, blind: int) -> float:
    """Metres by which it is off after `fixes` frames on the map and `blind` over ground that no map shows.

    8 m/s to the east, and where the map ends to the north; the vehicle tells no velocity.
    """
    start = np.array([-60.0, 0.0])
    for k in range(fixes + blind):
        at = start + 4.0 * np.array([min(k, fixes), max(k - fixes, 0)])
        frame, said = seen(world, k * HALF_S_NS, (at[0], at[1]))
        if k == fixes:  # from here on nothing is found on the map
            brain.locator.locate = lambda *_: _rejected()  # type: ignore[method-assign]
        brain.step(frame, said, k * HALF_S_NS)
        if k == fixes - 1:
            assert brain.tracker.state is State.TRACKING
    assert brain.tracker.filter is not None
    return float(np.linalg.norm(brain.tracker.filter.state[:2] - at))


def _rejected() -> object:
    from onboard.records import Reason, Rejected

    return Rejected(0, Reason.NO_CANDIDATE)


@pytest.mark.parametrize("odometry", [True, False])
def test_without_a_velocity_told_the_track_goes_on_by_what_the_pictures_say(
    world: toy_world.World, hand_map: RegionMap, hand_engine: toy_world.HandEngine, odometry: bool
) -> None:
    off_m = flown(localizer(hand_map, hand_engine, odometry), world, fixes=8, blind=14)
    assert off_m < 3.0 if odometry else off_m > 30.0


def test_a_velocity_that_is_believed_makes_odometry_needless() -> None:
    assert not Tracker(Config()).wants_odometry(velocity_known=True)
    assert Tracker(Config()).wants_odometry(velocity_known=False)
    live = Tracker(Config(track=TrackConfig(velocity_use="inertial")))
    assert live.wants_odometry(velocity_known=True)
    deaf = Tracker(Config(track=TrackConfig(velocity_use="none")))  # what is measured would not be used
    assert not deaf.wants_odometry(velocity_known=False)


def test_a_hovering_look_alike_is_one_vote_however_often_it_comes() -> None:
    """Two like it, of 97 % each, would be a thousand to one if they were two."""

    def first_accepted(metres_a_frame: float) -> int | None:
        tracker = Tracker(Config())
        for k in range(40):
            at = np.array([metres_a_frame * k, 0.0])
            fix = Fix(k * HALF_S_NS, at, np.eye(2), 0.0, 1.0, 0.97, {"heading_offset_rad": 0.0})
            velocity = np.array([2 * metres_a_frame, 0.0])
            if tracker.acquire(k * HALF_S_NS, [fix], velocity, side_m=80.0) is None:
                return k
        return None

    assert first_accepted(0.0) is None
    moving = first_accepted(8.0)
    assert moving is not None
    assert moving >= 3
