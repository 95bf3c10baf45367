"""The link: what is sent and what is withheld, what counts as a jump, and whose clock the stamps are in."""

from __future__ import annotations

import math

import numpy as np
import pytest
from toy_link import FLAT_NORTH_M, LATITUDE, LONGITUDE, START_NS, Wire, estimate, frame, telemetry, wired

from onboard.errors import LinkError
from onboard.mavlink import MavlinkLink, Withheld, profile_named
from onboard.mavlink.peer.received import decode
from onboard.mavlink.tell.place import Home
from onboard.mavlink.wire.sender import PacedSender


def test_a_stale_estimate_is_never_repeated() -> None:
    wire, link = wired()
    assert link.send(estimate(), telemetry())
    assert not link.send(estimate(), telemetry())
    assert not link.send(estimate(valid_at_ns=START_NS - 1), telemetry())
    assert link.send(estimate(valid_at_ns=START_NS + 1), telemetry())
    assert link.withheld == {Withheld.STALE: 2}
    assert link.sent == {"SET_GPS_GLOBAL_ORIGIN": 1, "ODOMETRY": 2}
    assert [m.get_type() for m in wire.messages()] == ["SET_GPS_GLOBAL_ORIGIN", "ODOMETRY", "ODOMETRY"]


@pytest.mark.parametrize(
    "broken", [{"height_above_ground_m": math.nan}, {"position_enu_m": np.array([math.nan, 1.0])}], ids=["z", "xy"]
)
def test_what_the_firmware_drops_without_a_word_is_withheld_with_one(broken: dict) -> None:
    wire, link = wired()
    assert not link.send(estimate(**broken), telemetry())
    assert link.withheld == {Withheld.NOT_FINITE: 1}
    assert len(wire.packets) == 1
    assert link.send(estimate(), telemetry())  # the same instant, now whole, is not stale


def test_numbers_run_without_gaps_and_a_message_that_found_no_room_takes_none() -> None:
    wire, link = wired()
    for k in range(300):
        wire.open = k != 7
        assert link.send(estimate(valid_at_ns=START_NS + k), telemetry()) == (k != 7)
    assert link.withheld == {Withheld.NO_ROOM: 1}
    assert [m.get_seq() for m in wire.messages()] == [k % 256 for k in range(300)]


def test_the_same_estimates_give_the_same_bytes() -> None:
    def sent() -> list[bytes]:
        wire, link = wired()
        for k in range(5):
            link.send(estimate(valid_at_ns=START_NS + k), telemetry())
            link.heartbeat(START_NS + k)
        return wire.packets

    assert sent() == sent()


def test_the_reset_counter_grows_only_when_the_position_jumped_on_purpose() -> None:
    wire, link = wired()
    for k, jumped in enumerate([False, False, True, False, True]):
        link.send(estimate(valid_at_ns=START_NS + k), telemetry(), reset=jumped)
    wire.open = False
    assert not link.send(estimate(valid_at_ns=START_NS + 8), telemetry(), reset=True)
    wire.open = True
    link.send(estimate(valid_at_ns=START_NS + 9), telemetry())  # tells the jump whose message was lost
    assert [m.reset_counter for m in wire.messages()[1:]] == [0, 0, 1, 1, 2, 3]


@pytest.mark.parametrize("unknown", [(0, 0), (0, 1), (1, 1)])
def test_an_error_that_nobody_knows_is_not_told_as_none(unknown: tuple[int, int]) -> None:
    covariance = estimate().covariance.copy()
    covariance[unknown] = math.nan
    _, link = wired()
    assert not link.send(estimate(covariance=covariance), telemetry())
    assert link.withheld == {Withheld.NOT_FINITE: 1}


def test_what_is_told_first_after_the_position_was_lost_is_a_jump_on_purpose() -> None:
    wire, link = wired()

    def tick(number: int) -> None:
        link.send(estimate(valid_at_ns=START_NS + number), telemetry())

    link.lose()  # nothing was told yet: the first place is no jump
    tick(0)
    link.lose()
    link.lose()
    tick(1)
    tick(2)
    wire.open = False
    link.lose()
    tick(3)
    wire.open = True
    tick(4)
    assert [m.reset_counter for m in wire.messages()[1:]] == [0, 1, 1, 2]


def test_the_heartbeat_goes_once_a_second() -> None:
    wire, link = wired()
    beats = [link.heartbeat(START_NS + k * 250_000_000) for k in range(9)]
    assert beats == [True, False, False, False, True, False, False, False, True]
    assert link.sent["HEARTBEAT"] == 3
    assert {(m.get_srcSystem(), m.get_srcComponent()) for m in wire.messages()} == {(7, 197)}


def test_the_vehicles_own_origin_is_used_and_not_sent_back() -> None:
    wire = Wire()
    link = MavlinkLink(PacedSender(wire, 1, 197))
    link.use_origin(Home.at(LATITUDE + 0.001, LONGITUDE, 12.0), frame())
    assert wire.packets == []
    assert link.send(estimate(), telemetry())
    assert wire.messages()[0].x == pytest.approx(FLAT_NORTH_M - 111.317, abs=0.01)


def test_an_estimate_without_an_origin_is_an_error() -> None:
    with pytest.raises(LinkError, match="set_origin"):
        MavlinkLink(PacedSender(Wire(), 1, 197)).send(estimate(), telemetry())


# --- whose clock the stamps are in


class VehicleClock:
    """From our time to a vehicle's that was switched on `boot_ns`; None while nobody knows it."""

    def __init__(self, boot_ns: int | None) -> None:
        self.boot_ns = boot_ns

    def __call__(self, ours_ns: int) -> int | None:
        return None if self.boot_ns is None else ours_ns - self.boot_ns


TICK_NS = 100_000_000


def test_local_messages_are_stamped_in_the_vehicles_clock_and_only_while_it_is_known() -> None:
    clock = VehicleClock(None)
    wire, link = wired(stamp=clock)
    assert not link.send(estimate(), telemetry())
    assert link.withheld == {Withheld.NO_SYNC: 1}
    clock.boot_ns = START_NS - 75_000_000_000
    assert link.send(estimate(), telemetry())
    assert wire.messages()[-1].time_usec == 75_000_000


@pytest.mark.parametrize(
    ("name", "time_usec"),
    [
        ("ardupilot-odometry", 75_000_000),
        ("ardupilot-vision", 75_000_000),
        ("ardupilot-gps-input", START_NS // 1000),
        ("px4-odometry", START_NS // 1000),
        ("px4-global-position", START_NS // 1000),
    ],
)
def test_each_profile_has_its_clock_and_all_wait_for_synchronization(name: str, time_usec: int) -> None:
    clock = VehicleClock(START_NS - 75_000_000_000)
    wire, link = wired(profile=profile_named(name), stamp=clock)
    assert link.send(estimate(), telemetry())
    assert decode(wire.messages()[-1], link.origin).time_usec == time_usec
    clock.boot_ns = None
    assert not link.send(estimate(valid_at_ns=START_NS + TICK_NS), telemetry())
    assert link.withheld == {Withheld.NO_SYNC: 1}


def test_stamps_never_go_back_a_little_and_begin_anew_after_a_restart() -> None:
    clock = VehicleClock(START_NS - 75_000_000_000)
    wire, link = wired(stamp=clock)

    def tick(number: int) -> bool:
        return link.send(estimate(valid_at_ns=START_NS + number * TICK_NS), telemetry())

    assert tick(0)
    clock.boot_ns += 250_000_000  # set anew: a quarter of a second back
    assert [tick(number) for number in (1, 2, 3)] == [False, False, True]
    assert link.withheld == {Withheld.STALE: 2}
    clock.boot_ns = START_NS + 2 * TICK_NS  # it restarted
    assert tick(4)
    assert [m.time_usec for m in wire.messages()[1:]] == [75_000_000, 75_050_000, 200_000]


def test_nothing_is_told_of_the_time_before_the_vehicle_was_switched_on() -> None:
    _, link = wired(stamp=VehicleClock(START_NS + 1))
    assert not link.send(estimate(), telemetry())
    assert link.withheld == {Withheld.STALE: 1}


def test_a_reset_is_a_command_in_the_vehicles_time_and_needs_it() -> None:
    wire, link = wired(stamp=VehicleClock(START_NS - 75_000_000_000), target_system=9)
    assert link.reset(estimate(), START_NS + 150_000_000)
    command = wire.messages()[-1]
    assert (command.target_system, command.target_component, command.command) == (9, 1, 43003)
    assert (command.param1, command.param2) == pytest.approx((75.0, 0.15))
    _, blind = wired()
    assert not blind.reset(estimate(), START_NS)
    assert blind.withheld == {Withheld.NO_SYNC: 1}
    assert not link.reset(estimate(position_enu_m=np.array([math.nan, 0.0])), START_NS)
    wire.open = False
    assert not link.reset(estimate(), START_NS)
    assert link.withheld == {Withheld.NOT_FINITE: 1, Withheld.NO_ROOM: 1}
