"""Bytes in and out: UDP, TCP and serial lines under one small face, none of which ever waits to write.

| address             | who begins                                                    |
|---------------------|---------------------------------------------------------------|
| udpout:HOST:PORT    | we send to the peer                                           |
| udpin:HOST:PORT     | we bind and answer whoever spoke last; port 0: any free one   |
| tcp:HOST:PORT       | we connect to the peer                                        |
| /dev/ttyX:BAUD      | a serial line, 8N1, raw                                       |
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import time
from dataclasses import dataclass
from typing import Any, Protocol

from onboard.errors import LinkError

FORMS = "udpout:HOST:PORT, udpin:HOST:PORT, tcp:HOST:PORT or /dev/ttyX:BAUD"
_NETWORK = re.compile(r"(udpout|udpin|tcp):(\[[^\]]+\]|[^:\s]+):(\d{1,5})")
_SERIAL = re.compile(r"(/dev/\S+):(\d+)")
_READ_BYTES = 65536
# As many as the kernel grants; at 0.8 kB of bookkeeping each, 4 MiB hold some 5000 messages.
RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
_EMPTY_AT_ONCE = 1000  # datagrams
_PATIENCE_S = 10  # with a TCP peer that is silent where it should confirm: out of radio range it never says goodbye
_TRY_AGAIN = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)
_NO_NETWORK = (errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENODEV)


@dataclass(frozen=True, slots=True)
class Address:
    """One end of a link: `kind` is udpout, udpin, tcp or serial; `host` is the device of a serial line."""

    kind: str
    host: str
    port: int

    def __str__(self) -> str:
        if self.kind == "serial":
            return f"{self.host}:{self.port}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}:{host}:{self.port}"

    @property
    def peer(self) -> Address:
        """The address that a peer on this computer listens at, for what is sent to this one."""
        if self.kind not in ("udpout", "udpin"):
            raise LinkError("no listening peer for", str(self), "udpout:HOST:PORT")
        if self.kind == "udpout":
            return Address("udpin", self.host, self.port)
        return Address("udpout", "127.0.0.1" if self.host == "0.0.0.0" else self.host, self.port)


def parse_address(text: str) -> Address:
    """LinkError with the forms expected, in one line."""
    if match := _NETWORK.fullmatch(text.strip()):
        kind, host, port = match[1], match[2].strip("[]"), int(match[3])
        if port <= 65535 and (port > 0 or kind == "udpin"):
            return Address(kind, host, port)
    elif match := _SERIAL.fullmatch(text.strip()):
        return Address("serial", match[1], int(match[2]))
    raise LinkError("bad MAVLink address", repr(text), FORMS)


class Transport(Protocol):
    """`address` is the one in use (a free port is filled in).

    Those of this module also say `gone`: the line is lost, only another one may help; and `ready`: there is a peer.
    """

    address: Address

    def write(self, packet: bytes) -> bool:
        """Send one whole message now, or none of it: false where there is no room, no way or no peer."""

    def read(self, timeout_s: float) -> bytes:
        """What has come, after waiting for it at most `timeout_s`; empty for nothing."""

    def close(self) -> None: ...


def open_transport(address: Address, *, follow: bool = True) -> UdpTransport | StreamTransport:
    """`follow`: see `UdpTransport`. LinkError where the address cannot be opened."""
    try:
        if address.kind == "serial":
            return StreamTransport(address, _open_serial(address))
        if address.kind == "tcp":
            connection = socket.create_connection((address.host, address.port), timeout=5.0)
            return StreamTransport.over_tcp(address, connection)
        return UdpTransport(address, follow=follow)
    except OSError as error:
        raise LinkError(
            "cannot open MAVLink address",
            f"{address} ({error.strerror or error})",
            "",
            "is the address right and free?",
        ) from error


class UdpTransport:
    """Datagrams, one message each. The socket is never connected: a peer that is not there yet is no error.

    It outlives the network: an address that cannot be reached for a while only makes it `unreachable`. Bound to an
    address (udpin) it answers whoever spoke last; with `follow` false only who was confirmed by `answer`, so that a
    stranger's datagram does not turn our words to the stranger. `source` is who sent what was read last.
    """

    def __init__(self, address: Address, *, follow: bool = True) -> None:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
        # IPv4 first: it is what autopilots and their tools listen on, also where `localhost` has both.
        family, _, _, _, where = min(found, key=lambda one: one[0] != socket.AF_INET)
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._peer = where if address.kind == "udpout" else None
        self._answers, self._follow = address.kind == "udpin", follow
        self.source: Any = None
        self.gone = False  # it never is
        self.unreachable = False
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            if self._answers:
                self._socket.bind(where)
                address = Address(address.kind, address.host, self._socket.getsockname()[1])
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise
        self.address = address

    @property
    def ready(self) -> bool:
        return self._peer is not None

    def write(self, packet: bytes) -> bool:
        if self._peer is None:
            return False
        try:
            whole = self._socket.sendto(packet, self._peer) == len(packet)
        except OSError as error:  # no room, or no network at the moment; the caller counts it
            self.unreachable = error.errno in _NO_NETWORK
            return False
        self.unreachable = False
        return whole

    def read(self, timeout_s: float) -> bytes:
        if timeout_s > 0:
            wait_for(self._socket.fileno(), timeout_s)
        packet = b""
        try:
            for _ in range(_EMPTY_AT_ONCE):  # empty ones hide nothing that comes after them
                packet, self.source = self._socket.recvfrom(_READ_BYTES)
                if packet:
                    break
        except OSError:  # nothing there
            return b""
        if not packet:
            return b""
        if self._follow:
            self.answer()
        return packet

    def answer(self) -> None:
        """Who sent what was read last is the peer from now on, where we answer at all."""
        if self._answers:
            self._peer = self.source

    def close(self) -> None:
        self._socket.close()


class StreamTransport:
    """A TCP connection or a serial line by its file descriptor. A message is never cut by another one."""

    def __init__(self, address: Address, descriptor: int) -> None:
        self.address, self._descriptor = address, descriptor
        self.gone = False
        self._rest = b""  # of the last message, where the line took only its beginning
        os.set_blocking(descriptor, False)

    @classmethod
    def over_tcp(cls, address: Address, connection: socket.socket) -> StreamTransport:
        """Takes over a connected socket: small packets at once, and a peer that vanished is noticed."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_USER_TIMEOUT", 1000 * _PATIENCE_S),  # of what was sent, in ms
            ("TCP_KEEPIDLE", _PATIENCE_S // 2),  # of a line on which nothing is sent, in s
            ("TCP_KEEPINTVL", _PATIENCE_S // 5),
        ):
            if hasattr(socket, option):  # Linux
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        return cls(address, connection.detach())

    @property
    def ready(self) -> bool:
        return not self.gone

    def write(self, packet: bytes) -> bool:
        self._rest = self._push(self._rest)
        if self._rest or self.gone:
            return False
        rest = self._push(packet)
        if rest == packet:
            return False
        self._rest = rest
        return True

    def _push(self, data: bytes) -> bytes:
        """What of `data` the line did not take."""
        try:
            return data[os.write(self._descriptor, data) :] if data else b""
        except OSError as error:  # full, or gone; the caller counts it
            self.gone = error.errno not in _TRY_AGAIN
            return data

    def read(self, timeout_s: float) -> bytes:
        if self.gone:
            time.sleep(max(0.0, timeout_s))  # a lost line is always readable: the caller would spin
            return b""
        if timeout_s > 0:
            wait_for(self._descriptor, timeout_s)
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except OSError as error:
            self.gone = error.errno not in _TRY_AGAIN
            return b""
        self.gone = not data  # the end: hung up, or unplugged
        return data

    def close(self) -> None:
        os.close(self._descriptor)


def wait_for(descriptor: int, timeout_s: float, *, to_write: bool = False) -> bool:
    """Whether it can be read (or written) within `timeout_s`.

    By poll where there is one: select refuses descriptors from 1024 on, and a large program has them.
    """
    timeout_s = max(0.0, timeout_s)
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT if to_write else select.POLLIN)
        return bool(poll.poll(1000 * timeout_s))
    reading, writing = ([], [descriptor]) if to_write else ([descriptor], [])
    return any(select.select(reading, writing, [], timeout_s))


def _open_serial(address: Address) -> int:
    """A raw line by the standard library: one dependency fewer on the aircraft."""
    try:
        import termios
        import tty
    except ModuleNotFoundError as error:
        raise LinkError("no serial lines on this system", str(address), "Linux or macOS") from error
    speed = getattr(termios, f"B{address.port}", None)
    if speed is None:
        raise LinkError("baud rate", address.port, "a standard one such as 57600, 115200, 921600 or 1500000")
    descriptor = os.open(address.host, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        tty.setraw(descriptor)
        mode = termios.tcgetattr(descriptor)
        mode[2] = (mode[2] | termios.CLOCAL | termios.CREAD) & ~(termios.CSTOPB | termios.PARENB)
        mode[4] = mode[5] = speed
        termios.tcsetattr(descriptor, termios.TCSANOW, mode)
    except termios.error as error:
        os.close(descriptor)
        raise LinkError("not a serial line", address.host, FORMS) from error
    return descriptor
