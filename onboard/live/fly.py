"""Camera, localizer and flight controller, each on its own thread, held together.

    camera thread    a frame -> inbox
    link thread      every 10 ms: the companion's tick; inbox -> pairing (waits for telemetry) -> the worker's mailbox
    worker thread    Localizer.step -> companion.take, recorder
    main thread      looks whether all of them get on, feeds the watchdog, shows

What goes wrong in a thread ends the flight program: the error is raised in the main thread, by `run`.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

from onboard.config import Config
from onboard.frames import MapFrame
from onboard.live.camera import Camera
from onboard.live.clock import SteadyClock
from onboard.live.recorder import Recorder
from onboard.live.status import FlyStatus, ellipse_95_m
from onboard.live.supervise import notify
from onboard.live.worker import FrameItem, StepFunction, Worker
from onboard.mavlink.status import LinkStatus
from onboard.pairing import Pairing
from onboard.records import Frame, Reason, State, Step, Telemetry

_TICK_S = 0.01
_INBOX = 8  # frames that may come between two ticks
_RECENT = 5
_LAST_TICK_S, _LAST_STEP_S = 0.5, 1.0  # what the work in hand is given at the end


class CompanionLink(Protocol):
    """What is used of `onboard.mavlink.companion.Companion`."""

    def wait(self, timeout_s: float) -> None: ...
    def tick(self, now_ns: int) -> None: ...
    def take(self, step: Step) -> None: ...
    def telemetry_at(self, captured_at_ns: int) -> Telemetry | Reason: ...
    def telemetry_passed(self, captured_at_ns: int) -> bool: ...
    def status(self, now_ns: int) -> LinkStatus: ...


class Flyer:
    """`step` is `Localizer.step`. Give `take_frame` to a Camera, then `run` with it, once."""

    def __init__(
        self,
        step: StepFunction,
        companion: CompanionLink,
        map_frame: MapFrame,
        clock: SteadyClock,
        config: Config = Config(),
        recorder: Recorder | None = None,
    ) -> None:
        self._companion, self._map_frame, self._clock, self._recorder = companion, map_frame, clock, recorder
        self._inbox: queue.Queue[Frame] = queue.Queue(_INBOX)
        self._overrun = 0  # frames that found the inbox full: the link's thread hangs
        wait_ns = round(config.rectify.max_telemetry_age_ms * 1e6)  # later it would be too old anyway
        self._pairing: Pairing[Frame] = Pairing(_TelemetryOf(companion), wait_ns)
        self._worker = Worker(
            step, self._stepped, on_item=None if recorder is None else recorder.offer, clock_ns=clock.now_ns
        )
        self._lock = threading.Lock()
        self._last_published: Step | None = None
        self._state, self._fixes = State.LOST, 0
        self._fixed_at_ns: int | None = None
        self._reasons: Counter[str] = Counter()
        self._recent: deque[str] = deque(maxlen=_RECENT)
        self._ticked_at_ns = clock.now_ns()
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self._link = threading.Thread(target=self._run_link, name="link", daemon=True)

    def take_frame(self, frame: Frame) -> None:
        """Called by the camera's thread; never waits."""
        try:
            self._inbox.put_nowait(frame)
        except queue.Full:
            self._overrun += 1

    def run(
        self, camera: Camera, stop: threading.Event, show: Callable[[FlyStatus], None], period_s: float = 0.25
    ) -> FlyStatus:
        """Fly until `stop` is set or the images of a file have ended; the last status. Raises what a thread raised.

        `show` is called every `period_s` on the caller's thread.
        """
        try:
            self._ticked_at_ns = self._clock.now_ns()
            self._link.start()
            self._worker.start()
            camera.start()
            notify("READY=1")
            while not stop.wait(period_s):
                self._check(camera)
                status = self.status(camera)
                if status.going:
                    notify("WATCHDOG=1")
                show(status)
                if self._all_done(status):
                    break
            notify("STOPPING=1")
        finally:
            camera.stop()
            self._ending.set()
            if self._link.ident is not None:
                self._link.join(_LAST_TICK_S)
            self._worker.end(timeout_s=_LAST_STEP_S)
        self._check(camera)
        return self.status(camera)

    def status(self, camera: Camera) -> FlyStatus:
        now_ns = self._clock.now_ns()
        with self._lock:
            last, state, fixes, fixed_at_ns = self._last_published, self._state, self._fixes, self._fixed_at_ns
            reasons, recent = dict(self._reasons), tuple(self._recent)
        latitude = longitude = ellipse = None
        if last is not None and last.estimate is not None:
            latitude, longitude = self._map_frame.geodetic_from_enu(last.estimate.position_enu_m)
            ellipse = ellipse_95_m(last.estimate.covariance[:2, :2])
        return FlyStatus(
            now_ns,
            state.value,
            latitude,
            longitude,
            ellipse,
            None if fixed_at_ns is None else (now_ns - fixed_at_ns) * 1e-9,
            fixes,
            reasons,
            recent,
            self._overrun,
            self._ticked_at_ns,
            camera.status(),
            self._worker.status(),
            None if self._recorder is None else self._recorder.status(),
            self._companion.status(now_ns),
        )

    def _run_link(self) -> None:
        try:
            while not self._ending.is_set():
                self._companion.wait(_TICK_S)
                now_ns = self._clock.now_ns()
                self._companion.tick(now_ns)
                self._pair(now_ns)
                self._ticked_at_ns = now_ns
        except BaseException as error:  # raised again by the main thread
            self._failure = error

    def _pair(self, now_ns: int) -> None:
        while not self._inbox.empty():
            frame = self._inbox.get_nowait()
            self._pairing.frame(frame.captured_at_ns, now_ns, frame)
        for captured_at_ns, frame, telemetry in self._pairing.ready(now_ns):
            self._worker.offer(FrameItem(captured_at_ns, frame.source, frame, telemetry))

    def _stepped(self, step: Step) -> None:
        """On the worker's thread. The flight controller is told first."""
        self._companion.take(step)
        with self._lock:
            self._state = step.state
            if step.published:
                self._last_published = step
            if step.published and step.reason is None:
                self._fixed_at_ns, self._fixes = step.captured_at_ns, self._fixes + 1
            elif step.reason is not None:
                self._reasons[step.reason.value] += 1
                self._recent.append(step.reason.value + (f": {step.detail}" if step.detail else ""))

    def _check(self, camera: Camera) -> None:
        camera.check()
        self._worker.check()
        if self._failure is not None:
            raise self._failure

    def _all_done(self, status: FlyStatus) -> bool:
        """Whether the images have ended and the last of them is worked off."""
        camera, worker = status.camera, status.worker
        offered = worker.offered == camera.taken - status.overrun
        return camera.ended and offered and worker.offered == worker.done + worker.dropped


class _TelemetryOf:
    """The companion as `Pairing` asks it."""

    def __init__(self, companion: CompanionLink) -> None:
        self.passed, self.at = companion.telemetry_passed, companion.telemetry_at
