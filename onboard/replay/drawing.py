"""Small parts of pictures: numbers and paths as SVG wants them, ellipses, scale bars, embedded images."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from onboard.replay.score import CHI2_95


@dataclass(frozen=True, slots=True)
class Ellipse:
    """Semi-axes in pixels of the picture; `rotation_deg` turns the major axis clockwise from the x axis (SVG)."""

    semi_major_px: float
    semi_minor_px: float
    rotation_deg: float


def ellipse_95(covariance_enu_m2: np.ndarray, pixels_per_metre: float) -> Ellipse:
    """The 95 % ellipse of a covariance (2, 2) of east and north, in a picture whose y axis points south."""
    values, vectors = np.linalg.eigh(covariance_enu_m2)
    minor, major = (math.sqrt(max(float(v), 0.0) * CHI2_95) * pixels_per_metre for v in values)
    east, north = vectors[:, 1]
    rotation = math.degrees(math.atan2(-north, east))
    return Ellipse(major, minor, (rotation + 90.0) % 180.0 - 90.0)


def radius_95_m(covariance_enu_m2: np.ndarray) -> float:
    """The longer semi-axis of the 95 % ellipse, in metres."""
    return math.sqrt(max(float(np.linalg.eigvalsh(covariance_enu_m2)[1]), 0.0) * CHI2_95)


def number(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def path(points: np.ndarray) -> str:
    """The `d` of a line through (N, 2) points; it breaks where a point is nan."""
    parts, pen_down = [], False
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y)):
            pen_down = False
            continue
        parts.append(f"{'L' if pen_down else 'M'}{number(x)} {number(y)}")
        pen_down = True
    return "".join(parts)


def scale_bar_m(width_m: float) -> float:
    """A round length (1, 2 or 5 times a power of ten) of about a fifth of the width."""
    power = 10.0 ** math.floor(math.log10(width_m / 5))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= width_m / 5)


def length_words(metres: float) -> str:
    if metres >= 1000:
        return f"{metres / 1000:g} km"
    return f"{metres:g} m" if metres >= 1 else f"{metres * 100:g} cm"


def round_steps(low: float, high: float, most: int) -> list[float]:
    """At most `most` + 1 round numbers from low to high (for the ticks of a time axis)."""
    span = max(high - low, 1e-9)
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
    step = next((s for s in steps if span / s <= most), span / most)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def jpeg(image_rgb: np.ndarray, quality: int = 82) -> bytes:
    """An RGB uint8 (H, W, 3) image as JPEG."""
    return cv2.imencode(".jpg", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[
        1
    ].tobytes()


def data_uri(jpeg_bytes: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg_bytes).decode("ascii")


def thin(indices: Sequence[int] | Iterable[int], most: int) -> list[int]:
    """At most `most` of the indices, evenly spread, first and last kept."""
    indices = list(indices)
    if len(indices) <= most:
        return indices
    return [indices[round(k * (len(indices) - 1) / (most - 1))] for k in range(most)]
