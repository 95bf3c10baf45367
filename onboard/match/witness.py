"""Classical witnesses, asked only at the places that the network found: correlation of grey and of gradients."""

from __future__ import annotations

import cv2
import numpy as np

from onboard.match.refine import Alignment


def grey_level(image_rgb: np.ndarray, blur_px: float = 1.0) -> np.ndarray:
    """float32 (H, W) of a uint8 (H, W, 3) picture, smoothed."""
    return cv2.GaussianBlur(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY), (0, 0), blur_px).astype(np.float32)


def gradient_magnitude(image_rgb: np.ndarray, blur_px: float = 1.0) -> np.ndarray:
    """float32 (H, W) of a uint8 (H, W, 3) picture, smoothed first; the square root tames single strong edges."""
    grey = grey_level(image_rgb, blur_px)
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    # Not cv2.magnitude: its last bit depends on where in memory the picture lies, and a replay is to be repeatable.
    return np.sqrt(np.sqrt(dx * dx + dy * dy))


def witnesses(
    view: np.ndarray, view_mask: np.ndarray, tile: np.ndarray, tile_mask: np.ndarray, alignment: Alignment
) -> tuple[float, float]:
    """Zero-mean normalised correlations in -1..1, of grey levels and of gradient magnitudes.

    The view (N, N, 3) is laid on the tile (N, N, 3) by the alignment; zeros where too little overlaps.
    """
    n = view.shape[0]
    warp = alignment_matrix(alignment, n)
    mask = cv2.erode(view_mask.astype(np.uint8), np.ones((5, 5), np.uint8))
    mask = cv2.warpAffine(mask, warp, (n, n), flags=cv2.INTER_NEAREST)
    both = (mask > 0) & (cv2.erode(tile_mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)
    if both.sum() < 400:
        return 0.0, 0.0
    laid = cv2.warpAffine(view, warp, (n, n))
    grey = _ncc(grey_level(laid)[both], grey_level(tile)[both])
    return grey, _ncc(cv2.warpAffine(gradient_magnitude(view), warp, (n, n))[both], gradient_magnitude(tile)[both])


def _ncc(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-6))


def alignment_matrix(alignment: Alignment, n: int) -> np.ndarray:
    """(2, 3) in col, row: from view pixels to tile pixels, about the middle of the grid."""
    middle = (n - 1) / 2
    k, t = alignment.scale, alignment.turn_rad * alignment.scale
    linear = np.array([[k, -t], [t, k]])
    shift = np.array([alignment.shift_px[1], alignment.shift_px[0]])
    return np.hstack([linear, (middle + shift - linear @ [middle, middle])[:, None]])
