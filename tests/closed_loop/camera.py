"""The camera of the simulated vehicle: the project's renderer in a process of its own, told where the vehicle truly is.

One picture is under way at a time. A pose that comes meanwhile is not taken: the camera is as slow as its computer.
"""

from __future__ import annotations

import math
import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np

from onboard.camera import CameraModel
from onboard.frames import (
    GIMBAL_FROM_CAMERA,
    euler_from_rotation,
    quaternion_from_euler,
    rotation_from_quaternion,
)
from training.renderer.flight import default_camera, default_mount


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture that came: JPEG bytes of what was in view at `captured_at_ns`."""

    captured_at_ns: int
    jpeg: bytes


class Gimbal:
    """Looks straight down, by an IMU of its own that errs (1 sigma): what a calibration has left, and what wanders.

    Its yaw follows the vehicle's nose. What is told of it is the firmware's own word, level and straight down.
    """

    CONSTANT_DEG, WANDERING_DEG, WANDERS_IN_S = 0.1, 0.1, 60.0

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 43])
        self._constant = self._rng.normal(0, math.radians(self.CONSTANT_DEG), 2)
        self._wandering, self._at_s = np.zeros(2), 0.0

    def quat_wxyz(self, at_s: float, vehicle_quat_wxyz: tuple[float, ...]) -> tuple[float, ...]:
        """ned_from_gimbal at a later time than before, of a vehicle with that true attitude."""
        keep = math.exp(-max(at_s - self._at_s, 0.0) / self.WANDERS_IN_S)
        spread = math.radians(self.WANDERING_DEG) * math.sqrt(1 - keep**2)
        self._wandering, self._at_s = keep * self._wandering + self._rng.normal(0, 1, 2) * spread, at_s
        roll, pitch = self._constant + self._wandering
        yaw = euler_from_rotation(rotation_from_quaternion(vehicle_quat_wxyz))[2]
        return quaternion_from_euler(roll, pitch - math.pi / 2, yaw)


class RenderedCamera:
    """`ask` for a picture, `poll` for it. `model` and `mount` are what Pilotage knows of the camera."""

    def __init__(
        self,
        place: Path,
        season: str,
        sun_deg: tuple[float, float],
        size: tuple[int, int],
        on_gimbal: bool = False,
        seed: int = 7,
    ) -> None:
        self.model: CameraModel = default_camera(*size)
        self.mount: np.ndarray = GIMBAL_FROM_CAMERA if on_gimbal else default_mount()
        self._gimbal = Gimbal(seed) if on_gimbal else None
        self.busy = True  # until the ground is painted
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, place, season, sun_deg, self.model, self.mount, seed)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, captured_at_ns: int, position_enu_m: np.ndarray, quat_wxyz: tuple[float, ...], dark: bool) -> None:
        """A picture from (3,) on the place's own datum with attitude ned_from_body; black where `dark`."""
        self.busy = True
        if self._gimbal is not None:
            quat_wxyz = self._gimbal.quat_wxyz(captured_at_ns * 1e-9, quat_wxyz)
        self._pipe.send((captured_at_ns, position_enu_m, quat_wxyz, dark))

    def poll(self, timeout_s: float = 0.0) -> Shot | None:
        """The picture asked for, if it is there; also clears `busy` when the camera has become ready."""
        if not self._pipe.poll(timeout_s):
            return None
        answer = self._pipe.recv()
        self.busy = False
        return answer

    def __enter__(self) -> RenderedCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.terminate()


def _serve(
    pipe: Connection,
    folder: Path,
    season: str,
    sun_deg: tuple[float, float],
    model: CameraModel,
    mount: np.ndarray,
    seed: int,
) -> None:
    """Serve pictures until the other end of the pipe is closed."""
    from training.renderer.changes import changed
    from training.renderer.files import read_place
    from training.renderer.scene import Scene, render
    from training.renderer.season import appearance
    from training.renderer.sensor import draw_conditions, take

    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, 41])
    today = changed(read_place(folder), seed + 1)
    scene = Scene(today, appearance(today, season, *sun_deg, seed + 1))
    conditions = draw_conditions(rng)
    pipe.send(None)
    while True:
        try:
            captured_at_ns, position, quat, dark = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        if dark:
            picture = np.zeros((model.height, model.width, 3), np.uint8)
        else:
            picture = render(scene, model, mount, rotation_from_quaternion(quat), position)
        pipe.send(Shot(captured_at_ns, take(picture, conditions, rng)))
