"""A bench for `pilotage fly`: steps and frames that cost nothing, and a companion that answers from a list."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import toy_world

from onboard.camera import CameraModel
from onboard.config import Config, SearchConfig
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.live.camera import Camera
from onboard.live.clock import SteadyClock
from onboard.live.fly import Flyer
from onboard.live.recorder import Recorder
from onboard.live.sources import CameraOptions
from onboard.live.status import FlyStatus
from onboard.live.worker import FrameItem
from onboard.localizer import Localizer
from onboard.mavlink.status import LinkStatus
from onboard.mavlink.tell.latency import Latency
from onboard.mavlink.watch.estimator import EstimatorVerdict
from onboard.mavlink.watch.gps import GpsVerdict, Switching
from onboard.records import Frame, Reason, State, Step, Telemetry
from onboard.region import RegionMap

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
