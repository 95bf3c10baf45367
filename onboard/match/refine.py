"""Fine alignment: the view's patches each find their place, and must agree on one similarity.

The view's fine feature map is cut into overlapping patches. Each is correlated with the map's fine features
round the place where the coarse match puts it. A similarity (shift, turn, scale) is fitted to the patches'
peaks by iterated reweighting. What comes out is a position between pixels, the errors of heading and height,
and evidence that does not depend on how the network was trained: on the wrong ground, patches do not agree.

Where the heights of the ground are known, each patch is sought where its relief puts it, and the similarity is
fitted to what remains: hills then spoil neither position nor heading, nor the patches' agreement. What stands on the
ground, crowns and roofs, is in no such heights: it moves a patch away from the point below the vehicle, the more the
further from there it is, so that a patch is believed less in that direction than across it.

A patch of a straight edge, a road's or a field's, matches as well anywhere along it: it is believed only across. Where
all edges of a view run one way, the position is little known along them, and its covariance says so. A corner far from
the point below the vehicle tells that point's place only as well as heading and height are known: so do all patches of
a view where hardly anything else is seen, and how well they tell heading and height themselves is said too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onboard.match.heatmap import _vertex

PATCH = 16  # cells; where too few fit into a small view, they are half as large
STEP = 8
MARGIN = 8  # a patch is sought this many cells around
_TOLERANCE = 1.5  # cells: a patch that lies further from the fit does not agree
_MIN_PATCHES = 4
_APART = 2  # cells between the scores whose fall tells how sharp a peak is
_SHARP = 0.4  # fall to both sides of a peak, in sum, that counts as sharp
_LEAST_SHARP = 0.1  # of that; less is believed no less
_NOISE = 0.5  # cells, 1 sigma: how well a patch's own peak tells its place
# 1 sigma of what is known before the patches are asked: the height told, and a heading that may be off by 6 degrees.
_SCALE_SIGMA, _TURN_SIGMA_RAD = 0.05, 0.1


@dataclass(frozen=True, slots=True)
class Alignment:
    """map = view turned by `turn_rad` (clockwise as seen, image rows down), scaled, then shifted; relief comes on top.

    `shift_px` (2,) row, col at the view's centre, in view pixels; `covariance_px2` (2, 2), row and col, of where the
    point below the vehicle comes to lie. `agreeing` of `patches` lie within 1.5 cells of the fit; `score` is their mean
    correlation there. `turn_sigma_rad` and `scale_sigma`: how well the patches alone tell them.
    """

    shift_px: np.ndarray
    turn_rad: float
    scale: float
    covariance_px2: np.ndarray
    patches: int
    agreeing: int
    score: float
    turn_sigma_rad: float = 0.0
    scale_sigma: float = 0.0


@dataclass(frozen=True, slots=True)
class _Patches:
    centres: np.ndarray  # (P, 2) row, col of cells from the view's centre
    scores: np.ndarray  # (P, 17, 17)
    relief: np.ndarray  # (P, 2) row, col of cells: where in its scores relief alone puts a patch


def align(
    view: np.ndarray,
    view_mask: np.ndarray,
    tile: np.ndarray,
    tile_mask: np.ndarray,
    stride: int,
    relief: np.ndarray | None = None,
    below: np.ndarray | None = None,
    rise: float = 0.0,
) -> Alignment | None:
    """Align view to tile, fine features float32 (h, w, F) with masks bool (h, w); None without enough patches.

    `relief` (h, w, 2) says by how many cells (row, col) what is seen lies further on than on level ground. What it does
    not know of, crowns and roofs, is `rise` (1 sigma, of the vehicle's height) above it: such a patch lies further
    from the point below the vehicle, which is `below` (2,) row, col in cells from the view's centre.
    """
    patches = _correlate_patches(view, view_mask, tile, tile_mask, relief, PATCH)
    patches = patches or _correlate_patches(view, view_mask, tile, tile_mask, relief, PATCH // 2)
    if patches is None:
        return None
    start = _common_shift(patches.scores) - patches.relief.mean(axis=0)
    model = np.array([start[0], start[1], 0.0, 0.0])  # shift row, col; scale - 1; turn
    count = len(patches.scores)
    away = rise * (patches.centres - (np.zeros(2) if below is None else below))
    trusted = _trust(away, np.tile(np.eye(2), (count, 1, 1)))
    weights = np.ones(count)
    peaks = np.zeros((count, 2))
    values = np.zeros(count)
    for round_ in range(5):
        reach = 5 if round_ == 0 else 3
        predicted = _predict(model, patches.centres) + patches.relief
        for k in range(count):
            peaks[k], values[k] = _peak_near(patches.scores[k], predicted[k], reach)
        trusted = _trust(away, _sharpness(patches.scores, peaks))
        residual2 = _squared(peaks - predicted, trusted)
        weights = np.clip(values, 0.05, None) / (1 + residual2) ** 2
        model = _fit(patches.centres, peaks - patches.relief, weights[:, None, None] * trusted)
    predicted = _predict(model, patches.centres) + patches.relief
    agree = np.linalg.norm(peaks - predicted, axis=1) < _TOLERANCE
    agreeing = int(agree.sum())
    at_model = np.array([_value_at(s, p) for s, p in zip(patches.scores, predicted, strict=True)])
    spread = float(_squared(peaks - predicted, trusted)[agree].mean() / 2) if agreeing >= 2 else 4.0
    known = _information(patches.centres[agree], trusted[agree])
    of_patches = np.linalg.inv(known / max(spread, _NOISE**2) + 1e-6 * np.eye(4))
    scale_sigma, turn_sigma_rad = np.sqrt(np.diag(of_patches)[2:])
    return Alignment(
        model[:2] * stride,
        float(model[3]),
        float(1 + model[2]),
        (_of_point(below, known, spread) + 0.02 * np.eye(2)) * stride**2,
        count,
        agreeing,
        float(at_model.mean()),
        float(turn_sigma_rad),
        float(scale_sigma),
    )


def _information(centres: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """(4, 4) of shift, scale and turn, for a variance of 1 cell. Patches overlap by half along both axes: four of them
    hold about as much as two alone. Less than two hold what one does of the shift."""
    if len(centres) < 2:
        return np.diag([1.0, 1.0, 0.0, 0.0])
    design = _design(centres)
    return np.asarray(np.einsum("pim,pij,pjn->mn", design, trusted, design) / 2)


def _of_point(below: np.ndarray | None, known: np.ndarray, spread: float) -> np.ndarray:
    """(2, 2) covariance, in cells, of where the point `below` (2,) comes to lie."""
    prior = np.diag([0.0, 0.0, _SCALE_SIGMA**-2, _TURN_SIGMA_RAD**-2])
    covariance = np.linalg.inv(known / max(spread, 1e-6) + prior)
    at = _design((np.zeros(2) if below is None else below)[None])[0]
    return np.asarray(at @ covariance @ at.T)


def _correlate_patches(
    view: np.ndarray,
    view_mask: np.ndarray,
    tile: np.ndarray,
    tile_mask: np.ndarray,
    relief: np.ndarray | None,
    side: int,
) -> _Patches | None:
    """Patches of `side` cells, overlapping by half, and what each finds; None where fewer than four have ground."""
    size, span, step = view.shape[0], side + 2 * MARGIN, side * STEP // PATCH
    shifts, offsets = _by_relief(view_mask, relief, side, step)
    pad = MARGIN + int(np.abs(offsets).max())
    padded = np.pad(tile * tile_mask[..., None], ((pad, pad), (pad, pad), (0, 0)))
    padded_mask = np.pad(tile_mask, pad)
    corners, places, displaced = [], [], []
    for i, j in np.ndindex(offsets.shape[:2]):
        row, col = i * step, j * step
        to_row, to_col = (int(v) + pad - MARGIN for v in (row + offsets[i, j, 0], col + offsets[i, j, 1]))
        if (
            view_mask[row : row + side, col : col + side].mean() > 0.6
            and padded_mask[to_row : to_row + span, to_col : to_col + span].mean() > 0.6
        ):
            corners.append((row, col))
            places.append((to_row, to_col))
            displaced.append(shifts[i, j] - offsets[i, j])
    if len(corners) < _MIN_PATCHES:
        return None
    template = np.stack([view[r : r + side, c : c + side] for r, c in corners])
    weight = np.stack([view_mask[r : r + side, c : c + side] for r, c in corners])[..., None].astype(np.float32)
    mean = (template * weight).sum(axis=(1, 2), keepdims=True) / weight.sum(axis=(1, 2), keepdims=True)
    template = (template - mean) * weight
    template /= np.sqrt((template**2).sum(axis=(1, 2, 3), keepdims=True) + 1e-6)
    search = np.stack([padded[r : r + span, c : c + span] for r, c in places])

    left = np.fft.rfft2(template.transpose(0, 3, 1, 2), s=(span, span))
    right = np.fft.rfft2(search.transpose(0, 3, 1, 2), s=(span, span))
    product = np.einsum("pcuv,pcuv->puv", left.conj(), right)
    scores = np.fft.irfft2(product, s=(span, span))[:, : 2 * MARGIN + 1, : 2 * MARGIN + 1] / side
    centres = np.array(corners, dtype=float) + (side - 1) / 2 - (size - 1) / 2
    return _Patches(centres, scores.astype(np.float32), np.array(displaced))


def _by_relief(view_mask: np.ndarray, relief: np.ndarray | None, side: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Each patch's mean shift by relief (n, n, 2) and, of it, the whole cells (n, n, 2) that its search is moved by.

    The coarse match, which put the view where it is, holds the mean shift of all that is seen: a search is moved by
    what a patch's own shift differs from that.
    """
    count = (view_mask.shape[0] - side) // step + 1
    shifts = np.zeros((count, count, 2))
    if relief is None or not view_mask.any():
        return shifts, np.zeros((count, count, 2), dtype=int)
    for i in range(count):
        for j in range(count):
            patch = slice(i * step, i * step + side), slice(j * step, j * step + side)
            seen = view_mask[patch]
            if seen.any():
                shifts[i, j] = relief[patch][seen].mean(axis=0)
    offsets = np.rint(shifts - relief[view_mask].mean(axis=0)).astype(int)
    return shifts, np.clip(offsets, -view_mask.shape[0], view_mask.shape[0])


def _common_shift(scores: np.ndarray) -> np.ndarray:
    """The shift that all patches together like best, searched within 6 cells: blurred, since they may turn a little."""
    total = np.clip(scores, 0, None).sum(axis=0)
    total = total + 0.5 * sum(np.roll(total, s, axis=a) for s in (-1, 1) for a in (0, 1))
    inner = total[2:-2, 2:-2]
    i, j = np.unravel_index(int(inner.argmax()), inner.shape)
    return np.array([i + 2 - MARGIN, j + 2 - MARGIN], dtype=float)


def _predict(model: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Shifts (P, 2) row, col of patches at centres (P, 2) under (row, col, scale - 1, turn).

    Rows grow down, so a clockwise turn takes (row, col) towards (row + turn * col, col - turn * row).
    """
    return np.asarray(_design(centres) @ model)


def _trust(away: np.ndarray, sharpness: np.ndarray) -> np.ndarray:
    """(P, 2, 2): how much of a patch's shift, row and col, is to be believed, of what is believed of a sharp one right
    below.

    `away` (P, 2) is 1 sigma of how far tall things move it, in cells; `sharpness` (P, 2, 2) is `_sharpness`.
    """
    variance = _NOISE**2 * np.linalg.inv(sharpness) + away[:, :, None] * away[:, None, :]
    return np.asarray(_NOISE**2 * np.linalg.inv(variance))


def _sharpness(scores: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """(P, 2, 2), eigenvalues up to 1: how sharply scores (P, 17, 17) fall off round peaks (P, 2) row, col.

    A patch of a straight edge lies as well anywhere along it (the aperture problem): its shift is believed across the
    edge, and hardly along it.
    """
    at = np.clip(np.rint(peaks + MARGIN).astype(int), _APART, 2 * MARGIN - _APART)
    rows, cols = at.T
    every = np.arange(len(scores))

    def score(down: int, right: int) -> np.ndarray:
        return np.asarray(scores[every, rows + down * _APART, cols + right * _APART], dtype=float)

    middle = score(0, 0)
    bend = np.empty((len(scores), 2, 2))
    bend[:, 0, 0] = 2 * middle - score(1, 0) - score(-1, 0)
    bend[:, 1, 1] = 2 * middle - score(0, 1) - score(0, -1)
    bend[:, 0, 1] = bend[:, 1, 0] = (score(1, -1) + score(-1, 1) - score(1, 1) - score(-1, -1)) / 4
    values, axes = np.linalg.eigh(bend)
    return np.asarray(axes * (np.clip(values / _SHARP, _LEAST_SHARP, 1.0) ** 2)[:, None, :] @ axes.transpose(0, 2, 1))


def _squared(miss: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(P,) squared lengths of (P, 2) under weights (P, 2, 2)."""
    return np.asarray(np.einsum("pi,pij,pj->p", miss, weights, miss))


def _fit(centres: np.ndarray, shifts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Least squares of `_predict` with weights (P, 2, 2); turn and scale stay near zero where patches say little."""
    design = _design(centres)
    weighted = np.einsum("pij,pjm->pim", weights, design)
    normal = np.einsum("pim,pin->mn", design, weighted)
    normal[2, 2] += (_NOISE / _SCALE_SIGMA) ** 2
    normal[3, 3] += (_NOISE / _TURN_SIGMA_RAD) ** 2
    return np.linalg.solve(normal + 1e-9 * np.eye(4), np.einsum("pim,pi->m", weighted, shifts))


def _design(centres: np.ndarray) -> np.ndarray:
    """(P, 2, 4): by how much shifts (row, col) at centres (P, 2) change with row, col, scale and turn."""
    row, col = centres[:, 0], centres[:, 1]
    one, zero = np.ones_like(row), np.zeros_like(row)
    return np.stack([np.stack([one, zero, row, col], 1), np.stack([zero, one, col, -row], 1)], axis=1)


def _peak_near(score: np.ndarray, at: np.ndarray, reach: int) -> tuple[np.ndarray, float]:
    """(row, col) shift and value of the highest score within `reach` cells of shift `at`."""
    row, col = (int(np.clip(round(v + MARGIN), 0, 2 * MARGIN)) for v in at)
    top, left = max(row - reach, 0), max(col - reach, 0)
    part = score[top : row + reach + 1, left : col + reach + 1]
    best = np.unravel_index(int(part.argmax()), part.shape)
    i, j = int(best[0]) + top, int(best[1]) + left
    fine = (i + _vertex(score[max(i - 1, 0) : i + 2, j]) if 0 < i < 2 * MARGIN else i) - MARGIN
    fine_col = (j + _vertex(score[i, max(j - 1, 0) : j + 2]) if 0 < j < 2 * MARGIN else j) - MARGIN
    return np.array([fine, fine_col], dtype=float), float(score[i, j])


def _value_at(score: np.ndarray, at: np.ndarray) -> float:
    row, col = (int(np.clip(round(v + MARGIN), 0, 2 * MARGIN)) for v in at)
    return float(score[row, col])
