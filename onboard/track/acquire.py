"""How a first position is earned: places gather log-odds over frames, moved by odometry.

A Bayes filter over places, kept as a short list of hypotheses instead of a grid. Each frame votes with its few
best fixes; a vote adds its log-odds to the hypothesis that it agrees with, or founds a new one; hypotheses that a
frame does not confirm lose. One lucky frame is never enough, nor are look-alikes that take turns: the fixes that
agree must do so without a frame between them that believes in another place. Nor is one view that comes again and
again: over the same ground a look-alike looks alike once more, so a vote counts by what share of its view is new.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onboard.config import TrackConfig
from onboard.records import Fix

_LIMIT = 24  # hypotheses kept
_MISS = 1.0  # log-odds lost in a frame without confirmation
_AGREEMENT = 1.5  # log-odds of falling near a hypothesis by more than chance: little, look-alikes move along too
_ACCEPT = math.log(1000.0)
_LEAD = math.log(100.0)


@dataclass(slots=True)
class Hypothesis:
    """A place that may be the right one, at the time of the last frame."""

    position_enu_m: np.ndarray
    covariance_enu_m2: np.ndarray
    log_odds: float
    count: int  # of fixes that agreed since a frame last believed in another place
    fix: Fix  # the latest that confirmed it
    confirmed_at_ns: int
    counted_enu_m: np.ndarray  # where the last vote came from


class Acquisition:
    """Gathers fixes until one place holds the mass."""

    def __init__(self, config: TrackConfig) -> None:
        self.config = config
        self.hypotheses: list[Hypothesis] = []
        self._valid_at_ns: int | None = None

    def add(
        self, at_ns: int, fixes: Sequence[Fix], velocity_enu_mps: np.ndarray | None, side_m: float = 0.0
    ) -> Hypothesis | None:
        """One frame's fixes; the accepted hypothesis, once there is one. `side_m` of the ground seen."""
        window_ns = int(self.config.acquire_window_s * 1e9)
        self.hypotheses = [h for h in self.hypotheses if at_ns - h.confirmed_at_ns <= window_ns]
        self._move(at_ns, velocity_enu_mps)
        confirmed: set[int] = set()
        believed = False  # whether this frame rather believes in one of its places
        for fix in fixes:
            vote = max(
                -4.0, min(6.0, math.log(max(fix.probability_right, 1e-9) / max(1 - fix.probability_right, 1e-9)))
            )
            believed = believed or vote > 0
            near = self._nearest(fix)
            if near is None:
                place = fix.position_enu_m
                founded = Hypothesis(place, fix.covariance_enu_m2, vote, 1, fix, at_ns, place)
                self.hypotheses.append(founded)
                confirmed.add(id(founded))
            elif id(near) not in confirmed:
                _count(near, fix, vote + _AGREEMENT, side_m)
                _merge(near, fix, at_ns)
                confirmed.add(id(near))
        for hypothesis in self.hypotheses:
            if id(hypothesis) not in confirmed:
                hypothesis.log_odds -= _MISS
                if believed:  # in another place: what agreed so far has been contradicted
                    hypothesis.count = 0
        alive = [h for h in self.hypotheses if h.log_odds > -8]
        self.hypotheses = sorted(alive, key=lambda h: -h.log_odds)[:_LIMIT]
        return self._accepted(at_ns)

    def clear(self) -> None:
        self.hypotheses, self._valid_at_ns = [], None

    def _accepted(self, at_ns: int) -> Hypothesis | None:
        if not self.hypotheses:
            return None
        best = self.hypotheses[0]
        lead = best.log_odds - (self.hypotheses[1].log_odds if len(self.hypotheses) > 1 else -math.inf)
        earned = best.count >= self.config.acquire_fixes and best.log_odds >= _ACCEPT and lead >= _LEAD
        return best if earned and best.confirmed_at_ns == at_ns else None

    def _move(self, at_ns: int, velocity_enu_mps: np.ndarray | None) -> None:
        dt = 0.0 if self._valid_at_ns is None else (at_ns - self._valid_at_ns) * 1e-9
        self._valid_at_ns = at_ns
        sigma = self.config.velocity_noise_mps if velocity_enu_mps is not None else self.config.max_speed_mps / 2
        for hypothesis in self.hypotheses:
            if velocity_enu_mps is not None:
                hypothesis.position_enu_m = hypothesis.position_enu_m + velocity_enu_mps * dt
            hypothesis.covariance_enu_m2 = hypothesis.covariance_enu_m2 + np.eye(2) * (sigma * dt) ** 2

    def _nearest(self, fix: Fix) -> Hypothesis | None:
        best, best_distance = None, self.config.gate_chi2
        for hypothesis in self.hypotheses:
            miss = fix.position_enu_m - hypothesis.position_enu_m
            spread = fix.covariance_enu_m2 + hypothesis.covariance_enu_m2
            distance = float(miss @ np.linalg.solve(spread, miss))
            if distance < best_distance:
                best, best_distance = hypothesis, distance
        return best


def _count(hypothesis: Hypothesis, fix: Fix, vote: float, side_m: float) -> None:
    """What a vote adds: by the share of its view that is new, or all of it where it says more than all before."""
    moved_m = float(np.linalg.norm(fix.position_enu_m - hypothesis.counted_enu_m))
    share = min(1.0, moved_m / side_m) if side_m > 0 and vote > 0 else 1.0
    hypothesis.log_odds += share * vote
    if vote > 0:
        hypothesis.log_odds = max(hypothesis.log_odds, vote)
    hypothesis.counted_enu_m = fix.position_enu_m


def _merge(hypothesis: Hypothesis, fix: Fix, at_ns: int) -> None:
    gain = hypothesis.covariance_enu_m2 @ np.linalg.inv(hypothesis.covariance_enu_m2 + fix.covariance_enu_m2)
    hypothesis.position_enu_m = hypothesis.position_enu_m + gain @ (fix.position_enu_m - hypothesis.position_enu_m)
    hypothesis.covariance_enu_m2 = (np.eye(2) - gain) @ hypothesis.covariance_enu_m2
    hypothesis.count += 1
    hypothesis.fix, hypothesis.confirmed_at_ns = fix, at_ns
