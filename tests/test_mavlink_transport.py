"""Addresses and the lines that they open: UDP, TCP, serial, and the pace."""

from __future__ import annotations

import os
import pty
import socket
import time

import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav
from toy_link import LATITUDE, LONGITUDE, START_NS, estimate, telemetry

from onboard.errors import LinkError
from onboard.mavlink import MavlinkLink, Withheld
from onboard.mavlink.wire.sender import Pace
from onboard.mavlink.wire.transport import Address, parse_address


def wait_for(condition, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "udp:127.0.0.1:14550",
        "udpout:127.0.0.1",
        "udpout:127.0.0.1:0",
        "udpout:127.0.0.1:http",
        "udpout:127.0.0.1:14550:1",
        "tcp:127.0.0.1:99999",
        "udpin::14550",
        "/dev/ttyTHS1",
        "COM3:57600",
    ],
)
def test_a_bad_address_is_one_line_that_shows_the_forms(address: str) -> None:
    with pytest.raises(LinkError) as caught:
        MavlinkLink.open(address)
    assert "udpout:HOST:PORT" in str(caught.value)
    assert "/dev/ttyX:BAUD" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("udpout:no-such-host.invalid:14550", "cannot open"),
        ("tcp:127.0.0.1:1", "cannot open"),
        ("/dev/no-such-line:57600", "cannot open"),
        ("/dev/null:57600", "not a serial line"),
        ("/dev/null:12345", "baud rate"),
    ],
)
def test_an_address_that_cannot_be_opened_is_a_link_error(address: str, words: str) -> None:
    with pytest.raises(LinkError, match=words):
        MavlinkLink.open(address)


def test_addresses_name_their_peers() -> None:
    assert str(parse_address("udpout:127.0.0.1:14550").peer) == "udpin:127.0.0.1:14550"
    assert str(parse_address("udpin:0.0.0.0:14550").peer) == "udpout:127.0.0.1:14550"
    assert str(parse_address("udpin:[::1]:14550")) == "udpin:[::1]:14550"
    assert parse_address("/dev/ttyTHS1:921600") == Address("serial", "/dev/ttyTHS1", 921600)
    with pytest.raises(LinkError):
        _ = parse_address("tcp:127.0.0.1:5760").peer


def test_a_serial_line_carries_whole_messages_and_a_full_one_withholds() -> None:
    master, slave = pty.openpty()
    try:
        with MavlinkLink.open(f"{os.ttyname(slave)}:921600") as link:
            link.set_origin(LATITUDE, LONGITUDE)
            sent = 0
            while link.send(estimate(valid_at_ns=START_NS + sent), telemetry()):  # until nobody reads: it is full
                sent += 1
                assert sent < 2000
            assert link.withheld == {Withheld.NO_ROOM: 1}
            parser, got = mav.MAVLink(None), []
            os.set_blocking(master, False)

            def drain() -> None:
                try:
                    got.extend(parser.parse_buffer(os.read(master, 65536)) or [])
                except BlockingIOError:
                    time.sleep(0.001)

            wait_for(lambda: drain() or len(got) >= sent)
            wait_for(lambda: link.send(estimate(valid_at_ns=START_NS + 10_000), telemetry()))
            wait_for(lambda: drain() or len(got) == sent + 2)  # the origin, all that were sent, and the new one
            assert got[-1].time_usec == (START_NS + 10_000) // 1000
            assert [m.get_seq() for m in got] == [k % 256 for k in range(sent + 2)]
    finally:
        os.close(master)
        os.close(slave)


def test_tcp_carries_messages() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with MavlinkLink.open(f"tcp:127.0.0.1:{server.getsockname()[1]}") as link:
            peer, _ = server.accept()
            link.set_origin(LATITUDE, LONGITUDE)
            link.send(estimate(), telemetry())
        with peer:
            data = b"".join(iter(lambda: peer.recv(4096), b""))
    assert [m.get_type() for m in mav.MAVLink(None).parse_buffer(data)] == ["SET_GPS_GLOBAL_ORIGIN", "ODOMETRY"]


def test_udpin_withholds_until_a_peer_has_spoken() -> None:
    with MavlinkLink.open("udpin:127.0.0.1:0") as link:
        assert not link.set_origin(LATITUDE, LONGITUDE)
        assert not link.send(estimate(), telemetry())
        assert link.withheld == {Withheld.NO_ROOM: 1}


def test_the_pace_lets_a_burst_through_and_then_holds_the_rate() -> None:
    bucket = Pace(20, 1000.0)
    began = time.monotonic()
    for _ in range(20):
        bucket.wait()
    burst_s = time.monotonic() - began
    for _ in range(100):
        bucket.wait()
    assert burst_s < 0.015
    assert time.monotonic() - began >= 0.09
