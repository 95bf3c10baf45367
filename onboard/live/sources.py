"""Where images come from: a V4L2 device, a GStreamer pipeline, an RTSP stream, or files shown at their own pace.

| address               | opened by        | time of capture                                                    |
|-----------------------|------------------|--------------------------------------------------------------------|
| `/dev/videoN`         | V4L2             | the driver's stamp (CLOCK_MONOTONIC) where it is plausible         |
| `gstreamer:PIPELINE`  | OpenCV's own     | arrival less `delay_ms`: a pipeline's stamps have an unknown start |
| `rtsp:...`            | FFmpeg           | arrival less `delay_ms`                                            |
| `file:PATH`           | FFmpeg, imread   | the moment at which the image is shown: for the bench              |
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from onboard.camera import CameraModel
from onboard.errors import CameraError
from onboard.live.clock import SteadyClock

_KINDS = "/dev/videoN, gstreamer:PIPELINE, rtsp://HOST/PATH or file:PATH"
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_TIMEOUT_MS = 5000  # of opening and reading a stream
_OLDEST_STAMP_NS = 1_000_000_000  # a driver's stamp older than this is of another clock
_SINK = "! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """`rate_hz`: at most so many images a second are taken from a camera; a folder of images is shown at it.

    `delay_ms`: from exposure to arrival, where the source has no stamp of its own.
    """

    address: str
    rate_hz: float = 10.0
    delay_ms: float = 0.0


class Source(Protocol):
    """An open camera. `grab` waits for the next image and gives its time; `image` decodes it, if it is wanted."""

    def grab(self) -> int | None:
        """Capture time (our clock) of the image that came; None when the source has failed or has ended."""

    def image(self) -> np.ndarray | None:
        """The grabbed image, uint8 BGR (H, W, 3); None where it cannot be decoded."""

    def close(self) -> None: ...


def open_source(
    options: CameraOptions, camera: CameraModel, clock: SteadyClock, wait: Callable[[float], object]
) -> Source:
    """Open an address; CameraError where nothing is there. `wait` sleeps so many seconds (files are paced by it)."""
    address = options.address
    if address.startswith("file:"):
        return _FileSource(Path(address[len("file:") :]), options.rate_hz, clock, wait)
    if address.startswith("gstreamer:"):
        return _StreamSource(_open_gstreamer(address[len("gstreamer:") :]), options, clock)
    if address.startswith(("rtsp:", "rtsps:")):
        url = address if "://" in address else f"rtsp://{address[len('rtsp:') :]}"
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeouts)
        name = without_password(address)
        return _StreamSource(_opened(capture, name, "an RTSP stream", "check address and network"), options, clock)
    if address.startswith("/dev/"):
        return _StreamSource(_open_device(address, camera), options, clock, driver_stamps=True)
    raise CameraError("camera", address, _KINDS)


def is_endless(address: str) -> bool:
    """Whether an end of the images is a failure, as it is for all but files."""
    return not address.startswith("file:")


def without_password(address: str) -> str:
    """The address as it may be told to others."""
    return re.sub(r"//[^/@]*@", "//", address)


def _open_device(path: str, camera: CameraModel) -> cv2.VideoCapture:
    """Asks for the size that the camera was calibrated at."""
    if not os.path.exists(path):
        there = ", ".join(sorted(str(p) for p in Path("/dev").glob("video*")))
        raise CameraError("no camera", path, there or "a video device", "plug it in, or give another --camera")
    size = [cv2.CAP_PROP_FRAME_WIDTH, camera.width, cv2.CAP_PROP_FRAME_HEIGHT, camera.height]
    capture = _opened(
        cv2.VideoCapture(path, cv2.CAP_V4L2),
        path,
        "a V4L2 camera",
        "see whether another program has it, and the rights",
    )
    for name, value in zip(size[::2], size[1::2], strict=True):
        capture.set(name, value)
    return capture


def _open_gstreamer(pipeline: str) -> cv2.VideoCapture:
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise CameraError(
            "this OpenCV is built without GStreamer",
            cv2.__version__,
            "one with it",
            "on JetPack use the system's own: pip uninstall opencv-python-headless, "
            "and a virtual environment with --system-site-packages",
        )
    whole = pipeline if "appsink" in pipeline else f"{pipeline} {_SINK}"
    remedy = "try it with gst-launch-1.0"
    return _opened(cv2.VideoCapture(whole, cv2.CAP_GSTREAMER), pipeline, "a GStreamer pipeline that runs", remedy)


def _opened(capture: cv2.VideoCapture, address: object, expected: str, remedy: str) -> cv2.VideoCapture:
    if not capture.isOpened():
        capture.release()
        raise CameraError("camera cannot be opened", address, expected, remedy)
    return capture


class _StreamSource:
    """A live VideoCapture."""

    def __init__(
        self, capture: cv2.VideoCapture, options: CameraOptions, clock: SteadyClock, driver_stamps: bool = False
    ) -> None:
        self._capture, self._clock, self._driver_stamps = capture, clock, driver_stamps
        self._delay_ns = round(options.delay_ms * 1e6)

    def grab(self) -> int | None:
        try:
            if not self._capture.grab():
                return None
        except cv2.error:  # a backend may throw where it should say no
            return None
        arrived_ns = self._clock.now_ns()
        stamp_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC) if self._driver_stamps else 0.0
        return captured_at_ns(stamp_ms, arrived_ns, self._delay_ns, self._clock)

    def image(self) -> np.ndarray | None:
        return _retrieved(self._capture)

    def close(self) -> None:
        self._capture.release()


class _FileSource:
    """A video file at its own rate, or the images of a folder, sorted by name, at `rate_hz`.

    A flight folder's images are found in it too, in the folders below.
    """

    def __init__(self, path: Path, rate_hz: float, clock: SteadyClock, wait: Callable[[float], object]) -> None:
        self._clock, self._wait, self._shown = clock, wait, 0
        self._capture: cv2.VideoCapture | None = None
        self._files: list[Path] = []
        if path.is_dir():
            self._files = sorted(p for p in path.rglob("*") if p.suffix.lower() in _IMAGES)
            if not self._files:
                raise CameraError("no images in the folder", path, "files ending in " + ", ".join(_IMAGES))
        elif path.is_file():
            self._capture = _opened(cv2.VideoCapture(str(path)), path, "a video file", "see whether a player shows it")
            told_hz = float(self._capture.get(cv2.CAP_PROP_FPS))
            rate_hz = told_hz if 0.1 <= told_hz <= 1000.0 else rate_hz
        else:
            raise CameraError("no video and no folder of images", path, "a path that exists")
        self._period_ns = 1e9 / rate_hz
        self._began_ns = clock.now_ns()

    def grab(self) -> int | None:
        at_ns = self._began_ns + round(self._shown * self._period_ns)
        early_ns = at_ns - self._clock.now_ns()
        if early_ns > 0:
            self._wait(early_ns * 1e-9)
        ended = self._shown >= len(self._files) if self._capture is None else not self._capture.grab()
        self._shown += 1
        return None if ended else at_ns

    def image(self) -> np.ndarray | None:
        if self._capture is None:
            return cv2.imread(str(self._files[self._shown - 1]), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        return _retrieved(self._capture)

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()


def _retrieved(capture: cv2.VideoCapture) -> np.ndarray | None:
    try:
        decoded, image = capture.retrieve()
    except cv2.error:
        return None
    return as_bgr(image) if decoded else None


def captured_at_ns(stamp_ms: float, arrived_ns: int, delay_ns: int, clock: SteadyClock) -> int:
    """The driver's stamp by our clock where it is of the last second; else the arrival less the known delay.

    `stamp_ms` is CAP_PROP_POS_MSEC: V4L2 gives the buffer's time there, which drivers tell by CLOCK_MONOTONIC.
    """
    if stamp_ms > 0.0:  # false for NaN too
        stamped_ns = clock.from_monotonic_ns(round(stamp_ms * 1e6))
        if 0 <= arrived_ns - stamped_ns <= _OLDEST_STAMP_NS:
            return stamped_ns
    return arrived_ns - delay_ns


def as_bgr(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) of what a backend hands out: grey and BGRA exist too. CameraError for other layouts."""
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return image
    if image.dtype == np.uint8 and (image.ndim == 2 or image.shape[2] == 1):
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if image.dtype == np.uint8 and image.shape[2] == 4:
        return cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    raise CameraError("image layout", f"{image.dtype} {image.shape}", "8 bits, BGR, BGRA or grey", "convert it before")
