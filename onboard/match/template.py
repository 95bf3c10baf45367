"""A view's feature map as a template: zero mean over what the camera saw, unit norm as one vector."""

from __future__ import annotations

import numpy as np


def cell_mask(masks: np.ndarray, stride: int) -> np.ndarray:
    """bool (B, N/stride, N/stride): cells of which more than half the pixels of masks (B, N, N) are set."""
    batch, n, _ = masks.shape
    cells = n // stride
    return masks.reshape(batch, cells, stride, cells, stride).mean(axis=(2, 4)) > 0.5


def zero_mean(features: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """features float32 (B, h, w, C) less their mean over masks bool (B, h, w); of unit norm; zero outside.

    Taking the mean out makes a window of one texture score nothing, whatever that texture is.
    """
    weight = masks[..., None].astype(np.float32)
    count = np.maximum(weight.sum(axis=(1, 2), keepdims=True), 1.0)
    centred = (features - (features * weight).sum(axis=(1, 2), keepdims=True) / count) * weight
    norm = np.sqrt(np.einsum("bhwc,bhwc->b", centred, centred) + 1e-6)
    return centred / norm[:, None, None, None]
