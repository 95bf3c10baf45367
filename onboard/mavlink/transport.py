"""Bytes in and out: UDP, TCP and serial lines under one small face, none of which ever waits to write.

| address             | who begins                                                    |
|---------------------|---------------------------------------------------------------|
| udpout:HOST:PORT    | we send to the peer                                           |
| udpin:HOST:PORT     | we bind and answer whoever spoke last; port 0: any free one   |
| tcp:HOST:PORT       | we connect to the peer                                        |
| /dev/ttyX:BAUD      | a serial line, 8N1, raw                                       |
"""

from __future__ import annotations

import os
import re
import select
import socket
from dataclasses import dataclass
from typing import Protocol

from onboard.errors import LinkError

FORMS = "udpout:HOST:PORT, udpin:HOST:PORT, tcp:HOST:PORT or /dev/ttyX:BAUD"
_NETWORK = re.compile(r"(udpout|udpin|tcp):(\[[^\]]+\]|[^:\s]+):(\d{1,5})")
_SERIAL = re.compile(r"(/dev/\S+):(\d+)")
_READ_BYTES = 65536
# As many as the kernel grants; at 0.8 kB of bookkeeping each, 4 MiB hold some 5000 messages.
RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024


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
    """`address` is the one in use (a free port is filled in)."""

    address: Address

    def write(self, packet: bytes) -> bool:
        """Send one whole message now, or none of it: false where there is no room, no way or no peer."""

    def read(self, timeout_s: float) -> bytes:
        """What has come, after waiting for it at most `timeout_s`; empty for nothing."""

    def close(self) -> None: ...


def open_transport(address: Address) -> Transport:
    """LinkError where the address cannot be opened."""
    try:
        if address.kind == "serial":
            return StreamTransport(address, _open_serial(address))
        if address.kind == "tcp":
            connection = socket.create_connection((address.host, address.port), timeout=5.0)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return StreamTransport(address, connection.detach())
        return UdpTransport(address)
    except OSError as error:
        raise LinkError(
            "cannot open MAVLink address",
            f"{address} ({error.strerror or error})",
            "",
            "is the address right and free?",
        ) from error


class UdpTransport:
    """Datagrams, one message each. The socket is never connected: a peer that is not there yet is no error."""

    def __init__(self, address: Address) -> None:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
        # IPv4 first: it is what autopilots and their tools listen on, also where `localhost` has both.
        family, _, _, _, where = min(found, key=lambda one: one[0] != socket.AF_INET)
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._peer = where if address.kind == "udpout" else None
        self._answers = address.kind == "udpin"
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

    def write(self, packet: bytes) -> bool:
        if self._peer is None:
            return False
        try:
            return self._socket.sendto(packet, self._peer) == len(packet)
        except OSError:  # no room, or no network at the moment; the caller counts it
            return False

    def read(self, timeout_s: float) -> bytes:
        if timeout_s > 0:
            select.select([self._socket], [], [], timeout_s)
        try:
            packet, sender = self._socket.recvfrom(_READ_BYTES)
        except OSError:  # nothing there
            return b""
        if self._answers:
            self._peer = sender
        return packet

    def close(self) -> None:
        self._socket.close()


class StreamTransport:
    """A TCP connection or a serial line by its file descriptor. A message is never cut by another one."""

    def __init__(self, address: Address, descriptor: int) -> None:
        self.address, self._descriptor = address, descriptor
        self._rest = b""  # of the last message, where the line took only its beginning
        os.set_blocking(descriptor, False)

    def write(self, packet: bytes) -> bool:
        self._rest = self._push(self._rest)
        if self._rest:
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
        except OSError:  # full, or gone; the caller counts it
            return data

    def read(self, timeout_s: float) -> bytes:
        if timeout_s > 0:
            select.select([self._descriptor], [], [], timeout_s)
        try:
            return os.read(self._descriptor, _READ_BYTES)
        except OSError:
            return b""

    def close(self) -> None:
        os.close(self._descriptor)


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
