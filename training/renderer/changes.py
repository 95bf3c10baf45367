"""What changes between the map's picture and the flight: cars come and go, a few buildings are gone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from training.renderer import geometry
from training.renderer.covers import Cover
from training.renderer.place import Place
from training.renderer.raster import FIRST_TREE_OBJECT

_CAR_M = (4.3, 1.8, 1.45)  # length, width, height


def changed(place: Place, seed: int, removed_share: float = 0.03, parked_share: float = 0.6) -> Place:
    """The same place on another day. Real ground, whose objects are not known, is returned as it is."""
    if place.cover is None or place.objects is None:
        return place
    rng = np.random.default_rng([place.seed, seed, 14])
    cover, objects, surface = place.cover.copy(), place.objects.copy(), place.surface_m.copy()
    gone = place.roof_objects[rng.random(len(place.roof_objects)) < removed_share]
    if len(gone):
        there = (cover == Cover.ROOF) & np.isin(objects, gone)
        cover[there], surface[there] = Cover.YARD, place.terrain_m[there]
    for right, down, angle in place.car_slots[rng.random(len(place.car_slots)) < parked_share]:
        _park(rng, place, cover, objects, surface, np.array([right, down]) + rng.normal(0, 0.15, 2), angle)
    return replace(place, cover=cover, objects=objects, surface_m=surface)


def _park(
    rng: np.random.Generator,
    place: Place,
    cover: np.ndarray,
    objects: np.ndarray,
    surface: np.ndarray,
    centre: np.ndarray,
    angle: float,
) -> None:
    """One car; only where the ground is open."""
    scale = place.metres_per_pixel
    outline = geometry.rectangle(centre, _CAR_M[0], _CAR_M[1], angle)
    low = np.maximum(np.floor(outline.min(axis=0) / scale).astype(int), 0)
    high = np.minimum(np.ceil(outline.max(axis=0) / scale).astype(int) + 1, np.array(cover.shape[::-1]))
    if (high <= low).any():
        return
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    right, down = np.meshgrid((np.arange(low[0], high[0]) + 0.5) * scale, (np.arange(low[1], high[1]) + 0.5) * scale)
    right, down = right - centre[0], down - centre[1]
    along, across = right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle)
    inside = (np.abs(along) < _CAR_M[0] / 2) & (np.abs(across) < _CAR_M[1] / 2)
    inside &= np.isin(cover[window], (Cover.PARKING, Cover.YARD, Cover.ROAD, Cover.MARKING))
    cover[window][inside] = Cover.CAR
    objects[window][inside] = int(rng.integers(FIRST_TREE_OBJECT, 65536))
    surface[window][inside] += _CAR_M[2]
