"""Cameras: opened again when they die, stamped at capture, decoded at the wanted rate; files at their own pace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import toy_world
from toy_live import MS, wait_until

from onboard.camera import CameraModel
from onboard.errors import CameraError
from onboard.live.camera import Camera
from onboard.live.clock import SteadyClock
from onboard.live.sources import CameraOptions, captured_at_ns, open_source, without_password


class ListSource:
    """A camera that gives what a list says: capture times and shades; None is a failure."""

    def __init__(self, camera: CameraModel, times_ns: Sequence[int | None]) -> None:
        self._camera, self._times, self.closed, self.decoded = camera, iter(times_ns), False, 0
        self._at_ns = 0

    def grab(self) -> int | None:
        at_ns = next(self._times, None)
        self._at_ns = at_ns or 0
        return at_ns

    def image(self) -> np.ndarray | None:
        self.decoded += 1
        return np.full((self._camera.height, self._camera.width, 3), self._at_ns // MS % 251, np.uint8)

    def close(self) -> None:
        self.closed = True


def test_a_dying_camera_is_opened_again() -> None:
    model, frames = toy_world.toy_camera(64, 48), []
    lives: list[ListSource | None] = [
        ListSource(model, [100 * MS, 200 * MS]),
        None,  # not back at once
        ListSource(model, [900 * MS]),
    ]

    def open_it() -> ListSource:
        life = lives.pop(0) if lives else None
        if life is None:
            raise CameraError("no camera", "/dev/video9")
        return life

    first, last = lives[0], lives[2]
    camera = Camera(
        CameraOptions("/dev/video9"), model, frames.append, SteadyClock(), open_it=open_it, first_retry_s=0.001
    )
    with camera:
        wait_until(lambda: len(frames) == 3)
        wait_until(lambda: not camera.status().connected)
    status = camera.status()
    assert [frame.captured_at_ns for frame in frames] == [100 * MS, 200 * MS, 900 * MS]
    assert status.reconnects == 1
    assert not status.ended
    assert first is not None
    assert last is not None
    assert first.closed
    assert last.closed


def test_a_camera_that_is_not_there_at_the_start_is_an_error() -> None:
    camera = Camera(CameraOptions("/dev/video987"), toy_world.toy_camera(), lambda frame: None, SteadyClock())
    with pytest.raises(CameraError, match="no camera: /dev/video987"):
        camera.start()
    assert camera.stop()


def test_a_password_is_never_told() -> None:
    assert without_password("rtsp://me:secret@10.0.0.2:554/live") == "rtsp://10.0.0.2:554/live"
    assert without_password("/dev/video0") == "/dev/video0"


def test_frames_beyond_the_wanted_rate_are_grabbed_but_not_decoded() -> None:
    model, frames = toy_world.toy_camera(64, 48), []
    source = ListSource(model, [10**12 + round(k * 1e9 / 30) for k in range(300)])  # ten seconds of 30 Hz
    options = CameraOptions("/dev/video9", rate_hz=10.0)
    camera = Camera(options, model, frames.append, SteadyClock(), open_it=lambda: source)
    with camera:
        wait_until(lambda: camera.status().grabbed == 300)
    assert len(frames) == source.decoded == camera.status().taken == 100
    gaps_ms = np.diff([frame.captured_at_ns for frame in frames]) / MS
    assert gaps_ms == pytest.approx(100.0, abs=1.0)
    assert camera.status().rate_hz == pytest.approx(30.0)


def test_an_image_of_another_size_names_both_sizes() -> None:
    model = toy_world.toy_camera(64, 48)
    source = ListSource(toy_world.toy_camera(32, 24), [100 * MS])
    camera = Camera(CameraOptions("/dev/video9"), model, lambda frame: None, SteadyClock(), open_it=lambda: source)

    def failed() -> bool:
        try:
            camera.check()
        except CameraError:
            return True
        return False

    with camera:
        wait_until(failed)
    with pytest.raises(CameraError, match=r"32x24.*64x48 as in the camera model"):
        camera.check()


def test_a_driver_s_stamp_is_taken_where_it_is_of_our_clock() -> None:
    clock = SteadyClock()
    arrived_ns = clock.now_ns()
    monotonic_ms = (arrived_ns - clock.from_monotonic_ns(0)) / 1e6
    stamped = captured_at_ns(monotonic_ms - 40.0, arrived_ns, 7 * MS, clock)
    assert (arrived_ns - stamped) / 1e6 == pytest.approx(40.0, abs=0.01)
    for nonsense_ms in (0.0, -5.0, monotonic_ms + 10.0, monotonic_ms - 5000.0, 1234.5, math.nan):
        assert captured_at_ns(nonsense_ms, arrived_ns, 7 * MS, clock) == arrived_ns - 7 * MS


@pytest.mark.parametrize("address", ["video0", "http://camera/", "", "file"])
def test_an_unknown_kind_of_camera_is_told_with_what_there_is(address: str) -> None:
    with pytest.raises(CameraError, match=r"gstreamer:PIPELINE, rtsp://HOST/PATH or file:PATH"):
        open_source(CameraOptions(address), toy_world.toy_camera(), SteadyClock(), lambda s: None)


@pytest.mark.skipif(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER), reason="this OpenCV has GStreamer")
def test_an_opencv_without_gstreamer_says_where_one_is() -> None:
    with pytest.raises(CameraError, match=r"built without GStreamer.*--system-site-packages"):
        open_source(CameraOptions("gstreamer:videotestsrc"), toy_world.toy_camera(), SteadyClock(), lambda s: None)


@pytest.mark.parametrize(("made", "message"), [("", "path that exists"), ("folder", "no images in the folder")])
def test_a_file_camera_without_images_is_an_error(tmp_path: Path, made: str, message: str) -> None:
    path = tmp_path / "there"
    if made:
        path.mkdir()
    with pytest.raises(CameraError, match=message):
        open_source(CameraOptions(f"file:{path}"), toy_world.toy_camera(), SteadyClock(), lambda s: None)


class SteppedClock(SteadyClock):
    """Stands still until it is told to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.at_ns = 10**15

    def now_ns(self) -> int:
        return self.at_ns

    def wait(self, seconds: float) -> None:
        self.at_ns += round(seconds * 1e9)


@pytest.mark.parametrize("kind", ["folder", "video"])
def test_files_are_shown_at_their_own_pace(tmp_path: Path, kind: str) -> None:
    model, clock, path = toy_world.toy_camera(64, 48), SteppedClock(), tmp_path / "images"
    images = [np.full((48, 64, 3), 20 * k + 20, np.uint8) for k in range(6)]
    if kind == "folder":
        path.mkdir()
        for k, image in enumerate(images):
            cv2.imwrite(str(path / f"{k}.png"), image)
    else:
        path = tmp_path / "images.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5.0, (64, 48))
        if not writer.isOpened():
            pytest.skip("this OpenCV writes no video")
        for image in images:
            writer.write(image)
        writer.release()
    source = open_source(CameraOptions(f"file:{path}", rate_hz=5.0), model, clock, clock.wait)
    times, shades = [], []
    while (at_ns := source.grab()) is not None:
        image = source.image()
        assert image is not None
        times.append(at_ns - 10**15)
        shades.append(int(image.mean().round()))
    source.close()
    assert times == [k * 200 * MS for k in range(6)]
    assert shades == pytest.approx([20 * k + 20 for k in range(6)], abs=2)
    assert clock.at_ns == 10**15 + 6 * 200 * MS  # the end too comes at its time
