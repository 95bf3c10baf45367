"""Lines that are lost and come back: TCP, serial and UDP."""

from __future__ import annotations

import errno
import os
import socket
import tty
from pathlib import Path

import pytest
from toy_wire import Clock, Line, decoded, heartbeat, listening_socket, packed, packer, timesync, udp_socket, wait_until

from onboard.errors import LinkError
from onboard.mavlink.wire import reconnect
from onboard.mavlink.wire.connection import Connection
from onboard.mavlink.wire.reconnect import Reconnecting
from onboard.mavlink.wire.transport import Address, UdpTransport, open_transport


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "FIRST_PAUSE_S", 0.01)


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
