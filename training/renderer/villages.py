"""Where people live: villages along the main roads, farms by the lanes, halls with parking."""

from __future__ import annotations

import cv2
import numpy as np

from training.renderer import geometry
from training.renderer.covers import Cover
from training.renderer.layout import Building, Plan, Way


class _Taken:
    """Which square metres are built on already: houses do not stand in roads, water or each other."""

    def __init__(self, plan: Plan) -> None:
        self.mask = np.zeros((int(plan.size_m) + 1,) * 2, np.uint8)
        for way in plan.ways:
            if way.cover == Cover.ROAD:
                cv2.polylines(self.mask, [way.points.astype(np.int32)], False, 1, int(way.width_m) + 3)
        cv2.polylines(self.mask, [plan.river.astype(np.int32)], False, 1, int(plan.river_width_m.max()) + 14)
        for pond in plan.ponds:
            cv2.fillPoly(self.mask, [pond.astype(np.int32)], 1)

    def take(self, outline: np.ndarray) -> bool:
        """Take the ground of a convex outline if it is free and inside the place."""
        low, high = np.floor(outline.min(axis=0)).astype(int), np.ceil(outline.max(axis=0)).astype(int)
        if (low < 1).any() or (high > self.mask.shape[0] - 2).any():
            return False
        patch = self.mask[low[1] : high[1] + 1, low[0] : high[0] + 1]
        shape = np.zeros_like(patch)
        cv2.fillConvexPoly(shape, np.round(outline - low).astype(np.int32), 1)
        if (patch & shape).any():
            return False
        patch |= shape
        return True


def settle(rng: np.random.Generator, plan: Plan) -> None:
    """Add villages, farms and a hall with parking to a plan that has its roads."""
    size = plan.size_m
    streets: list[tuple[Way, bool]] = []
    for _ in range(max(1, round(size**2 / 8e5))):
        streets += _village_streets(rng, plan)
    taken = _Taken(plan)
    for _ in range(max(1, round(size**2 / 1.6e6))):
        _hall(rng, plan, taken)
    for street, _ in streets:
        _houses(rng, plan, taken, street)
    for _ in range(max(1, round(size**2 / 2.5e5))):
        _farm(rng, plan, taken)


def _village_streets(rng: np.random.Generator, plan: Plan) -> list[tuple[Way, bool]]:
    """A stretch of a main road and some side streets that leave it."""
    main = plan.main_ways[int(rng.integers(len(plan.main_ways)))]
    inside = np.flatnonzero(((main.points > 0.15 * plan.size_m) & (main.points < 0.85 * plan.size_m)).all(axis=1))
    if not len(inside):
        return []
    scale = min(1.0, plan.size_m / 1000)
    reach = int(scale * rng.uniform(120, 260) / 8) + 2
    middle = int(rng.choice(inside))
    stretch = main.points[max(0, middle - reach) : middle + reach]
    streets = [(Way(stretch, main.width_m, Cover.ROAD), True)]
    spots, angles = geometry.along_line(stretch, rng.uniform(48, 80), rng.uniform(5, 30))
    for spot, angle in zip(spots, angles, strict=True):
        for side in (-1, 1):
            if rng.random() < 0.3:
                continue
            length = scale * rng.uniform(70, 210)
            steps = np.arange(0, length, 6.0)
            heading = angle + side * (np.pi / 2 + rng.normal(0, 0.25)) + rng.normal(0, 0.5) * (steps / 150) ** 1.2
            points = spot + np.cumsum(6 * np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
            way = Way(np.vstack([spot, points]), float(rng.uniform(4.0, 5.5)), Cover.ROAD)
            plan.ways.append(way)
            streets.append((way, False))
    return streets


def _houses(rng: np.random.Generator, plan: Plan, taken: _Taken, street: Way) -> None:
    """Houses on both sides of a street, each in its garden, most with a drive and a car's place."""
    for side in (-1, 1):
        frontage = rng.uniform(17, 30)
        at = rng.uniform(2, 8) + frontage / 2
        length = np.linalg.norm(np.diff(street.points, axis=0), axis=1).sum()
        while at < length - 6:
            spots, angles = geometry.along_line(street.points, 1e6, at)
            if len(spots):
                _house(rng, plan, taken, spots[0], float(angles[0]), side, street.width_m, frontage)
            following = rng.uniform(17, 30)
            at += (frontage + following) / 2
            frontage = following


def _house(
    rng: np.random.Generator,
    plan: Plan,
    taken: _Taken,
    spot: np.ndarray,
    angle: float,
    side: int,
    road_width_m: float,
    frontage_m: float,
) -> None:
    out = side * np.array([-np.sin(angle), np.cos(angle)])
    along = np.array([np.cos(angle), np.sin(angle)])
    # A deep garden where there is room, else a shallow one.
    for depth in (rng.uniform(28, 40), rng.uniform(20, 24)):
        middle = spot + out * (road_width_m / 2 + 2.8 + depth / 2)
        plot = geometry.rectangle(middle, frontage_m - 2.0, depth, angle)
        if taken.take(plot):
            break
    else:
        return
    plan.grounds.append((plot, Cover.GARDEN))
    length, width = rng.uniform(9.5, 15), rng.uniform(7.5, 10.5)
    setback = road_width_m / 2 + rng.uniform(5, 9) + width / 2
    centre = spot + out * setback + along * rng.normal(0, 1.5)
    turned = angle + rng.normal(0, 0.04) + (np.pi / 2 if rng.random() < 0.3 else 0)
    kind = str(rng.choice(["gable", "gable", "gable", "hip", "flat"]))
    rise = 0.0 if kind == "flat" else width * rng.uniform(0.25, 0.45)
    plan.buildings.append(Building(centre, length, width, turned, float(rng.uniform(3, 6.5)), rise, kind))
    if rng.random() < 0.3:  # a wing or a garage
        wing = centre + along * side * (length / 2 + 1.5) + out * rng.uniform(-2, 4)
        low = Building(wing, rng.uniform(5, 8), rng.uniform(4, 6), turned, float(rng.uniform(2.4, 3)), 0.0, "flat")
        plan.buildings.append(low)
    drive = spot + out * (road_width_m / 2 + 4.5) + along * rng.choice([-1, 1]) * frontage_m * 0.33
    plan.grounds.append((geometry.rectangle(drive, 3.5, 11, angle), Cover.YARD))
    plan.slots.append((float(drive[0]), float(drive[1]), angle + np.pi / 2))
    for _ in range(int(rng.integers(1, 6))):
        right, down = (
            spot + out * rng.uniform(road_width_m / 2 + 4, depth) + along * rng.uniform(-0.5, 0.5) * frontage_m
        )
        if np.hypot(right - centre[0], down - centre[1]) > length * 0.62:
            radius = rng.uniform(1.2, 3.6)
            plan.trees.append((right, down, radius, radius * rng.uniform(1.6, 2.4)))


def _farm(rng: np.random.Generator, plan: Plan, taken: _Taken) -> None:
    """A yard by a lane with barns and a house."""
    lanes = [way for way in plan.ways if way.width_m < 6 and len(way.points) > 4]
    for _ in range(12 if lanes else 0):
        lane = lanes[int(rng.integers(len(lanes)))]
        spots, angles = geometry.along_line(lane.points, 15.0, 8.0)
        if not len(spots):
            continue
        pick = int(rng.integers(len(spots)))
        angle = float(angles[pick])
        out = rng.choice([-1, 1]) * np.array([-np.sin(angle), np.cos(angle)])
        along = np.array([np.cos(angle), np.sin(angle)])
        broad, deep = rng.uniform(45, 75), rng.uniform(35, 55)
        middle = spots[pick] + out * (deep / 2 + 3)
        if not taken.take(geometry.rectangle(middle, broad, deep, angle)):
            continue
        plan.grounds.append((geometry.rectangle(middle, broad, deep, angle), Cover.GARDEN))
        plan.grounds.append((geometry.rectangle(middle, broad * 0.8, deep * 0.72, angle), Cover.YARD))
        for shift, kind in ((-0.28, "gable"), (0.24, str(rng.choice(["gable", "shed", "hip"])))):
            turned = angle + rng.choice([0, np.pi / 2]) + rng.normal(0, 0.03)
            length, width = rng.uniform(16, 30), rng.uniform(9, 15)
            centre = middle + along * broad * shift + out * rng.uniform(-0.12, 0.12) * deep
            rise = width * rng.uniform(0.15, 0.35)
            plan.buildings.append(Building(centre, length, width, turned, float(rng.uniform(4, 7)), rise, kind))
        for _ in range(int(rng.integers(3, 9))):
            right, down = middle + along * rng.uniform(-0.5, 0.5) * broad + out * rng.choice([-0.48, 0.48]) * deep
            radius = rng.uniform(2.4, 5)
            plan.trees.append((right, down, radius, radius * 2.3))
        return


def _hall(rng: np.random.Generator, plan: Plan, taken: _Taken) -> None:
    """A flat-roofed hall beside a main road, with rows of parked cars before it."""
    for _ in range(25):
        main = plan.main_ways[int(rng.integers(len(plan.main_ways)))]
        spots, angles = geometry.along_line(main.points, 20.0)
        pick = int(rng.integers(len(spots)))
        angle, scale = float(angles[pick]), min(1.0, plan.size_m / 600)
        broad, deep = scale * rng.uniform(70, 110), scale * rng.uniform(55, 80)
        out = rng.choice([-1, 1]) * np.array([-np.sin(angle), np.cos(angle)])
        along = np.array([np.cos(angle), np.sin(angle)])
        middle = spots[pick] + out * (deep / 2 + main.width_m / 2 + 4)
        if not taken.take(geometry.rectangle(middle, broad, deep, angle)):
            continue
        plan.grounds.append((geometry.rectangle(middle, broad, deep, angle), Cover.PARKING))
        centre = middle + out * deep * 0.22
        plan.buildings.append(
            Building(centre, broad * 0.82, deep * 0.42, angle, float(rng.uniform(6, 10)), 0.0, "flat")
        )
        if rng.random() < 0.7:  # plant on the roof
            plan.buildings.append(Building(centre + along * broad * 0.2, 8, 6, angle, 12.0, 0.0, "flat"))
        for row in (-0.38, -0.22):
            at = middle + out * deep * row
            for shift in np.arange(-broad * 0.42, broad * 0.42, 2.6):
                right, down = at + along * shift
                plan.slots.append((float(right), float(down), angle + np.pi / 2))
                stripe = at + along * (shift + 1.3)
                plan.markings.append(np.array([stripe - out * 2.4, stripe + out * 2.4]))
        plan.markings.append(
            np.array([middle - along * broad * 0.45, middle + along * broad * 0.45]) - out * deep * 0.3
        )
        return
