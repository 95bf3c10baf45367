"""A line in memory, a clock that passes when told to, packets of any sender, and sockets of this computer."""

from __future__ import annotations

import socket
from collections.abc import Callable

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.mavlink.wire.connection import Connection
from onboard.mavlink.wire.transport import Address

KEY, OTHER_KEY = bytes(range(1, 33)), bytes(range(2, 34))
NOW_NS = 1_760_000_000 * 1_000_000_000


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


def received(connection: Connection) -> list[mav.MAVLink_message]:
    """Everything that waits at the line."""
    messages: list[mav.MAVLink_message] = []
    while isinstance(connection._transport, Line) and connection._transport.coming:
        messages += connection.receive()
    return messages


def names(messages: list[mav.MAVLink_message]) -> list[str]:
    return [message.get_type() for message in messages]


def decoded(packets: list[bytes]) -> list[mav.MAVLink_message]:
    return [mav.MAVLink(None).parse_buffer(packet)[0] for packet in packets]


def wait_until(connection: Connection, happened: Callable[[], bool]) -> None:
    """Receive until `happened()`; the kernel needs a moment even on one computer."""
    for _ in range(200):
        connection.receive(timeout_s=0.02)
        if happened():
            return
    raise AssertionError("it never happened")


def listening_socket(port: int = 0) -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", port))
    server.listen()
    server.settimeout(5)
    return server


def udp_socket() -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    one.settimeout(5)
    return one
