"""What a supervisor is told (systemd's notify protocol), and how it says stop (signals)."""

from __future__ import annotations

import os
import signal
import socket
import threading
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def notify(state: str) -> bool:
    """Tell systemd, for instance READY=1 or WATCHDOG=1; true if it was told. Outside a unit nothing happens.

    The protocol of sd_notify(3): one datagram to the socket that NOTIFY_SOCKET names; @ stands for an abstract one.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(0.1)
            out.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
    except OSError:  # the supervisor's trouble is none of the flight's
        return False
    return True


class StopOnSignal:
    """SIGINT and SIGTERM set `event` while this is entered; the second one of them kills as if it were not there."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __enter__(self) -> StopOnSignal:
        self._before = {number: signal.signal(number, self._stop) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.event.set()
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
