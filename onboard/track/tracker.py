"""The states of knowing: LOST -> ACQUIRING -> TRACKING -> COASTING -> LOST.

The tracker decides what a frame's fixes are worth. It never publishes what it has not earned: a first position
comes from `Acquisition`, later ones must pass the gate, and motion alone carries it only so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onboard.config import Config
from onboard.frames import euler_from_rotation, rotation_from_quaternion
from onboard.records import Estimate, Fix, Reason, State, Telemetry
from onboard.track.acquire import Acquisition
from onboard.track.filter import Filter
from onboard.track.inertial import InertialFilter, Leaned
from onboard.track.odometry import Moved
from onboard.track.told import ToldErrors
from onboard.track.velocity import VelocityUse, velocity_use

_GATED_LIMIT = 4  # fixes in a row that the gate refuses: it is the track that is wrong
_LEAST_FIX_SIGMA_M = 0.3
_WIDEN_AFTER = 2  # frames without a fix after which other headings and heights are tried again


class Tracker:
    """Holds the belief. `told` is what telemetry was found to err by.

    `tilt_sigma_deg` is the share of the attitude's error in a fix's covariance.
    """

    def __init__(self, config: Config, tilt_sigma_deg: float = 0.0) -> None:
        self.config = config
        self._tilt_sigma_rad = math.radians(tilt_sigma_deg)
        self.state = State.LOST
        self.filter: Filter | None = None
        self.acquisition = Acquisition(config.track)
        self.told = ToldErrors(config.search)
        self._use = velocity_use(config.track.velocity_use)
        self._velocity_enu_mps: np.ndarray | None = None  # telemetry's, at the last frame
        self._said: Telemetry | None = None  # likewise
        self._height_m = 0.0  # above ground, likewise
        self._velocity_lent = False  # whether the belief goes on with it since the last fix
        self._fixed_at_ns = 0
        self._held_at_ns = 0
        self._gated = 0
        self.missed = 0

    @property
    def _lever_m(self) -> float:
        """By how much a lean of the vehicle moves what its camera sees: a camera on a gimbal does not lean with it."""
        return 0.0 if self.config.rectify.on_gimbal else self._height_m

    @property
    def _heading_told(self) -> bool:
        return self._said is None or self._said.heading_known

    @property
    def widen(self) -> bool:
        """Whether other headings and heights should be tried round the prediction."""
        return self.missed >= _WIDEN_AFTER

    def predict(self, at_ns: int, velocity_enu_mps: np.ndarray | None, telemetry: Telemetry | None = None) -> None:
        """Carry the belief to a frame's time; gives it up when it has lived on motion alone for too long."""
        before, self._velocity_enu_mps = self._velocity_enu_mps, velocity_enu_mps
        said_before, self._said = self._said, telemetry
        if telemetry is not None and math.isfinite(telemetry.height_above_ground_m):
            self._height_m = telemetry.height_above_ground_m
        if self.filter is None:
            return
        self.told.fade(at_ns, self._heading_told)
        if isinstance(self.filter, InertialFilter):
            self.filter.lever_m = self._lever_m
        if not self._moved_by_inertia(at_ns, said_before):
            self._move(at_ns, velocity_enu_mps, before)
        too_old = at_ns - max(self._fixed_at_ns, self._held_at_ns) > self.config.track.coast_s * 1e9
        if too_old or self.filter.position_sigma_m > self.config.track.max_position_sigma_m:
            self.lose()

    def wants_odometry(self, velocity_known: bool) -> bool:
        """Whether it helps to compare frames: beside an IMU, or for want of a velocity that may be believed as told."""
        return self._use is VelocityUse.INERTIAL or (self._use is VelocityUse.MEASURED and not velocity_known)

    def true_motion(self, moved: Moved) -> Moved:
        """Odometry under the heading and height that fixes have shown, not those that were told."""
        cos, sin = math.cos(self.told.heading_offset_rad), math.sin(self.told.heading_offset_rad)
        east, north = moved.enu_m * self.told.height_scale
        return replace(moved, enu_m=np.array([cos * east + sin * north, cos * north - sin * east]))

    def moved(self, moved: Moved) -> None:
        """Take in how far it was since the last mark; call it between `predict` and a fix.

        A filter without inertia has had it as a velocity by then.
        """
        if self.filter is None:
            return
        if isinstance(self.filter, InertialFilter) and not self.filter.update_moved(self.true_motion(moved)):
            return
        self.told.turned(moved.turn_rad)
        if moved.to_ns - self._fixed_at_ns <= self.config.track.hold_s * 1e9:
            self._held_at_ns = moved.to_ns

    @property
    def held(self) -> bool:
        """Whether pictures, by the map or by each other, held the position at the last frame."""
        now_ns = None if self.filter is None else self.filter.valid_at_ns
        return now_ns is not None and now_ns in (self._fixed_at_ns, self._held_at_ns)

    def mark(self) -> None:
        """Odometry goes on from this frame; call it after the fix."""
        if isinstance(self.filter, InertialFilter):
            self.filter.mark()

    def _moved_by_inertia(self, at_ns: int, before: Telemetry | None) -> bool:
        """The prediction by what the IMU felt since the last frame, where that is known."""
        now = self._said
        if not isinstance(self.filter, InertialFilter) or now is None or before is None:
            return False
        if now.inertia is None or before.inertia is None or now.inertia.run != before.inertia.run:
            return False
        change = np.subtract(now.inertia.velocity_enu_mps, before.inertia.velocity_enu_mps)
        leaned = np.subtract(now.inertia.lean_enu_rad, before.inertia.lean_enu_rad)
        old, new = (rotation_from_quaternion(t.attitude_quat_wxyz) for t in (before, now))
        turned = math.acos(float(np.clip((np.trace(old.T @ new) - 1) / 2, -1.0, 1.0)))
        heading = euler_from_rotation(new)[2]
        if not math.isfinite(turned + heading):  # an attitude that is none: the frame will be refused for it
            return False
        noise = self.config.track.inertial_noise_mps2
        self.filter.predict(at_ns, change, noise, Leaned(leaned, heading, turned))
        return True

    def _move(self, at_ns: int, velocity_enu_mps: np.ndarray | None, before_enu_mps: np.ndarray | None) -> None:
        """The prediction, with what of the vehicle's velocity, now and at the last frame, is to be believed."""
        assert self.filter is not None
        known = velocity_enu_mps is not None
        by_changes = self._use in (VelocityUse.INCREMENT, VelocityUse.INERTIAL)
        coasting = by_changes and known and self.missed >= _WIDEN_AFTER
        lend = coasting and not self._velocity_lent
        noise = self.config.track.acceleration_noise_mps2
        change = None
        if by_changes and velocity_enu_mps is not None and before_enu_mps is not None:
            change = velocity_enu_mps - before_enu_mps
            noise = self.config.track.increment_noise_mps2 if self._velocity_lent and coasting else noise
        self.filter.predict(at_ns, change, noise)
        if velocity_enu_mps is not None and (lend or self._use is VelocityUse.MEASURED):
            self.filter.update_velocity(velocity_enu_mps)
        self._velocity_lent = coasting

    def lose(self) -> None:
        """Forget the position; what was learned of heading and height is doubtful too."""
        self.filter, self.state = None, State.LOST
        self.acquisition.clear()
        self.told.forget()
        self._gated = self.missed = 0

    def acquire(
        self, at_ns: int, fixes: Sequence[Fix], velocity_enu_mps: np.ndarray | None, side_m: float = 0.0
    ) -> Reason | None:
        """Fixes of a search of the whole map, `side_m` of the ground seen; None once the place is earned (and the state
        TRACKING)."""
        accepted = self.acquisition.add(at_ns, fixes, velocity_enu_mps, side_m)
        if accepted is None:
            self.state = State.ACQUIRING if self.acquisition.hypotheses else State.LOST
            return Reason.ACQUIRING if fixes else Reason.NO_CANDIDATE
        position, covariance, track = accepted.position_enu_m, accepted.covariance_enu_m2, self.config.track
        if self._use is VelocityUse.INERTIAL:
            covariance = self._without_tilt(covariance)
            self.filter = InertialFilter(at_ns, position, covariance, velocity_enu_mps, track, self._lever_m)
        else:
            self.filter = Filter(at_ns, position, covariance, velocity_enu_mps, track)
        self.acquisition.clear()
        self.state = State.TRACKING
        self.told.learn(accepted.fix, self._heading_told, local=False)
        self._fixed_at_ns, self._gated, self.missed = at_ns, 0, 0
        return None

    def update(self, fix: Fix | None, reason: Reason | None, side_m: float = 0.0) -> Reason | None:
        """The best fix near the prediction, `side_m` of the ground seen, or why there is none. None: it was taken in.

        A match too weak to be believed alone counts where those before it bear it out, by the rule by which a first
        position is earned: over poor ground one weak match after the other is right.
        """
        assert self.filter is not None
        if fix is not None and reason is Reason.WEAK_MATCH and self._borne_out(fix, side_m):
            reason = None
        elif reason is None:
            self.acquisition.clear()
        if fix is not None and reason is None:
            covariance = fix.covariance_enu_m2
            if isinstance(self.filter, InertialFilter):
                covariance = self._without_tilt(covariance)
            if self.filter.distance2(fix.position_enu_m, covariance) <= self.config.track.gate_chi2:
                self.filter.update_position(fix.position_enu_m, covariance)
                self.told.learn(fix, self._heading_told, local=True)
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

    def _borne_out(self, fix: Fix, side_m: float) -> bool:
        assert self.filter is not None
        return self.acquisition.add(self.filter.valid_at_ns, [fix], self.filter.state[2:4], side_m) is not None

    def estimate(self, telemetry: Telemetry, fix: Fix | None, floor_m: float, tilt_m: float) -> Estimate | None:
        """What may be published now: the filter's belief, with 1 sigma of errors that do not average out added.

        `tilt_m`: of the attitude's error; a filter that estimates that, and how fixes of one kind of ground err
        together, has both in its own covariance.
        """
        if self.filter is None:
            return None
        lean_estimated = isinstance(self.filter, InertialFilter) and not self.config.rectify.on_gimbal
        systematic_m2 = floor_m**2 + (0.0 if lean_estimated else tilt_m**2)
        covariance = self.filter.covariance[:4, :4].copy()
        covariance[:2, :2] += np.eye(2) * systematic_m2
        return Estimate(
            self.filter.valid_at_ns,
            self.filter.state[:2].copy(),
            self.filter.state[2:4].copy(),
            covariance,
            fix.heading_rad if fix is not None else math.nan,
            telemetry.height_above_ground_m,
            fix.probability_right if fix is not None else 0.5,
        )

    def _without_tilt(self, covariance_enu_m2: np.ndarray) -> np.ndarray:
        """A fix's covariance without the attitude's share, for a filter that has the attitude's error in its state: the
        vehicle's. A gimbal's own error is in none."""
        if self.config.rectify.on_gimbal:
            return covariance_enu_m2
        variances, axes = np.linalg.eigh(covariance_enu_m2 - np.eye(2) * (self._height_m * self._tilt_sigma_rad) ** 2)
        return (axes * np.maximum(variances, _LEAST_FIX_SIGMA_M**2)) @ axes.T
