"""Pilotage's side of the trial: what runs on a companion computer, on threads as `pilotage fly` has them."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
from clock import SimulatedClock
from tap import TappedConnection, Told

from onboard.camera import CameraModel
from onboard.config import Config
from onboard.engine import SHIPPED_MODEL, open_engine
from onboard.frames import MapFrame
from onboard.live.worker import FrameItem, Worker
from onboard.localizer import Localizer
from onboard.match.evidence import read_confidence
from onboard.mavlink.companion import Companion
from onboard.records import Reason, State, Step, Telemetry
from onboard.region import RegionMap

_TICK_S = 0.01


class Aboard:
    """Localizer and companion over the vehicle's second port; a context manager that runs their threads."""

    def __init__(
        self, region: Path, camera: CameraModel, mount: np.ndarray, config: Config, address: str, clock: SimulatedClock
    ) -> None:
        self.steps: list[Step] = []
        self._clock, self._pause_s = clock, _TICK_S / clock.speedup
        self._stack, self._stop = ExitStack(), threading.Event()
        with self._stack:
            engine = open_engine(None, config.engine)
            self._stack.callback(engine.close)
            opened = RegionMap.open(region, engine.facts)
            confidence = read_confidence(Path(SHIPPED_MODEL))
            localizer = Localizer(engine, opened, camera, mount, confidence, config)
            self._connection = self._stack.enter_context(TappedConnection.open(address, wait=True))
            self._companion = Companion(self._connection, config, opened.frame)
            self._worker = Worker(localizer.step, self._took, clock_ns=clock)
            self._link = threading.Thread(target=self._run_link, name="link", daemon=True)
            self._stack = self._stack.pop_all()

    @property
    def knows(self) -> bool:
        """Whether the last frame was found on the map."""
        return bool(self.steps) and self.steps[-1].state is State.TRACKING

    def passed(self, t_ns: int, /) -> bool:
        """See `onboard.pairing.TelemetrySource`."""
        return self._companion.telemetry_passed(t_ns)

    def at(self, captured_at_ns: int, /) -> Telemetry | Reason:
        return self._companion.telemetry_at(captured_at_ns)

    def offer(self, item: FrameItem) -> None:
        """A frame and its telemetry. Raises what the localizer has raised."""
        self._worker.offer(item)

    def words(self) -> list[str]:
        """The link's status."""
        return self._companion.status(self._clock()).in_words()

    def told(self, frame: MapFrame) -> list[Told]:
        """What the vehicle was told, in the frame given; nothing where it never had an origin."""
        origin = self._companion.link.origin
        return [] if origin is None else self._connection.told(origin, frame)

    def __enter__(self) -> Aboard:
        self._link.start()
        self._worker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._link.join(5)
        self._worker.stop()
        self._stack.close()

    def _took(self, step: Step) -> None:
        self._companion.take(step)
        self.steps.append(step)

    def _run_link(self) -> None:
        while not self._stop.is_set():
            stamp_ms = self._connection.waited(self._pause_s)  # what is read at once is stamped rightly
            if stamp_ms is not None:
                self._clock.heard(stamp_ms)  # or a busy computer would hear of a future
            self._companion.tick(self._clock())
