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
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onboard.config import TrackConfig
from onboard.track.filter import Filter, predicted

_GRAVITY_MPS2 = 9.80665
_POSITION, _VELOCITY, _LEAN, _BIAS, _COMMON = slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8), slice(8, 10)
_STATES = 10
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
    """State (10,): east, north, v_east, v_north; the lean to the east and north in rad; its unseen rate forward and
    to the right in rad/s; what the fixes here have in common, east and north in m.
    """

    def __init__(
        self,
        valid_at_ns: int,
        position_enu_m: np.ndarray,
        covariance_enu_m2: np.ndarray,
        velocity_enu_mps: np.ndarray | None,
        config: TrackConfig,
        height_m: float,
    ) -> None:
        """The first position is a fix too, made with an attitude that leans nobody knows how far."""
        super().__init__(valid_at_ns, position_enu_m, covariance_enu_m2, velocity_enu_mps, config)
        self.height_m = height_m  # above ground, of the next fix
        self.state = np.concatenate([self.state, np.zeros(_STATES - 4)])
        covariance = np.zeros((_STATES, _STATES))
        covariance[:4, :4] = self.covariance
        lean_rad = math.radians(config.lean_sigma_deg)
        for part, sigma, lever in ((_LEAN, lean_rad, height_m), (_COMMON, config.fix_bias_m, 1.0)):
            variance = np.eye(2) * sigma**2
            covariance[part, part] = variance
            covariance[_POSITION, _POSITION] += variance * lever**2
            covariance[_POSITION, part] = covariance[part, _POSITION] = -variance * lever
        covariance[_BIAS, _BIAS] = np.eye(2) * math.radians(config.gyro_bias_sigma_dps) ** 2
        self.covariance = covariance

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
        seen = self._seen()
        gain = np.linalg.solve(seen @ self.covariance @ seen.T + covariance_enu_m2, seen @ self.covariance).T
        self.state = self.state + gain @ (position_enu_m - seen @ self.state)
        keep = np.eye(_STATES) - gain @ seen
        self.covariance = keep @ self.covariance @ keep.T + gain @ covariance_enu_m2 @ gain.T

    def distance2(self, position_enu_m: np.ndarray, covariance_enu_m2: np.ndarray) -> float:
        seen = self._seen()
        miss = position_enu_m - seen @ self.state
        return float(miss @ np.linalg.solve(seen @ self.covariance @ seen.T + covariance_enu_m2, miss))

    def _seen(self) -> np.ndarray:
        """(2, 10): what of the state a fix shows."""
        seen = np.zeros((2, _STATES))
        seen[:, _POSITION], seen[:, _LEAN], seen[:, _COMMON] = np.eye(2), np.eye(2) * self.height_m, np.eye(2)
        return seen


def _step(dt: float, keep: float, leaned: Leaned | None) -> np.ndarray:
    """(10, 10) of the state's own change in `dt` seconds; `keep` of what the fixes have in common stays."""
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
