"""A filter that knows how the vehicle's attitude deceives both its accelerometers and our fixes.

Attitude comes from an estimator that our own fixes steer. Where it leans by d (radians, to the east and north), gravity
leaks into the accelerations, and the view is laid on the ground beside where it was:

    p' = v        v' = a - g d        d' = l + R b        fix = p + h d + e + noise

a: the IMU's acceleration as that attitude turns it; l: how the estimator leans it beyond what the gyroscopes turn
(`onboard.mavlink.vehicle.inertia`); b: the gyroscopes' bias that is left, in axes that turn with the vehicle (R: its
heading); h: the height above ground. Without d the loop through the vehicle is unstable unless its estimator is slow
(tests/test_attitude_loop.py); with d in the state, the fix is known for what it is, and what is told is the position.

e: the error that the fixes of one piece of ground have in common, for the shadows and the relief in view are the same;
it is another one some 30 m on. Without it in the state a hundred fixes that say the same would seem to prove it.

Visual odometry sees the difference of p + h d between two frames, and no e: the map has no part in it. It is too long
by as much as the height told is too large (over a forest by that of the trees), and turned by as much as the heading
told. So p + h d at the last frame is kept in the state, and both errors. With it velocity, and by that the lean, is
known from something that neither fixes nor the vehicle's attitude lead.

A camera on a gimbal that knows its own attitude does not see the vehicle's lean: h is 0 then, and what the gimbal leans
stays in the fix's own covariance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onboard.config import TrackConfig
from onboard.track.filter import Filter, predicted
from onboard.track.odometry import Moved

_GRAVITY_MPS2 = 9.80665
_POSITION, _VELOCITY, _LEAN, _BIAS, _COMMON = slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8), slice(8, 10)
_SEEN, _ODOMETRY = slice(10, 12), slice(12, 14)
_STATES = 14
# What an estimator may do to its attitude in a second where nobody tells: radians per root second.
_UNKNOWN_LEAN_RAD = 3e-3
_BIAS_LASTS_S = 60.0  # the vehicle's estimator follows its gyroscopes' drift, some way behind; a drift that turns round
_STILL_MPS = 0.5  # at rest light and height change what is seen as slowly as this speed


@dataclass(frozen=True, slots=True)
class Leaned:
    """What became of the attitude between two frames.

    `lean_enu_rad` (2,): by how much it was leaned beyond what the gyroscopes turned; `heading_rad` of the vehicle;
    `turned_rad`: the angle of all its turning, which gyroscopes sum with an error in proportion.
    """

    lean_enu_rad: np.ndarray
    heading_rad: float = 0.0
    turned_rad: float = 0.0


class InertialFilter(Filter):
    """State (14,): east, north, v_east, v_north; the lean to the east and north in rad; its unseen rate forward and
    to the right in rad/s; what the fixes here have in common, east and north in m; where the last frame was seen from,
    east and north in m; by what share odometry is too long, and how far it is turned to the left, in rad.
    """

    def __init__(
        self,
        valid_at_ns: int,
        position_enu_m: np.ndarray,
        covariance_enu_m2: np.ndarray,
        velocity_enu_mps: np.ndarray | None,
        config: TrackConfig,
        lever_m: float,
    ) -> None:
        """The first position is a fix too, made with an attitude that leans nobody knows how far.

        `lever_m`: by how much a lean moves what is seen, which is the height above ground.
        """
        super().__init__(valid_at_ns, position_enu_m, covariance_enu_m2, velocity_enu_mps, config)
        self.lever_m = lever_m  # of the next fix
        self.state = np.concatenate([self.state, np.zeros(_STATES - 4)])
        covariance = np.zeros((_STATES, _STATES))
        covariance[:4, :4] = self.covariance
        lean_rad = math.radians(config.lean_sigma_deg)
        for part, sigma, lever in ((_LEAN, lean_rad, lever_m), (_COMMON, config.fix_bias_m, 1.0)):
            variance = np.eye(2) * sigma**2
            covariance[part, part] = variance
            covariance[_POSITION, _POSITION] += variance * lever**2
            covariance[_POSITION, part] = covariance[part, _POSITION] = -variance * lever
        covariance[_BIAS, _BIAS] = np.eye(2) * math.radians(config.gyro_bias_sigma_dps) ** 2
        covariance[_ODOMETRY, _ODOMETRY] = self._odometry_errors()
        self.covariance = covariance
        self._seen_at_ns: int | None = None
        self.mark()

    def predict(
        self,
        to_ns: int,
        change_enu_mps: np.ndarray | None = None,
        acceleration_noise_mps2: float | None = None,
        leaned: Leaned | None = None,
    ) -> None:
        """As `Filter.predict`; `leaned`: what became of the attitude meanwhile, None: unknown.

        A change of velocity that comes with a known lean is the IMU's, and has gravity's leak in it.
        """
        dt = (to_ns - self.valid_at_ns) * 1e-9
        if dt < 0:
            raise ValueError(f"prediction backwards by {-dt:.3f} s")
        noise = self.config.acceleration_noise_mps2 if acceleration_noise_mps2 is None else acceleration_noise_mps2
        keep = math.exp(-max(float(np.linalg.norm(self.state[_VELOCITY])), _STILL_MPS) * dt / self._length_m)
        step = _step(dt, keep, leaned)
        spread = np.zeros((_STATES, _STATES))
        _, spread[:4, :4] = predicted(np.zeros(4), np.zeros((4, 4)), dt, noise)
        spread[_LEAN, _LEAN] = np.eye(2) * self._lean_variance(dt, leaned)
        bias_keep = math.exp(-dt / _BIAS_LASTS_S)
        bias_rad = math.radians(self.config.gyro_bias_sigma_dps)
        step[_BIAS, _BIAS] = np.eye(2) * bias_keep
        spread[_BIAS, _BIAS] = np.eye(2) * bias_rad**2 * (1 - bias_keep**2)
        spread[_COMMON, _COMMON] = np.eye(2) * self.config.fix_bias_m**2 * (1 - keep**2)
        step[_ODOMETRY, _ODOMETRY] = np.eye(2) * keep
        spread[_ODOMETRY, _ODOMETRY] = self._odometry_errors() * (1 - keep**2)
        if leaned is not None:  # a manoeuvre leans the accelerations by half of that meanwhile
            turn_mps = _GRAVITY_MPS2 * self.config.lean_turn_noise * leaned.turned_rad * dt / 2
            spread[_VELOCITY, _VELOCITY] += np.eye(2) * turn_mps**2
        self.state = step @ self.state
        self.covariance = step @ self.covariance @ step.T + spread
        if change_enu_mps is not None:  # as if it came evenly
            self.state[_POSITION] += change_enu_mps * dt / 2
            self.state[_VELOCITY] += change_enu_mps
        if leaned is not None:
            self.state[_LEAN] += leaned.lean_enu_rad
            self.state[_VELOCITY] -= _GRAVITY_MPS2 * leaned.lean_enu_rad * dt / 2
        self.valid_at_ns = to_ns

    def _odometry_errors(self) -> np.ndarray:
        """(2, 2) variances of odometry's length, as a share, and direction, in rad."""
        track = self.config
        return np.diag([track.odometry_scale_sigma**2, math.radians(track.odometry_heading_sigma_deg) ** 2])

    @property
    def _length_m(self) -> float:
        return max(self.config.fix_bias_length_m, 1e-3)

    def _lean_variance(self, dt: float, leaned: Leaned | None) -> float:
        if leaned is None:
            return _UNKNOWN_LEAN_RAD**2 * dt
        track = self.config
        return math.radians(track.lean_noise_deg) ** 2 * dt + (track.lean_turn_noise * leaned.turned_rad) ** 2

    def update_position(self, position_enu_m: np.ndarray, covariance_enu_m2: np.ndarray) -> None:
        """Take in a fix (2,) with covariance (2, 2), made with the vehicle's own attitude."""
        self._take_in(position_enu_m - self._seen() @ self.state, self._seen(), covariance_enu_m2)

    def mark(self) -> None:
        """A frame was seen from here: what odometry says of the next one begins here."""
        kept = np.eye(_STATES)
        kept[_SEEN] = 0.0
        kept[_SEEN, _POSITION], kept[_SEEN, _LEAN] = np.eye(2), np.eye(2) * self.lever_m
        self.state = kept @ self.state
        self.covariance = kept @ self.covariance @ kept.T
        self._seen_at_ns = self.valid_at_ns

    def update_moved(self, moved: Moved) -> bool:
        """Take in visual odometry that leads from the last mark to now; whether it did, and was to be believed."""
        if moved.from_ns != self._seen_at_ns or moved.to_ns != self.valid_at_ns:
            return False
        shown = np.zeros((2, _STATES))
        shown[:, _POSITION], shown[:, _LEAN], shown[:, _SEEN] = np.eye(2), np.eye(2) * self.lever_m, -np.eye(2)
        way = shown @ self.state
        shown[:, _ODOMETRY] = np.stack([way, [-way[1], way[0]]], axis=1)
        miss = moved.enu_m - shown @ self.state
        spread = np.eye(2) * moved.sigma_m**2
        expected = shown @ self.covariance @ shown.T + spread
        believed = float(miss @ np.linalg.solve(expected, miss)) <= self.config.gate_chi2
        if believed:
            self._take_in(miss, shown, spread)
        return believed

    def _take_in(self, miss: np.ndarray, shown: np.ndarray, noise: np.ndarray) -> None:
        gain = np.linalg.solve(shown @ self.covariance @ shown.T + noise, shown @ self.covariance).T
        self.state = self.state + gain @ miss
        keep = np.eye(_STATES) - gain @ shown
        self.covariance = keep @ self.covariance @ keep.T + gain @ noise @ gain.T

    def distance2(self, position_enu_m: np.ndarray, covariance_enu_m2: np.ndarray) -> float:
        seen = self._seen()
        miss = position_enu_m - seen @ self.state
        return float(miss @ np.linalg.solve(seen @ self.covariance @ seen.T + covariance_enu_m2, miss))

    def _seen(self) -> np.ndarray:
        """(2, 14): what of the state a fix shows."""
        seen = np.zeros((2, _STATES))
        seen[:, _POSITION], seen[:, _LEAN], seen[:, _COMMON] = np.eye(2), np.eye(2) * self.lever_m, np.eye(2)
        return seen


def _step(dt: float, keep: float, leaned: Leaned | None) -> np.ndarray:
    """(14, 14) of the state's own change in `dt` seconds; `keep` of what the fixes have in common stays."""
    step = np.eye(_STATES)
    step[_POSITION, _VELOCITY] = np.eye(2) * dt
    step[_COMMON, _COMMON] = np.eye(2) * keep
    if leaned is not None:
        sin, cos = math.sin(leaned.heading_rad), math.cos(leaned.heading_rad)
        enu_from_body = np.array([[sin, cos], [cos, -sin]])  # forward, right
        step[_POSITION, _LEAN] = -np.eye(2) * _GRAVITY_MPS2 * dt**2 / 2
        step[_VELOCITY, _LEAN] = -np.eye(2) * _GRAVITY_MPS2 * dt
        step[_LEAN, _BIAS] = enu_from_body * dt
    return step
