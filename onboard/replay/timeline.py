"""Error and state over time, one picture: are the errors small, and did it say how small?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from onboard.replay.drawing import number, path, radius_95_m, round_steps, thin
from onboard.replay.fixes import FixRow
from onboard.replay.mapview import Tracks
from onboard.replay.score import FALSE_FIX_M

_LEFT, _RIGHT, _TOP, _PLOT, _STRIP, _WIDTH = 58.0, 16.0, 14.0, 290.0, 26.0, 1000.0
_STRIP_TOP = _TOP + _PLOT + 16.0
_HEIGHT = _STRIP_TOP + _STRIP + 44.0
_MOST_POINTS = 1500
_GUIDES_M = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
_SPARSE_S = 20.0  # frames further apart than this are single photos: the axis counts frames, not time


@dataclass(frozen=True)
class Timeline:
    """The drawing, and x (N,) of each frame in it for the pointer."""

    svg: str
    x_px: np.ndarray
    counts_frames: bool


def draw_timeline(rows: Sequence[FixRow], tracks: Tracks) -> Timeline:
    seconds = np.array([(row.captured_at_ns - rows[0].captured_at_ns) / 1e9 for row in rows])
    counts_frames = len(rows) > 1 and seconds[-1] / (len(rows) - 1) > _SPARSE_S
    axis = np.arange(len(rows), dtype=float) if counts_frames else seconds
    room = 0.5 if counts_frames or len(rows) == 1 else 0.0  # single photos stand in the middle of their share
    span = _Span(float(axis[0]) - room, float(axis[-1]) + room)
    x_px = span.x(axis)
    radius = np.array([math.nan if c is None else radius_95_m(c) for c in tracks.covariance_enu_m2])
    refused_error = np.linalg.norm(tracks.refused_enu_m - tracks.true_enu_m, axis=1)
    scale = _LogScale(np.concatenate([tracks.error_m, radius, refused_error[np.isfinite(refused_error)]]))

    parts = [_guides(scale)]
    parts += _band(x_px, scale.y(radius), counts_frames or len(rows) < 20)
    with_guess = [int(i) for i in np.flatnonzero(np.isfinite(refused_error))]
    parts += [_cross(x_px[i], scale.y(refused_error[i])) for i in thin(with_guess, _MOST_POINTS)]
    scored = [int(i) for i in np.flatnonzero(np.isfinite(tracks.error_m))]
    wrong = [i for i in scored if tracks.error_m[i] > FALSE_FIX_M]
    for i in thin([i for i in scored if tracks.error_m[i] <= FALSE_FIX_M], _MOST_POINTS):
        parts.append(f'<circle class="err" cx="{number(x_px[i])}" cy="{number(scale.y(tracks.error_m[i]))}" r="2.6"/>')
    parts += [_triangle(x_px[i], scale.y(tracks.error_m[i])) for i in thin(wrong, _MOST_POINTS)]
    parts.append(_states(rows, x_px - (span.x(room) - span.x(0.0))))
    parts.append(_axis(span, counts_frames))
    parts.append(f'<path class="cursor" d="M-9 {number(_TOP)}V{number(_STRIP_TOP + _STRIP)}"/>')
    svg = (
        f'<svg viewBox="0 0 {number(_WIDTH)} {number(_HEIGHT)}" role="img"'
        f' aria-label="Error and state over time" id="timeline">{"".join(parts)}</svg>'
    )
    return Timeline(svg, x_px, counts_frames)


@dataclass(frozen=True)
class _Span:
    """What the x axis reaches over, in seconds or frames."""

    low: float
    high: float

    def x(self, values: Any) -> Any:
        return _LEFT + (values - self.low) / max(self.high - self.low, 1e-3) * (_WIDTH - _LEFT - _RIGHT)


class _LogScale:
    """Metres to y on a logarithmic axis that holds at least 1 to 30 m."""

    def __init__(self, values_m: np.ndarray) -> None:
        known = values_m[np.isfinite(values_m) & (values_m > 0)]
        low = float(np.percentile(known, 0.5)) if known.size else 1.0
        self.low_m = float(np.clip(low, 0.05, 0.8))
        self.high_m = max(50.0, float(known.max()) * 1.3 if known.size else 0.0)

    def y(self, metres: Any) -> Any:
        """Of a number or an array; nan stays nan."""
        share = np.log(np.maximum(metres, self.low_m) / self.low_m) / math.log(self.high_m / self.low_m)
        return _TOP + _PLOT * (1 - share)


def _guides(scale: _LogScale) -> str:
    parts = []
    for metres in _GUIDES_M:
        if not scale.low_m <= metres <= scale.high_m:
            continue
        y = number(scale.y(metres))
        kind = "guide limit" if metres == FALSE_FIX_M else "guide"
        parts.append(f'<path class="{kind}" d="M{number(_LEFT)} {y}H{number(_WIDTH - _RIGHT)}"/>')
        parts.append(f'<text x="{number(_LEFT - 8)}" y="{y}" dy="4" text-anchor="end">{metres:g} m</text>')
    return "".join(parts)


def _band(x_px: np.ndarray, y_px: np.ndarray, single: bool) -> list[str]:
    """The stated 95 % radius: everything below it is where the errors should lie."""
    floor = _TOP + _PLOT
    if single:  # frames that have nothing to do with each other: a bar each
        width = min(14.0, 0.6 * float(np.diff(x_px).min())) if len(x_px) > 1 else 14.0
        return [
            f'<rect class="band" x="{number(x - width / 2)}" y="{number(y)}" width="{number(width)}"'
            f' height="{number(floor - y)}"/>'
            for x, y in zip(x_px, y_px, strict=True)
            if math.isfinite(y)
        ]
    parts = []
    for known, run in groupby(range(len(x_px)), key=lambda i: math.isfinite(y_px[i])):
        indices = thin(run, _MOST_POINTS)
        if not known:
            continue
        line = path(np.stack([x_px[indices], y_px[indices]], axis=1))
        if len(indices) == 1:
            line += "h2"
        parts.append(f'<path class="band" d="{line}V{number(floor)}H{number(x_px[indices[0]])}Z"/>')
        parts.append(f'<path class="bandedge" d="{line}"/>')
    return parts


def _states(rows: Sequence[FixRow], starts_px: np.ndarray) -> str:
    """The strip of states; each run reaches to the start of the next."""
    parts, start = [], 0
    edges = np.append(starts_px, _WIDTH - _RIGHT)
    for state, run in groupby(rows, key=lambda row: row.state):
        stop = start + len(list(run))
        width = max(edges[stop] - edges[start], 1.0)
        parts.append(
            f'<rect class="s-{state}" x="{number(edges[start])}" y="{number(_STRIP_TOP)}" width="{number(width)}"'
            f' height="{number(_STRIP)}"><title>{state}</title></rect>'
        )
        start = stop
    y = _STRIP_TOP + _STRIP / 2 + 4
    return (
        f'<g class="states">{"".join(parts)}</g>'
        f'<text x="{number(_LEFT - 8)}" y="{number(y)}" text-anchor="end">state</text>'
    )


def _axis(span: _Span, counts_frames: bool) -> str:
    y = _STRIP_TOP + _STRIP
    in_minutes = not counts_frames and span.high > 180
    parts = []
    for value in round_steps(span.low, span.high, 10):
        if value < 0 or (counts_frames and value != int(value)):
            continue
        x = number(span.x(value))
        words = f"{int(value // 60)}:{int(value % 60):02d}" if in_minutes else f"{value:g}"
        parts.append(f'<path class="tick" d="M{x} {number(y)}v5"/>')
        parts.append(f'<text x="{x}" y="{number(y + 20)}" text-anchor="middle">{words}</text>')
    unit = "frame" if counts_frames else ("minutes : seconds" if in_minutes else "seconds")
    parts.append(
        f'<text class="unit" x="{number(_WIDTH - _RIGHT)}" y="{number(y + 38)}" text-anchor="end">{unit}</text>'
    )
    return "".join(parts)


def _cross(x: float, y: float) -> str:
    return f'<path class="miss" d="M{number(x - 3)} {number(y - 3)}l6 6m0-6l-6 6"/>'


def _triangle(x: float, y: float) -> str:
    return f'<path class="wrong" d="M{number(x)} {number(y - 6)}l6 11h-12Z"/>'
