"""What waits to leave: in order, not for long, and not for a line that is down."""

from __future__ import annotations

import pytest
from toy_wire import Clock, Line, decoded, timesync

from onboard.mavlink.wire.connection import Connection


def test_numbers_run_without_gaps_over_what_left_and_the_oldest_gives_way() -> None:
    line = Line()
    connection = Connection(line, outbox=3)
    connection.send(timesync(0))
    line.room = 0
    assert all(connection.send(timesync(number)) for number in range(1, 6))
    line.room = 100
    connection.receive()
    messages = decoded(line.left)
    assert [(one.ts1, one.get_seq()) for one in messages] == [(0, 0), (3, 1), (4, 2), (5, 3)]
    assert connection.dropped == 2
    assert connection.sent == {"TIMESYNC": 4}


def test_what_waited_too_long_is_dropped_not_sent() -> None:
    line, clock = Line(), Clock()
    line.room = 0
    connection = Connection(line, clock_s=clock)
    connection.send(timesync(1))
    clock.now_s += 0.9
    connection.send(timesync(2))
    clock.now_s += 0.2
    line.room = 100
    connection.receive()
    assert [one.ts1 for one in decoded(line.left)] == [2]
    assert connection.dropped == 1


def test_nothing_waits_for_a_line_that_is_down() -> None:
    line = Line()
    connection = Connection(line)
    line.room = 0
    connection.send(timesync(1))
    line.ready = False
    assert not connection.send(timesync(2))
    line.ready, line.room = True, 100
    connection.receive()
    assert line.left == []
    assert connection.dropped == 1


def test_a_message_that_cannot_be_packed_is_the_senders_fault_at_once() -> None:
    line = Line()
    line.room = 0
    connection = Connection(line)
    connection.send(timesync(1))
    with pytest.raises(Exception, match="required argument is not an integer"):
        connection.send(timesync("two"))  # type: ignore[arg-type]
    line.room = 1
    assert connection.receive() == []
