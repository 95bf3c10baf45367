"""The map of a replay: where the vehicle was, where it said it was, and how sure it said it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from onboard.frames import MapFrame
from onboard.replay.drawing import (
    data_uri,
    ellipse_95,
    jpeg,
    length_words,
    number,
    path,
    radius_95_m,
    scale_bar_m,
    thin,
)
from onboard.replay.fixes import FixRow
from onboard.replay.score import FALSE_FIX_M, Resolution, Score

WIDTH_PX = 1000.0  # of the drawing; the image below it may be finer
_IMAGE_PX = 1500
_LENS_PX = 320
_MOST_POINTS = 1500
_MOST_ELLIPSES = 60


class Region(Protocol):
    """What pictures need of a region map; its levels are finest first."""

    @property
    def frame(self) -> MapFrame: ...
    @property
    def levels(self) -> Sequence[Resolution]: ...
    @property
    def bounds_enu_m(self) -> tuple[float, float, float, float]: ...
    def picture(self, max_px: int) -> tuple[np.ndarray, tuple[float, float, float, float]]: ...
    def window(
        self, level: int, centre_enu_m: np.ndarray, size_px: int, date: int = 0
    ) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class Tracks:
    """All points of a replay in the map frame: arrays (N, 2), nan where there is none."""

    true_enu_m: np.ndarray
    published_enu_m: np.ndarray
    refused_enu_m: np.ndarray
    covariance_enu_m2: list[np.ndarray | None]
    error_m: np.ndarray

    @property
    def fixes(self) -> list[int]:
        return [int(i) for i in np.flatnonzero(np.isfinite(self.published_enu_m[:, 0]))]

    @property
    def together(self) -> bool:
        """Whether neighbours are near enough that a line between them means a way flown."""
        known = self.true_enu_m if np.isfinite(self.true_enu_m).any() else self.published_enu_m
        known = known[np.isfinite(known[:, 0])]
        return len(known) >= 20 and float(np.median(np.linalg.norm(np.diff(known, axis=0), axis=1))) < 60.0


@dataclass(frozen=True)
class Lens:
    """A magnified place: title, a sentence, the drawing."""

    title: str
    words: str
    svg: str


def tracks_of(rows: Sequence[FixRow], score: Score, frame: MapFrame) -> Tracks:
    nowhere = np.full(2, np.nan)
    published, refused = [], []
    for row in rows:
        position = row.position_enu_m(frame)
        guess = None if row.published else row.best_position_enu_m(frame)
        published.append(nowhere if position is None else position)
        refused.append(nowhere if guess is None else guess)
    return Tracks(
        score.truth_enu_m,
        np.array(published).reshape(-1, 2),
        np.array(refused).reshape(-1, 2),
        [row.covariance_enu_m2 for row in rows],
        score.error_m,
    )


class Canvas:
    """A picture of the ground with pixel coordinates: `at` turns east, north into x, y."""

    def __init__(self, image_rgb: np.ndarray, bounds_enu_m: tuple[float, float, float, float], width: float) -> None:
        self.image_rgb, self.bounds_enu_m, self.width = image_rgb, bounds_enu_m, width
        west, south, east, north = bounds_enu_m
        self.pixels_per_metre = width / (east - west)
        self.height = (north - south) * self.pixels_per_metre

    def at(self, points_enu_m: np.ndarray) -> np.ndarray:
        """(..., 2) x right, y down of points (..., 2) east, north."""
        west, _, _, north = self.bounds_enu_m
        return (np.asarray(points_enu_m) - [west, north]) * [self.pixels_per_metre, -self.pixels_per_metre]

    def contains(self, point_enu_m: np.ndarray) -> bool:
        west, south, east, north = self.bounds_enu_m
        return bool(west <= point_enu_m[0] <= east and south <= point_enu_m[1] <= north)

    def ellipse(self, centre_enu_m: np.ndarray, covariance_enu_m2: np.ndarray) -> str:
        x, y = self.at(centre_enu_m)
        e = ellipse_95(covariance_enu_m2, self.pixels_per_metre)
        return (
            f'<ellipse class="ell" cx="{x:.2f}" cy="{y:.2f}" rx="{e.semi_major_px:.2f}" ry="{e.semi_minor_px:.2f}"'
            f' transform="rotate({e.rotation_deg:.1f} {x:.2f} {y:.2f})"/>'
        )

    def svg(self, body: str, label: str) -> str:
        width, height = number(self.width), number(self.height)
        return (
            f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
            f'<image href="{data_uri(jpeg(self.image_rgb))}" width="{width}" height="{height}"'
            f' preserveAspectRatio="none"/>{body}</svg>'
        )

    def scale_bar(self, size_px: float) -> str:
        """Bottom left, text `size_px` high."""
        metres = scale_bar_m(self.width / self.pixels_per_metre)
        x, y, length = size_px, self.height - size_px, metres * self.pixels_per_metre
        line = f"M{number(x)} {number(y - size_px * 0.4)}v{number(size_px * 0.4)}h{number(length)}"
        line += f"v{number(-size_px * 0.4)}"
        text = f'<text x="{number(x + length / 2)}" y="{number(y - size_px * 0.6)}" font-size="{number(size_px)}"'
        return (
            f'<g class="bar"><path class="halo" d="{line}"/><path d="{line}"/>'
            f'{text} text-anchor="middle">{length_words(metres)}</text></g>'
        )


def draw_map(region: Region, tracks: Tracks) -> tuple[str, np.ndarray]:
    """The whole as SVG, and (N, 2) x, y of each frame's published (else true) place for the pointer."""
    canvas = _canvas_round(region, tracks)
    parts = []
    true, published = canvas.at(tracks.true_enu_m), canvas.at(tracks.published_enu_m)
    refused = [int(i) for i in np.flatnonzero(np.isfinite(tracks.refused_enu_m[:, 0]))]
    refused = [i for i in refused if canvas.contains(tracks.refused_enu_m[i])]
    refused_at = canvas.at(tracks.refused_enu_m)
    parts += [_dot("refused", refused_at[i], 3.2 if tracks.together else 5.0) for i in thin(refused, _MOST_POINTS)]
    if tracks.together:
        line = path(true[_thin_keeping_gaps(true)])
        parts.append(f'<path class="true halo" d="{line}"/><path class="true" d="{line}"/>')
    else:
        known = [int(i) for i in np.flatnonzero(np.isfinite(true[:, 0]))]
        parts += [_dot("truedot", true[i], 7.0) for i in thin(known, _MOST_POINTS)]
    fixes = tracks.fixes
    for i in thin(fixes, _MOST_ELLIPSES):
        if (covariance := tracks.covariance_enu_m2[i]) is not None:
            parts.append(canvas.ellipse(tracks.published_enu_m[i], covariance))
    if tracks.together:
        parts.append(f'<path class="est" d="{path(published[_thin_keeping_gaps(published)])}"/>')
    parts += [_dot("fix", published[i], 2.2 if tracks.together else 4.0) for i in thin(fixes, _MOST_POINTS)]
    wrong = np.flatnonzero(np.nan_to_num(tracks.error_m) > FALSE_FIX_M)
    for i in wrong[:_MOST_POINTS]:
        (x, y), (tx, ty) = published[i], true[i]
        parts.append(f'<path class="wrong" d="M{number(tx)} {number(ty)}L{number(x)} {number(y)}"/>')
        parts.append(_dot("wrong", published[i], 5.0))
    if fixes:
        parts.append(_callout(published[fixes[0]], "first fix", canvas))
    parts.append(canvas.scale_bar(16))
    parts.append(_north_arrow(canvas.width - 40, 44))
    parts.append('<circle class="pointer" r="10" cx="-99" cy="-99"/>')
    where = np.where(np.isfinite(published), published, true)
    return canvas.svg("".join(parts), "Map with the true and the estimated track"), where


def draw_lenses(region: Region, tracks: Tracks) -> list[Lens]:
    """The first, a typical and the worst fix (without truth: the least sure), magnified."""
    fixes = [i for i in tracks.fixes if tracks.covariance_enu_m2[i] is not None]
    if not fixes:
        return []
    radius = {i: radius_95_m(c) for i in fixes if (c := tracks.covariance_enu_m2[i]) is not None}
    scored = [i for i in fixes if np.isfinite(tracks.error_m[i])]
    chosen = {"The first fix": fixes[0]}
    if scored:
        by_error = sorted(scored, key=lambda i: (tracks.error_m[i], i))
        chosen["A typical fix"] = by_error[len(by_error) // 2]
        chosen["The worst fix"] = by_error[-1]
    else:
        by_radius = sorted(fixes, key=lambda i: (radius[i], i))
        chosen["A typical fix"] = by_radius[len(by_radius) // 2]
        chosen["The least sure fix"] = by_radius[-1]
    return [_lens(region, tracks, title, i, radius[i]) for title, i in chosen.items()]


def _lens(region: Region, tracks: Tracks, title: str, i: int, radius_m: float) -> Lens:
    position, truth, error = tracks.published_enu_m[i], tracks.true_enu_m[i], tracks.error_m[i]
    has_truth = bool(np.isfinite(error))
    reach_m = max(20.0, 1.6 * radius_m, 1.5 * error if has_truth else 0.0)
    canvas = _window(region, position, reach_m)
    parts = []
    covariance = tracks.covariance_enu_m2[i]
    if covariance is not None:
        parts.append(canvas.ellipse(position, covariance))
    x, y = canvas.at(position)
    if has_truth:
        tx, ty = canvas.at(truth)
        parts.append(f'<path class="gap" d="M{number(x)} {number(y)}L{number(tx)} {number(ty)}"/>')
        parts.append(f'<circle class="truth" cx="{number(tx)}" cy="{number(ty)}" r="7"/>')
    parts.append(f'<circle class="fix" cx="{number(x)}" cy="{number(y)}" r="6"/>')
    parts.append(canvas.scale_bar(15))
    words = f"95 % within {radius_m:.1f} m, it said"
    if has_truth:
        words = f"{error:.1f} m off; " + words
    return Lens(title, words, canvas.svg("".join(parts), f"{title}: {words}"))


def _window(region: Region, centre_enu_m: np.ndarray, reach_m: float) -> Canvas:
    """A square of the map's finest imagery, `reach_m` to each side."""
    level_metres = region.levels[0].metres_per_pixel
    size_px = int(np.clip(2 * reach_m / level_metres, 8, 3000))
    rgb, _ = region.window(0, centre_enu_m, size_px)
    rgb = cv2.resize(rgb, (_LENS_PX, _LENS_PX), interpolation=cv2.INTER_AREA if size_px > _LENS_PX else cv2.INTER_CUBIC)
    half_m = size_px * level_metres / 2
    east, north = (float(c) for c in centre_enu_m)
    return Canvas(rgb, (east - half_m, north - half_m, east + half_m, north + half_m), float(_LENS_PX))


def _canvas_round(region: Region, tracks: Tracks) -> Canvas:
    """The map cut to the tracks with some room round them, never narrower than half its height or the reverse."""
    west, south, east, north = region.bounds_enu_m
    points = np.concatenate([tracks.true_enu_m, tracks.published_enu_m])
    points = points[np.isfinite(points[:, 0])]
    if len(points):
        low, high = points.min(axis=0), points.max(axis=0)
        room = max(80.0, 0.12 * float((high - low).max()))
        half = (high - low) / 2 + room
        half = np.maximum(half, half[::-1] * [0.7, 0.45])
        middle = (low + high) / 2
        west, south = np.maximum(middle - half, (west, south))
        east, north = np.minimum(middle + half, (east, north))
    full = region.bounds_enu_m
    share = max(east - west, north - south) / max(full[2] - full[0], full[3] - full[1])
    rgb, bounds = region.picture(int(min(_IMAGE_PX / max(share, 1e-3), 6000)))
    metres_per_col, metres_per_row = (bounds[2] - bounds[0]) / rgb.shape[1], (bounds[3] - bounds[1]) / rgb.shape[0]
    left, right = (int(np.clip(round((e - bounds[0]) / metres_per_col), 0, rgb.shape[1])) for e in (west, east))
    top, bottom = (int(np.clip(round((bounds[3] - n) / metres_per_row), 0, rgb.shape[0])) for n in (north, south))
    if right - left < 2 or bottom - top < 2:  # all that is known lies beside the map
        left, top, right, bottom = 0, 0, rgb.shape[1], rgb.shape[0]
    cut = (
        bounds[0] + left * metres_per_col,
        bounds[3] - bottom * metres_per_row,
        bounds[0] + right * metres_per_col,
        bounds[3] - top * metres_per_row,
    )
    image = np.ascontiguousarray(rgb[top:bottom, left:right])
    if max(image.shape[:2]) > _IMAGE_PX:
        k = _IMAGE_PX / max(image.shape[:2])
        image = cv2.resize(image, None, fx=k, fy=k, interpolation=cv2.INTER_AREA)
    return Canvas(image, cut, WIDTH_PX)


def _thin_keeping_gaps(points: np.ndarray) -> list[int]:
    """Every k-th point of a long line; gaps stay, since nan points are kept."""
    every = max(1, len(points) // _MOST_POINTS)
    return [i for i in range(len(points)) if i % every == 0 or not np.isfinite(points[i, 0])]


def _dot(kind: str, at_px: np.ndarray, radius: float) -> str:
    return f'<circle class="{kind}" cx="{number(at_px[0])}" cy="{number(at_px[1])}" r="{number(radius)}"/>'


def _callout(at_px: np.ndarray, words: str, canvas: Canvas) -> str:
    """A ring round the place and a label beside it, on the side where there is room."""
    x, y = (float(v) for v in at_px)
    side = -1 if x > canvas.width * 0.75 else 1
    anchor = "end" if side < 0 else "start"
    label_y = y - 22 if y > 60 else y + 34
    return (
        f'<g class="first"><circle cx="{number(x)}" cy="{number(y)}" r="11"/>'
        f'<text x="{number(x + 14 * side)}" y="{number(label_y)}" font-size="17" text-anchor="{anchor}">'
        f"{words}</text></g>"
    )


def _north_arrow(x: float, y: float) -> str:
    return (
        f'<g class="north" transform="translate({number(x)} {number(y)})"><path d="M0-26L10 12L0 5L-10 12Z"/>'
        '<text y="30" font-size="16" text-anchor="middle">N</text></g>'
    )
