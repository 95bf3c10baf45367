"""The only place where truth is read: how far the published fixes lie from it, and whether they said so.

What is scored is the text of fixes.csv, so that anyone can score it again. Frames without a known truth
(none recorded at that instant) count for availability and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onboard.frames import MapFrame
from onboard.replay.fixes import FixRow

FALSE_FIX_M = 30.0
FOUND_M = 8.0
GUESSED_M = (1, 8, 10)  # R@1m and R@10m are what papers print
FIVE_WITHIN_M = 10.0
CHI2_95 = 5.991  # 95 % of two dimensions
WARM_UP_NS = 15_000_000_000


class Truth(Protocol):
    def at(self, captured_at_ns: int) -> tuple[float, float] | None:
        """(latitude_deg, longitude_deg) at an instant; None where it is not known."""
        ...


class Resolution(Protocol):
    """One resolution of a region map: `tiles` (n, 2) are the centres, east and north, of squares of `tile_px`."""

    @property
    def metres_per_pixel(self) -> float: ...
    @property
    def tile_px(self) -> int: ...
    @property
    def tiles(self) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, 95th percentile and maximum of some numbers."""

    median: float
    p95: float
    max: float


@dataclass(frozen=True)
class Score:
    """The figures of one replay, and the arrays (one entry a frame, nan where unknown) that pictures need.

    `truth_enu_m` (N, 2), `error_m` (N,) of published fixes, `best_error_m` (N,) of first guesses,
    `mahalanobis2` (N,) of the error under the published covariance (its mean is the NEES; 2 is ideal).
    `ate_rmse_m` is the root mean square of `error_m`: the absolute trajectory error in the plane, nothing aligned.
    The figures after `time_to_first_fix_s` are None without truth, or where nothing was published.
    """

    truth_enu_m: np.ndarray
    error_m: np.ndarray
    best_error_m: np.ndarray
    mahalanobis2: np.ndarray
    has_truth: bool
    frames: int
    fixes: int
    availability: float | None
    availability_after_15s: float | None
    time_to_first_fix_s: float | None
    errors: Spread | None
    false_fixes: int | None
    coverage_95: float | None
    nees_mean: float | None
    ate_rmse_m: float | None
    found_within_8_m: int | None
    first_fix_error_m: float | None
    best_errors: Spread | None
    best_within_m: dict[int, int] | None  # first guesses nearer than so many metres
    five_within_10_m: int | None  # frames one of whose first five guesses is
    first_tile_covers: int | None  # frames whose first guess's tile of the map shows the truth (UnifyGeo IV.B)
    five_tiles_cover: int | None  # frames of which one of the first five guesses' tiles does


def score(rows: Sequence[FixRow], truth: Truth | None, frame: MapFrame, level: Resolution | None = None) -> Score:
    """Score the rows of a replay against its truth, in the metres of `frame`; what covers are the tiles of `level`."""
    n = len(rows)
    covers = np.zeros((n, 2), dtype=bool)  # the tile of the first guess, of any
    truth_enu, published, best = (np.full((n, 2), math.nan) for _ in range(3))
    nearest = np.full(n, math.nan)  # of the guesses
    mahalanobis2 = np.full(n, math.nan)
    for i, row in enumerate(rows):
        known = truth.at(row.captured_at_ns) if truth is not None else None
        if known is not None:
            truth_enu[i] = frame.enu_from_geodetic(*known)
        position, guess, covariance = row.position_enu_m(frame), row.best_position_enu_m(frame), row.covariance_enu_m2
        if guess is not None:
            best[i] = guess
            guesses = [guess, *row.rivals_enu_m(frame)]
            nearest[i] = min(float(np.linalg.norm(place - truth_enu[i])) for place in guesses)
            if level is not None and known is not None:
                shown = [tile_covers(level, place, truth_enu[i]) for place in guesses]
                covers[i] = shown[0], any(shown)
        if row.published and position is not None:
            published[i] = position
            if known is not None and covariance is not None:
                mahalanobis2[i] = mahalanobis_squared(position - truth_enu[i], covariance)
    error, best_error = (np.linalg.norm(p - truth_enu, axis=1) for p in (published, best))
    errors, best_errors = error[np.isfinite(error)], best_error[np.isfinite(best_error)]
    squared = mahalanobis2[~np.isnan(mahalanobis2)]

    times = np.array([row.captured_at_ns for row in rows], dtype=np.int64)
    is_fix = np.array([row.published for row in rows], dtype=bool)
    warm = times - times[0] >= WARM_UP_NS if n else np.zeros(0, dtype=bool)
    has_truth = bool(np.isfinite(truth_enu).any())
    return Score(
        truth_enu_m=truth_enu,
        error_m=error,
        best_error_m=best_error,
        mahalanobis2=mahalanobis2,
        has_truth=has_truth,
        frames=n,
        fixes=int(is_fix.sum()),
        availability=float(is_fix.mean()) if n else None,
        availability_after_15s=float(is_fix[warm].mean()) if warm.any() else None,
        time_to_first_fix_s=float(times[is_fix][0] - times[0]) / 1e9 if is_fix.any() else None,
        errors=spread(errors),
        false_fixes=int((errors > FALSE_FIX_M).sum()) if has_truth else None,
        coverage_95=float((squared <= CHI2_95).mean()) if squared.size else None,
        nees_mean=float(squared.mean()) if squared.size else None,
        ate_rmse_m=float(np.sqrt(np.mean(errors**2))) if errors.size else None,
        found_within_8_m=int((errors <= FOUND_M).sum()) if has_truth else None,
        first_fix_error_m=float(errors[0]) if errors.size else None,
        best_errors=spread(best_errors),
        best_within_m={m: int((best_errors <= m).sum()) for m in GUESSED_M} if has_truth else None,
        five_within_10_m=int((nearest <= FIVE_WITHIN_M).sum()) if has_truth else None,
        first_tile_covers=int(covers[:, 0].sum()) if has_truth and level is not None else None,
        five_tiles_cover=int(covers[:, 1].sum()) if has_truth and level is not None else None,
    )


def tile_covers(level: Resolution, guess_enu_m: np.ndarray, truth_enu_m: np.ndarray) -> bool:
    """Whether the tile nearest to a guess (2,) shows a place (2,): what retrieval alone calls found."""
    tiles = np.asarray(level.tiles)
    tile = tiles[np.linalg.norm(tiles - guess_enu_m, axis=1).argmin()]
    return bool((np.abs(tile - truth_enu_m) <= level.tile_px * level.metres_per_pixel / 2).all())


def mahalanobis_squared(error_enu_m: np.ndarray, covariance_enu_m2: np.ndarray) -> float:
    """Squared length (2,) of an error in the metric of a covariance (2, 2); inf where that is no covariance."""
    (ee, en), (_, nn) = covariance_enu_m2
    determinant = ee * nn - en * en
    if not (ee > 0 and nn > 0 and determinant > 0):
        return math.inf
    east, north = error_enu_m
    return float((nn * east * east - 2 * en * east * north + ee * north * north) / determinant)


def spread(values: np.ndarray) -> Spread | None:
    """The spread of (N,) finite values; None of none."""
    if not values.size:
        return None
    return Spread(float(np.median(values)), float(np.percentile(values, 95)), float(values.max()))
