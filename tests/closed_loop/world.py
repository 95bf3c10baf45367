"""All that is not Pilotage: the ground's orders, the camera's pictures, the laser's readings."""

from __future__ import annotations

import cv2
import numpy as np
from aboard import Aboard
from camera import RenderedCamera, Shot
from clock import START_NS, SimulatedClock
from course import Course, CourseError
from ground import Ground

from onboard.frames import rotation_from_quaternion
from onboard.live.worker import FrameItem
from onboard.pairing import Pairing
from onboard.records import Frame
from training.renderer.place import Place

_TICK_NS = 100_000_000
_TELEMETRY_WAIT_NS = 250_000_000
_LENS_CAP_M = 2.0  # lower there is nothing to be seen
_LEAST_COSINE = 0.3


class World:
    """`run` flies the course. `phases` are (boot ms, name), `frames` counts the pictures."""

    def __init__(
        self,
        place: Place,
        ground: Ground,
        camera: RenderedCamera,
        course: Course,
        aboard: Aboard,
        clock: SimulatedClock,
        frames_per_second: float,
    ) -> None:
        self.phases: list[tuple[int, str]] = []
        self.frames = 0
        self._place, self._ground, self._camera, self._course, self._aboard = place, ground, camera, course, aboard
        self._clock, self._period_ns = clock, round(1e9 / frames_per_second)
        self._pairing: Pairing[Shot] = Pairing(aboard, _TELEMETRY_WAIT_NS)
        self._next_shot_ns = 0
        self._texts_shown = 0

    def run(self) -> str:
        """Fly the course; how it ended: empty, or what went wrong."""
        course, next_ns = self._course.fly(self._ground), 0
        while True:
            self._ground.poll()
            self._see()
            if self._clock() < next_ns or not self._ground.believed:
                continue
            next_ns = self._clock() + _TICK_NS
            self._range()
            try:
                phase = next(course)
            except StopIteration:
                return ""
            except CourseError as error:
                return str(error)
            self._show(phase + " dark" * self._course.dark)

    def _show(self, phase: str) -> None:
        for _, text in self._ground.texts[self._texts_shown :]:
            print(f"           vehicle: {text}", flush=True)
        self._texts_shown = len(self._ground.texts)
        if not self.phases or phase != self.phases[-1][1]:
            boot_ms = self._ground.believed[-1].boot_ms
            self.phases.append((boot_ms, phase))
            print(f"{boot_ms / 1000:7.1f} s  {phase}", flush=True)

    def _range(self) -> None:
        """The laser looks along the body: the slant way to ground taken as level."""
        if self._ground.truth:
            cosine = float(rotation_from_quaternion(self._ground.truth[-1].quat_wxyz)[2, 2])
            self._ground.tell_range(self._height_above_ground_m() / max(cosine, _LEAST_COSINE))

    def _height_above_ground_m(self) -> float:
        position = self._ground.truth[-1].position_enu_m
        return float(position[2] - self._place.terrain_height_m(position[None, :2])[0])

    def _see(self) -> None:
        """One picture under way, the next when it is due; those that came wait for their telemetry."""
        shot = self._camera.poll()
        if shot is not None:
            self._pairing.frame(shot.captured_at_ns, self._clock(), shot)
            self.frames += 1
        for at_ns, shot, telemetry in self._pairing.ready(self._clock()):
            self._aboard.offer(FrameItem(at_ns, str(self.frames), _decoded(at_ns, shot), telemetry))
        if self._camera.busy or not self._ground.truth:
            return
        truth = self._ground.truth[-1]
        at_ns = START_NS + truth.boot_ms * 1_000_000
        if at_ns >= self._next_shot_ns and self._height_above_ground_m() > _LENS_CAP_M:
            self._next_shot_ns = at_ns + self._period_ns
            self._camera.ask(at_ns, truth.position_enu_m, truth.quat_wxyz, self._course.dark)


def _decoded(at_ns: int, shot: Shot) -> Frame:
    return Frame(at_ns, cv2.imdecode(np.frombuffer(shot.jpeg, np.uint8), cv2.IMREAD_COLOR))
