"""`pilotage fly` in its parts and as a whole: a file as camera, a companion that answers from a list, the toy world."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import toy_world
from rich.console import Console
from scripted_vehicle import Circle, ScriptedVehicle

from onboard.camera import CameraModel
from onboard.config import Config, SearchConfig, load_config
from onboard.errors import CameraError, ConfigError, FlightError, PilotageError
from onboard.flight import open_flight
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.live.camera import Camera
from onboard.live.cli import fly, parse_mount, with_link
from onboard.live.clock import SteadyClock
from onboard.live.display import JsonLines, table
from onboard.live.fly import Flyer
from onboard.live.recorder import Recorder, RecordError
from onboard.live.sources import CameraOptions, captured_at_ns, open_source, without_password
from onboard.live.status import FlyStatus
from onboard.live.summary import in_words
from onboard.live.supervise import StopOnSignal, notify
from onboard.live.worker import FrameItem, Worker
from onboard.localizer import Localizer
from onboard.mavlink.companion import Companion
from onboard.mavlink.status import LinkStatus
from onboard.mavlink.tell.latency import Latency
from onboard.mavlink.watch.estimator import EstimatorVerdict
from onboard.mavlink.watch.gps import GpsVerdict, Switching
from onboard.mavlink.wire.connection import Connection
from onboard.records import Frame, Inertia, Reason, State, Step, Telemetry
from onboard.region import RegionMap
from onboard.replay.fixes import FixesWriter, row_of
from onboard.track.velocity import when_live

MS = 1_000_000
PATIENCE_S = 20.0  # far beyond what anything here takes


def wait_until(true: Callable[[], bool]) -> None:
    """For threads of the code under test: poll, for want of anything to inject."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def a_step(at_ns: int, reason: Reason | None = Reason.NO_IMAGE, source: str = "") -> Step:
    return Step(at_ns, source, State.LOST, None, reason, None, None, {})


def an_item(at_ns: int, frame: Frame | Callable[[], Frame | None] | None = None) -> FrameItem:
    return FrameItem(at_ns, str(at_ns), frame, Reason.NO_TELEMETRY)


def a_frame(at_ns: int, camera: CameraModel | None = None, shade: int = 0) -> Frame:
    size = (48, 64) if camera is None else (camera.height, camera.width)
    return Frame(at_ns, np.full((*size, 3), shade, np.uint8), f"frames/{at_ns}.png")


# -- the worker


class HeldSteps:
    """A step that waits to be let go, and keeps what it was called with."""

    def __init__(self) -> None:
        self.frames: list[Frame | None] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def step(self, frame: Frame | None, telemetry: Telemetry | Reason, at_ns: int, source: str) -> Step:
        self.begun.release()
        assert self.go.acquire(timeout=PATIENCE_S)
        self.frames.append(frame)
        return a_step(at_ns, source=source)


def test_the_newest_frame_wins_and_a_dropped_one_is_never_decoded() -> None:
    held, steps, decoded = HeldSteps(), [], []

    def decode(at_ns: int) -> Frame:
        decoded.append(at_ns)
        return a_frame(at_ns)

    with Worker(held.step, steps.append) as worker:
        worker.offer(an_item(1, lambda: decode(1)))
        assert held.begun.acquire(timeout=PATIENCE_S)
        for at_ns in (2, 3, 4):
            worker.offer(an_item(at_ns, lambda at_ns=at_ns: decode(at_ns)))
        held.go.release(2)
        wait_until(lambda: worker.status().done == 2)
        status = worker.status()
    assert [step.captured_at_ns for step in steps] == decoded == [1, 4]
    assert (status.offered, status.done, status.dropped) == (4, 2, 2)
    assert status.last is steps[-1]


def test_every_frame_is_worked_off_where_every_frame_counts() -> None:
    steps: list[Step] = []
    with Worker(lambda frame, told, at_ns, source: a_step(at_ns), steps.append, every_frame=True) as worker:
        for at_ns in range(200):
            assert worker.offer(an_item(at_ns))
    assert [step.captured_at_ns for step in steps] == list(range(200))
    assert worker.status().dropped == 0


def test_a_full_queue_makes_the_caller_wait() -> None:
    held = HeldSteps()
    worker = Worker(held.step, lambda step: None, every_frame=True)
    worker.start()
    offering = threading.Thread(target=lambda: [worker.offer(an_item(k)) for k in range(12)], daemon=True)
    offering.start()
    wait_until(lambda: worker.status().offered == 10)  # one in the step, eight that wait, one at the door
    offering.join(0.05)
    assert offering.is_alive()
    held.go.release(12)
    offering.join(PATIENCE_S)
    assert worker.stop(finish=True, timeout_s=PATIENCE_S)
    assert worker.status().done == 12


@pytest.mark.parametrize("every_frame", [False, True])
def test_an_error_in_a_step_reaches_the_owner(every_frame: bool) -> None:
    def broken(frame: object, telemetry: object, at_ns: int, source: str) -> Step:
        raise ZeroDivisionError("the engine is gone")

    worker = Worker(broken, lambda step: None, every_frame)
    worker.start()
    worker.offer(an_item(1))
    wait_until(lambda: worker.status().failed != "")
    assert worker.status().failed == "ZeroDivisionError: the engine is gone"
    with pytest.raises(ZeroDivisionError):
        worker.check()
    with pytest.raises(ZeroDivisionError):
        worker.offer(an_item(2))
    with pytest.raises(ZeroDivisionError):
        worker.stop()


def test_the_owners_own_error_is_not_hidden_by_the_workers() -> None:
    def broken(frame: object, telemetry: object, at_ns: int, source: str) -> Step:
        raise ZeroDivisionError

    def owner() -> None:
        with Worker(broken, lambda step: None) as worker:
            worker.offer(an_item(1))
            wait_until(lambda: worker.status().failed != "")
            raise KeyError("the owner's")

    with pytest.raises(KeyError):
        owner()


def test_a_stopped_worker_takes_nothing_more() -> None:
    worker = Worker(lambda frame, told, at_ns, source: a_step(at_ns), lambda step: None)
    worker.start()
    assert worker.stop(timeout_s=PATIENCE_S)
    assert not worker.offer(an_item(1))
    assert worker.status().dropped == 1


def test_rates_and_latencies_are_told_by_the_workers_clock() -> None:
    ticks = iter(range(0, 10_000))
    clock_ms = [0.0]

    def now_ns() -> int:
        next(ticks)
        return round(clock_ms[0] * MS)

    def slow(frame: object, telemetry: object, at_ns: int, source: str) -> Step:
        clock_ms[0] = at_ns / MS + 80.0  # every step ends 80 ms after capture
        return a_step(at_ns)

    worker = Worker(slow, lambda step: None, every_frame=True, clock_ns=now_ns)
    clock_ms[0] = 30.0
    worker.start()
    for k in range(5):
        worker.offer(an_item(k * 100 * MS))
        wait_until(lambda k=k: worker.status().done == k + 1)
        clock_ms[0] += 50.0  # the next step begins 30 ms after the next capture
    worker.stop(timeout_s=PATIENCE_S)
    status = worker.status()
    assert status.latency_ms == pytest.approx((80.0, 80.0))
    assert status.step_ms == pytest.approx((50.0, 50.0))
    assert status.rate_hz == pytest.approx(10.0)
    assert status.busy_share == pytest.approx(0.5)


# -- the camera


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


# -- the whole


LINK = LinkStatus(
    connected=True,
    alive=True,
    vehicle="ardupilot",
    firmware="ToyCopter",
    armed=False,
    mode="GUIDED",
    profile="ardupilot-odometry",
    telling=True,
    silence=None,
    synced=True,
    offset_ms=1.5,
    skew_ppm=2.0,
    round_trip_ms=4.0,
    rates_hz={"ATTITUDE": 20.0},
    sent={"ODOMETRY": 3},
    received={},
    refused={},
    withheld={},
    lost=0,
    dropped=0,
    reconnects=0,
    restarts=0,
    estimator=EstimatorVerdict.USED,
    estimator_sentence="it agrees",
    estimator_remedy="",
    apart_m=math.nan,
    gps=GpsVerdict.ABSENT,
    gps_apart_m=None,
    switching=Switching.IDLE,
    latency=Latency(150.0, 90.0, 120.0, 140.0, 9, 0),
    parameter="VISO_DELAY_MS",
    trouble="",
)


class ToyCompanion:
    """Knows the telemetry of every capture time that it was told, once `delay_ns` have passed."""

    def __init__(self, delay_ns: int = 30 * MS) -> None:
        self.delay_ns, self.now_ns, self.ticks = delay_ns, 0, 0
        self.told: dict[int, Telemetry | Reason] = {}
        self.steps: list[Step] = []
        self.broken: Exception | None = None

    def wait(self, timeout_s: float) -> None:
        time.sleep(timeout_s)

    def tick(self, now_ns: int) -> None:
        if self.broken is not None:
            raise self.broken
        self.ticks += 1
        self.now_ns = now_ns

    def take(self, step: Step) -> None:
        self.steps.append(step)

    def telemetry_passed(self, captured_at_ns: int) -> bool:
        return self.now_ns >= captured_at_ns + self.delay_ns

    def telemetry_at(self, captured_at_ns: int) -> Telemetry | Reason:
        return self.told.get(captured_at_ns, Reason.NO_TELEMETRY)

    def status(self, now_ns: int) -> LinkStatus:
        return LINK


class ToyFlight:
    """A camera that shows the next moment when the last one has been worked off, however slow this machine is."""

    def __init__(self, moments: Sequence[toy_world.Moment], companion: ToyCompanion) -> None:
        self._moments, self._companion, self._shown = moments, companion, 0

    def grab(self) -> int | None:
        wait_until(lambda: len(self._companion.steps) == self._shown)
        if self._shown == len(self._moments):
            return None
        moment = self._moments[self._shown]
        self._shown += 1
        at_ns = moment.frame.captured_at_ns
        self._companion.told[at_ns] = moment.telemetry if self._shown != 8 else Reason.NO_HEIGHT
        return at_ns

    def image(self) -> np.ndarray | None:
        return self._moments[self._shown - 1].frame.image_bgr

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture(scope="module")
def moments(world: toy_world.World) -> list[toy_world.Moment]:
    """The IMU is heard from the third frame on; its sums are made up, only to be carried."""
    flight = toy_world.make_flight(world)
    return [
        dataclasses.replace(
            m, telemetry=dataclasses.replace(m.telemetry, inertia=Inertia(3, (k / 3, -k / 7), (1e-3 / 3, 0.0)))
        )
        if k > 2
        else m
        for k, m in enumerate(flight)
    ]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen pictures that nobody looks at."""
    folder = tmp_path_factory.mktemp("images")
    for k in range(15):
        cv2.imwrite(str(folder / f"{k:03d}.png"), np.full((360, 480, 3), 10 * k, np.uint8))
    return folder


def a_localizer(
    engine: toy_world.HandEngine, region: RegionMap, start_enu_m: tuple[float, float] = (-90.0, -60.0)
) -> Localizer:
    start = np.array(start_enu_m)
    camera, confidence = toy_world.toy_camera(), toy_world.HAND_CONFIDENCE
    quick = Config(search=SearchConfig(heading_error_deg=2.0, height_error=0.03))
    return Localizer(engine, region, camera, BODY_FROM_CAMERA_DOWN, confidence, quick, start)


@dataclasses.dataclass
class Bench:
    """A flyer and what it needs, on the bench."""

    flyer: Flyer
    camera: Camera
    companion: ToyCompanion
    seen: list[FlyStatus]
    given: list[tuple[Frame | None, Telemetry | Reason]]  # to the localizer

    def run(self, stop: threading.Event | None = None) -> FlyStatus:
        return self.flyer.run(self.camera, stop or threading.Event(), self.seen.append, period_s=0.02)


def a_bench(step: Callable[..., Step], recorder: Recorder | None = None, images: Path = Path("toy")) -> Bench:
    """A flyer whose camera shows `images` at 20 Hz, in real time."""
    clock, companion = SteadyClock(), ToyCompanion()
    given: list[tuple[Frame | None, Telemetry | Reason]] = []

    def noted(frame: Frame | None, telemetry: Telemetry | Reason, at_ns: int, source: str) -> Step:
        given.append((frame, telemetry))
        return step(frame, telemetry, at_ns, source)

    flyer = Flyer(noted, companion, toy_world.PLACE, clock, Config(), recorder)
    camera = Camera(CameraOptions(f"file:{images}", rate_hz=20.0), toy_world.toy_camera(), flyer.take_frame, clock)
    return Bench(flyer, camera, companion, [], given)


def no_fix(frame: Frame | None, telemetry: Telemetry | Reason, at_ns: int, source: str) -> Step:
    """A step that costs nothing."""
    return a_step(at_ns, source=source)


@pytest.fixture(scope="module")
def recorded(
    moments: Sequence[toy_world.Moment],
    hand_engine: toy_world.HandEngine,
    hand_map: RegionMap,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Bench, FlyStatus]:
    """One flight, recorded."""
    folder = tmp_path_factory.mktemp("flights") / "one"
    with Recorder(folder, toy_world.toy_camera(), BODY_FROM_CAMERA_DOWN, hand_map.frame) as recorder:
        bench = a_bench(a_localizer(hand_engine, hand_map).step, recorder)
        source = ToyFlight(moments, bench.companion)
        options, clock = CameraOptions("file:toy"), SteadyClock()
        bench.camera = Camera(options, toy_world.toy_camera(), bench.flyer.take_frame, clock, open_it=lambda: source)
        status = bench.run()
    return folder, bench, dataclasses.replace(status, recorder=recorder.status())


def test_a_flight_is_found_on_the_map_live(
    recorded: tuple[Path, Bench, FlyStatus], moments: Sequence[toy_world.Moment]
) -> None:
    _, bench, status = recorded
    true = {moment.frame.captured_at_ns: moment.position_enu_m for moment in moments}
    fixes = [step for step in bench.companion.steps if step.estimate is not None and step.reason is None]
    errors_m = [np.linalg.norm(s.estimate.position_enu_m - true[s.captured_at_ns]) for s in fixes if s.estimate]
    assert len(errors_m) == status.fixes >= 8
    assert max(errors_m) < 5.0
    assert status.state == "tracking"
    assert (status.worker.done, status.worker.dropped, status.overrun) == (len(moments), 0, 0)
    assert status.reasons == {"acquiring": len(moments) - status.fixes - 1, "no_height": 1}
    assert bench.companion.ticks > len(moments)


def test_nothing_is_lost_without_being_counted(images: Path, tmp_path: Path) -> None:
    """The localizer is much slower than the camera: it gets the newest frames, and the others are counted."""

    def slow(frame: Frame | None, telemetry: Telemetry | Reason, at_ns: int, source: str) -> Step:
        time.sleep(0.15)
        return a_step(at_ns, source=source)

    with Recorder(tmp_path / "log", toy_world.toy_camera(), BODY_FROM_CAMERA_DOWN, toy_world.PLACE) as recorder:
        bench = a_bench(slow, recorder, images)
        status = bench.run()
    worker = status.worker
    assert status.camera.ended
    assert status.camera.taken == status.camera.grabbed == worker.offered + status.overrun == 15
    assert worker.done + worker.dropped == worker.offered
    assert worker.dropped >= 3
    assert len(bench.companion.steps) == len(bench.given) == worker.done == sum(status.reasons.values())
    assert recorder.status().written + recorder.status().dropped == worker.done
    times_ns = [step.captured_at_ns for step in bench.companion.steps]
    assert times_ns == sorted(times_ns)
    assert bench.companion.steps[-1].captured_at_ns - times_ns[0] == 14 * 50 * MS  # the last one was not dropped


def test_a_recording_replays_to_the_same_fixes(
    recorded: tuple[Path, Bench, FlyStatus], tmp_path: Path, hand_engine: toy_world.HandEngine, hand_map: RegionMap
) -> None:
    """What the localizer is given is the same to the bit, and so is what it makes of it."""
    folder, bench, status = recorded
    assert status.recorder is not None
    assert status.recorder.dropped == 0
    items = list(open_flight(folder).items())
    assert len(items) == len(bench.given) == status.worker.done
    for item, (frame, telemetry) in zip(items, bench.given, strict=True):
        assert item.frame is not None
        assert frame is not None
        assert item.frame.captured_at_ns == frame.captured_at_ns
        assert item.frame.image_bgr.tobytes() == frame.image_bgr.tobytes()
        assert item.telemetry == telemetry
    localizer = a_localizer(hand_engine, hand_map)
    with FixesWriter(tmp_path / "again.csv") as writer:
        for item in items:
            step = localizer.step(item.frame, item.telemetry, item.captured_at_ns, item.source)
            writer.write(row_of(step, hand_map.frame))
    assert (tmp_path / "again.csv").read_bytes() == (folder / "fixes.csv").read_bytes()


def test_what_a_flight_says_is_json_and_fits_a_screen(recorded: tuple[Path, Bench, FlyStatus]) -> None:
    _, _, status = recorded
    out = io.StringIO()
    lines = JsonLines(out)
    for k in range(25):  # as it is shown, four times a second
        lines.show(dataclasses.replace(status, at_ns=status.at_ns + k * 250 * MS))
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["at_ns"] - status.at_ns for line in told] == [k * 1000 * MS for k in range(7)]
    assert told[0]["link"] == LINK.as_dict()
    assert (told[0]["fixes"], told[0]["worker"]["done"]) == (status.fixes, status.worker.done)
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(table(status))
    text = console.export_text()
    for word in (
        "tracking",
        "95 % within",
        "no_height",
        "median",
        "12 frames",
        "ToyCopter, GUIDED, disarmed",
        "round trip 4.0 ms",
    ):
        assert word in text


def test_the_end_names_the_delay_to_set(recorded: tuple[Path, Bench, FlyStatus]) -> None:
    _, _, status = recorded

    def words(link: LinkStatus) -> str:
        return " ".join(in_words(dataclasses.replace(status, link=link)))

    assert "set VISO_DELAY_MS to 152." in words(LINK)  # 150 ms and half of the round trip
    assert "link.latency_ms" not in words(LINK)
    late = dataclasses.replace(LINK.latency, p95_ms=180.0, recommended_ms=200.0)
    assert "link.latency_ms 200 would fit" in words(dataclasses.replace(LINK, latency=late))
    soon = dataclasses.replace(LINK.latency, p95_ms=50.0, recommended_ms=70.0)
    assert "link.latency_ms 70 would do" in words(dataclasses.replace(LINK, latency=soon))
    long = dataclasses.replace(LINK.latency, set_ms=260.0)
    assert "250 ms at most" in words(dataclasses.replace(LINK, latency=long))
    assert "cannot be named" in words(dataclasses.replace(LINK, parameter=None))


def test_a_signal_ends_the_flight_within_two_seconds(images: Path) -> None:
    bench = a_bench(no_fix, images=images)
    asked_s: list[float] = []

    def terminate(status: FlyStatus) -> None:
        if status.worker.done >= 3 and not asked_s:
            asked_s.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with StopOnSignal() as stop:
        status = bench.flyer.run(bench.camera, stop.event, terminate, period_s=0.02)
    assert time.monotonic() - asked_s[0] < 2.0
    assert 3 <= status.worker.done < 15
    assert signal.getsignal(signal.SIGTERM) is before
    assert not [t.name for t in threading.enumerate() if t.name in ("camera", "link", "localizer")]


def test_an_error_in_any_thread_ends_the_flight_with_that_error(images: Path) -> None:
    def broken(frame: object, telemetry: object, at_ns: int, source: str) -> Step:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        a_bench(broken, images=images).run()
    bench = a_bench(no_fix, images=images)
    bench.companion.broken = KeyError("the link")
    with pytest.raises(KeyError):
        bench.run()


def test_frames_without_telemetry_are_told_as_such_and_not_kept_waiting_for_ever(images: Path) -> None:
    bench = a_bench(no_fix, images=images)
    bench.companion.delay_ns = 10**18  # it never comes
    status = bench.run()
    assert {telemetry for _, telemetry in bench.given} == {Reason.NO_TELEMETRY}
    assert status.worker.done + status.worker.dropped == 15
    assert status.worker.latency_ms is not None
    assert Config().rectify.max_telemetry_age_ms <= status.worker.latency_ms[0] < 2000.0


# -- the supervisor


def test_systemd_is_told_through_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(PATIENCE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert notify("READY=1")
        assert supervisor.recv(100) == b"READY=1"
    assert not notify("WATCHDOG=1")  # nobody listens any more
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not notify("READY=1")


def test_the_watchdog_is_fed_only_while_every_part_gets_on(recorded: tuple[Path, Bench, FlyStatus]) -> None:
    at_ns = recorded[2].at_ns
    camera = dataclasses.replace(recorded[2].camera, ended=False, alive_at_ns=at_ns)
    good = dataclasses.replace(recorded[2], ticked_at_ns=at_ns, camera=camera)
    assert good.going
    hung_link = dataclasses.replace(good, ticked_at_ns=good.at_ns - 3 * 10**9)
    hung_step = dataclasses.replace(
        good, worker=dataclasses.replace(good.worker, busy_since_ns=good.at_ns - 40 * 10**9)
    )
    hung_camera = dataclasses.replace(
        good, camera=dataclasses.replace(good.camera, alive_at_ns=good.at_ns - 30 * 10**9)
    )
    assert not any(status.going for status in (hung_link, hung_step, hung_camera))


# -- the recorder


def test_a_recording_never_goes_into_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RecordError, match="--record is there already"):
        Recorder(tmp_path, toy_world.toy_camera(), BODY_FROM_CAMERA_DOWN, toy_world.PLACE)


def test_a_full_disk_ends_the_recording_and_not_the_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    recorder = Recorder(tmp_path / "log", toy_world.toy_camera(64, 48), BODY_FROM_CAMERA_DOWN, toy_world.PLACE)
    recorder.offer(an_item(1), a_frame(1), a_step(1))
    wait_until(lambda: recorder.status().stopped != "")
    for at_ns in range(2, 100):
        recorder.offer(an_item(at_ns), a_frame(at_ns), a_step(at_ns))
    recorder.close()
    assert recorder.status().written == 0
    assert [record.getMessage() for record in caplog.records].count(
        f"recording stopped: {tmp_path / 'log'}: No space left on device"
    ) == 1


def test_a_slow_disk_costs_frames_that_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, write = threading.Event(), Path.write_bytes

    def slow(path: Path, data: bytes) -> int:
        assert go.wait(PATIENCE_S)
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", slow)
    camera = toy_world.toy_camera(64, 48)
    with Recorder(tmp_path / "log", camera, BODY_FROM_CAMERA_DOWN, toy_world.PLACE) as recorder:
        for at_ns in range(50):
            recorder.offer(
                dataclasses.replace(an_item(at_ns), source=f"frames/{at_ns}.png"),
                a_frame(at_ns, camera),
                a_step(at_ns, None),
            )
        assert recorder.status().dropped >= 30
        go.set()
    status = recorder.status()
    assert status.written + status.dropped == 50
    assert open_flight(tmp_path / "log").frame_count == status.written


def test_stale_frames_and_left_out_ones_leave_no_image(tmp_path: Path) -> None:
    camera = toy_world.toy_camera(64, 48)
    with Recorder(tmp_path / "log", camera, BODY_FROM_CAMERA_DOWN, toy_world.PLACE, every=2) as recorder:
        for at_ns in range(10):
            item = dataclasses.replace(an_item(at_ns), source=f"frames/{at_ns}.png")
            recorder.offer(item, a_frame(at_ns, camera), a_step(at_ns, Reason.NO_TELEMETRY, item.source))
        recorder.offer(an_item(3), a_frame(3, camera), a_step(3, Reason.STALE_FRAME, "late"))
    flight = open_flight(tmp_path / "log")
    assert [item.captured_at_ns for item in flight.items()] == [0, 2, 4, 6, 8]
    assert {item.telemetry for item in flight.items()} == {Reason.NO_TELEMETRY}
    with (tmp_path / "log" / "fixes.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 11


def test_a_recording_keeps_the_mount_and_the_attitude_in_full(tmp_path: Path) -> None:
    camera, mount = toy_world.toy_camera(64, 48), parse_mount("3.5,-20.25,91.125")
    attitude = toy_world.quaternion(1.23456789, -2.3456789, 123.456789)
    told = Telemetry(5, attitude, 87.654321987654321, True, (1 / 3, -2 / 3, 0.1))
    unknown = dataclasses.replace(told, captured_at_ns=6, heading_known=False, velocity_ned_mps=None)
    with Recorder(tmp_path / "log", camera, mount, toy_world.PLACE) as recorder:
        for telemetry in (told, unknown):
            at_ns = telemetry.captured_at_ns
            recorder.offer(
                FrameItem(at_ns, f"frames/{at_ns}.png", None, telemetry), a_frame(at_ns, camera), a_step(at_ns)
            )
    flight = open_flight(tmp_path / "log")
    assert flight.body_from_camera.tobytes() == mount.tobytes()
    first, second = (item.telemetry for item in flight.items())
    assert first == dataclasses.replace(told, velocity_ned_mps=(1 / 3, -2 / 3, 0.0))  # down is not used, nor kept
    assert second == unknown


@pytest.mark.parametrize(
    "text", ["body_from_camera: [[1, 0, 0], [0, 2, 0], [0, 0, 1]]", "body_from_camera: down", "[", ""]
)
def test_a_recorded_mount_that_is_no_rotation_is_told(
    recorded: tuple[Path, Bench, FlyStatus], tmp_path: Path, text: str
) -> None:
    shutil.copytree(recorded[0], tmp_path / "log")
    (tmp_path / "log" / "mount.yaml").write_text(text)
    with pytest.raises(FlightError, match=r"mount.*mount\.yaml.*body_from_camera"):
        open_flight(tmp_path / "log")


# -- the command


def test_a_mount_turns_the_camera_from_looking_down() -> None:
    assert parse_mount("down") is BODY_FROM_CAMERA_DOWN
    ahead = parse_mount("0,30,0") @ [0, 0, 1]
    assert ahead == pytest.approx([math.sin(math.radians(30)), 0, math.cos(math.radians(30))])
    top_of_image = parse_mount("0,0,90") @ [0, -1, 0]
    assert top_of_image == pytest.approx([0, 1, 0])


@pytest.mark.parametrize("text", ["up", "1,2", "1,2,3,4", "nan,0,0", ""])
def test_a_mount_that_means_nothing_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="--mount"):
        parse_mount(text)


def test_the_command_line_goes_over_the_config_file() -> None:
    settings = with_link(Config(), "px4-gps", Path("key"))
    assert (settings.link.profile, settings.link.signing_key_file) == ("px4-gps", "key")
    assert with_link(Config(), None, None) == Config()


@pytest.fixture
def bench_options(
    images: Path,
    hand_map: RegionMap,
    hand_engine: toy_world.HandEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """What `pilotage fly` needs on a bench without a vehicle; the toy engine stands in for the shipped one."""
    monkeypatch.setattr("onboard.engine.open_engine", lambda model, settings: hand_engine)
    toy_world.toy_camera().to_yaml(tmp_path / "camera.yaml")
    return {
        "camera": f"file:{images}",
        "camera_model": tmp_path / "camera.yaml",
        "map_path": hand_map.path,
        "mavlink": "udpin:127.0.0.1:0",
        "mount": "down",
        "camera_rate_hz": 20.0,
    }


def test_the_command_flies_to_the_end_of_the_images(
    bench_options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fly(**bench_options, record=tmp_path / "log", start="37.5,140.99")
    said = capsys.readouterr().out
    assert "Frames: 15 taken" in said
    assert "No fix because: no_telemetry" in said
    assert "its delay parameter cannot be named" in said
    flight = open_flight(tmp_path / "log")
    assert {item.telemetry for item in flight.items()} == {Reason.NO_TELEMETRY}
    assert f"Recorded: {flight.frame_count} frames" in said
    told = json.loads((tmp_path / "log" / "recording.json").read_text())
    assert (told["start"], told["camera"], told["model"]["name"]) == ("37.5,140.99", "file", "hand")
    assert load_config(tmp_path / "log" / "config.yaml") == when_live(Config())


def test_the_command_tells_a_machine_in_lines_of_json(
    bench_options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fly(**bench_options, json=True)
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert lines
    assert lines[-1]["link"]["alive"] is False
    assert lines[-1]["state"] == "lost"
    assert "Frames: 15 taken" in said.err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"camera": "file:nowhere"}, "no video and no folder of images: nowhere"),
        ({"camera_rate_hz": 0.0}, "--camera-rate-hz: 0.0; expected 0.1 to 1000"),
        ({"record_every": 0}, "--record-every: 0"),
        ({"mount": "sideways"}, "--mount: 'sideways'"),
        ({"start": "1,2"}, "--start lies outside the map"),
        ({"profile": "telepathy"}, "telepathy"),
        ({"mavlink": "pigeon"}, "pigeon"),
    ],
)
def test_what_the_command_cannot_use_is_one_clear_line(
    bench_options: dict[str, Any], changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(PilotageError, match=message):
        fly(**bench_options | changed)


# -- with the real companion, over UDP


class VehicleOnUdp(threading.Thread):
    """A scripted vehicle that answers whoever speaks to its port."""

    def __init__(self, vehicle: ScriptedVehicle, clock: SteadyClock) -> None:
        super().__init__(name="vehicle", daemon=True)
        self.vehicle, self._clock = vehicle, clock
        self._over = threading.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.005)
        self.address = f"udpout:127.0.0.1:{self._socket.getsockname()[1]}"

    def run(self) -> None:
        peer = None
        with self._socket:
            while not self._over.is_set():
                try:
                    data, peer = self._socket.recvfrom(65535)
                    self.vehicle.hear(data, self._clock.now_ns())
                except TimeoutError:
                    pass
                for packet in self.vehicle.speak(self._clock.now_ns()) if peer else ():
                    self._socket.sendto(packet, peer)

    def stop(self) -> None:
        self._over.set()
        self.join(PATIENCE_S)


class NoseCamera:
    """Sees the toy world from where the scripted vehicle is."""

    def __init__(self, world: toy_world.World, vehicle: ScriptedVehicle, clock: SteadyClock) -> None:
        self._world, self._vehicle, self._clock, self._at_ns = world, vehicle, clock, 0

    def grab(self) -> int | None:
        time.sleep(0.1)  # a camera of 10 Hz
        self._at_ns = self._clock.now_ns()
        return self._at_ns

    def image(self) -> np.ndarray | None:
        vehicle = self._vehicle
        north, east, v_north, v_east = vehicle.track.at((self._at_ns - vehicle.started_at_ns) * 1e-9)
        yaw_deg = math.degrees(math.atan2(v_east, v_north))
        return toy_world.look(
            self._world, toy_world.toy_camera(), (east, north), vehicle.track.height_m, (0.0, 0.0, yaw_deg)
        )

    def close(self) -> None:
        """Nothing is held."""


def test_a_vehicle_is_told_where_it_is(
    world: toy_world.World, hand_engine: toy_world.HandEngine, hand_map: RegionMap
) -> None:
    clock = SteadyClock()
    place = (hand_map.frame.anchor_latitude_deg, hand_map.frame.anchor_longitude_deg)
    track = Circle(radius_m=50.0, speed_mps=5.0, height_m=90.0)
    peer = VehicleOnUdp(ScriptedVehicle(clock.now_ns(), start_degrees=place, track=track), clock)
    stop, seen = threading.Event(), []
    peer.start()

    def show(status: FlyStatus) -> None:
        seen.append(status)
        if len(peer.vehicle.fixes) >= 10 or status.at_ns - seen[0].at_ns > 120_000 * MS:
            stop.set()

    with Connection.open(peer.address) as connection:
        companion = Companion(connection, Config(), hand_map.frame)
        flyer = Flyer(a_localizer(hand_engine, hand_map, (0.0, 0.0)).step, companion, hand_map.frame, clock)
        source = NoseCamera(world, peer.vehicle, clock)
        options = CameraOptions("/dev/toy")
        camera = Camera(options, toy_world.toy_camera(), flyer.take_frame, clock, open_it=lambda: source)
        status = flyer.run(camera, stop, show, period_s=0.05)
    peer.stop()
    assert len(peer.vehicle.fixes) >= 10, (status.reasons, status.link.in_words())
    assert peer.vehicle.violations == []
    assert status.link.synced
    assert status.link.profile == "ardupilot-odometry"
    for fix in peer.vehicle.fixes:
        at_ns = peer.vehicle.ours_ns(fix.message.time_usec * 1000)
        north, east, _, _ = track.at((at_ns - peer.vehicle.started_at_ns) * 1e-9)
        sigma_m = math.sqrt(max(fix.message.pose_covariance[0], fix.message.pose_covariance[6]))
        error_m = math.hypot(fix.message.x - north, fix.message.y - east)
        assert error_m < 2.0 + 4.0 * sigma_m  # the first ones know no velocity, and say how much that costs
