"""Thirty minutes on a bad link, compressed in time: what leaves is never stale, and what was lost comes back.

Packets are dropped, doubled, overtaken, delayed and mixed with noise; the vehicle's clock runs 200 ppm fast, and the
vehicle restarts once in flight with a new one; the camera is blind for 3 s every few minutes and for 20 s twice.
"""

from __future__ import annotations

import itertools
import math
import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav
from scripted_air import Air, AirTransport, Clock, Weather
from scripted_vehicle import ScriptedVehicle

from onboard.config import Config
from onboard.frames import MapFrame
from onboard.mavlink.companion import Companion
from onboard.mavlink.watch.estimator import EstimatorVerdict
from onboard.mavlink.wire.connection import Connection
from onboard.records import Estimate, Reason, State, Step

S = 1_000_000_000
MINUTES = 30
TICK_NS = S // 100
BAD = Weather(drop=0.05, double=0.02, garbage=0.02, delay_ms=(1.0, 15.0))
SHORT_BLACKOUTS_S = tuple(range(100, MINUTES * 60, 170))
LONG_BLACKOUTS_S = (400, 1300)
RESTART_S, REBOOT_S = 900, 6
SETTLING_S = 60
NOISE_M = 2.0


@dataclass
class ScriptedLocalizer:
    """Steps at 2 Hz that are ready 80 to 140 ms after their frame: 15 % give no fix, and none in a blackout.

    `fixes_ns` are (ready, captured) of all that gave a fix.
    """

    vehicle: ScriptedVehicle
    map_frame: MapFrame
    start_ns: int
    fixes_ns: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(5)
        self._captured_ns = self.start_ns
        self._state = State.LOST
        self._agreed = 0

    def steps(self, now_ns: int) -> Iterator[Step]:
        """The steps that are ready by now."""
        while True:
            ready_ns = self._captured_ns + 80_000_000 + (self._captured_ns // 1000 * 7919) % 60_000_000
            if ready_ns > now_ns:
                return
            step = self._step(self._captured_ns)
            if step.estimate is not None and step.reason is None:
                self.fixes_ns.append((now_ns, step.captured_at_ns))
            self._captured_ns += S // 2
            yield step

    def blind(self, at_ns: int) -> bool:
        t_s = (at_ns - self.start_ns) / S
        short = any(begin <= t_s < begin + 3 for begin in SHORT_BLACKOUTS_S)
        return short or any(begin <= t_s < begin + 20 for begin in LONG_BLACKOUTS_S)

    def _step(self, captured_ns: int) -> Step:
        found = not self.blind(captured_ns) and self._random.random() > 0.15
        since_s = (captured_ns - self.fixes_ns[-1][1]) / S if self.fixes_ns else math.inf
        reason: Reason | None = None if found else Reason.WEAK_MATCH
        if self._state in (State.LOST, State.ACQUIRING):
            self._agreed = self._agreed + 1 if found else 0
            self._state = State.TRACKING if self._agreed >= 3 else State.ACQUIRING if self._agreed else State.LOST
            if self._state is not State.TRACKING:
                return Step(captured_ns, "", self._state, None, reason or Reason.ACQUIRING, None, None, {})
        elif found:
            self._state = State.TRACKING
        else:
            self._state = State.COASTING if since_s <= 10 else State.LOST
            self._agreed = 0
            if self._state is State.LOST:
                return Step(captured_ns, "", self._state, None, reason, None, None, {})
        return Step(captured_ns, "", self._state, self._estimate(captured_ns), reason, None, None, {})

    def _estimate(self, at_ns: int) -> Estimate:
        true = self.map_frame.enu_from_geodetic(*self.vehicle.truth_degrees(at_ns))
        noise = np.array([self._random.gauss(0, NOISE_M), self._random.gauss(0, NOISE_M)])
        north_mps, east_mps = self.vehicle.track.at((at_ns - self.start_ns) / S)[2:]
        covariance = np.diag([NOISE_M**2, NOISE_M**2, 0.2, 0.2])
        velocity = np.array([east_mps, north_mps])
        return Estimate(at_ns, true + noise, velocity, covariance, math.nan, 100.0, 0.99)


@dataclass
class Flight:
    """What half an hour left behind. Boots are (from, vehicle's clock zero) in our time; syncs (at, error in ns)."""

    vehicle: ScriptedVehicle
    localizer: ScriptedLocalizer
    companion: Companion
    transport: AirTransport
    start_ns: int
    end_ns: int
    boots: list[tuple[int, int]]
    sync_errors: list[tuple[int, int | None]]
    verdicts: list[EstimatorVerdict]
    told: list[tuple[int, mav.MAVLink_odometry_message]]

    def s(self, at_ns: int) -> float:
        return (at_ns - self.start_ns) / S

    def valid_ns(self, sent_ns: int, boot_ns: int) -> int:
        """Our time of a stamp in the clock that the vehicle had when it was sent."""
        zero_ns = self.boots[bisect_right(self.boots, (sent_ns, math.inf)) - 1][1]
        return zero_ns + round(boot_ns / (1 + self.vehicle.skew_ppm * 1e-6))

    def settled(self, at_ns: int) -> bool:
        since_s = min(self.s(at_ns) - begin for begin in (0, RESTART_S) if self.s(at_ns) >= begin)
        return since_s > SETTLING_S


def fly(minutes: float) -> Flight:
    clock = Clock()
    start_ns = clock.now_ns
    vehicle = ScriptedVehicle(start_ns - 40 * S, fastest_hz=20.0)
    vehicle.started_at_ns = start_ns  # the circle begins now, its clock began before
    up, down = Air(BAD, seed=1), Air(BAD, seed=2)
    transport = AirTransport(clock, up, down)
    map_frame = MapFrame(*vehicle.start_degrees)
    connection = Connection(transport, clock_s=lambda: clock.now_ns / S)
    companion = Companion(connection, Config(), map_frame)
    localizer = ScriptedLocalizer(vehicle, map_frame, start_ns)
    flight = Flight(vehicle, localizer, companion, transport, start_ns, 0, [(0, vehicle.boot_at_ns)], [], [], [])
    restarted = False
    for tick in range(round(minutes * 60 * S / TICK_NS)):
        now_ns = clock.now_ns = start_ns + tick * TICK_NS
        if not restarted and flight.s(now_ns) >= RESTART_S:
            restarted = True
            vehicle.restart(now_ns + REBOOT_S * S)
            flight.boots.append((vehicle.boot_at_ns, vehicle.boot_at_ns))
        for packet in up.due(now_ns):
            vehicle.hear(packet, now_ns)
        for packet in vehicle.speak(now_ns):
            down.put(packet, now_ns)
        for step in localizer.steps(now_ns):
            companion.take(step)
        companion.tick(now_ns)
        if tick % 100 == 0:
            _sample(flight, now_ns)
    flight.end_ns = clock.now_ns
    flight.told = list(_told(transport))
    return flight


def _sample(flight: Flight, now_ns: int) -> None:
    told_ns = flight.companion.vehicle.sync.vehicle_from_ours_ns(now_ns)
    error_ns = None if told_ns is None else told_ns - flight.vehicle.boot_ns(now_ns)
    flight.sync_errors.append((now_ns, error_ns))
    flight.verdicts.append(flight.companion.status(now_ns).estimator)


def _told(transport: AirTransport) -> Iterator[tuple[int, mav.MAVLink_odometry_message]]:
    reader = mav.MAVLink(None)
    for sent_ns, packet in transport.written:
        for message in reader.parse_buffer(packet) or ():
            if message.get_type() == "ODOMETRY":
                yield sent_ns, message


@pytest.fixture(scope="module")
def flight() -> Flight:
    return fly(MINUTES)


def test_every_estimate_tells_of_the_same_time_ago_in_the_vehicles_clock(flight: Flight) -> None:
    latency_ms = flight.companion.config.link.latency_ms
    assert len(flight.told) > 0.8 * MINUTES * 60 * 10
    for sent_ns, message in flight.told:
        age_ms = (sent_ns - flight.valid_ns(sent_ns, message.time_usec * 1000)) / 1e6
        assert abs(age_ms - latency_ms) < (2.0 if flight.settled(sent_ns) else 15.0), flight.s(sent_ns)


def test_no_estimate_lives_on_a_fix_older_than_the_limit(flight: Flight) -> None:
    limit_s = flight.companion.config.link.silent_after_s
    fixes = flight.localizer.fixes_ns
    for sent_ns, message in flight.told:
        known = fixes[: bisect_right(fixes, (sent_ns, math.inf))]
        valid_ns = flight.valid_ns(sent_ns, message.time_usec * 1000)
        assert known, "something was told before there was a fix"
        assert (valid_ns - known[-1][1]) / S <= limit_s + 0.002


def test_a_long_blackout_is_silent_from_the_limit_to_the_next_fix_and_a_short_one_is_bridged(flight: Flight) -> None:
    sent_s = [flight.s(sent_ns) for sent_ns, _ in flight.told]
    for begin in LONG_BLACKOUTS_S:
        assert not [t for t in sent_s if begin + 5.2 < t < begin + 21.0]
        assert [t for t in sent_s if begin + 21 < t < begin + 30]
    for begin in SHORT_BLACKOUTS_S:
        if not RESTART_S - 5 < begin < RESTART_S + 60 and not any(b - 5 <= begin < b + 40 for b in LONG_BLACKOUTS_S):
            assert len([t for t in sent_s if begin <= t < begin + 3]) >= 29


def test_quality_falls_before_the_silence_and_recovers(flight: Flight) -> None:
    begin = LONG_BLACKOUTS_S[0]
    quality = [(flight.s(sent_ns), m.quality) for sent_ns, m in flight.told]
    before = [q for t, q in quality if begin - 10 < t < begin]
    last = [q for t, q in quality if begin + 4.5 < t < begin + 5.2]
    after = [q for t, q in quality if begin + 30 < t < begin + 40]
    assert max(last) < 0.4 * max(before) <= 100
    assert min(last) > 0
    assert max(after) == max(before)


def test_a_place_found_again_is_told_as_a_jump_and_nothing_else_is(flight: Flight) -> None:
    counters = [m.reset_counter for _, m in flight.told]
    steps = [(b - a) % 256 for a, b in itertools.pairwise(counters)]
    assert sum(steps) == len(LONG_BLACKOUTS_S)
    assert max(steps) == 1


def test_the_clocks_agree_within_two_milliseconds_once_settled(flight: Flight) -> None:
    settled = [error_ns for at_ns, error_ns in flight.sync_errors if flight.settled(at_ns)]
    assert len(settled) > 20 * 60
    assert None not in settled
    assert max(abs(error_ns) for error_ns in settled if error_ns is not None) < 2_000_000


def test_sends_resume_after_the_vehicle_restarted_and_never_carry_the_old_clock(flight: Flight) -> None:
    back_s = RESTART_S + REBOOT_S
    assert not [flight.s(sent_ns) for sent_ns, _ in flight.told if RESTART_S + 4.2 < flight.s(sent_ns) < back_s]
    resumed = [flight.s(sent_ns) for sent_ns, _ in flight.told if flight.s(sent_ns) > back_s]
    assert resumed[0] < back_s + 10
    assert flight.vehicle.origin is not None
    heard = [fix for fix in flight.vehicle.fixes if flight.s(fix.heard_at_ns) > back_s]
    assert heard
    assert all(fix.message.time_usec * 1000 < fix.boot_ns for fix in heard)


def test_positions_arrive_where_the_vehicle_was(flight: Flight) -> None:
    assert flight.vehicle.origin is not None
    errors = []
    for sent_ns, message in flight.told[::7]:
        valid_ns = flight.valid_ns(sent_ns, message.time_usec * 1000)
        north, east, _, _ = flight.vehicle.track.at(flight.s(valid_ns))
        errors.append(math.hypot(message.x - north, message.y - east))
        assert message.z == pytest.approx(-100.0, abs=0.5)
    assert np.sqrt(np.mean(np.square(errors))) < 3 * NOISE_M


def test_the_companion_stays_within_its_part(flight: Flight) -> None:
    assert flight.vehicle.violations == []
    beats = np.diff(flight.vehicle.heartbeats_ns) / S
    assert np.median(beats) == pytest.approx(1.0, abs=0.05)
    assert len(flight.vehicle.texts) < 60
    used = [verdict is EstimatorVerdict.USED for verdict in flight.verdicts]
    assert np.mean(used) > 0.9


def test_the_weather_was_as_bad_as_it_is_told(flight: Flight) -> None:
    status = flight.companion.status(flight.end_ns)
    assert status.lost > 1000
    assert sum(status.refused.values()) > 500
    assert status.restarts == 1
