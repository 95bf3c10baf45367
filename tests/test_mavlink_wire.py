"""The line to the vehicle: what is believed, what is counted, and how it comes back."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import tty
from collections.abc import Callable
from pathlib import Path

import fuzz_mavlink
import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav
from typer.testing import CliRunner

from onboard.errors import LinkError
from onboard.mavlink.wire import key_cli, reconnect, signing
from onboard.mavlink.wire.connection import Connection, Refused
from onboard.mavlink.wire.framing import LONGEST_PACKET_BYTES, Framer
from onboard.mavlink.wire.reconnect import Reconnecting
from onboard.mavlink.wire.signing import SigningKey, create_key, read_secret
from onboard.mavlink.wire.transport import Address, UdpTransport, open_transport

KEY, OTHER_KEY = bytes(range(1, 33)), bytes(range(2, 34))
NOW_NS = 1_760_000_000 * 1_000_000_000
MINUTE_TICKS = 6_000_000


class Line:
    """A transport in memory: `coming` is read piece by piece, `left` is what was written while there was `room`."""

    def __init__(self, *coming: bytes) -> None:
        self.address = Address("udpin", "127.0.0.1", 1)
        self.coming, self.left = list(coming), list[bytes]()
        self.room, self.ready, self.closed = 1_000_000, True, False

    def write(self, packet: bytes) -> bool:
        if self.room < 1:
            return False
        self.room -= 1
        self.left.append(packet)
        return True

    def read(self, timeout_s: float) -> bytes:
        return self.coming.pop(0) if self.coming else b""

    def close(self) -> None:
        self.closed = True


class Clock:
    """Seconds that pass when told to, or when slept through."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


def heartbeat(autopilot: int = mav.MAV_AUTOPILOT_ARDUPILOTMEGA) -> mav.MAVLink_heartbeat_message:
    return mav.MAVLink_heartbeat_message(mav.MAV_TYPE_QUADROTOR, autopilot, 81, 4, 4, 3)


def timesync(number: int = 1) -> mav.MAVLink_timesync_message:
    return mav.MAVLink_timesync_message(0, number)


def packer(system: int = 1, component: int = 1, secret: bytes | None = None, stamp: int | None = None) -> mav.MAVLink:
    """Packs as one system; signed where it has a key, from `stamp` on (default: now)."""
    talker = mav.MAVLink(None, system, component)
    if secret is not None:
        talker.signing.secret_key, talker.signing.sign_outgoing = secret, True
        talker.signing.timestamp = ticks() if stamp is None else stamp
    return talker


def ticks(now_ns: int = NOW_NS) -> int:
    return (now_ns - 1_420_070_400 * 1_000_000_000) // 10_000


def packed(talker: mav.MAVLink, *messages: mav.MAVLink_message) -> list[bytes]:
    packets = []
    for message in messages:
        packets.append(message.pack(talker))
        talker.seq = (talker.seq + 1) % 256
    return packets


def signing_key(
    secret: bytes = KEY, stamp_file: Path | None = None, now_ns: int = NOW_NS, link_id: int = 0
) -> SigningKey:
    return SigningKey(secret, link_id=link_id, stamp_file=stamp_file, clock_ns=lambda: now_ns)


def received(connection: Connection) -> list[mav.MAVLink_message]:
    """Everything that waits at the line."""
    messages: list[mav.MAVLink_message] = []
    while isinstance(connection._transport, Line) and connection._transport.coming:
        messages += connection.receive()
    return messages


def names(messages: list[mav.MAVLink_message]) -> list[str]:
    return [message.get_type() for message in messages]


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


# --- signing ----------------------------------------------------------------------------------------------------------


def test_a_signed_message_of_the_vehicle_is_accepted_and_known_as_such() -> None:
    connection = Connection(Line(*packed(packer(secret=KEY), heartbeat(), timesync())), signing=signing_key())
    messages = received(connection)
    assert names(messages) == ["HEARTBEAT", "TIMESYNC"]
    assert all(one.get_signed() for one in messages)


def test_every_forgery_is_refused_for_its_own_reason() -> None:
    talker = packer(secret=KEY)
    good = packed(talker, heartbeat(), timesync())
    line = Line(
        *good,
        *packed(packer(), heartbeat()),
        heartbeat().pack(packer(), force_mavlink1=True),
        *packed(packer(secret=OTHER_KEY), heartbeat()),
        *good,
        *packed(packer(9, secret=KEY), heartbeat()),
        *packed(talker, timesync()),
    )
    connection = Connection(line, signing=signing_key())
    assert names(received(connection)) == ["HEARTBEAT", "TIMESYNC", "TIMESYNC"]
    assert connection.refused == {
        Refused.UNSIGNED: 2,
        Refused.BAD_SIGNATURE: 1,
        Refused.REPLAYED: 2,
        Refused.FOREIGN_SYSTEM: 1,
    }
    assert connection.lost == 0


def test_only_a_signed_heartbeat_is_locked_on() -> None:
    line = Line(*packed(packer(4), heartbeat()), *packed(packer(5, secret=KEY), heartbeat()))
    connection = Connection(line, vehicle_system=0, signing=signing_key())
    assert len(received(connection)) == 1
    assert connection.target_system == 5
    assert connection.refused == {Refused.UNSIGNED: 1}


def test_an_unsigned_message_cannot_pass_as_an_unknown_one() -> None:
    (unknown,) = packed(packer(), timesync())
    connection = Connection(Line(unknown[:7] + b"\x61\xea\x00" + unknown[10:]), signing=signing_key())
    assert connection.receive() == []
    assert connection.refused == {Refused.UNSIGNED: 1}


def test_a_changed_byte_of_a_signed_message_is_refused_wherever_it_is() -> None:
    (packet,) = packed(packer(secret=KEY), timesync(12345))
    for at in range(len(packet)):
        changed = bytearray(packet)
        changed[at] ^= 0x10
        connection = Connection(Line(bytes(changed) + b"\x00" * 300), signing=signing_key())
        assert connection.receive() == []


def test_a_forged_stamp_of_tomorrow_does_not_shut_the_vehicle_out() -> None:
    tomorrow = packed(packer(secret=OTHER_KEY, stamp=ticks() + 24 * 60 * MINUTE_TICKS), heartbeat())
    connection = Connection(Line(*tomorrow, *packed(packer(secret=KEY), heartbeat())), signing=signing_key())
    assert names(received(connection)) == ["HEARTBEAT"]
    assert connection.refused == {Refused.BAD_SIGNATURE: 1}


@pytest.mark.parametrize(("behind", "accepted"), [(MINUTE_TICKS, 1), (MINUTE_TICKS + 1, 0)])
def test_the_first_message_of_a_sender_may_be_one_minute_behind(behind: int, accepted: int) -> None:
    line = Line(*packed(packer(secret=KEY, stamp=ticks() - behind), heartbeat()))
    connection = Connection(line, signing=signing_key())
    assert len(received(connection)) == accepted
    assert connection.refused[Refused.REPLAYED] == 1 - accepted


def test_senders_have_their_own_stamps_by_component_and_by_link() -> None:
    autopilot, camera, other_link = packer(secret=KEY), packer(1, 100, secret=KEY), packer(secret=KEY)
    autopilot.signing.timestamp += 500
    other_link.signing.link_id = 3
    packets = [one for talker in (autopilot, camera, other_link) for one in packed(talker, heartbeat())]
    connection = Connection(Line(*packets), signing=signing_key())
    assert len(received(connection)) == 3


def test_what_leaves_is_signed_so_that_pymavlink_accepts_it() -> None:
    line = Line()
    connection = Connection(line, signing=signing_key(link_id=4))
    for number in range(3):
        assert connection.send(timesync(number))
    vehicle = packer(secret=KEY)
    messages = [vehicle.parse_buffer(packet)[0] for packet in line.left]
    assert [(one.ts1, one.get_signed(), one.get_link_id(), one.get_seq()) for one in messages] == [
        (number, True, 4, number) for number in range(3)
    ]


def test_stamps_grow_by_the_clock_and_also_where_it_stands_still_or_goes_back() -> None:
    now = [NOW_NS]
    key = SigningKey(KEY, clock_ns=lambda: now[0])
    assert [key.next_stamp(), key.next_stamp()] == [ticks(), ticks() + 1]
    now[0] += 5_000_000_000
    assert key.next_stamp() == ticks(now[0])
    now[0] -= 3600_000_000_000
    assert key.next_stamp() == ticks() + 500_001


def test_our_stamps_follow_a_vehicle_that_is_ahead() -> None:
    ahead = ticks() + 10 * MINUTE_TICKS
    key = signing_key()
    Connection(Line(*packed(packer(secret=KEY, stamp=ahead), heartbeat())), signing=key).receive()
    assert key.next_stamp() == ahead + 1


def test_stamps_never_go_back_over_a_crash_with_a_clock_that_did(tmp_path: Path) -> None:
    now = [NOW_NS]
    first = SigningKey(KEY, stamp_file=tmp_path / "stamp", clock_ns=lambda: now[0])
    for _ in range(200):
        now[0] += 1_000_000_000
        last = first.next_stamp()
    crashed_next = signing_key(stamp_file=tmp_path / "stamp", now_ns=0).next_stamp()
    assert last < crashed_next <= last + MINUTE_TICKS + 1


def test_a_hundred_crashes_in_a_row_put_the_stamps_little_ahead(tmp_path: Path) -> None:
    for _ in range(100):
        last = signing_key(stamp_file=tmp_path / "stamp").next_stamp()
    assert ticks() < last < ticks() + 3 * MINUTE_TICKS


def test_a_clean_end_keeps_the_exact_stamp(tmp_path: Path) -> None:
    key = signing_key(stamp_file=tmp_path / "stamp")
    connection = Connection(Line(), signing=key)
    connection.send(heartbeat())
    connection.close()
    assert signing_key(stamp_file=tmp_path / "stamp", now_ns=0).next_stamp() == ticks() + 1
    assert [one.name for one in tmp_path.iterdir()] == ["stamp"]


def test_the_stamp_is_written_about_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    monkeypatch.setattr(signing, "_write_stamp", lambda path, stamp, sync: written.append(stamp))
    now = [NOW_NS]
    key = SigningKey(KEY, stamp_file=tmp_path / "stamp", clock_ns=lambda: now[0])
    for _ in range(6000):
        now[0] += 100_000_000
        key.next_stamp()
    assert 10 <= len(written) <= 15


def test_a_full_disk_in_flight_does_not_stop_signing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = signing_key(stamp_file=tmp_path / "stamp")

    def full(path: Path, stamp: int, sync: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(signing, "_write_stamp", full)
    assert key.next_stamp() == ticks()


# --- key files --------------------------------------------------------------------------------------------------------


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (KEY, KEY),
        (KEY.hex().encode() + b"\n", KEY),
        (KEY.hex().upper().encode(), KEY),
        # SHA-256 of "abc" by FIPS 180-2
        (
            b"passphrase: abc\n",
            bytes.fromhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ),
    ],
)
def test_a_key_file_holds_raw_bytes_hex_digits_or_a_passphrase(tmp_path: Path, content: bytes, secret: bytes) -> None:
    assert read_secret(key_file(tmp_path, content)) == secret


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"secret",
        KEY[:31],
        KEY + b"\n",
        KEY.hex().encode()[:63],
        b"g" * 64,
        b"passphrase: ",
        b"passphrase: a\nb",
        b"\xff" * 64,
    ],
)
def test_anything_else_is_no_key_and_is_not_repeated_in_the_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(LinkError, match=r"32 bytes, 64 hex digits.*pilotage link key") as caught:
        read_secret(key_file(tmp_path, content))
    told = str(caught.value).replace("passphrase: ...", "")
    assert not content or content.decode("latin-1") not in told


def test_a_key_of_zeros_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="not all zero"):
        SigningKey.load(key_file(tmp_path, bytes(32)))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_may_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, KEY, mode)
    with pytest.raises(LinkError, match=f"chmod 600 {path}"):
        SigningKey.load(path)


def test_a_missing_key_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="cannot read the signing key"):
        SigningKey.load(tmp_path / "none")


def test_a_broken_stamp_file_is_told_of(tmp_path: Path) -> None:
    path = key_file(tmp_path, KEY)
    (tmp_path / "key.link0.stamp").write_text("")
    with pytest.raises(LinkError, match="unreadable signing stamp"):
        SigningKey.load(path)


def test_the_command_makes_a_private_key_once(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert CliRunner().invoke(key_cli.app, ["key", str(path)]).exit_code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    secret = SigningKey.load(path).secret
    with pytest.raises(LinkError, match="a key is there already"):
        create_key(path)
    assert read_secret(path) == secret
    assert sorted(one.name for one in tmp_path.iterdir()) == ["key", "key.link0.stamp"]


class ScriptedVehicle:
    """Answers every packet that comes over TCP with a heartbeat; signs once it was given a key, if it `learns`."""

    def __init__(self, armed: bool = False, learns: bool = True) -> None:
        self._server = listening_socket()
        self.address = f"tcp:127.0.0.1:{self._server.getsockname()[1]}"
        self._heartbeat = heartbeat()
        self._heartbeat.base_mode |= mav.MAV_MODE_FLAG_SAFETY_ARMED * armed
        self._learns = learns
        self.given: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        ear, talker = packer(), packer()
        peer, _ = self._server.accept()
        peer.settimeout(5)
        with peer, contextlib.suppress(ConnectionError):  # who hangs up may leave an answer unread
            while data := peer.recv(4096):
                for message in ear.parse_buffer(data) or ():
                    if message.get_type() == "SETUP_SIGNING":
                        self.given.append(bytes(message.secret_key))
                        if self._learns:
                            talker = packer(secret=self.given[-1], stamp=message.initial_timestamp)
                peer.sendall(packed(talker, self._heartbeat)[0])

    def end(self) -> None:
        self._thread.join(10)
        self._server.close()


def test_a_vehicle_is_taught_the_key_and_then_signs_with_it(tmp_path: Path) -> None:
    vehicle = ScriptedVehicle()
    path = key_file(tmp_path, KEY)
    result = CliRunner().invoke(key_cli.app, ["teach", str(path), vehicle.address], input="y\n")
    vehicle.end()
    assert result.exit_code == 0, result.output
    assert "signs with" in result.output
    assert vehicle.given == [KEY, KEY]


def test_a_vehicle_is_taught_nothing_where_the_answer_is_no(tmp_path: Path) -> None:
    vehicle = ScriptedVehicle()
    result = CliRunner().invoke(key_cli.app, ["teach", str(key_file(tmp_path, KEY)), vehicle.address], input="n\n")
    vehicle.end()
    assert result.exit_code == 1
    assert vehicle.given == []


def test_an_armed_vehicle_is_taught_nothing(tmp_path: Path) -> None:
    vehicle = ScriptedVehicle(armed=True)
    result = CliRunner().invoke(key_cli.app, ["teach", str(key_file(tmp_path, KEY)), vehicle.address, "--yes"])
    vehicle.end()
    assert isinstance(result.exception, LinkError)
    assert "disarmed" in str(result.exception)
    assert vehicle.given == []


def test_a_vehicle_that_does_not_sign_afterwards_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_cli, "_PATIENCE_S", 0.5)
    vehicle = ScriptedVehicle(learns=False)
    result = CliRunner().invoke(key_cli.app, ["teach", str(key_file(tmp_path, KEY)), vehicle.address, "--yes"])
    vehicle.end()
    assert isinstance(result.exception, LinkError)
    assert "does not sign with the key" in str(result.exception)


# --- what waits to leave ----------------------------------------------------------------------------------------------


def decoded(packets: list[bytes]) -> list[mav.MAVLink_message]:
    return [mav.MAVLink(None).parse_buffer(packet)[0] for packet in packets]


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


@pytest.mark.parametrize(
    "ids", [{"vehicle_system": 256}, {"vehicle_system": -1}, {"source_component": 0}, {"source_system": 0}]
)
def test_ids_out_of_range_are_refused(ids: dict[str, int]) -> None:
    with pytest.raises(LinkError, match="MAVLink ids"):
        Connection(Line(), **ids)  # type: ignore[arg-type]


# --- lines that are lost and come back --------------------------------------------------------------------------------


def wait_until(connection: Connection, happened: Callable[[], bool]) -> None:
    """Receive until `happened()`; the kernel needs a moment even on one computer."""
    for _ in range(200):
        connection.receive(timeout_s=0.02)
        if happened():
            return
    raise AssertionError("it never happened")


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "FIRST_PAUSE_S", 0.01)


def listening_socket(port: int = 0) -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", port))
    server.listen()
    server.settimeout(5)
    return server


@pytest.mark.usefixtures("short_pauses")
def test_a_tcp_line_comes_back_after_the_peer_did() -> None:
    server = listening_socket()
    port = server.getsockname()[1]
    with Connection.open(f"tcp:127.0.0.1:{port}") as connection:
        peer, _ = server.accept()
        peer.sendall(packed(packer(), heartbeat())[0])
        wait_until(connection, lambda: connection.received["HEARTBEAT"] == 1)
        peer.close()
        server.close()
        wait_until(connection, lambda: not connection.connected)
        assert not connection.send(heartbeat())
        server = listening_socket(port)
        wait_until(connection, lambda: connection.connected)
        assert connection.reconnects == 1
        peer, _ = server.accept()
        peer.settimeout(5)
        peer.sendall(packed(packer(), timesync())[0])
        wait_until(connection, lambda: connection.received["TIMESYNC"] == 1)
        connection.send(timesync(77))
        assert decoded([peer.recv(1000)])[0].ts1 == 77
        peer.close()
        server.close()


def test_a_peer_that_is_not_there_is_an_error_unless_it_is_waited_for() -> None:
    server = listening_socket()
    port = server.getsockname()[1]
    server.close()
    with pytest.raises(LinkError, match="cannot open MAVLink address"):
        Connection.open(f"tcp:127.0.0.1:{port}")
    with Connection.open(f"tcp:127.0.0.1:{port}", wait=True) as connection:
        assert not connection.connected
        assert connection.receive() == []


def test_an_unknown_host_is_an_error_even_where_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(LinkError, match="Name or service not known"):
        Connection.open("tcp:nowhere.invalid:5760", wait=True)


def test_the_pauses_between_attempts_double_up_to_eight_seconds() -> None:
    server = listening_socket()
    port = server.getsockname()[1]
    server.close()
    clock = Clock()
    line = Reconnecting(Address("tcp", "127.0.0.1", port), wait=True, clock_s=clock, sleep=clock.sleep)
    for _ in range(16):
        line.read(100.0)
    line.close()
    assert [round(one, 6) for one in clock.slept if one > 0][:7] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0]


def test_a_peer_that_always_hangs_up_at_once_is_not_called_in_a_frenzy() -> None:
    server, clock = listening_socket(), Clock()
    line = Reconnecting(
        Address("tcp", "127.0.0.1", server.getsockname()[1]), wait=True, clock_s=clock, sleep=clock.sleep
    )
    for _ in range(5):
        server.accept()[0].close()
        while line.connected:
            assert line.read(1.0) == b""
        while not line.connected:
            line.read(100.0)
    line.close()
    server.close()
    assert line.reconnects == 5
    assert [round(one, 6) for one in clock.slept if one > 0] == [0.25, 0.5, 1.0, 2.0, 4.0]


def test_a_baud_rate_that_there_is_not_is_an_error_even_where_the_line_is_waited_for() -> None:
    with pytest.raises(LinkError, match="baud rate: 12345"):
        Connection.open("/dev/ttyUSB0:12345", wait=True)


def test_a_lost_line_never_keeps_the_caller_longer_than_told() -> None:
    clock = Clock()
    line = Reconnecting(Address("serial", "/dev/not-there", 57600), wait=True, clock_s=clock, sleep=clock.sleep)
    for _ in range(200):
        assert line.read(0.01) == b""
        assert not line.write(b"x")
    assert max(clock.slept) <= 0.01 + 1e-9
    line.close()


def serial_line(path: Path) -> tuple[int, int]:
    """A pseudo-terminal that `path` names; its far end, and the near one that keeps it there meanwhile."""
    master, slave = os.openpty()
    tty.setraw(slave)
    path.unlink(missing_ok=True)
    path.symlink_to(os.ttyname(slave))
    return master, slave


@pytest.mark.usefixtures("short_pauses")
def test_an_unplugged_serial_line_comes_back_when_it_is_plugged_in(tmp_path: Path) -> None:
    device = tmp_path / "ttyUSB0"
    master, slave = serial_line(device)
    line = Reconnecting(Address("serial", str(device), 115200))
    connection = Connection(line)
    os.write(master, packed(packer(), heartbeat())[0])
    wait_until(connection, lambda: connection.received["HEARTBEAT"] == 1)
    connection.send(timesync(5))
    assert decoded([os.read(master, 1000)])[0].ts1 == 5
    os.close(master)
    os.close(slave)
    device.unlink()
    wait_until(connection, lambda: not connection.connected)
    assert not connection.send(timesync(6))
    connection.receive(timeout_s=0.02)
    assert not connection.connected
    master, slave = serial_line(device)
    wait_until(connection, lambda: connection.connected)
    os.write(master, packed(packer(), timesync(7))[0])
    wait_until(connection, lambda: connection.received["TIMESYNC"] == 1)
    assert connection.reconnects == 1
    connection.close()
    os.close(master)
    os.close(slave)


def test_half_a_message_from_before_does_not_spoil_the_one_after() -> None:
    first, second = packed(packer(), timesync(1), timesync(2))
    line = Line(first[:20])
    line.source = 1  # type: ignore[attr-defined]
    connection = Connection(line)
    connection.receive()
    line.source = 2  # type: ignore[attr-defined]
    line.coming.append(second)
    assert [one.ts1 for one in connection.receive()] == [2]


def udp_socket() -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    one.settimeout(5)
    return one


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


def test_a_network_that_is_gone_for_a_while_is_told_of_and_needs_no_new_socket() -> None:
    with udp_socket() as vehicle:
        line = UdpTransport(Address("udpout", "127.0.0.1", vehicle.getsockname()[1]))
        real = line._socket

        class Unplugged:
            def sendto(self, packet: bytes, where: object) -> int:
                raise OSError(errno.ENETUNREACH, "Network is unreachable")

        line._socket = Unplugged()  # type: ignore[assignment]
        assert not line.write(b"x")
        assert line.unreachable
        assert not line.gone
        line._socket = real
        assert line.write(b"y")
        assert not line.unreachable
        assert vehicle.recv(10) == b"y"
        line.close()


@pytest.mark.usefixtures("short_pauses")
def test_a_udp_port_that_is_taken_is_had_once_it_is_free() -> None:
    holder = udp_socket()
    port = holder.getsockname()[1]
    with pytest.raises(LinkError, match="cannot open MAVLink address"):
        Connection.open(f"udpin:127.0.0.1:{port}")
    with Connection.open(f"udpin:127.0.0.1:{port}", wait=True) as connection, udp_socket() as vehicle:
        connection.receive(timeout_s=0.02)
        assert not connection.connected
        holder.close()
        wait_until(connection, lambda: connection.connected)
        assert connection.reconnects == 0
        vehicle.sendto(packed(packer(), heartbeat())[0], ("127.0.0.1", port))
        wait_until(connection, lambda: connection.received["HEARTBEAT"] == 1)


def test_a_lost_stream_does_not_make_its_reader_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    server = listening_socket()
    line = open_transport(Address("tcp", "127.0.0.1", server.getsockname()[1]))
    peer, _ = server.accept()
    peer.close()
    server.close()
    assert line.read(5.0) == b""
    assert line.gone
    slept: list[float] = []
    monkeypatch.setattr("onboard.mavlink.wire.transport.time.sleep", slept.append)
    assert line.read(0.5) == b""
    assert slept == [0.5]
    line.close()


def test_a_closed_connection_opens_nothing_again() -> None:
    server = listening_socket()
    connection = Connection.open(f"tcp:127.0.0.1:{server.getsockname()[1]}")
    connection.close()
    assert connection.receive() == []
    assert not connection.connected
    assert not connection.send(heartbeat())
    server.close()


def test_the_time_of_the_last_accepted_message_is_known() -> None:
    line = Line(*packed(packer(), heartbeat()))
    connection = Connection(line)
    connection.receive(now_ns=1000)
    line.coming += packed(packer(9), heartbeat())
    connection.receive(now_ns=2000)
    assert connection.heard_at_ns == 1000
