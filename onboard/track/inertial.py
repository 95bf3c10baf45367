"""A filter that knows how the vehicle's attitude deceives both its accelerometers and our fixes.

Attitude comes from an estimator that our own fixes steer. Where it leans by d (radians, to the east and north), gravity
leaks into the accelerations, and the view is laid on the ground beside where it was:

    p' = v        v' = a - g d        d' = l + b        fix = p + h d + noise

a: the IMU's acceleration as that attitude turns it; l: how the estimator leans it beyond what the gyroscopes turn
(`onboard.mavlink.vehicle.inertia`); b: the gyroscopes' bias that is left; h: the height above ground. Without d the
loop through the vehicle is unstable unless its estimator is slow (tests/test_attitude_loop.py); with d in the state,
the fix is known for what it is, and what is told is the position.
"""

from __future__ import annotations

import math

import numpy as np

from onboard.config import TrackConfig
from onboard.track.filter import Filter, predicted

_GRAVITY_MPS2 = 9.80665
_POSITION, _VELOCITY, _LEAN, _BIAS = slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)
_STATES = 8
# What an estimator may do to its attitude in a second where nobody tells: radians per root second.
_UNKNOWN_LEAN_RAD = 3e-3
_BIAS_WALK_RAD = 3e-5  # rad/s per root second: it also turns with the vehicle


class InertialFilter(Filter):
    """State (8,): east, north, v_east, v_north, the lean to the east and north in rad, and its unseen rate in rad/s."""

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
        self.state = np.concatenate([self.state, np.zeros(4)])
        covariance = np.zeros((_STATES, _STATES))
        covariance[:4, :4] = self.covariance
        lean_rad2 = np.eye(2) * math.radians(config.lean_sigma_deg) ** 2
        covariance[_LEAN, _LEAN] = lean_rad2
        covariance[_POSITION, _POSITION] += lean_rad2 * height_m**2
        covariance[_POSITION, _LEAN] = covariance[_LEAN, _POSITION] = -lean_rad2 * height_m
        covariance[_BIAS, _BIAS] = np.eye(2) * math.radians(config.gyro_bias_sigma_dps) ** 2
        self.covariance = covariance

    def predict(
        self,
        to_ns: int,
        change_enu_mps: np.ndarray | None = None,
        acceleration_noise_mps2: float | None = None,
        leaned_enu_rad: np.ndarray | None = None,
    ) -> None:
        """As `Filter.predict`; `leaned_enu_rad` (2,): by how much the attitude was leaned meanwhile, None: unknown.

        A change of velocity that comes with a known lean is the IMU's, and has gravity's leak in it.
        """
        dt = (to_ns - self.valid_at_ns) * 1e-9
        if dt < 0:
            raise ValueError(f"prediction backwards by {-dt:.3f} s")
        inertial = leaned_enu_rad is not None
        noise = self.config.acceleration_noise_mps2 if acceleration_noise_mps2 is None else acceleration_noise_mps2
        lean_noise = math.radians(self.config.lean_noise_deg) if inertial else _UNKNOWN_LEAN_RAD
        step = np.eye(_STATES)
        step[_POSITION, _VELOCITY] = np.eye(2) * dt
        if inertial:
            step[_POSITION, _LEAN] = -np.eye(2) * _GRAVITY_MPS2 * dt**2 / 2
            step[_VELOCITY, _LEAN] = -np.eye(2) * _GRAVITY_MPS2 * dt
            step[_LEAN, _BIAS] = np.eye(2) * dt
        spread = np.zeros((_STATES, _STATES))
        _, spread[:4, :4] = predicted(np.zeros(4), np.zeros((4, 4)), dt, noise)
        spread[_LEAN, _LEAN] = np.eye(2) * lean_noise**2 * dt
        spread[_BIAS, _BIAS] = np.eye(2) * _BIAS_WALK_RAD**2 * dt
        self.state = step @ self.state
        self.covariance = step @ self.covariance @ step.T + spread
        if change_enu_mps is not None:  # as if it came evenly
            self.state[_POSITION] += change_enu_mps * dt / 2
            self.state[_VELOCITY] += change_enu_mps
        if leaned_enu_rad is not None:
            self.state[_LEAN] += leaned_enu_rad
        self.valid_at_ns = to_ns

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
        """(2, 8): what of the state a fix shows."""
        seen = np.zeros((2, _STATES))
        seen[:, _POSITION], seen[:, _LEAN] = np.eye(2), np.eye(2) * self.height_m
        return seen
