"""The camera of the simulated vehicle: the project's renderer in a process of its own, told where the vehicle truly is.

One picture is under way at a time. A pose that comes meanwhile is not taken: the camera is as slow as its computer.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np

from onboard.camera import CameraModel
from onboard.frames import rotation_from_quaternion
from training.renderer.flight import default_camera, default_mount


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture that came: JPEG bytes of what was in view at `captured_at_ns`."""

    captured_at_ns: int
    jpeg: bytes


class RenderedCamera:
    """`ask` for a picture, `poll` for it. `model` and `mount` are what Pilotage knows of the camera."""

    def __init__(
        self, place: Path, season: str, sun_deg: tuple[float, float], size: tuple[int, int], seed: int = 7
    ) -> None:
        self.model: CameraModel = default_camera(*size)
        self.mount: np.ndarray = default_mount()
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
