"""Signing: forgeries are refused each for its own reason, and stamps never go back."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from toy_wire import KEY, NOW_NS, OTHER_KEY, Line, heartbeat, names, packed, packer, received, ticks, timesync

from onboard.mavlink.wire import signing
from onboard.mavlink.wire.connection import Connection, Refused
from onboard.mavlink.wire.signing import SigningKey

MINUTE_TICKS = 6_000_000


def signing_key(
    secret: bytes = KEY, stamp_file: Path | None = None, now_ns: int = NOW_NS, link_id: int = 0
) -> SigningKey:
    return SigningKey(secret, link_id=link_id, stamp_file=stamp_file, clock_ns=lambda: now_ns)


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
