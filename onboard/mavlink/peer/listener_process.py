"""The listening peer as a process of its own, so that receiving takes nothing from the flight's computing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from onboard.errors import LinkError
from onboard.mavlink.peer.received import Received
from onboard.mavlink.wire.transport import parse_address

_EXIT_S = 5.0


class ListenerProcess:
    """A listener that is ready when the constructor returns: what is sent from then on is counted.

    `address` may be the sender's own (`udpout:HOST:PORT`) or the listener's (`udpin:HOST:PORT`); port 0 with
    udpin lets the system choose. `.address` is where it listens, `.peer` what a link must be opened with.
    """

    def __init__(self, address: str, out: Path | str) -> None:
        parsed = parse_address(address)
        asked = parsed if parsed.kind == "udpin" else parsed.peer
        self.out = Path(out)
        # A process group of its own: Ctrl-C ends the parent, whose end closes the input, which ends the child in order.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "onboard.mavlink.peer.listener", str(asked), "--out", str(self.out)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._received: Received | None = None
        try:
            self.address: str = self._line()["ready"]
        except (LinkError, KeyError):
            self.kill()
            raise
        self.peer = str(parse_address(self.address).peer)

    def stop(self, expected: int | None = None) -> Received:
        """End it and get the sums. It waits for `expected` messages, at most half a second past the last one."""
        if self._received is None:
            try:
                if self._process.stdin is not None:
                    self._process.stdin.write("stop\n" if expected is None else f"stop {expected}\n")
                    self._process.stdin.flush()
                self._received = Received.from_dict(self._line(), self.out)
            except BrokenPipeError as error:
                raise LinkError("the MAVLink listener ended early", f"status {self._process.poll()}") from error
            finally:
                self.kill()
        return self._received

    def kill(self) -> None:
        """End it now; what it received so far is dropped. Harmless after `stop`."""
        try:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process.wait(_EXIT_S)
        except BrokenPipeError:  # it was gone before an order was flushed
            self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> ListenerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._received is None:
            self.kill()

    def _line(self) -> dict[str, Any]:
        """One JSON line of the child. LinkError with its own words where it failed."""
        text = self._process.stdout.readline() if self._process.stdout is not None else ""
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise LinkError("the MAVLink listener ended early", f"status {self._process.wait(_EXIT_S)}") from error
        if "error" in content:
            raise LinkError("the MAVLink listener did not start", content["error"])
        return content
