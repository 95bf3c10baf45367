"""A constant-velocity Kalman filter in the map frame: east, north, v_east, v_north."""

from __future__ import annotations

import numpy as np

from onboard.config import TrackConfig


def predicted(
    state: np.ndarray, covariance: np.ndarray, dt_s: float, acceleration_noise_mps2: float
) -> tuple[np.ndarray, np.ndarray]:
    """State (4,) and covariance (4, 4) after `dt_s` at constant velocity, white noise in acceleration."""
    step = np.eye(4)
    step[:2, 2:] = np.eye(2) * dt_s
    q = acceleration_noise_mps2**2
    noise = np.kron(np.array([[dt_s**3 / 3, dt_s**2 / 2], [dt_s**2 / 2, dt_s]]) * q, np.eye(2))
    return step @ state, step @ covariance @ step.T + noise


class Filter:
    """State (4,) in m and m/s with covariance (4, 4), valid at `valid_at_ns`."""

    def __init__(
        self,
        valid_at_ns: int,
        position_enu_m: np.ndarray,
        covariance_enu_m2: np.ndarray,
        velocity_enu_mps: np.ndarray | None,
        config: TrackConfig,
    ) -> None:
        self.config, self.valid_at_ns = config, valid_at_ns
        velocity = np.zeros(2) if velocity_enu_mps is None else velocity_enu_mps
        sigma = config.max_speed_mps / 2 if velocity_enu_mps is None else config.velocity_noise_mps
        self.state = np.concatenate([position_enu_m, velocity]).astype(float)
        self.covariance = np.zeros((4, 4))
        self.covariance[:2, :2] = covariance_enu_m2
        self.covariance[2:, 2:] = np.eye(2) * sigma**2

    @property
    def position_sigma_m(self) -> float:
        """1 sigma along the worst direction."""
        return float(np.sqrt(np.linalg.eigvalsh(self.covariance[:2, :2])[-1]))

    def predict(
        self, to_ns: int, change_enu_mps: np.ndarray | None = None, acceleration_noise_mps2: float | None = None
    ) -> None:
        """Carry state and covariance to another time, white noise in acceleration. Going back is a mistake.

        `change_enu_mps` (2,): by how much the velocity is known to have changed meanwhile; it enters as an input.
        `acceleration_noise_mps2` if it is not the config's: what is left unknown.
        """
        dt = (to_ns - self.valid_at_ns) * 1e-9
        if dt < 0:
            raise ValueError(f"prediction backwards by {-dt:.3f} s")
        noise = self.config.acceleration_noise_mps2 if acceleration_noise_mps2 is None else acceleration_noise_mps2
        self.state, self.covariance = predicted(self.state, self.covariance, dt, noise)
        if change_enu_mps is not None:  # as if it came evenly
            self.state = self.state + np.concatenate([change_enu_mps * dt / 2, change_enu_mps])
        self.valid_at_ns = to_ns

    def update_velocity(self, velocity_enu_mps: np.ndarray) -> None:
        """Take in the velocity (2,) that telemetry gives."""
        self._update(velocity_enu_mps, np.eye(2) * self.config.velocity_noise_mps**2, slice(2, 4))

    def update_position(self, position_enu_m: np.ndarray, covariance_enu_m2: np.ndarray) -> None:
        """Take in a fix (2,) with covariance (2, 2)."""
        self._update(position_enu_m, covariance_enu_m2, slice(0, 2))

    def distance2(self, position_enu_m: np.ndarray, covariance_enu_m2: np.ndarray) -> float:
        """Squared Mahalanobis distance of a fix from the prediction."""
        miss = position_enu_m - self.state[:2]
        return float(miss @ np.linalg.solve(self.covariance[:2, :2] + covariance_enu_m2, miss))

    def _update(self, value: np.ndarray, noise: np.ndarray, part: slice) -> None:
        gain = np.linalg.solve((self.covariance[part, part] + noise).T, self.covariance[part]).T
        self.state = self.state + gain @ (value - self.state[part])
        keep = np.eye(len(self.state))
        keep[:, part] -= gain
        self.covariance = keep @ self.covariance @ keep.T + gain @ noise @ gain.T  # Joseph's form stays positive
