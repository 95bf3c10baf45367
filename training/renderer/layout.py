"""The plan of a place as shapes: river, roads, districts, parcels, hedges, ponds. Villages are in `villages`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from training.renderer import geometry
from training.renderer.covers import Cover
from training.renderer.noise import line


@dataclass(frozen=True)
class Parcel:
    """A piece of land: `outline` (N, 2), the direction in which it is worked, and its cover."""

    outline: np.ndarray
    angle_rad: float
    cover: Cover
    orchard: bool = False


@dataclass(frozen=True)
class Way:
    """A road, lane or track along `points` (N, 2)."""

    points: np.ndarray
    width_m: float
    cover: Cover


@dataclass(frozen=True)
class Building:
    """A rectangle with a roof: `kind` is gable, hip, flat or shed; heights above the ground at its centre."""

    centre: np.ndarray
    length_m: float
    width_m: float
    angle_rad: float
    eave_m: float
    rise_m: float
    kind: str


@dataclass
class Plan:
    """All shapes of a place, in plan metres (right, down) from its top left corner. Filled room by room."""

    size_m: float
    river: np.ndarray
    river_width_m: np.ndarray
    parcels: list[Parcel] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)
    ponds: list[np.ndarray] = field(default_factory=list)
    grounds: list[tuple[np.ndarray, Cover]] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    markings: list[np.ndarray] = field(default_factory=list)
    trees: list[tuple[float, float, float, float]] = field(default_factory=list)  # right, down, radius, height
    slots: list[tuple[float, float, float]] = field(default_factory=list)  # where cars may stand: right, down, angle

    @property
    def main_ways(self) -> list[Way]:
        return [way for way in self.ways if way.width_m >= 6.0]


def draw_plan(rng: np.random.Generator, size_m: float) -> Plan:
    """River, roads, parcels, hedges and ponds of a square place."""
    river, widths = _river(rng, size_m)
    plan = Plan(size_m, river, widths)
    for points in _main_roads(rng, size_m, river):
        plan.ways.append(Way(points, float(rng.uniform(6.5, 8.0)), Cover.ROAD))
    warp = geometry.Warp(rng, size_m)
    districts = _districts(rng, size_m)
    _lanes(rng, plan, districts, warp)
    for cell in districts:
        _divide(rng, plan, cell, warp)
    for _ in range(max(1, round(size_m**2 / 1.2e6))):
        plan.ponds.append(_pond(rng, *_pond_place(rng, plan)))
    return plan


def _river(rng: np.random.Generator, size_m: float) -> tuple[np.ndarray, np.ndarray]:
    """A sine-generated meander from side to side: the heading swings as a sine of the way gone (Langbein 1966)."""
    count = int(2.2 * size_m / 6) + 60
    wavelength = rng.uniform(300, 460)
    phase = np.cumsum(6 * 2 * np.pi / wavelength * (1 + 0.3 * line(rng, count, 80))) + rng.uniform(0, 6)
    swing = rng.uniform(0.7, 1.05) * np.clip(1 + 0.4 * line(rng, count, 60), 0.2, 1.4)
    heading = swing * np.sin(phase) + 0.25 * line(rng, count, 200)
    points = np.cumsum(6 * np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
    points[:, 0] -= 60
    drift = points[:, 1] - np.interp(points[:, 0], [0, size_m], [0, points[-1, 1] * 0.0])
    points[:, 1] = rng.uniform(0.35, 0.65) * size_m + drift - drift[: int(size_m / 6) + 20].mean()
    keep = np.cumsum(points[:, 0] > size_m + 60) == 0
    points, widths = points[keep], (rng.uniform(11, 18) * np.clip(1 + 0.25 * line(rng, count, 25), 0.6, 1.6))[keep]
    return (points[:, ::-1] if rng.random() < 0.5 else points), widths


def _main_roads(rng: np.random.Generator, size_m: float, river: np.ndarray) -> list[np.ndarray]:
    """One road across the river and one that leaves it, both gently winding."""
    crosses_down = np.ptp(river[:, 0]) > np.ptp(river[:, 1])  # the river runs right, so the road runs down
    roads = []
    for index in range(2 if size_m < 3000 else 3):
        along = np.arange(-40, size_m + 40, 8.0)
        start, end = rng.uniform(0.2, 0.8, 2) * size_m
        wind = 14 * line(rng, len(along), 90) * min(1.0, size_m / 1000)
        across = np.interp(along, [0, size_m], [start, end]) + 0.03 * size_m * line(rng, len(along), 200) + wind * 0.4
        points = np.stack([across, along], axis=1)
        roads.append(points if crosses_down == (index != 1) else points[:, ::-1])
    return roads


def _districts(rng: np.random.Generator, size_m: float) -> list[np.ndarray]:
    """Voronoi cells of some 15 ha: the blocks between lanes."""
    count = max(5, round(size_m**2 / 1.5e5))
    seeds = rng.uniform(-0.02, 1.02, (count, 2)) * size_m
    square = np.array([[-30, -30], [size_m + 30, -30], [size_m + 30, size_m + 30], [-30, size_m + 30]], dtype=float)
    cells = []
    for i in range(count):
        cell = square
        for j in range(count):
            if j != i and len(cell):
                cell = geometry.clip_halfplane(cell, (seeds[i] + seeds[j]) / 2, seeds[j] - seeds[i])
        if geometry.area(cell) > 2000:
            cells.append(cell)
    return cells


def _lanes(rng: np.random.Generator, plan: Plan, districts: list[np.ndarray], warp: geometry.Warp) -> None:
    """A lane, a gravel track or a hedge along every border of two districts."""
    seen = set()
    for cell in districts:
        for a, b in zip(cell, np.roll(cell, -1, axis=0), strict=True):
            key = tuple(np.round((a + b) / 2 / 5).astype(int))
            if key in seen or np.linalg.norm(b - a) < 30:
                continue
            seen.add(key)
            points = warp(geometry.densify(np.array([a, b]), 10))
            kind = rng.random()
            if kind < 0.4:
                plan.ways.append(Way(points, float(rng.uniform(3.2, 4.6)), Cover.ROAD))
            elif kind < 0.75:
                plan.ways.append(Way(points, float(rng.uniform(2.4, 3.2)), Cover.TRACK))
            if kind > 0.65 or rng.random() < 0.25:
                _hedge(rng, plan, points, gap_m=3.5)


def _divide(rng: np.random.Generator, plan: Plan, cell: np.ndarray, warp: geometry.Warp) -> None:
    """Cut a district into parcels along its own direction, unevenly, and give each a cover."""
    angle = rng.uniform(0, np.pi)
    target = float(np.exp(rng.normal(np.log(9000), 0.55)))
    wooded = rng.random()
    queue = [cell]
    while queue:
        piece = queue.pop()
        if geometry.area(piece) < target * rng.uniform(0.8, 2.2) or len(piece) < 3:
            if geometry.area(piece) > 60:
                _add_parcel(rng, plan, piece, angle, wooded, warp)
            continue
        # Long strips are cut across, broad ones along: the share of the two directions decides.
        along = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-along[1], along[0]])
        spans = [np.ptp(piece @ axis) for axis in (along, across)]
        normal = along if spans[0] > spans[1] * rng.uniform(1.0, 2.6) else across
        normal = normal @ _turn(rng.normal(0, 0.05))
        low, high = (piece @ normal).min(), (piece @ normal).max()
        at = normal * (low + (high - low) * rng.uniform(0.32, 0.68))
        for sign in (1, -1):
            queue.append(geometry.clip_halfplane(piece, at, sign * normal))


def _add_parcel(
    rng: np.random.Generator, plan: Plan, piece: np.ndarray, angle: float, wooded: float, warp: geometry.Warp
) -> None:
    outline = warp(geometry.densify(piece, 10, closed=True))
    draw = rng.random()
    forest = 0.75 if wooded < 0.13 else 0.05
    cover = Cover.FOREST_FLOOR if draw < forest else Cover.MEADOW if draw < forest + 0.22 else Cover.FIELD
    orchard = cover == Cover.MEADOW and rng.random() < 0.2
    spans = [np.ptp(piece @ np.array([np.cos(a), np.sin(a)])) for a in (angle, angle + np.pi / 2)]
    worked = angle if spans[0] >= spans[1] else angle + np.pi / 2
    plan.parcels.append(Parcel(outline, float(worked + rng.normal(0, 0.02)), cover, orchard))
    if rng.random() < 0.16:
        edge = int(rng.integers(len(piece)))
        ends = np.array([piece[edge], piece[(edge + 1) % len(piece)]])
        points = warp(geometry.densify(ends, 10))
        if rng.random() < 0.6:
            _hedge(rng, plan, points, gap_m=0.0)
        else:
            plan.ways.append(Way(points, 2.2, Cover.TRACK))
    if orchard:
        _orchard(rng, plan, outline, worked)


def _hedge(rng: np.random.Generator, plan: Plan, points: np.ndarray, gap_m: float) -> None:
    """Bushes and single trees beside a line, with holes."""
    spots, angles = geometry.along_line(points, 2.6)
    if not len(spots):
        return
    dense = rng.uniform(-0.8, 0.9)
    there = line(rng, len(spots), 24) < dense
    for spot, angle in zip(spots[there], angles[there], strict=True):
        tall = rng.random() < 0.16
        radius = rng.uniform(2.6, 4.8) if tall else rng.uniform(1.2, 2.2)
        offset = gap_m + rng.normal(0, 0.5)
        right, down = spot + offset * np.array([-np.sin(angle), np.cos(angle)])
        plan.trees.append((right, down, radius, radius * rng.uniform(1.9, 2.8)))


def _orchard(rng: np.random.Generator, plan: Plan, outline: np.ndarray, angle: float) -> None:
    """Trees in rows."""
    spacing = rng.uniform(5.5, 8.5)
    centre = outline.mean(axis=0)
    reach = np.abs(outline - centre).max() * 1.5
    steps = np.arange(-reach, reach, spacing)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2) @ _turn(angle) + centre
    inside = np.array([_inside(outline, point) for point in grid], dtype=bool)
    for point in grid[inside]:
        if rng.random() < 0.93:
            radius = rng.uniform(1.5, 2.4)
            right, down = point + rng.normal(0, 0.25, 2)
            plan.trees.append((right, down, radius, radius * 2))


def _pond_place(rng: np.random.Generator, plan: Plan) -> tuple[np.ndarray, float]:
    """Centre and radius of a pond that keeps off roads and river: the best of some draws."""
    lines = np.concatenate([plan.river] + [way.points for way in plan.ways if way.cover == Cover.ROAD])
    centres = rng.uniform(0.12, 0.88, (40, 2)) * plan.size_m
    clear = np.linalg.norm(centres[:, None] - lines[None], axis=2).min(axis=1)
    for pond in plan.ponds:
        clear = np.minimum(clear, np.linalg.norm(centres - pond.mean(axis=0), axis=1) - 60)
    best = int(np.argmax(clear > 95) if (clear > 95).any() else np.argmax(clear))
    return centres[best], float(np.clip(clear[best] / 1.6 - 12, 9, rng.uniform(18, 26 + 0.02 * plan.size_m)))


def _pond(rng: np.random.Generator, centre: np.ndarray, radius_m: float) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radius = radius_m * np.ones(60)
    for wave in range(1, 5):
        radius += radius_m * 0.22 / wave * rng.normal() * np.cos(wave * turn + rng.uniform(0, 6))
    radius = np.maximum(radius, radius_m * 0.3)
    return centre + radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)


def _turn(angle: float) -> np.ndarray:
    """Right-multiplied on rows of points, turns them by `angle`."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _inside(outline: np.ndarray, point: np.ndarray) -> bool:
    """Inside a nearly convex outline: on one side of every edge but a few."""
    edges = np.roll(outline, -1, axis=0) - outline
    to = point - outline
    side = edges[:, 0] * to[:, 1] - edges[:, 1] * to[:, 0]
    return bool(max((side > 0).mean(), (side < 0).mean()) > 0.93)
