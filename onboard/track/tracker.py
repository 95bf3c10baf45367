"""The states of knowing: LOST -> ACQUIRING -> TRACKING -> COASTING -> LOST.

The tracker decides what a frame's fixes are worth. It never publishes what it has not earned: a first position
comes from `Acquisition`, later ones must pass the gate, and motion alone carries it only so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onboard.config import Config
from onboard.frames import wrap_angle
from onboard.records import Estimate, Fix, Reason, State, Telemetry
from onboard.track.acquire import Acquisition
from onboard.track.filter import Filter

_GATED_LIMIT = 4  # fixes in a row that the gate refuses: it is the track that is wrong
_WIDEN_AFTER = 2  # frames without a fix after which other headings and heights are tried again


class Tracker:
    """Holds the belief. `heading_offset_rad` and `height_scale` are what telemetry was found to err by."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.state = State.LOST
        self.filter: Filter | None = None
        self.acquisition = Acquisition(config.track)
        self.heading_offset_rad = 0.0
        self.height_scale = 1.0
        self._fixed_at_ns = 0
        self._gated = 0
        self.missed = 0

    @property
    def widen(self) -> bool:
        """Whether other headings and heights should be tried round the prediction."""
        return self.missed >= _WIDEN_AFTER

    def predict(self, at_ns: int, velocity_enu_mps: np.ndarray | None) -> None:
        """Carry the belief to a frame's time; gives it up when it has lived on motion alone for too long."""
        if self.filter is None:
            return
        self.filter.predict(at_ns)
        if velocity_enu_mps is not None:
            self.filter.update_velocity(velocity_enu_mps)
        too_old = at_ns - self._fixed_at_ns > self.config.track.coast_s * 1e9
        if too_old or self.filter.position_sigma_m > self.config.track.max_position_sigma_m:
            self.lose()

    def lose(self) -> None:
        """Forget the position; what was learned of heading and height is doubtful too."""
        self.filter, self.state = None, State.LOST
        self.acquisition.clear()
        self.heading_offset_rad, self.height_scale = 0.0, 1.0
        self._gated = self.missed = 0

    def acquire(self, at_ns: int, fixes: Sequence[Fix], velocity_enu_mps: np.ndarray | None) -> Reason | None:
        """Fixes of a search of the whole map; None once the place is earned (and the state TRACKING)."""
        accepted = self.acquisition.add(at_ns, fixes, velocity_enu_mps)
        if accepted is None:
            self.state = State.ACQUIRING if self.acquisition.hypotheses else State.LOST
            return Reason.ACQUIRING if fixes else Reason.NO_CANDIDATE
        self.filter = Filter(
            at_ns, accepted.position_enu_m, accepted.covariance_enu_m2, velocity_enu_mps, self.config.track
        )
        self.acquisition.clear()
        self.state = State.TRACKING
        self._learn(accepted.fix, 1.0)
        self._fixed_at_ns, self._gated, self.missed = at_ns, 0, 0
        return None

    def update(self, fix: Fix | None, reason: Reason | None) -> Reason | None:
        """The best fix near the prediction, or why there is none. None when it was taken in."""
        assert self.filter is not None
        if fix is not None and reason is None:
            if self.filter.distance2(fix.position_enu_m, fix.covariance_enu_m2) <= self.config.track.gate_chi2:
                self.filter.update_position(fix.position_enu_m, fix.covariance_enu_m2)
                self._learn(fix, 0.3)
                self._fixed_at_ns, self._gated, self.missed = self.filter.valid_at_ns, 0, 0
                self.state = State.TRACKING
                return None
            reason = Reason.GATED
            self._gated += 1
        self.missed += 1
        self.state = State.COASTING
        if self._gated >= _GATED_LIMIT:
            self.lose()
        return reason

    def estimate(self, telemetry: Telemetry, fix: Fix | None, systematic_m2: float) -> Estimate | None:
        """What may be published now: the filter's belief, with errors that do not average out added."""
        if self.filter is None:
            return None
        covariance = self.filter.covariance.copy()
        covariance[:2, :2] += np.eye(2) * systematic_m2
        return Estimate(
            self.filter.valid_at_ns,
            self.filter.state[:2].copy(),
            self.filter.state[2:].copy(),
            covariance,
            fix.heading_rad if fix is not None else math.nan,
            telemetry.height_above_ground_m,
            fix.probability_right if fix is not None else 0.5,
        )

    def _learn(self, fix: Fix, rate: float) -> None:
        offset = fix.evidence["heading_offset_rad"]
        self.heading_offset_rad += rate * wrap_angle(offset - self.heading_offset_rad)
        self.height_scale += rate * (fix.height_scale - self.height_scale)
