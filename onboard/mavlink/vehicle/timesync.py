"""What the vehicle's clock says at an instant of ours, found by TIMESYNC: both ends of it.

An exchange is three stamps: sent and received by our clock, `tc1` by the vehicle's. The vehicle answered somewhere
between the two of ours, so each exchange bounds the offset (vehicle minus ours) from both sides:

    tc1 - received <= offset <= tc1 - sent

Delay on the way out loosens the upper bound, delay on the way back the lower one. The offsets and skews that satisfy
every exchange of the last minutes form a small convex polygon, and its centroid is the answer: with exponential
delays, alike both ways, all of it is equally likely. A spike of delay, also one on one way only, is a loose bound and
cuts nothing off. What cannot be seen is a difference between the least delays of the two ways: half of it is the error.

An exchange that contradicts the line by more than stamps may err is no delay: one of the clocks has jumped. Then
nothing is synced until the line is confirmed or made anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from pymavlink.dialects.v20 import ardupilotmega as mav

S = 1_000_000_000

WINDOW_NS = 180 * S
SYNCED_ANSWERS = 10
SETTLED_ANSWERS = 300
LOST_AFTER_NS = 5 * S
_UNSETTLED_PERIOD_NS = S // 10
_SETTLED_PERIOD_NS = S // 5
_FORGET_REQUEST_NS = 5 * S
_MOST_PENDING = 64
_REFIT_NS = 30 * S  # how often what is older than the window is forgotten
_MOST_ANSWERS = 2000  # of the window: more than are ever asked for
_MOST_SKEW = 300_000.0  # ns per s: crystals are better
_STAMP_ERROR_NS = 50_000  # how well either end takes its stamps
_SLACK_NS = 3_000_000  # by which an exchange may miss the line
_SLACK_PER_NS = 300e-6  # and that much for each nanosecond since the last one
_JUMP_CONFIRMED = 3  # exchanges in a row that miss the line
_RESTART_NS = S  # a boot clock that goes back by more is another boot


_Corner = tuple[float, float]


class _Exchange(NamedTuple):
    """Our time in the middle, and the bounds of the offset, in ns."""

    middle_ns: int
    lower_ns: int
    upper_ns: int


class _Line(NamedTuple):
    """offset(ours) = offset_ns + skew * (ours - at_ns), vehicle minus ours."""

    at_ns: int
    offset_ns: int
    skew: float

    def offset_at(self, ours_ns: int) -> int:
        return self.offset_ns + round(self.skew * (ours_ns - self.at_ns))


class _Lines(NamedTuple):
    """Lines that fit: a convex polygon of (ns beyond `offset_ns` at `at_ns`, skew in ns per s)."""

    at_ns: int
    offset_ns: int
    corners: list[_Corner]

    def narrowed(self, one: _Exchange) -> _Lines | None:
        """Those that fit one more exchange; None where none does."""
        t_s = (one.middle_ns - self.at_ns) / S
        corners = _cut(self.corners, 1.0, t_s, one.upper_ns - self.offset_ns + _STAMP_ERROR_NS)
        corners = _cut(corners, -1.0, -t_s, self.offset_ns - one.lower_ns + _STAMP_ERROR_NS)
        return _Lines(self.at_ns, self.offset_ns, corners) if corners else None

    def middle(self) -> _Line:
        offset, skew = _centroid(self.corners)
        return _Line(self.at_ns, self.offset_ns + round(offset), skew / S)


class TimeSync:
    """The client and the server of TIMESYNC, for one vehicle. No thread: it is told the time.

    The vehicle's clock is nanoseconds since its boot: TIMESYNC.tc1, time_boot_ms * 1e6, time_usec * 1e3. Ours is the
    `now_ns` of the caller, which should be steady; where it jumps back everything is found anew.
    `restarted` counts the new boot clocks seen.
    """

    def __init__(self) -> None:
        self.restarted = 0
        self._now_ns = 0
        self._asked_ns: int | None = None
        self._pending: dict[int, int] = {}  # ts1 of a request: when it was sent
        self._round_trips_ns: deque[int] = deque(maxlen=31)
        self._forget()

    def request(self, now_ns: int) -> mav.MAVLink_timesync_message | None:
        """The next request when it is due: ten a second until the sync has settled, then five."""
        self._pass(now_ns)
        period_ns = _SETTLED_PERIOD_NS if self.settled and not self._missed else _UNSETTLED_PERIOD_NS
        if self._asked_ns is not None and now_ns - self._asked_ns < period_ns:
            return None
        self._asked_ns = now_ns
        self._pending[now_ns] = now_ns
        if len(self._pending) > _MOST_PENDING:
            del self._pending[next(iter(self._pending))]
        return mav.MAVLink_timesync_message(tc1=0, ts1=now_ns)

    def answer(self, message: mav.MAVLink_message, now_ns: int) -> mav.MAVLink_timesync_message | None:
        """The reply to a request of the other end, by our clock; None for anything else, such as our own echo."""
        self._pass(now_ns)
        if message.get_type() != "TIMESYNC" or message.tc1 != 0 or message.ts1 in self._pending:
            return None
        return mav.MAVLink_timesync_message(tc1=now_ns, ts1=message.ts1)

    def heard(self, message: mav.MAVLink_message, now_ns: int) -> None:
        """Take the answer to one of our requests in; a second one to the same, and those of others, are ignored."""
        self._pass(now_ns)
        if message.get_type() != "TIMESYNC" or message.tc1 <= 0:
            return
        sent_ns = self._pending.pop(message.ts1, None)
        if sent_ns is None or not 0 <= now_ns - sent_ns <= _FORGET_REQUEST_NS:
            return
        self._round_trips_ns.append(now_ns - sent_ns)
        self._take(_Exchange((sent_ns + now_ns) // 2, message.tc1 - now_ns, message.tc1 - sent_ns), message.tc1)

    def vehicle_restarted(self) -> None:
        """Somebody knows by other means that the boot clock is a new one."""
        self.restarted += 1
        self._forget()

    @property
    def synced(self) -> bool:
        """Whether times can be carried over: enough answers, the last one not long ago, and no contradiction."""
        return (
            self._answers >= SYNCED_ANSWERS and not self._missed and self._now_ns - self._answered_ns <= LOST_AFTER_NS
        )

    @property
    def settled(self) -> bool:
        """Synced by enough answers to be within 2 ms on any link that is alike both ways."""
        return self.synced and self._answers >= SETTLED_ANSWERS

    @property
    def offset_ns(self) -> int | None:
        """Vehicle minus ours, now."""
        return self._line.offset_at(self._now_ns) if self._line is not None and self.synced else None

    @property
    def skew_ppm(self) -> float | None:
        """How much faster the vehicle's clock runs."""
        return self._line.skew * 1e6 if self._line is not None and self.synced else None

    @property
    def round_trip_ms(self) -> float | None:
        """The median of the last answers."""
        return median(self._round_trips_ns) / 1e6 if self._round_trips_ns else None

    @property
    def round_trips_ms(self) -> tuple[float, ...]:
        """Of the last answers, oldest first."""
        return tuple(one / 1e6 for one in self._round_trips_ns)

    def age_ns(self, now_ns: int) -> int | None:
        """Since the last answer; None before the first."""
        return now_ns - self._answered_ns if self._answers else None

    def vehicle_from_ours_ns(self, ours_ns: int) -> int | None:
        """The vehicle's time at an instant of ours; None while not synced."""
        if self._line is None or not self.synced:
            return None
        return ours_ns + self._line.offset_at(ours_ns)

    def ours_from_vehicle_ns(self, vehicle_ns: int) -> int | None:
        """Our time at an instant of the vehicle's; None while not synced."""
        line = self._line
        if line is None or not self.synced:
            return None
        since_ns = vehicle_ns - line.offset_ns - line.at_ns  # in the vehicle's seconds
        return line.at_ns + since_ns - round(since_ns * line.skew / (1 + line.skew))

    def _pass(self, now_ns: int) -> None:
        """Our own time goes on. Where it goes back, what was measured by it is worth nothing."""
        if now_ns < self._now_ns:
            self._pending.clear()
            self._asked_ns = None
            self._forget()
        self._now_ns = now_ns

    def _forget(self) -> None:
        """As if nothing had been heard yet."""
        self._exchanges: deque[_Exchange] = deque(maxlen=_MOST_ANSWERS)
        self._missed: list[_Exchange] = []  # the latest ones, where they contradict the line
        self._answers = 0
        self._answered_ns = 0
        self._vehicle_ns = 0  # the latest tc1
        self._lines: _Lines | None = None
        self._line: _Line | None = None  # the middle of them

    def _take(self, exchange: _Exchange, tc1: int) -> None:
        behind_ns = self._miss_ns(exchange)
        if self._exchanges and abs(behind_ns) > self._slack_ns(exchange):
            gone_back = tc1 < self._vehicle_ns - _RESTART_NS
            self._missed.append(exchange)
            if not gone_back and len(self._missed) < _JUMP_CONFIRMED:
                return
            again = [exchange] if gone_back else self._missed
            self.restarted += behind_ns > _RESTART_NS
            self._forget()
            self._exchanges.extend(again)
            self._answers = len(again) - 1
        else:
            self._missed.clear()
            self._exchanges.append(exchange)
        self._answers += 1
        self._answered_ns, self._vehicle_ns = self._now_ns, max(self._vehicle_ns, tc1)
        self._lines = self._narrowed(exchange)
        self._line = self._lines.middle()

    def _narrowed(self, exchange: _Exchange) -> _Lines:
        """The lines that fit the newest exchange too; found anew where there are none, and now and then anyhow."""
        if self._lines is not None and exchange.middle_ns - self._lines.at_ns < _REFIT_NS:
            narrowed = self._lines.narrowed(exchange)
            if narrowed is not None:
                return narrowed
        while self._exchanges[0].middle_ns < exchange.middle_ns - WINDOW_NS:
            self._exchanges.popleft()
        return _fit(self._exchanges)

    def _miss_ns(self, exchange: _Exchange) -> int:
        """By how much the line is outside of the bounds: positive where the vehicle's clock is behind the line."""
        if self._line is None:
            return 0
        offset_ns = self._line.offset_at(exchange.middle_ns)
        return max(0, offset_ns - exchange.upper_ns) + min(0, offset_ns - exchange.lower_ns)

    def _slack_ns(self, exchange: _Exchange) -> float:
        return _SLACK_NS + _SLACK_PER_NS * abs(exchange.middle_ns - self._exchanges[-1].middle_ns)


def _fit(exchanges: Sequence[_Exchange]) -> _Lines:
    """The lines that fit the exchanges, from the newest back to where no line fits any more."""
    newest = exchanges[-1]
    half = (newest.upper_ns - newest.lower_ns) / 2 + _STAMP_ERROR_NS
    box = [(-half, -_MOST_SKEW), (half, -_MOST_SKEW), (half, _MOST_SKEW), (-half, _MOST_SKEW)]
    lines = _Lines(newest.middle_ns, (newest.lower_ns + newest.upper_ns) // 2, box)
    misfits = 0
    for one in reversed(exchanges):
        narrowed = lines.narrowed(one)
        misfits = 0 if narrowed else misfits + 1
        if misfits == _JUMP_CONFIRMED:
            break
        lines = narrowed or lines
    return lines


def _cut(corners: list[_Corner], a: float, b: float, most: float) -> list[_Corner]:
    """The part of a convex polygon where a x + b y <= most (Sutherland and Hodgman 1974); empty where there is none."""
    over = [a * x + b * y - most for x, y in corners]
    if not over or max(over) <= 0:
        return corners
    kept = []
    for i, (corner, now) in enumerate(zip(corners, over, strict=True)):
        (x, y), before = corners[i - 1], over[i - 1]
        if (now <= 0) != (before <= 0):
            share = before / (before - now)
            kept.append((x + share * (corner[0] - x), y + share * (corner[1] - y)))
        if now <= 0:
            kept.append(corner)
    return kept


def _centroid(corners: list[_Corner]) -> _Corner:
    """Of a convex polygon's area; of its corners where it has none."""
    x0, y0 = corners[0]
    area = x = y = 0.0
    for (ax, ay), (bx, by) in pairwise(corners[1:]):
        twice = (ax - x0) * (by - y0) - (bx - x0) * (ay - y0)
        area, x, y = area + twice, x + twice * (ax + bx - 2 * x0) / 3, y + twice * (ay + by - 2 * y0) / 3
    if abs(area) < 1e-6:
        return sum(c[0] for c in corners) / len(corners), sum(c[1] for c in corners) / len(corners)
    return x0 + x / area, y0 + y / area
