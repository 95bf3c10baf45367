"""TIMESYNC: the vehicle's clock is known to 2 ms, whatever the link does, and not known when it is not."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.mavlink.vehicle.timesync import TimeSync

MS, S = 1_000_000, 1_000_000_000
START_NS = 1_760_000_000 * S
Delays = Callable[[random.Random], tuple[float, float]]


@dataclass
class Peer:
    """A vehicle's clock at the end of a bad line. `delays` gives the milliseconds out and back of one exchange."""

    skew_ppm: float = 200.0
    seed: int = 0
    drop: float = 0.05
    double: float = 0.05
    tick_ns: int = 2 * MS
    delays: Delays = lambda luck: (luck.uniform(1, 15), luck.uniform(1, 15))
    boot_ns: int = START_NS - 1234 * S
    silent: bool = False
    now_ns: int = START_NS
    step_ns: int = 0  # by which our own clock has been put forward
    errors_ms: list[float] = field(default_factory=list)
    requests: int = 0
    answers: list[tuple[int, mav.MAVLink_message]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.luck = random.Random(self.seed)
        self.sync = TimeSync()

    def shows_ns(self, now_ns: int) -> int:
        return int((now_ns - self.boot_ns) * (1 + self.skew_ppm * 1e-6))

    def run(self, seconds: float) -> Peer:
        end_ns = self.now_ns + round(seconds * S)
        while self.now_ns < end_ns:
            self._tick()
            self.now_ns += self.tick_ns
        return self

    def _tick(self) -> None:
        ours_ns = self.now_ns + self.step_ns
        arrived = sorted((one for one in self.answers if one[0] <= self.now_ns), key=lambda one: one[0])
        self.answers = [one for one in self.answers if one[0] > self.now_ns]
        for _, message in arrived:
            self.sync.heard(message, ours_ns)
        request = self.sync.request(ours_ns)
        if request is not None:
            self.requests += 1
            if not self.silent and self.luck.random() >= self.drop:
                self._reply(request)
        if self.sync.settled:
            told_ns = self.sync.vehicle_from_ours_ns(ours_ns)
            assert told_ns is not None
            self.errors_ms.append((told_ns - self.shows_ns(self.now_ns)) / MS)

    def _reply(self, request: mav.MAVLink_message) -> None:
        out, back = (round(ms * MS) for ms in self.delays(self.luck))
        reply = mav.MAVLink_timesync_message(self.shows_ns(self.now_ns + out), request.ts1)
        self.answers.append((self.now_ns + out + back, reply))
        if self.luck.random() < self.double:
            self.answers.append((self.now_ns + out + back + self.luck.randrange(400 * MS), reply))


def spiky(luck: random.Random) -> tuple[float, float]:
    out, back = luck.uniform(1, 15), luck.uniform(1, 15)
    return (out + luck.uniform(0, 300) * (luck.random() < 0.05), back + luck.uniform(0, 300) * (luck.random() < 0.1))


def test_thirty_minutes_under_skew_and_jitter_stay_within_two_milliseconds() -> None:
    peer = Peer(delays=spiky).run(1800)
    assert len(peer.errors_ms) > 0.95 * 1800 * S / peer.tick_ns
    assert max(map(abs, peer.errors_ms)) < 2.0
    assert peer.sync.skew_ppm == pytest.approx(200, abs=5)
    assert peer.sync.restarted == 0


@pytest.mark.parametrize("skew_ppm", [-200.0, 0.0, 200.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_few_minutes_settle_for_any_skew(skew_ppm: float, seed: int) -> None:
    peer = Peer(skew_ppm=skew_ppm, seed=seed, delays=spiky).run(120)
    assert peer.sync.settled
    assert max(map(abs, peer.errors_ms)) < 2.0


def test_congestion_on_one_way_does_not_pull_the_offset() -> None:
    peer = Peer().run(60)
    peer.errors_ms.clear()
    peer.delays = lambda luck: (luck.uniform(1, 15), luck.uniform(80, 200))
    peer.run(20)
    assert peer.errors_ms
    assert max(map(abs, peer.errors_ms)) < 2.0


def test_both_ways_of_carrying_a_time_are_each_others_inverse() -> None:
    peer = Peer().run(30)
    for back_s in (0, 1, 3600):
        ours_ns = peer.now_ns - back_s * S
        vehicle_ns = peer.sync.vehicle_from_ours_ns(ours_ns)
        assert vehicle_ns is not None
        assert peer.sync.ours_from_vehicle_ns(vehicle_ns) == pytest.approx(ours_ns, abs=2)


def test_it_asks_often_until_it_has_settled_and_seldom_after() -> None:
    peer = Peer(drop=0.0, double=0.0).run(5)
    assert peer.requests == pytest.approx(50, abs=2)
    peer.run(35)
    before = peer.requests
    peer.run(10)
    assert peer.requests - before == pytest.approx(50, abs=1)


def test_nothing_is_told_before_enough_answers_nor_five_seconds_after_the_last() -> None:
    peer = Peer(silent=True).run(3)
    assert not peer.sync.synced
    assert peer.sync.vehicle_from_ours_ns(peer.now_ns) is None
    assert peer.sync.offset_ns is None
    peer.silent = False
    peer.run(10)
    assert peer.sync.synced
    peer.silent = True
    peer.run(4)
    assert peer.sync.synced
    peer.run(1.5)
    assert not peer.sync.synced
    assert peer.sync.ours_from_vehicle_ns(10 * S) is None


def test_a_new_boot_clock_is_seen_at_its_first_answer_and_counted_once() -> None:
    peer = Peer().run(50)
    peer.boot_ns = peer.now_ns - S // 2
    peer.answers.clear()
    peer.run(1)
    assert peer.sync.restarted == 1
    peer.errors_ms.clear()
    peer.run(50)
    assert peer.sync.restarted == 1
    assert max(map(abs, peer.errors_ms)) < 2.0


def test_a_restart_during_a_long_silence_is_seen_though_the_clock_did_not_go_back() -> None:
    peer = Peer(boot_ns=START_NS - S).run(10)
    peer.silent = True
    peer.run(60)
    peer.boot_ns, peer.silent = peer.now_ns - 40 * S, False
    peer.run(50)
    assert peer.sync.restarted == 1
    assert max(map(abs, peer.errors_ms)) < 2.0


@pytest.mark.parametrize("step_ns", [-40 * MS, 40 * MS, -3600 * S])
def test_a_step_of_our_own_clock_is_found_and_no_time_is_told_until_it_is(step_ns: int) -> None:
    peer = Peer().run(50)
    peer.step_ns = step_ns
    peer.errors_ms.clear()
    peer.run(3)
    wrong = [error for error in peer.errors_ms if abs(error) > 2.0]
    assert len(wrong) * peer.tick_ns < 0.5 * S  # the next exchange, a fifth of a second away, contradicts
    peer.run(50)
    assert abs(peer.errors_ms[-1]) < 2.0
    assert peer.sync.restarted == 0


def test_repeated_and_foreign_answers_count_for_nothing() -> None:
    sync = TimeSync()
    request = sync.request(START_NS)
    assert request is not None
    for ts1 in (START_NS - 5, 0, START_NS + 5):
        sync.heard(mav.MAVLink_timesync_message(77 * S, ts1), START_NS + 10 * MS)
    assert sync.age_ns(START_NS + 10 * MS) is None
    sync.heard(mav.MAVLink_timesync_message(77 * S, request.ts1), START_NS + 10 * MS)
    sync.heard(mav.MAVLink_timesync_message(99 * S, request.ts1), START_NS + 400 * MS)
    assert sync.age_ns(START_NS + 10 * MS) == 0
    assert sync.round_trip_ms == 10.0


def test_an_answer_that_overtook_another_is_matched_by_what_it_answers() -> None:
    sync = TimeSync()
    sent = [sync.request(START_NS + i * 100 * MS) for i in range(12)]
    for i, request in reversed(list(enumerate(sent))):
        assert request is not None
        sync.heard(mav.MAVLink_timesync_message(50 * S + i * 100 * MS + 2 * MS, request.ts1), START_NS + 1200 * MS)
    told_ns = sync.vehicle_from_ours_ns(START_NS + 1200 * MS)
    assert told_ns is not None
    assert abs(told_ns - 51_200 * MS) < 60 * MS  # of its round trips, 100 ms is the shortest
    assert sync.restarted == 0


def test_a_request_of_the_vehicle_is_answered_by_our_clock_and_our_echo_is_not() -> None:
    sync = TimeSync()
    reply = sync.answer(mav.MAVLink_timesync_message(0, 1234), START_NS)
    assert reply is not None
    assert (reply.tc1, reply.ts1) == (START_NS, 1234)
    assert sync.answer(mav.MAVLink_timesync_message(5, 1234), START_NS) is None
    request = sync.request(START_NS)
    assert request is not None
    assert sync.answer(request, START_NS + MS) is None
