"""Replays without a map, a model or a recording: prepared steps over a small known ground, with a known truth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from onboard.camera import CameraModel
from onboard.config import Config
from onboard.errors import FlightError
from onboard.frames import BODY_FROM_CAMERA_DOWN, MapFrame, quaternion_from_euler
from onboard.records import Estimate, Fix, Frame, Reason, State, Step, Telemetry
from onboard.replay.fixes import FixRow, row_of
from onboard.replay.score import score
from onboard.replay.summary import About, Timings, summarize

FRAME = MapFrame(37.49, 141.0)
T0_NS = 1_700_000_000_000_000_000
METRES_PER_PIXEL = 0.5
CAMERA = CameraModel(320, 240, np.array([[250.0, 0, 159.5], [0, 250.0, 119.5], [0, 0, 1]]), ())


@dataclass(frozen=True)
class ToyLevel:
    """Tiles of 100 m, each hanging over half of its neighbours."""

    metres_per_pixel: float = METRES_PER_PIXEL
    tile_px: int = 200

    @property
    def tiles(self) -> np.ndarray:
        return np.stack(np.meshgrid(np.arange(-250.0, 251.0, 50.0), np.arange(-150.0, 151.0, 50.0)), -1).reshape(-1, 2)


class ToyRegion:
    """600 m by 400 m of smooth noise about the anchor, half a metre a pixel."""

    frame = FRAME
    levels = (ToyLevel(),)
    bounds_enu_m = (-300.0, -200.0, 300.0, 200.0)

    def __init__(self) -> None:
        noise = np.random.default_rng(7).uniform(0, 255, (800, 1200, 3)).astype(np.float32)
        smooth = cv2.GaussianBlur(noise, (0, 0), 6)
        self.image = cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)

    def picture(self, max_px: int) -> tuple[np.ndarray, tuple[float, float, float, float]]:
        return self.image, self.bounds_enu_m

    def window(
        self, level: int, centre_enu_m: np.ndarray, size_px: int, date: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        col = (centre_enu_m[0] + 300.0) / METRES_PER_PIXEL - 0.5
        row = (200.0 - centre_enu_m[1]) / METRES_PER_PIXEL - 0.5
        return cv2.getRectSubPix(self.image, (size_px, size_px), (col, row)), np.ones((size_px, size_px), bool)

    def seen_from(self, position_enu_m: np.ndarray, yaw_rad: float, height_m: float) -> np.ndarray:
        """BGR image of CAMERA looking straight down: its top points to `yaw_rad` clockwise from north."""
        scale = height_m / 250.0 / METRES_PER_PIXEL  # map pixels a camera pixel
        cos, sin = math.cos(yaw_rad) * scale, math.sin(yaw_rad) * scale
        turn = np.array([[cos, -sin], [sin, cos]])
        at = np.array([(position_enu_m[0] + 300) / METRES_PER_PIXEL - 0.5, (200 - position_enu_m[1]) / 0.5 - 0.5])
        matrix = np.hstack([turn, (at - turn @ [159.5, 119.5])[:, None]])
        rgb = cv2.warpAffine(self.image, matrix, (320, 240), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        return np.ascontiguousarray(rgb[..., ::-1])


REGION = ToyRegion()


class ToyTruth:
    """North along the prime axis at 5 m/s from (0, -100)."""

    def at(self, captured_at_ns: int) -> tuple[float, float] | None:
        return FRAME.geodetic_from_enu(truth_enu(captured_at_ns))


def truth_enu(captured_at_ns: int) -> np.ndarray:
    return np.array([0.0, -100.0 + 5.0 * (captured_at_ns - T0_NS) / 1e9])


def make_step(
    at_s: float,
    error_enu_m: tuple[float, float] | None,
    covariance: np.ndarray | None = None,
    reason: Reason | None = None,
    state: State = State.TRACKING,
    best_error_enu_m: tuple[float, float] | None = None,
    heading_rad: float = math.nan,
) -> Step:
    """A published step that lies `error_enu_m` beside the truth, or a refused one."""
    captured_at_ns = T0_NS + round(at_s * 1e9)
    truth = truth_enu(captured_at_ns)
    estimate = fix = best = None
    if error_enu_m is not None:
        full = np.eye(4)
        full[:2, :2] = np.eye(2) if covariance is None else covariance
        best = truth + error_enu_m
        estimate = Estimate(captured_at_ns, best, np.array([0.0, 5.0]), full, heading_rad, 100.0, 0.999)
        fix = Fix(captured_at_ns, best, full[:2, :2], heading_rad, 1.0, 0.999, {"score": 0.7})
    if best_error_enu_m is not None:
        best = truth + best_error_enu_m
    stage_ms = {"rectify": 2.0, "embed": 10.0}
    return Step(captured_at_ns, "toy", state, estimate, reason, best, fix, stage_ms)


def rows_of(steps: list[Step]) -> list[FixRow]:
    return [row_of(step, FRAME) for step in steps]


def summary_of(steps: list[Step], truth: ToyTruth | None = ToyTruth()) -> dict:
    rows = rows_of(steps)
    timings = Timings({"rectify": [1.0, 3.0], "embed": [10.0, 20.0]}, [11.0, 23.0])
    about = About({"name": "toy flight"}, {"name": "toy model"}, {"name": "toy map"}, Config().to_dict())
    return summarize(rows, score(rows, truth, FRAME), timings, {"sent": None, "received": None}, about)


class ToyFlight:
    name = "toy flight"
    facts = {"images": "drawn"}  # noqa: RUF012
    camera = CAMERA
    body_from_camera = BODY_FROM_CAMERA_DOWN

    def __init__(self, steps: list[Step], breaks_after: int | None = None) -> None:
        self.steps, self.breaks_after = steps, breaks_after
        self.finished = False

    @property
    def frame_count(self) -> int:
        return len(self.steps)

    def items(self) -> Iterator[ToyItem]:
        for index, step in enumerate(self.steps):
            if index == self.breaks_after:
                raise FlightError("truncated bag", "toy.mcap", "a whole file", "copy it again")
            captured_at_ns = step.captured_at_ns
            image = REGION.seen_from(truth_enu(captured_at_ns), 0.3, 100.0)
            telemetry = Telemetry(captured_at_ns, quaternion_from_euler(0, 0, 0.3), 100.0)
            yield ToyItem(captured_at_ns, "toy", Frame(captured_at_ns, image, "toy"), telemetry)
        self.finished = True

    def truth(self) -> ToyTruth:
        assert self.finished, "truth was asked for while the flight was still being replayed"
        return ToyTruth()


@dataclass(frozen=True, slots=True)
class ToyItem:
    captured_at_ns: int
    source: str
    frame: Frame | None
    telemetry: Telemetry | Reason


class ToyLocalizer:
    """Gives prepared steps; keeps what it was shown."""

    heatmap = None

    def __init__(self, steps: list[Step]) -> None:
        self.steps, self.shown = iter(steps), []

    def step(self, frame: object, telemetry: object, captured_at_ns: int, source: str) -> Step:
        self.shown.append((frame, telemetry, captured_at_ns, source))
        return next(self.steps)


def flight_steps() -> list[Step]:
    """40 frames in 20 s: three refused, one of them with a guess, the others 1 m east of the truth."""
    steps = [
        make_step(0.0, None, reason=Reason.WEAK_MATCH, state=State.LOST, best_error_enu_m=(120.0, 0.0)),
        make_step(0.5, None, reason=Reason.ACQUIRING, state=State.ACQUIRING, best_error_enu_m=(1.0, 0.0)),
        make_step(1.0, None, reason=Reason.NO_IMAGE, state=State.LOST),
    ]
    return steps + [make_step(k / 2, (1.0, 0.0), heading_rad=0.3) for k in range(3, 40)]
