"""Ten conditions of weather and light, made by image operations with a seed.

The published protocol (MuSe-Net, Wang et al., Pattern Recognition 2024; iaa_trans.py in wtyhub/MuseNet) applies imgaug
to the drone's pictures: CloudLayer; five passes of Rain; five of Snowflakes; brightness times 0.4 less 15 (dark) and
times 1.6 plus 0 to 30 (light); a motion blur of 15 pixels (wind); and fog-rain, fog-snow, rain-snow out of these, with
fixed seeds, at the size of the file. These are ours, of the same names and meant to be as strong: dark, light and wind
follow the published numbers; the cloud layer, drops and flakes are drawn by our own code, their sizes a share of the
picture's side; each picture has a seed of its own name, so that no model learns one pattern. R@1 under them is not
comparable to the digit with published tables; its drop from `normal` is.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import cv2
import numpy as np

from onboard.errors import ConfigError

STYLES = ("normal", "fog", "rain", "snow", "fog-rain", "fog-snow", "rain-snow", "dark", "light", "wind")
_BLUR_SHARE = 15 / 256  # the published 15 pixels, of 256


def degrade(rgb: np.ndarray, style: str, seed: str | int) -> np.ndarray:
    """The picture uint8 (H, W, 3) under one of STYLES. The same seed and size give the same weather.

    Raises ConfigError for another style.
    """
    if style not in STYLES:
        raise ConfigError("weather", style, ", ".join(STYLES))
    if style == "normal":
        return rgb
    number = zlib.crc32(seed.encode()) if isinstance(seed, str) else seed
    rng = np.random.default_rng([number, STYLES.index(style)])
    image: np.ndarray = rgb.astype(np.float32)
    for part in style.split("-"):
        image = _PARTS[part](image, rng)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _fog(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A veil of light grey with the uneven density of cloud: noise whose power falls with frequency squared."""
    height, width = image.shape[:2]
    field: np.ndarray = np.zeros((height, width), np.float32)
    for cells in (2, 4, 8, 16):
        noise = rng.normal(0, 1 / cells, (cells + 1, cells + 1)).astype(np.float32)
        field += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    field = (field - field.min()) / max(float(np.ptp(field)), 1e-6)
    alpha = (0.45 + 0.45 * field)[..., None]
    return image * (1 - alpha) + 225.0 * alpha


def _rain(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Streaks along one slanted direction, in three layers of length, over a picture that loses some contrast."""
    side = min(image.shape[:2])
    slant = rng.uniform(-0.3, 0.3)
    streaks: np.ndarray = np.zeros(image.shape[:2], np.float32)
    for length_share, strength in ((0.03, 0.5), (0.05, 0.7), (0.08, 0.9)):
        length = max(3, round(length_share * side))
        drops = _scatter(image.shape[:2], 0.004, rng)
        streaks = np.maximum(streaks, np.clip(cv2.filter2D(drops, -1, _line(length, slant)) * length * strength, 0, 1))
    alpha = 0.65 * streaks[..., None]
    return (0.85 * image + 12.0) * (1 - alpha) + 210.0 * alpha


def _snow(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White flakes of three sizes, smeared a little by their fall."""
    side = min(image.shape[:2])
    white: np.ndarray = np.zeros(image.shape[:2], np.float32)
    for size_share, density in ((0.004, 0.012), (0.008, 0.004), (0.014, 0.0012)):
        radius = max(1, round(size_share * side))
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        flakes = cv2.dilate(_scatter(image.shape[:2], density / radius, rng), disc)
        white = np.maximum(white, cv2.GaussianBlur(flakes, (0, 0), 0.5 * radius))
    white = cv2.filter2D(white, -1, _line(max(3, round(0.012 * side)), rng.uniform(-0.5, 0.5)))
    alpha = np.clip(white, 0, 1)[..., None]
    return image * (1 - alpha) + 250.0 * alpha


def _dark(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image * 0.4 - 15.0


def _light(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image * 1.6 + rng.uniform(0, 30)


def _wind(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A camera that shakes: motion blur in any direction."""
    length = max(3, round(_BLUR_SHARE * min(image.shape[:2])))
    return cv2.filter2D(image, -1, _line(length, float(np.tan(rng.uniform(-1.5, 1.5)))))


def _scatter(shape: tuple[int, int], density: float, rng: np.random.Generator) -> np.ndarray:
    """Single pixels set to one, that share of all."""
    return (rng.random(shape) < density).astype(np.float32)


def _line(length: int, slant: float) -> np.ndarray:
    """A kernel that smears along a line, summing to one; slant is columns per row."""
    angle = np.arctan(slant)
    reach = length // 2
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    step = reach * np.array([np.sin(angle), np.cos(angle)])  # col, row
    ends = [tuple(int(v) for v in np.rint(reach + sign * step)) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return kernel / kernel.sum()


_PARTS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "fog": _fog,
    "rain": _rain,
    "snow": _snow,
    "dark": _dark,
    "light": _light,
    "wind": _wind,
}
