"""The direct link: `onboard.mavlink.companion.Companion` on a thread of its own, independent of the executor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from onboard.config import Config
from onboard.frames import MapFrame
from onboard.records import Reason, Step, Telemetry

_TICK_S = 0.01


class DirectLink:
    """Also a source of telemetry (`passed`, `at`). PilotageError where the address or the key is not usable."""

    def __init__(self, address: str, config: Config, frame: MapFrame, now_ns: Callable[[], int] = time.time_ns) -> None:
        from onboard.mavlink.companion import Companion
        from onboard.mavlink.wire.connection import Connection
        from onboard.mavlink.wire.signing import SigningKey

        key = SigningKey.load(config.link.signing_key_file) if config.link.signing_key_file else None
        self._connection = Connection.open(address, vehicle_system=config.link.system_id, signing=key)
        self._companion = Companion(self._connection, config, frame)
        self._now_ns = now_ns
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="mavlink", daemon=True)
        self._thread.start()

    def take(self, step: Step) -> None:
        self._companion.take(step)

    def passed(self, t_ns: int, /) -> bool:
        return self._companion.telemetry_passed(t_ns)

    def at(self, captured_at_ns: int, /) -> Telemetry | Reason:
        return self._companion.telemetry_at(captured_at_ns)

    def status(self) -> Any:
        """The companion's status record. Raises what ended the thread."""
        self.check()
        return self._companion.status(self._now_ns())

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        self._ending.set()
        self._thread.join(1.0)
        self._connection.close()

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                self._companion.wait(_TICK_S)
                self._companion.tick(self._now_ns())
        except BaseException as error:  # the node's to tell, by `check`
            self._failure = error
