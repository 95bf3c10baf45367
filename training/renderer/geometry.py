"""Small planar geometry in plan metres: points (N, 2) of (right, down) from the place's top left corner."""

from __future__ import annotations

import cv2
import numpy as np

from training.renderer.noise import band


def clip_halfplane(polygon: np.ndarray, point: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """The part of a convex polygon on the side of `point` to which `normal` does not point."""
    side = (polygon - point) @ normal
    following, side_following = np.roll(polygon, -1, axis=0), np.roll(side, -1)
    kept = []
    for a, b, sa, sb in zip(polygon, following, side, side_following, strict=True):
        if sa <= 0:
            kept.append(a)
        if (sa < 0 < sb) or (sb < 0 < sa):
            kept.append(a + (b - a) * (sa / (sa - sb)))
    return np.array(kept) if len(kept) >= 3 else np.zeros((0, 2))


def area(polygon: np.ndarray) -> float:
    """Square metres of a simple polygon."""
    right, down = polygon[:, 0], polygon[:, 1]
    return float(abs(right @ np.roll(down, -1) - down @ np.roll(right, -1)) / 2) if len(polygon) >= 3 else 0.0


def densify(points: np.ndarray, step_m: float, closed: bool = False) -> np.ndarray:
    """The same line with a point at least every `step_m`."""
    ends = np.roll(points, -1, axis=0) if closed else points[1:]
    out = []
    for a, b in zip(points if closed else points[:-1], ends, strict=True):
        count = max(1, int(np.ceil(np.linalg.norm(b - a) / step_m)))
        out.append(a + (b - a) * (np.arange(count) / count)[:, None])
    if not closed:
        out.append(points[-1:])
    return np.concatenate(out)


def rectangle(centre: np.ndarray, length_m: float, width_m: float, angle_rad: float) -> np.ndarray:
    """Corners (4, 2) of a rectangle whose length lies along `angle_rad` (from right towards down)."""
    along = np.array([np.cos(angle_rad), np.sin(angle_rad)])
    across = np.array([-along[1], along[0]])
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [length_m / 2, width_m / 2]
    return centre + half[:, :1] * along + half[:, 1:] * across


def along_line(points: np.ndarray, step_m: float, start_m: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 2) every `step_m` of a line, and the line's angle (N,) at each."""
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    at = np.arange(start_m, lengths[-1], step_m)
    spots = np.stack([np.interp(at, lengths, points[:, axis]) for axis in (0, 1)], axis=1)
    ahead = np.stack([np.interp(at + 1.0, lengths, points[:, axis]) for axis in (0, 1)], axis=1)
    behind = np.stack([np.interp(at - 1.0, lengths, points[:, axis]) for axis in (0, 1)], axis=1)
    return spots, np.arctan2(*(ahead - behind).T[::-1])


class Warp:
    """A smooth displacement that bends straight plans: neighbours that share a border still share it."""

    def __init__(self, rng: np.random.Generator, size_m: float, wavelength_m: float = 260.0, reach_m: float = 11.0):
        self.cell_m = 20.0
        count = int(size_m / self.cell_m) + 20
        self.fields = [reach_m * band(rng, (count, count), wavelength_m / self.cell_m) for _ in range(2)]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        at = (np.asarray(points, dtype=np.float32) / self.cell_m + 9.0).reshape(1, -1, 2)
        moved = [
            cv2.remap(f, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for f in self.fields
        ]
        return points + np.stack([m[0] for m in moved], axis=1)
