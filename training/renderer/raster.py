"""From a plan of shapes to rasters: relief, land cover, objects, and the heights of roofs and crowns."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.renderer import geometry
from training.renderer.covers import Cover
from training.renderer.layout import Building, Plan
from training.renderer.noise import band, line, octaves

_SHIFT = 4  # cv2 draws with sixteenths of a pixel
FIRST_TREE_OBJECT = 20000  # objects below are parcels and buildings; above, crowns share numbers
_RELIEF_CELL_M = 8.0


@dataclass(frozen=True)
class Layers:
    """Rasters of one shape (H, W): `cover` uint8 (`Cover`), `objects` uint16 (which parcel, roof or crown),
    `terrain_m` and `surface_m` float32. `parcel_angle_rad` (P,) by object; `roof_objects` (B,)."""

    cover: np.ndarray
    objects: np.ndarray
    terrain_m: np.ndarray
    surface_m: np.ndarray
    parcel_angle_rad: np.ndarray
    roof_objects: np.ndarray


def draw_layers(rng: np.random.Generator, plan: Plan, metres_per_pixel: float, relief_m: float) -> Layers:
    """Rasterise a plan; trees of the woods and of the banks are planted here, where the ground is known."""
    side = round(plan.size_m / metres_per_pixel)
    shape = (side, side)
    pen = _Pen(metres_per_pixel)
    cover = np.full(shape, Cover.MEADOW, np.uint8)
    objects = np.zeros(shape, np.uint16)
    for number, parcel in enumerate(plan.parcels, start=1):
        pen.fill(cover, parcel.outline, int(parcel.cover))
        pen.fill(objects, parcel.outline, number)
    _edge_with_grass(plan, pen, cover)
    _spread_woods(rng, cover, metres_per_pixel)
    terrain = _relief(rng, plan, shape, relief_m)
    _draw_water(rng, plan, pen, cover, terrain)
    wet = cover == Cover.WATER
    for outline, ground in plan.grounds:
        pen.fill(cover, outline, int(ground))
    _draw_ways(rng, plan, pen, cover)
    bridge = wet & (cover == Cover.ROAD)
    for ends in plan.markings:
        pen.stroke(cover, ends, 0.3, int(Cover.MARKING))
    surface = terrain.copy()
    surface[bridge] += 3.0
    first_roof = len(plan.parcels) + 1
    for number, building in enumerate(plan.buildings, start=first_roof):
        _raise_building(building, number, cover, objects, terrain, surface, metres_per_pixel)
    trees = _plant(rng, plan, cover, metres_per_pixel)
    _raise_crowns(rng, trees, cover, objects, terrain, surface, metres_per_pixel)
    angles = np.array([0.0] + [parcel.angle_rad for parcel in plan.parcels])
    return Layers(cover, objects, terrain, surface, angles, np.arange(first_roof, first_roof + len(plan.buildings)))


class _Pen:
    """Draws plan metres into pixels."""

    def __init__(self, metres_per_pixel: float) -> None:
        self.metres_per_pixel = metres_per_pixel

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        return np.round((points / self.metres_per_pixel - 0.5) * (1 << _SHIFT)).astype(np.int32)

    def fill(self, raster: np.ndarray, outline: np.ndarray, value: int) -> None:
        cv2.fillPoly(raster, [self._fixed(outline)], value, cv2.LINE_8, _SHIFT)

    def stroke(self, raster: np.ndarray, points: np.ndarray, width_m: float, value: int) -> None:
        width = max(1, round(width_m / self.metres_per_pixel))
        cv2.polylines(raster, [self._fixed(points)], False, value, width, cv2.LINE_8, _SHIFT)


def _edge_with_grass(plan: Plan, pen: _Pen, cover: np.ndarray) -> None:
    """A strip of rough grass between neighbours."""
    for parcel in plan.parcels:
        if parcel.cover == Cover.FIELD:
            pen.stroke(cover, np.vstack([parcel.outline, parcel.outline[:1]]), 1.6, int(Cover.BANK))


def _spread_woods(rng: np.random.Generator, cover: np.ndarray, metres_per_pixel: float) -> None:
    """Copses that do not keep to parcels."""
    field = octaves(rng, cover.shape, min(260.0, cover.shape[0] * metres_per_pixel / 3) / metres_per_pixel, 4)
    cover[(field > 1.75) & ((cover == Cover.MEADOW) | (cover == Cover.BANK))] = Cover.FOREST_FLOOR
    cover[field > 2.15] = Cover.FOREST_FLOOR


def _relief(rng: np.random.Generator, plan: Plan, shape: tuple[int, int], relief_m: float) -> np.ndarray:
    """Hills of many sizes, 0 to `relief_m`, with a valley along the river."""
    cells = int(plan.size_m / _RELIEF_CELL_M) + 2
    hills = octaves(rng, (cells, cells), max(8.0, min(900.0, plan.size_m) / _RELIEF_CELL_M), 5, 0.42)
    hills = np.clip(0.5 + 0.22 * hills, 0, 1) * relief_m
    dry = np.full((cells, cells), 255, np.uint8)
    cv2.polylines(dry, [np.round(plan.river / _RELIEF_CELL_M).astype(np.int32)], False, 0, 2)
    away_m = cv2.distanceTransform(dry, cv2.DIST_L2, 5) * _RELIEF_CELL_M
    rise = np.clip((away_m - 25) / 320, 0, 1)
    rise = rise * rise * (3 - 2 * rise)
    level = 0.12 * relief_m
    small = (level + (hills - level) * np.clip(0.06 + rise, 0, 1)).astype(np.float32)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), 1.5), shape[::-1], interpolation=cv2.INTER_CUBIC)


def _draw_water(rng: np.random.Generator, plan: Plan, pen: _Pen, cover: np.ndarray, terrain: np.ndarray) -> None:
    """River and ponds with rough banks; their water lies level, below the ground."""
    scale = pen.metres_per_pixel
    width = plan.river_width_m
    for extra, value in ((9.0, Cover.BANK), (0.0, Cover.WATER)):
        fringe = 1 + 0.35 * line(rng, len(width), 8) if extra else np.ones(len(width))
        for i in range(len(width) - 1):
            pen.stroke(cover, plan.river[i : i + 2], float(width[i] + extra * fringe[i]), int(value))
    for pond in plan.ponds:
        pen.fill(cover, pond + 0.12 * (pond - pond.mean(axis=0)), int(Cover.BANK))
        pen.fill(cover, pond, int(Cover.WATER))
    dry = (cover != Cover.WATER).astype(np.uint8)
    drop = np.clip(1.6 - 0.28 * scale * cv2.distanceTransform(dry, cv2.DIST_L2, 3), 0, 1.6)
    terrain -= drop
    for pond in plan.ponds:
        inside = np.zeros_like(dry)
        pen.fill(inside, pond, 1)
        if inside.any():
            terrain[inside > 0] = terrain[inside > 0].min()


def _draw_ways(rng: np.random.Generator, plan: Plan, pen: _Pen, cover: np.ndarray) -> None:
    """Tracks under lanes under main roads; verges beside, markings on top. Tracks end at the water."""
    water = cover == Cover.WATER
    for way in sorted(plan.ways, key=lambda w: w.width_m):
        if way.cover == Cover.ROAD:
            pen.stroke(cover, way.points, way.width_m + 3.0, int(Cover.BANK))
    for way in sorted(plan.ways, key=lambda w: (w.cover != Cover.TRACK, w.width_m)):
        if way.cover == Cover.TRACK:
            pen.stroke(cover, way.points, way.width_m, int(Cover.TRACK))
            if way.width_m > 2.3:  # grass between the wheels
                pen.stroke(cover, way.points, 0.7, int(Cover.BANK))
            cover[water] = Cover.WATER
        else:
            pen.stroke(cover, way.points, way.width_m, int(Cover.ROAD))
    for way in plan.main_ways:
        dashes, angles = geometry.along_line(way.points, 9.0)
        for spot, angle in zip(dashes, angles, strict=True):
            ahead = np.array([np.cos(angle), np.sin(angle)])
            pen.stroke(cover, np.array([spot, spot + 3.5 * ahead]), 0.2, int(Cover.MARKING))
    cover[water & (cover == Cover.BANK)] = Cover.WATER


def _raise_building(
    building: Building,
    number: int,
    cover: np.ndarray,
    objects: np.ndarray,
    terrain: np.ndarray,
    surface: np.ndarray,
    metres_per_pixel: float,
) -> None:
    outline = geometry.rectangle(building.centre, building.length_m, building.width_m, building.angle_rad)
    low = np.maximum(np.floor(outline.min(axis=0) / metres_per_pixel).astype(int) - 1, 0)
    high = np.minimum(np.ceil(outline.max(axis=0) / metres_per_pixel).astype(int) + 1, cover.shape[0])
    if (high <= low).any():
        return
    right, down = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
    right = (right + 0.5) * metres_per_pixel - building.centre[0]
    down = (down + 0.5) * metres_per_pixel - building.centre[1]
    cos, sin = np.cos(building.angle_rad), np.sin(building.angle_rad)
    u, v = np.abs(right * cos + down * sin), np.abs(down * cos - right * sin)
    half_u, half_v = building.length_m / 2, building.width_m / 2
    inside = (u <= half_u) & (v <= half_v)
    share = {
        "gable": 1 - v / half_v,
        "hip": np.minimum(1 - v / half_v, (half_u - u) / half_v),
        "shed": 0.5 + 0.5 * (down * cos - right * sin) / half_v,
        "flat": np.zeros_like(u),
    }[building.kind]
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    base = float(terrain[window].mean())
    top = (base + building.eave_m + building.rise_m * share).astype(np.float32)
    inside &= top > surface[window]
    surface[window][inside] = top[inside]
    cover[window][inside] = Cover.ROOF
    objects[window][inside] = number


def _plant(rng: np.random.Generator, plan: Plan, cover: np.ndarray, metres_per_pixel: float) -> np.ndarray:
    """All trees (N, 4): right, down, radius, height in metres. The plan's own, the woods', the banks'."""
    spacing = 5.4
    steps = np.arange(0, plan.size_m, spacing)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    grid = grid + rng.uniform(-0.45, 0.45, grid.shape) * spacing
    ground = _at(cover, grid, metres_per_pixel)
    chance = np.zeros(16)
    chance[Cover.FOREST_FLOOR], chance[Cover.BANK], chance[Cover.MEADOW], chance[Cover.FIELD] = (
        0.93,
        0.05,
        0.006,
        0.0008,
    )
    grown = grid[rng.random(len(grid)) < chance[ground]]
    radius = np.clip(rng.normal(3.1, 0.75, len(grown)), 1.6, 5.2)
    wild = np.column_stack([grown, radius, radius * rng.uniform(2.6, 4.2, len(grown)) + 2.0])
    bank_spots, bank_angles = geometry.along_line(plan.river, 4.0)
    side = rng.choice([-1.0, 1.0], len(bank_spots))
    offset = side * (plan.river_width_m.mean() / 2 + rng.uniform(2, 9, len(bank_spots)))
    banks = bank_spots + offset[:, None] * np.column_stack([-np.sin(bank_angles), np.cos(bank_angles)])
    banks = banks[(line(rng, len(banks), 60) > 0.1) & (rng.random(len(banks)) < 0.75)]
    radius = rng.uniform(1.8, 4.4, len(banks))
    banks = np.column_stack([banks, radius, radius * 2.6])
    trees = np.concatenate([wild, np.array(plan.trees).reshape(-1, 4), banks])
    trees = trees[((trees[:, :2] > 0) & (trees[:, :2] < plan.size_m)).all(axis=1)]
    free = (Cover.FIELD, Cover.MEADOW, Cover.FOREST_FLOOR, Cover.BANK, Cover.GARDEN)
    return trees[np.isin(_at(cover, trees[:, :2], metres_per_pixel), free)]


def _at(raster: np.ndarray, spots: np.ndarray, metres_per_pixel: float) -> np.ndarray:
    index = np.clip((spots / metres_per_pixel).astype(int), 0, raster.shape[0] - 1)
    return raster[index[:, 1], index[:, 0]]


def _raise_crowns(
    rng: np.random.Generator,
    trees: np.ndarray,
    cover: np.ndarray,
    objects: np.ndarray,
    terrain: np.ndarray,
    surface: np.ndarray,
    metres_per_pixel: float,
) -> None:
    """Every pixel belongs to its nearest stem; inside that tree's ragged radius a dome of leaves is raised."""
    if not len(trees):
        return
    seeds = np.ones(cover.shape, np.uint8)
    index = np.clip((trees[:, :2] / metres_per_pixel).astype(int), 0, cover.shape[0] - 1)
    seeds[index[:, 1], index[:, 0]] = 0
    distance, label = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    radius_of, height_of = (np.zeros(int(label.max()) + 1, np.float32) for _ in range(2))
    owner = label[index[:, 1], index[:, 0]]
    radius_of[owner], height_of[owner] = trees[:, 2] / metres_per_pixel, trees[:, 3]
    near = np.flatnonzero(distance.ravel() < radius_of.max() * 1.3)
    label, distance = label.ravel()[near], distance.ravel()[near]
    radius = radius_of[label]
    ragged = band(rng, cover.shape, max(1.0, 1.4 / metres_per_pixel)).ravel()[near]
    share = (distance + 0.2 * radius * ragged) / np.maximum(radius, 1e-3)
    there = (share < 1) & ~np.isin(cover.ravel()[near], (Cover.ROOF, Cover.WATER))
    near, label, share = near[there], label[there], np.clip(share[there], 0, 1)
    dome = height_of[label] * (0.5 + 0.5 * np.sqrt(1 - share**2)) + 0.35 * ragged[there]
    surface.ravel()[near] = np.maximum(surface.ravel()[near], terrain.ravel()[near] + dome)
    cover.ravel()[near] = Cover.TREE
    objects.ravel()[near] = FIRST_TREE_OBJECT + label % (65535 - FIRST_TREE_OBJECT)
