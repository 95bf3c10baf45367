"""A line that comes back: opened anew, with growing pauses, whenever it is lost. The caller never waits for that.

Host names are looked up once, at the beginning: a name server that does not answer would hold the caller for seconds.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Hashable

from onboard.errors import LinkError
from onboard.mavlink.wire.transport import Address, StreamTransport, UdpTransport, open_transport, wait_for

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 8.0
_DIAL_S = 5.0  # how long one TCP attempt may take
_log = logging.getLogger(__name__)


class Reconnecting:
    """A transport (see `transport`) over an address. `reconnects` counts how often the line was opened again.

    The pause before an attempt doubles from `FIRST_PAUSE_S` to `LONGEST_PAUSE_S`, until something is heard. LinkError
    where the address cannot be opened now; with `wait` only where it never can be, or its host is not known.
    """

    def __init__(
        self,
        address: Address,
        *,
        wait: bool = False,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.address, self.reconnects = address, 0
        self._clock_s, self._sleep = clock_s, sleep
        self._addresses = _looked_up(address)
        self._line: UdpTransport | StreamTransport | None = None
        self._dialing: _Dialing | None = None
        self._opened = self._attempts = 0
        self._pause_s, self._try_at_s = FIRST_PAUSE_S, clock_s()
        try:
            self._take(open_transport(address, follow=False))
        except LinkError as error:
            if not (wait and isinstance(error.__cause__, OSError)):  # a baud rate that there is not will never be
                raise
            _log.warning("%s; waiting for it", error)
            self._later()

    @property
    def connected(self) -> bool:
        return self._line is not None and not getattr(self._line, "unreachable", False)

    @property
    def ready(self) -> bool:
        """The line is open and has a peer."""
        return self._line is not None and self._line.ready

    @property
    def source(self) -> Hashable:
        """Who sent what was read last: another one after every reconnection, whose pieces fit no earlier ones."""
        return self._opened, getattr(self._line, "source", None)

    def answer(self) -> None:
        """Who sent what was read last is spoken to (see `UdpTransport.answer`)."""
        if isinstance(self._line, UdpTransport):
            self._line.answer()

    def write(self, packet: bytes) -> bool:
        if self._line is None:
            self._advance(0.0)
        if self._line is None:
            return False
        written = self._line.write(packet)
        self._look_after()
        return written

    def read(self, timeout_s: float) -> bytes:
        if self._line is None:
            self._advance(max(0.0, timeout_s))
            return b""
        data = self._line.read(timeout_s)
        if data:
            self._pause_s = FIRST_PAUSE_S
        self._look_after()
        return data

    def close(self) -> None:
        """For good: nothing is opened after it."""
        self._try_at_s = float("inf")
        self._hang_up()

    def _look_after(self) -> None:
        """Give up a line that is lost."""
        if self._line is not None and self._line.gone:
            _log.warning("MAVLink: %s is lost; opening it again", self.address)
            self._hang_up()
            self._later()

    def _hang_up(self) -> None:
        for end in (self._line, self._dialing):
            if end is not None:
                end.close()
        self._line = self._dialing = None

    def _later(self) -> None:
        self._try_at_s = self._clock_s() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _advance(self, timeout_s: float) -> None:
        """One step towards an open line, within `timeout_s`."""
        if self._dialing is None:
            left_s = self._try_at_s - self._clock_s()
            if left_s > 0:
                self._sleep(min(left_s, timeout_s))
                return
            self._attempt()
        if self._dialing is not None:
            self._dial(self._dialing, timeout_s)

    def _attempt(self) -> None:
        address = self._addresses[self._attempts % len(self._addresses)]
        self._attempts += 1
        try:
            if address.kind == "tcp":
                self._dialing = _Dialing(address, self._clock_s() + _DIAL_S)
            else:
                self._take(open_transport(address, follow=False))
        except (LinkError, OSError):
            self._later()

    def _dial(self, dialing: _Dialing, timeout_s: float) -> None:
        try:
            connection = dialing.connection(self._clock_s(), timeout_s)
            if connection is None:
                return
            self._dialing = None
            self._take(StreamTransport.over_tcp(self.address, connection))
        except OSError:
            self._hang_up()
            self._later()

    def _take(self, line: UdpTransport | StreamTransport) -> None:
        self._line = line
        self._opened += 1
        self.reconnects = self._opened - 1
        if line.address.kind == "udpin":  # the port that was free the first time is the one that is known
            self._addresses = [Address("udpin", self._addresses[0].host, line.address.port)]
            self.address = Address("udpin", self.address.host, line.address.port)
        if self.reconnects:
            _log.warning("MAVLink: %s is open again", self.address)


class _Dialing:
    """A TCP connection in the making."""

    def __init__(self, address: Address, until_s: float) -> None:
        self._until_s = until_s
        self._socket = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
        self._socket.setblocking(False)
        begun = self._socket.connect_ex((address.host, address.port))
        if begun not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._socket.close()
            raise OSError(begun, os.strerror(begun))

    def connection(self, now_s: float, timeout_s: float) -> socket.socket | None:
        """The socket once it is connected; None while it is not. OSError where it will not be."""
        if not wait_for(self._socket.fileno(), timeout_s, to_write=True):
            if now_s >= self._until_s:
                raise TimeoutError(errno.ETIMEDOUT, "no answer")
            return None
        failed = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            raise OSError(failed, os.strerror(failed))
        return self._socket

    def close(self) -> None:
        self._socket.close()


def _looked_up(address: Address) -> list[Address]:
    """The same address by number, IPv4 first. LinkError for a host that nobody knows."""
    if address.kind == "serial":
        return [address]
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise LinkError("cannot open MAVLink address", f"{address} ({error.strerror or error})", "a host") from error
    found.sort(key=lambda one: one[0] != socket.AF_INET)
    numbers = [Address(address.kind, str(where[0]), address.port) for _, _, _, _, where in found]
    return numbers if address.kind == "tcp" else numbers[:1]  # only a TCP peer tells whether it is the right one
