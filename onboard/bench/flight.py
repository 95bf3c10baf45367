"""A flight over a map, its frames cut from the map's own imagery: made one by one, none is kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from onboard.camera import CameraModel
from onboard.frames import quaternion_from_euler
from onboard.records import Frame, Telemetry
from onboard.region import RegionMap

WIDTH, HEIGHT = 640, 480
_SPEED_MPS, _RATE_HZ, _BEGAN_NS = 15.0, 2.0, 1_700_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Moment:
    """A frame, what is told with it, and where it is in metres east, north (2,)."""

    frame: Frame
    telemetry: Telemetry
    position_enu_m: np.ndarray


def bench_camera() -> CameraModel:
    """Looks straight down; what it sees is as wide as it is high above the ground, times 1.2."""
    focal = WIDTH / 1.2
    return CameraModel(
        WIDTH, HEIGHT, np.array([[focal, 0, (WIDTH - 1) / 2], [0, focal, (HEIGHT - 1) / 2], [0, 0, 1.0]]), ()
    )


def start_of(region: RegionMap) -> np.ndarray:
    """(2,) east, north of where the flight begins: the easternmost point of its circle."""
    return _middle(region) + np.array([_radius_m(region), 0.0])


def _middle(region: RegionMap) -> np.ndarray:
    west, south, east, north = region.bounds_enu_m
    return np.array([(west + east) / 2, (south + north) / 2])


def _radius_m(region: RegionMap) -> float:
    """Of a circle whose views lie on the map, if the map is large enough for that."""
    west, south, east, north = region.bounds_enu_m
    return max(10.0, min(400.0, min(east - west, north - south) / 2 - _width_m(region)))


def _width_m(region: RegionMap) -> float:
    level = region.levels[0]
    return 0.6 * level.tile_px * level.metres_per_pixel


def fly(region: RegionMap, count: int, seed: int = 0) -> Iterator[Moment]:
    """`count` frames of a level flight to the north, round and round in circles: it stays on the map for any count.

    The ground seen is 0.6 of the view's side at the finest level. Light differs from the map's, the sensor is noisy,
    telemetry errs by a degree and two per cent.
    """
    rng, level = np.random.default_rng(seed), region.levels[0]
    width_m, radius = _width_m(region), _radius_m(region)
    height_m = width_m / 1.2
    centre = _middle(region)
    for k in range(count):
        at_ns = _BEGAN_NS + round(k * 1e9 / _RATE_HZ)
        turned = _SPEED_MPS * k / _RATE_HZ / radius
        position = centre + radius * np.array([math.cos(turned), math.sin(turned)])
        velocity = _SPEED_MPS * np.array([-math.sin(turned), math.cos(turned)])
        size = math.ceil(width_m / level.metres_per_pixel) + 4
        ground, _ = level.window(position, size)
        step = width_m / WIDTH / level.metres_per_pixel  # map pixels a camera pixel
        middle = (size - 1) / 2
        shift = [middle - step * (WIDTH - 1) / 2, middle - step * (HEIGHT - 1) / 2]
        warp = np.array([[step, 0, shift[0]], [0, step, shift[1]]])
        seen = cv2.warpAffine(ground, warp, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        seen = np.clip(0.9 * seen.astype(np.float32) + 10 + rng.normal(0, 3, seen.shape), 0, 255).astype(np.uint8)
        attitude = quaternion_from_euler(*(math.radians(v) for v in (*rng.normal(0, 0.3, 2), rng.normal(0, 1.0))))
        velocity_ned = (float(velocity[1]), float(velocity[0]), 0.0)
        telemetry = Telemetry(at_ns, attitude, height_m * 1.02, True, velocity_ned)
        yield Moment(Frame(at_ns, np.ascontiguousarray(seen[..., ::-1]), str(k)), telemetry, position)
