"""Where messages leave: anything with `send`, such as a `Connection`; and the bare one that a replay sends through.

A replay runs faster than real time and must not flood the receiver's socket buffer, where messages would vanish
unseen: after a burst of `BURST` messages, `PacedSender.send` takes at most `MAX_RATE_HZ`, which costs the caller half
a millisecond a message.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.mavlink.wire.transport import Transport

BURST = 200
MAX_RATE_HZ = 2000.0


class Sender(Protocol):
    def send(self, message: mav.MAVLink_message) -> bool:
        """Take one message without waiting for the other end: false where it cannot leave."""


class PacedSender:
    """Packs and numbers messages for one transport: unsigned, nothing is queued, nothing received."""

    def __init__(self, transport: Transport, source_system: int, source_component: int) -> None:
        self.transport = transport
        self._packer = mav.MAVLink(None, srcSystem=source_system, srcComponent=source_component)
        self._pace = Pace(BURST, MAX_RATE_HZ)

    def send(self, message: mav.MAVLink_message) -> bool:
        """Numbers run without gaps over what left: a gap at the other end is a loss on the way."""
        self._pace.wait()
        if not self.transport.write(message.pack(self._packer)):
            return False
        self._packer.seq = (self._packer.seq + 1) % 256
        return True


class Pace:
    """A bucket of `burst` messages that fills at `rate_hz`."""

    def __init__(self, burst: int, rate_hz: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._rate_hz, self._clock = burst, rate_hz, clock
        self._left, self._at_s = float(burst), clock()

    def wait(self) -> None:
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at_s) * self._rate_hz)
        self._at_s = now
        if self._left < 1:
            time.sleep((1 - self._left) / self._rate_hz)
        self._left -= 1
