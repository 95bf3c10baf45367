"""Single views for training: random poses over a place, in random seasons, lights and weathers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onboard.camera import CameraModel
from onboard.frames import BODY_FROM_CAMERA_DOWN, rotation_from_euler
from training.renderer.changes import changed
from training.renderer.errors import RenderError
from training.renderer.flight import default_camera
from training.renderer.place import Place
from training.renderer.scene import Scene, render
from training.renderer.season import Season, appearance
from training.renderer.sensor import degrade

_VIEWS_A_DAY = 40  # a day's look of a whole place is painted once for so many views


@dataclass(frozen=True, slots=True)
class RenderedView:
    """One view and its truth. The caller makes the ground view with the onboard rectifier, errors added.

    `image_rgb` uint8 (H, W, 3); `body_from_camera`, `ned_from_body` (3, 3); `position_enu_m` (3,), height on the
    place's datum; `height_above_ground_m` over the bare ground right below. In `scene` rays can be followed.
    """

    image_rgb: np.ndarray
    camera: CameraModel
    body_from_camera: np.ndarray
    ned_from_body: np.ndarray
    position_enu_m: np.ndarray
    height_above_ground_m: float
    season: Season
    scene: Scene


def render_pairs(
    place: Place,
    count: int,
    seed: int,
    height_m: tuple[float, float] = (50.0, 200.0),
    tilt_sigma_deg: float = 6.0,
    camera: CameraModel | None = None,
) -> Iterator[RenderedView]:
    """`count` views whose ground centre lies over the place. The map's side of the pair is the place's orthophoto.

    Raises RenderError when the place is smaller than what is seen from the greatest height.
    """
    rng = np.random.default_rng([seed, 41])
    half = np.array(place.size_m) / 2 - 0.55 * height_m[1]
    if half.min() <= 0:
        raise RenderError("place for views", f"{min(place.size_m):.0f} m", f"more than {1.1 * height_m[1]:.0f} m")
    scene = None
    season = Season.SUMMER
    for index in range(count):
        if scene is None or index % _VIEWS_A_DAY == 0:
            day = int(rng.integers(1 << 30))
            season = list(Season)[int(rng.integers(4))]
            azimuth, elevation = rng.uniform(95, 265), rng.uniform(22, 60)
            snow = rng.uniform(0.1, 0.7) if season == Season.WINTER and rng.random() < 0.4 else 0.0
            today = changed(place, day)
            scene = Scene(today, appearance(today, season, azimuth, elevation, day, snow))
        lens = camera or _random_camera(rng)
        spot = rng.uniform(-1, 1, 2) * half
        height = float(np.exp(rng.uniform(math.log(height_m[0]), math.log(height_m[1]))))
        roll, pitch = np.radians(rng.normal(0, tilt_sigma_deg, 2).clip(-25, 25))
        attitude = rotation_from_euler(float(roll), float(pitch), rng.uniform(0, 2 * math.pi))
        position = np.array([*spot, float(place.terrain_height_m(spot)[0]) + height])
        image = render(scene, lens, BODY_FROM_CAMERA_DOWN, attitude, position)
        image = degrade(image, rng, float(rng.uniform(0.4, 1.8)))
        yield RenderedView(image, lens, BODY_FROM_CAMERA_DOWN, attitude, position, height, season, scene)


def _random_camera(rng: np.random.Generator) -> CameraModel:
    """A lens of 55 to 85 degrees at 640 x 480."""
    return default_camera(hfov_deg=float(rng.uniform(55, 85)))
