"""What changes a picture without moving it: light, season, haze, lens, sensor, and what has been built since."""

from __future__ import annotations

import cv2
import numpy as np


def tone(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Another light, season and white balance. float32 (H, W, 3) in 0..1, in and out."""
    mix = np.eye(3) + rng.normal(0, 0.08 * strength, (3, 3))
    out = image @ (mix / mix.sum(axis=1, keepdims=True)).T.astype(np.float32)
    grey = out.mean(axis=2, keepdims=True)
    out = grey + (out - grey) * np.float32(rng.uniform(max(0.0, 1 - 1.0 * strength), 1 + 0.5 * strength))
    if rng.random() < 0.3 * strength:  # vegetation dries or greens: move what is greener than red
        green = np.clip((out[..., 1] - out[..., 0]) * 6, -1, 1)[..., None]
        out = out + green * rng.normal(0, 0.10, 3).astype(np.float32)
    out = np.clip(out, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.3 * strength)))
    gain = np.exp(rng.normal(0, 0.25 * strength)) * np.exp(rng.normal(0, 0.06 * strength, 3))
    return np.clip(out * gain.astype(np.float32) + np.float32(rng.normal(0, 0.06 * strength)), 0, 1)


def shade(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cloud shadows, vignetting or haze, smooth over the picture."""
    n = image.shape[0]
    kind = rng.random()
    if kind < 0.4:
        field = cv2.resize(rng.normal(0, 1, (5, 5)).astype(np.float32), (n, n), interpolation=cv2.INTER_CUBIC)
        sharp = rng.uniform(2, 20)
        light = 1 - rng.uniform(0.1, 0.5) / (1 + np.exp(-sharp * field))
        return image * light[..., None].astype(np.float32)
    if kind < 0.7:
        axis = np.linspace(-1, 1, n, dtype=np.float32)
        radius = (axis[None] - rng.uniform(-0.3, 0.3)) ** 2 + (axis[:, None] - rng.uniform(-0.3, 0.3)) ** 2
        return image * (1 - rng.uniform(0.1, 0.35) * radius)[..., None].astype(np.float32).clip(0.2)
    veil = np.float32(rng.uniform(0.05, 0.4))
    return image * (1 - veil) + veil * rng.uniform(0.6, 0.95, 3).astype(np.float32)


def change(image: np.ndarray, donor: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some blobs hold other ground: vehicles, crops, building since the map was made."""
    n = image.shape[0]
    mask = np.zeros((n, n), np.float32)
    for _ in range(rng.integers(1, 6)):
        centre = tuple(int(v) for v in rng.integers(0, n, 2))
        axes = tuple(int(v) for v in rng.integers(3, 28, 2))
        if rng.random() < 0.5:
            cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
        else:
            box = cv2.boxPoints((centre, axes, float(rng.uniform(0, 180)))).astype(np.int32)
            cv2.fillPoly(mask, [box], 1.0)
    mask = cv2.GaussianBlur(mask, (0, 0), 0.8)[..., None]
    return image * (1 - mask) + donor * mask


def sensor(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur of lens, motion or a coarser sampling; noise; JPEG. float32 (H, W, 3) in 0..1."""
    n = image.shape[0]
    kind = rng.random()
    if kind < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.8))
    elif kind < 0.5:
        small = int(n / rng.uniform(1.2, 2.6))
        image = cv2.resize(cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA), (n, n))
    elif kind < 0.65:
        length = int(rng.integers(2, 6))
        kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
        angle = rng.uniform(0, np.pi)
        step = length * np.array([np.cos(angle), np.sin(angle)])
        a, b = (length - step).round().astype(int), (length + step).round().astype(int)
        cv2.line(kernel, tuple(map(int, a)), tuple(map(int, b)), 1.0)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    elif kind < 0.75:
        soft = cv2.GaussianBlur(image, (0, 0), 1.0)
        image = image + rng.uniform(0.3, 1.5) * (image - soft)
    if rng.random() < 0.6:
        grain = rng.normal(0, rng.uniform(0.005, 0.05), image.shape).astype(np.float32)
        image = image + grain
    if rng.random() < 0.15:
        image = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    out = (np.clip(image, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.3:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))]
        out = cv2.imdecode(cv2.imencode(".jpg", out, quality)[1], cv2.IMREAD_COLOR)
    return out
