"""The camera's thread: always drains the driver, so that no frame is older than it must be, and opens it again.

A camera that dies is opened again, at first after half a second, then ever less often, at least every ten seconds.
One that shows nothing new is no matter of this thread: the localizer sees frozen and black frames.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onboard.camera import CameraModel
from onboard.errors import CameraError
from onboard.live.clock import SteadyClock
from onboard.live.sources import CameraOptions, Source, is_endless, open_source, without_password
from onboard.records import Frame

_log = logging.getLogger(__name__)
_FIRST_RETRY_S, _LAST_RETRY_S = 0.5, 10.0
_KEPT = 60  # grabs that the rate is told of


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """`grabbed` frames came, `taken` of them were handed on. `connected`: the last grab gave an image.

    `alive_at_ns`: when this thread last got something done, were it an attempt to open a dead camera.
    """

    grabbed: int
    taken: int
    undecodable: int
    reconnects: int
    rate_hz: float | None
    connected: bool
    ended: bool
    alive_at_ns: int


class Camera:
    """Hands each taken frame to `on_frame` on its own thread. Opening it the first time must work: CameraError.

    `open_it` opens the source (again). Use as a context manager, or `start` and `stop`.
    """

    def __init__(
        self,
        options: CameraOptions,
        model: CameraModel,
        on_frame: Callable[[Frame], None],
        clock: SteadyClock,
        *,
        open_it: Callable[[], Source] | None = None,
        first_retry_s: float = _FIRST_RETRY_S,
    ) -> None:
        self._options, self._model, self._on_frame, self._clock = options, model, on_frame, clock
        self._stopped = threading.Event()
        self._open = open_it or (lambda: open_source(options, model, clock, self._stopped.wait))
        self._first_retry_s = self._retry_s = first_retry_s
        self._lock = threading.Lock()
        self._grabbed = self._taken = self._undecodable = self._reconnects = 0
        self._times_ns: deque[int] = deque(maxlen=_KEPT)
        self._connected, self._ended = False, False
        self._alive_at_ns = clock.now_ns()
        self._due_ns = 0
        self._failure: BaseException | None = None
        self._source: Source | None = None
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)

    def start(self) -> None:
        self._source = self._open()
        self._alive_at_ns = self._clock.now_ns()
        self._thread.start()

    def check(self) -> None:
        """Raise what ended the thread: a frame of another size than the calibration's, or a mistake of ours."""
        if self._failure is not None:
            raise self._failure

    def stop(self, timeout_s: float = 0.5) -> bool:
        """True when the thread has ended; one that hangs in a driver is left behind."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def status(self) -> CameraStatus:
        with self._lock:
            times = list(self._times_ns)
            rate_hz = None
            if len(times) > 1 and times[-1] > times[0]:
                rate_hz = (len(times) - 1) * 1e9 / (times[-1] - times[0])
            return CameraStatus(
                self._grabbed,
                self._taken,
                self._undecodable,
                self._reconnects,
                rate_hz,
                self._connected,
                self._ended,
                self._alive_at_ns,
            )

    def __enter__(self) -> Camera:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                if self._source is None and not self._reopened():
                    return
                if not self._one():
                    self._lost()
                    if not is_endless(self._options.address):
                        self._ended = True
                        return
        except BaseException as error:  # the owner's to tell
            self._failure = error
        finally:
            if self._source is not None:
                self._source.close()

    def _one(self) -> bool:
        """Grab a frame, and hand it on if it is its turn. False when the source failed."""
        assert self._source is not None
        captured_at_ns = self._source.grab()
        now_ns = self._clock.now_ns()
        if captured_at_ns is None:
            return False
        with self._lock:
            self._grabbed += 1
            self._times_ns.append(captured_at_ns)
            self._alive_at_ns, self._connected = now_ns, True
        self._retry_s = self._first_retry_s
        if not self._its_turn(captured_at_ns):
            return True
        image = self._source.image()
        if image is None:
            self._undecodable += 1
            return True
        self._check_size(image)
        self._taken += 1
        self._on_frame(Frame(captured_at_ns, image, f"frames/{captured_at_ns}.png"))
        return True

    def _its_turn(self, captured_at_ns: int) -> bool:
        """Whether a frame falls to the wanted rate; a quarter of a period early is on time: cameras jitter."""
        if not is_endless(self._options.address):
            return True
        period_ns = round(1e9 / self._options.rate_hz)
        if captured_at_ns < self._due_ns - period_ns // 4:
            return False
        on_beat_ns = self._due_ns + period_ns
        self._due_ns = on_beat_ns if on_beat_ns > captured_at_ns else captured_at_ns + period_ns
        return True

    def _check_size(self, image: np.ndarray) -> None:
        if image.shape[:2] != (self._model.height, self._model.width):
            raise CameraError(
                f"image size of {without_password(self._options.address)}",
                f"{image.shape[1]}x{image.shape[0]}",
                f"{self._model.width}x{self._model.height} as in the camera model",
                "calibrate at the size that the camera gives, or set the camera to that of the calibration",
            )

    def _lost(self) -> None:
        assert self._source is not None
        self._source.close()
        self._source = None
        with self._lock:
            self._connected = False
            self._alive_at_ns = self._clock.now_ns()

    def _reopened(self) -> bool:
        """Try until the camera is back; false when told to stop. Only an image makes the next try an early one."""
        name = without_password(self._options.address)
        if self._retry_s == self._first_retry_s:
            _log.warning("camera lost: %s", name)
        while not self._stopped.wait(self._retry_s):
            self._retry_s = min(2.0 * self._retry_s, _LAST_RETRY_S)
            self._alive_at_ns = self._clock.now_ns()
            try:
                self._source = self._open()
            except CameraError:
                continue
            self._reconnects += 1
            return True
        return False
