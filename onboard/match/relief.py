"""What hills do to a view that was laid on level ground, by the heights that the region map carries.

The view is made on the level plane `height_m` below the vehicle. Ground that lies dz above the ground right below
the vehicle, at g east and north of it, appears on that plane at g' = g height / (height - dz): away from the vehicle
where it is high, towards it where it is low. So what is seen at g' belongs g - g' = -g' dz / height further on.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from onboard.records import GroundView
from onboard.region.map import RegionMap

_SIDE = 16  # points along a side of a view at which the relief is worked out; between them it is bilinear
_ROUNDS = 4  # of the search for the ground that is seen at a point; each leaves slope times g / height of the error
_STEEPEST = 0.5  # of the height: a place whose ground rises further into the view is a wrong one, or no place to fly


def ground_shift(region: RegionMap, view: GroundView, vehicle_enu_m: np.ndarray, height_m: float) -> np.ndarray | None:
    """How far (16, 16, 2) east, north in metres the ground seen lies from where level ground would; None if level.

    The points lie evenly over the view, in the middles of 16 by 16 parts of it. `height_m` is the vehicle's above the
    ground right below it, at `vehicle_enu_m` (2,). Where that ground's height or the point's is not known, it is level.
    """
    if region.elevation is None:
        return None
    side_m = view.image_rgb.shape[0] * view.metres_per_pixel
    steps = ((np.arange(_SIDE) + 0.5) / _SIDE - 0.5) * side_m
    east, north = np.meshgrid(view.centre_from_vehicle_enu_m[0] + steps, view.centre_from_vehicle_enu_m[1] - steps)
    seen = np.stack([east.ravel(), north.ravel()], axis=1)
    below = float(region.elevation_at(vehicle_enu_m)[0])
    if math.isnan(below):
        return np.zeros((_SIDE, _SIDE, 2))
    ground = seen
    for _ in range(_ROUNDS):
        rise = np.nan_to_num(region.elevation_at(vehicle_enu_m + ground) - below, nan=0.0)
        ground = seen * (1 - np.minimum(rise / height_m, _STEEPEST))[:, None]
    return (ground - seen).reshape(_SIDE, _SIDE, 2)


def mean_shift(shift_enu_m: np.ndarray | None, view: GroundView) -> np.ndarray:
    """(2,) east, north in metres: by how much a match of the whole view is shifted."""
    if shift_enu_m is None:
        return np.zeros(2)
    seen = cv2.resize(view.mask.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray((shift_enu_m * seen[..., None]).sum(axis=(0, 1)) / max(float(seen.sum()), 1e-6))


def shift_of_match(
    region: RegionMap, view: GroundView, matched_enu_m: np.ndarray, height_m: float
) -> np.ndarray | None:
    """`ground_shift` of a view whose centre was matched with a point (2,) of the map; None if level.

    The match went by what is seen, so it holds the mean shift: the vehicle is where the two agree.
    """
    on_level = vehicle = matched_enu_m - np.array(view.centre_from_vehicle_enu_m)
    for _ in range(2):
        shift = ground_shift(region, view, vehicle, height_m)
        vehicle = on_level - mean_shift(shift, view)
    return ground_shift(region, view, vehicle, height_m)


def in_cells(shift_enu_m: np.ndarray, size: int, cell_m: float) -> np.ndarray:
    """A shift as (size, size, 2) row, col of a view of size x size cells or pixels of `cell_m`."""
    grown = cv2.resize(shift_enu_m, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.stack([-grown[..., 1], grown[..., 0]], axis=-1) / cell_m


def laid_on_ground(view: GroundView, shift_enu_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rgb, mask) of a view with what is seen brought to where it belongs on the map, to first order."""
    size = view.image_rgb.shape[0]
    rows, cols = np.mgrid[:size, :size].astype(np.float32)
    shift = in_cells(shift_enu_m, size, view.metres_per_pixel)
    at = (cols - shift[..., 1]).astype(np.float32), (rows - shift[..., 0]).astype(np.float32)
    rgb = cv2.remap(view.image_rgb, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    mask = cv2.remap(view.mask.astype(np.uint8), *at, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    return rgb, mask > 0
