"""What air, lens and sensor do to a picture: haze, blur, vignetting, exposure, white balance, noise, JPEG."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_AIR_RGB = np.array([196, 206, 220], np.float32)  # light scattered into the way: a pale blue


@dataclass(frozen=True, slots=True)
class Conditions:
    """What stays the same over a flight: air, lens, exposure. `white_balance` are the gains of R, G, B."""

    haze: float = 0.0
    blur_px: float = 0.0
    motion_px: float = 0.0
    vignette: float = 0.0
    gain: float = 1.0
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    noise: float = 0.0
    jpeg_quality: int = 92


def draw_conditions(rng: np.random.Generator, strength: float = 1.0) -> Conditions:
    """One day's air and one camera's faults; `strength` 1 is ordinary, 2 is bad."""
    return Conditions(
        haze=min(0.6, abs(rng.normal(0, 0.09 * strength))),
        blur_px=0.35 + 0.3 * strength * rng.random(),
        motion_px=strength * abs(rng.normal(0, 1.2)),
        vignette=0.25 * strength * rng.uniform(0.3, 1.0),
        gain=float(np.exp(rng.normal(0, 0.08 * strength))),
        white_balance=tuple(float(v) for v in 1 + rng.normal(0, 0.03 * strength, 3)),  # type: ignore[arg-type]
        gamma=float(np.exp(rng.normal(0, 0.08 * strength))),
        noise=strength * rng.uniform(1.0, 3.5),
        jpeg_quality=int(np.clip(rng.uniform(78, 95) - 12 * (strength - 1), 30, 96)),
    )


def degrade(image_rgb: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """The same uint8 RGB (H, W, 3) as some real camera gives it on some day; `strength` 0 leaves it alone."""
    if strength <= 0:
        return image_rgb
    conditions = draw_conditions(rng, strength)
    return unpack(take(image_rgb, conditions, rng))


def take(image_rgb: np.ndarray, conditions: Conditions, rng: np.random.Generator) -> bytes:
    """The picture as the camera hands it out: JPEG bytes. The noise, and the way of the blur, come from `rng`."""
    image = image_rgb.astype(np.float32)
    image = image * np.float32(1 - conditions.haze) + np.float32(conditions.haze) * _AIR_RGB
    image = _blurred(image, conditions, rng)
    gains = conditions.gain * np.array(conditions.white_balance, np.float32)
    image *= _vignette(image.shape[:2], conditions.vignette)[..., None] * gains
    if conditions.noise > 0:
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        image += noise * np.sqrt(0.4 + np.clip(image, 0, 255) / 160) * np.float32(conditions.noise)
    response = 255 * (np.arange(256) / 255) ** conditions.gamma
    flat = cv2.LUT(np.clip(image, 0, 255).astype(np.uint8), np.round(response).astype(np.uint8))
    packed = cv2.imencode(".jpg", flat[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, conditions.jpeg_quality])[1]
    return packed.tobytes()


def unpack(jpeg: bytes) -> np.ndarray:
    """uint8 RGB (H, W, 3) of JPEG bytes."""
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def _blurred(image: np.ndarray, conditions: Conditions, rng: np.random.Generator) -> np.ndarray:
    """Blur of the lens, and of motion during the exposure."""
    if conditions.blur_px > 0.1:
        image = cv2.GaussianBlur(image, (0, 0), conditions.blur_px)
    length = conditions.motion_px
    if length < 1.0:
        return image
    size = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((size, size), np.float32)
    angle, middle = rng.uniform(0, np.pi), size // 2
    for t in np.linspace(-length / 2, length / 2, 4 * size):
        col, row = middle + t * np.cos(angle), middle + t * np.sin(angle)
        kernel[min(max(round(row), 0), size - 1), min(max(round(col), 0), size - 1)] += 1
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def _vignette(shape: tuple[int, int], depth: float) -> np.ndarray:
    rows, cols = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    return (1 - depth * (rows**2 + cols**2) / 2).astype(np.float32)
