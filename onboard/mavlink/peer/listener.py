"""A peer that counts and decodes what it receives: the flight controller's place, taken by a notebook.

Run as a module (`python -m onboard.mavlink.peer.listener ADDRESS --out FILE`) it serves a parent process, see
`listener_process`: one JSON line when it is ready, `stop [EXPECTED]` on its input ends it, one JSON line with the sums.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import select
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.errors import LinkError, PilotageError
from onboard.mavlink.peer.received import COLUMNS, Received, decode, row
from onboard.mavlink.tell.place import Home
from onboard.mavlink.wire.transport import Transport, open_transport, parse_address

_DECODE_AT_ONCE = 16  # packets between two looks at the socket: its buffer is emptied before anything is decoded
_TAKE_AT_ONCE = 4096
_QUIET_S = 0.5  # silence after which what is still missing is not coming


class Listener:
    """Receives on `transport` and writes each position to `out` (CSV), which appears when closed, complete."""

    def __init__(self, transport: Transport, out: Path) -> None:
        if not out.parent.is_dir():
            raise LinkError("no folder for the received messages", out.parent, "an existing folder")
        self._transport, self._out = transport, out
        self._partial = out.with_name(out.name + ".partial")
        self._file = self._partial.open("w", newline="")
        self._csv = csv.writer(self._file, lineterminator="\n")
        self._csv.writerow(COLUMNS)
        self._parser = mav.MAVLink(None)
        self._parser.robust_parsing = True
        self._waiting: deque[bytes] = deque()
        self._by_name: Counter[str] = Counter()
        self._next_seq: dict[tuple[int, int], int] = {}
        self._lost = self._out_of_order = self._bad = self._fixes = 0
        self.origin: Home | None = None
        self._last_at_s = time.monotonic()

    @property
    def total(self) -> int:
        return self._by_name.total()

    @property
    def quiet_s(self) -> float:
        """How long nothing has come."""
        return time.monotonic() - self._last_at_s

    def poll(self, timeout_s: float = 0.0) -> int:
        """Take all that has come, decode a few packets; how many still wait to be decoded."""
        packet = self._transport.read(0.0 if self._waiting else timeout_s)
        taken = 0
        while packet and taken < _TAKE_AT_ONCE:
            self._waiting.append(packet)
            self._last_at_s = time.monotonic()
            packet, taken = self._transport.read(0.0), taken + 1
        if packet:
            self._waiting.append(packet)
        self._decode(_DECODE_AT_ONCE)
        return len(self._waiting)

    def finish(self, expected: int | None = None, quiet_s: float = 0.0, limit_s: float = 5.0) -> Received:
        """Take what is under way and close the file.

        Waits until `expected` messages came or none came for `quiet_s`, at most `limit_s`: a peer that never stops
        sending cannot hold it.
        """
        self._last_at_s = time.monotonic()
        until_s = self._last_at_s + limit_s
        while self.poll(0.02) or (self.quiet_s < quiet_s and (expected is None or self.total < expected)):
            if time.monotonic() > until_s:
                break
        self._decode(len(self._waiting))
        self._file.close()
        os.replace(self._partial, self._out)
        return self.received(self._out)

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def received(self, csv_path: Path | None = None) -> Received:
        """The sums so far."""
        return Received(
            str(self._transport.address),
            self.total,
            dict(self._by_name),
            self._lost,
            self._out_of_order,
            self._bad,
            self._fixes,
            self.origin,
            csv_path,
        )

    def _decode(self, packets: int) -> None:
        for _ in range(min(packets, len(self._waiting))):
            for message in self._parser.parse_buffer(self._waiting.popleft()) or ():
                self._take(message)

    def _take(self, message: mav.MAVLink_message) -> None:
        name = message.get_type()
        if name == "BAD_DATA":
            self._bad += 1
            return
        self._by_name[name] += 1
        sender = (message.get_srcSystem(), message.get_srcComponent())
        ahead = (message.get_seq() - self._next_seq.get(sender, message.get_seq())) % 256
        if ahead < 128:
            self._lost += ahead
            self._next_seq[sender] = (message.get_seq() + 1) % 256
        else:  # one from behind: repeated, or overtaken and taken for lost before
            self._out_of_order += 1
        if name == "SET_GPS_GLOBAL_ORIGIN":
            self.origin = Home(message.latitude, message.longitude, message.altitude)
        fix = decode(message, self.origin)
        if fix is not None:
            self._fixes += 1
            self._csv.writerow(row(fix))


def listen(
    address: str,
    out: Path,
    stopped: Callable[[Listener], bool],
    ready: Callable[[str], None] = lambda address: None,
    expected: Callable[[], int | None] = lambda: None,
    quiet_s: float = 0.0,
) -> Received:
    """Receive until `stopped` says so (asked about fifty times a second); nothing half-written is left behind.

    `ready` gets the address in use as soon as nothing can be missed any more. `expected` and `quiet_s`: how long
    to wait, once stopped, for what is still under way (see `Listener.finish`).
    """
    transport = open_transport(parse_address(address))
    try:
        listener = Listener(transport, out)
        try:
            ready(str(transport.address))
            while not stopped(listener):
                listener.poll(0.02)
            return listener.finish(expected(), quiet_s)
        except BaseException:
            listener.abandon()
            raise
    finally:
        transport.close()


class _Orders:
    """`stop [EXPECTED]` from the parent on the standard input; its end means that the parent gave up."""

    def __init__(self) -> None:
        self.expected: int | None = None

    def stopped(self, _: Listener) -> bool:
        if not select.select([sys.stdin], [], [], 0)[0]:
            return False
        line = sys.stdin.readline()
        if not line:
            raise SystemExit(2)
        words = line.split()
        self.expected = int(words[1]) if len(words) == 2 and words[1].isdigit() else None
        return True


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m onboard.mavlink.peer.listener")
    parser.add_argument("address")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    orders = _Orders()
    try:
        received = listen(
            arguments.address,
            arguments.out,
            orders.stopped,
            ready=lambda address: print(json.dumps({"ready": address}), flush=True),
            expected=lambda: orders.expected,
            quiet_s=_QUIET_S,
        )
    except PilotageError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        sys.exit(2)
    print(json.dumps(received.to_dict()), flush=True)


if __name__ == "__main__":
    main()
