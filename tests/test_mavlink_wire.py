"""The line to the vehicle: packets out of bytes, who is believed, and what is counted."""

from __future__ import annotations

import fuzz_mavlink
import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav
from toy_wire import Line, decoded, heartbeat, names, packed, packer, received, timesync, udp_socket, wait_until

from onboard.errors import LinkError
from onboard.mavlink.wire.connection import Connection, Refused
from onboard.mavlink.wire.framing import LONGEST_PACKET_BYTES, Framer

# --- packets out of bytes ---------------------------------------------------------------------------------------------


def test_a_message_cut_anywhere_comes_through_whole() -> None:
    (packet,) = packed(packer(), heartbeat())
    for cut in range(1, len(packet)):
        framer = Framer()
        assert framer.feed(packet[:cut]) == []
        assert [one.data for one in framer.feed(packet[cut:])] == [packet]
        assert framer.garbage == 0


def test_noise_before_a_message_costs_no_message() -> None:
    packets = packed(packer(), *[timesync(number) for number in range(1, 20)])
    false_start = bytes([0xFD, 200, 0, 0, 7, 1, 1, 30, 0, 0])  # claims the messages that follow as its own
    framer = Framer()
    found = framer.feed(b"noise" + false_start + b"".join(packets))
    assert [one.data for one in found] == packets
    assert framer.garbage == 1


def test_a_stream_without_a_beginning_is_counted_once_and_not_kept() -> None:
    framer = Framer()
    for _ in range(50):
        assert framer.feed(b"\x00" * 100_000) == []
    assert framer.garbage == 1
    assert framer._rest == b""


def test_less_than_one_packet_is_ever_held_back() -> None:
    framer = Framer()
    for _ in range(300):
        framer.feed(bytes([0xFD, 255, 1, 0, 0, 1, 1, 30, 0, 0, 1, 2, 3]))
        assert len(framer._rest) < LONGEST_PACKET_BYTES


def test_a_changed_byte_anywhere_is_refused() -> None:
    (packet,) = packed(packer(), timesync(12345))
    for at in range(len(packet)):
        changed = bytearray(packet)
        changed[at] ^= 0x10
        connection = Connection(Line(bytes(changed) + b"\x00" * 300))
        assert connection.receive() == []
        assert connection.refused.total() >= 1


def test_version_1_is_understood_from_a_vehicle_that_has_not_switched_yet() -> None:
    connection = Connection(Line(heartbeat().pack(packer(), force_mavlink1=True)))
    assert names(connection.receive()) == ["HEARTBEAT"]


# --- who is believed --------------------------------------------------------------------------------------------------


def test_only_the_vehicles_system_is_believed() -> None:
    line = Line(*packed(packer(1), heartbeat()), *packed(packer(7), heartbeat()), *packed(packer(255, 190), timesync()))
    connection = Connection(line, vehicle_system=1)
    messages = received(connection)
    assert [(one.get_srcSystem(), one.get_srcComponent()) for one in messages] == [(1, 1)]
    assert connection.refused == {Refused.FOREIGN_SYSTEM: 2}
    assert connection.received == {"HEARTBEAT": 1}


def test_the_first_autopilot_is_locked_on_where_none_is_named() -> None:
    ground_station = packed(packer(255, 190), heartbeat(mav.MAV_AUTOPILOT_INVALID))
    line = Line(*ground_station, *packed(packer(5), timesync(), heartbeat()), *packed(packer(6), heartbeat()))
    connection = Connection(line, vehicle_system=0)
    assert connection.target_system == 0
    messages = received(connection)
    assert [(one.get_type(), one.get_srcSystem()) for one in messages] == [("HEARTBEAT", 5)]
    assert connection.target_system == 5
    assert connection.source == (5, 197)
    assert connection.refused == {Refused.FOREIGN_SYSTEM: 3}


def test_our_own_words_come_back_as_an_echo() -> None:
    line = Line()
    connection = Connection(line)
    connection.send(heartbeat(mav.MAV_AUTOPILOT_INVALID))
    line.coming = line.left
    assert connection.receive() == []
    assert connection.refused == {Refused.ECHO: 1}


def test_a_message_that_the_dialect_lacks_is_no_loss_and_hides_nothing() -> None:
    talker = packer()
    first, unknown, last = packed(talker, heartbeat(), timesync(), heartbeat())
    unknown = unknown[:7] + (60_001).to_bytes(3, "little") + unknown[10:]
    connection = Connection(Line(first + unknown + last))
    assert names(connection.receive()) == ["HEARTBEAT", "HEARTBEAT"]
    assert connection.refused == {Refused.UNKNOWN_MESSAGE: 1}
    assert connection.lost == 0


def test_losses_are_counted_by_sender_and_repeated_or_overtaken_ones_are_none() -> None:
    autopilot = packed(packer(), *[timesync(number) for number in range(20)])
    camera = packed(packer(1, 100), heartbeat(mav.MAV_AUTOPILOT_INVALID), timesync(), timesync())
    order = [*autopilot[:5], *autopilot[8:10], autopilot[9], autopilot[6], *autopilot[10:]]
    connection = Connection(Line(b"".join(order), camera[0], camera[2]))
    received(connection)
    assert connection.losses == {(1, 1): 3, (1, 100): 1}
    assert connection.lost == 4


def test_a_vehicle_that_begins_anew_is_not_taken_for_one_from_behind() -> None:
    before, after = packer(), packer()
    before.seq = 100
    packets = packed(before, *[timesync()] * 10) + packed(after, *[timesync()] * 10)
    lost_later = packed(after, *[timesync()] * 3)[2:]
    connection = Connection(Line(b"".join(packets + lost_later)))
    assert len(connection.receive()) == 21
    assert connection.lost == 2


def test_garbage_never_raises_and_lets_nobody_else_in() -> None:
    result = fuzz_mavlink.Fuzzer(seed=3).run(20_000)
    assert result.wrong == []
    assert result.marks_sent > 300
    assert {"garbage", "unknown_message", "foreign_system"} <= set(result.refused)
    assert {"unsigned", "bad_signature", "replayed", "foreign_system"} <= set(result.refused_signed)


def test_what_is_waited_for_is_received_afterwards() -> None:
    first, second = packed(packer(), timesync(1), timesync(2))
    connection = Connection(Line(first, second))
    connection.wait(1.0)
    connection.wait(1.0)  # there is something already
    assert [one.ts1 for one in connection.receive()] == [1, 2]
    assert connection.receive() == []


def test_a_flood_does_not_hold_the_caller() -> None:
    line = Line(*[b"\x00" * 65536] * 10)
    Connection(line).receive()
    assert len(line.coming) == 9


@pytest.mark.parametrize(
    "ids", [{"vehicle_system": 256}, {"vehicle_system": -1}, {"source_component": 0}, {"source_system": 0}]
)
def test_ids_out_of_range_are_refused(ids: dict[str, int]) -> None:
    with pytest.raises(LinkError, match="MAVLink ids"):
        Connection(Line(), **ids)  # type: ignore[arg-type]


def test_a_strangers_datagram_does_not_turn_our_words_to_the_stranger() -> None:
    with Connection.open("udpin:127.0.0.1:0") as connection, udp_socket() as vehicle, udp_socket() as stranger:
        where = ("127.0.0.1", connection.address.port)
        assert not connection.send(timesync(1))  # nobody is there yet
        stranger.sendto(packed(packer(9), heartbeat())[0], where)
        wait_until(connection, lambda: connection.refused[Refused.FOREIGN_SYSTEM] == 1)
        assert not connection.send(timesync(2))
        vehicle.sendto(packed(packer(), heartbeat())[0], where)
        wait_until(connection, lambda: connection.received["HEARTBEAT"] == 1)
        stranger.sendto(packed(packer(9), heartbeat())[0], where)
        wait_until(connection, lambda: connection.refused[Refused.FOREIGN_SYSTEM] == 2)
        assert connection.send(timesync(3))
        assert decoded([vehicle.recv(1000)])[0].ts1 == 3


def test_half_a_message_of_a_stranger_does_not_swallow_the_vehicles() -> None:
    with Connection.open("udpin:127.0.0.1:0") as connection, udp_socket() as vehicle, udp_socket() as stranger:
        where = ("127.0.0.1", connection.address.port)
        stranger.sendto(bytes([0xFD, 255, 1, 0, 0, 1, 1, 30, 0, 0]), where)
        vehicle.sendto(packed(packer(), heartbeat())[0], where)
        wait_until(connection, lambda: connection.received["HEARTBEAT"] == 1)


def test_empty_datagrams_hide_nothing() -> None:
    with Connection.open("udpin:127.0.0.1:0") as connection, udp_socket() as vehicle, udp_socket() as stranger:
        where = ("127.0.0.1", connection.address.port)
        for _ in range(300):
            stranger.sendto(b"", where)
        vehicle.sendto(packed(packer(), heartbeat())[0], where)
        assert names(connection.receive(timeout_s=5.0)) == ["HEARTBEAT"]


def test_the_time_of_the_last_accepted_message_is_known() -> None:
    line = Line(*packed(packer(), heartbeat()))
    connection = Connection(line)
    connection.receive(now_ns=1000)
    line.coming += packed(packer(9), heartbeat())
    connection.receive(now_ns=2000)
    assert connection.heard_at_ns == 1000
