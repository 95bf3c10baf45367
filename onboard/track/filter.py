"""A constant-velocity Kalman filter in the map frame: east, north, v_east, v_north."""

from __future__ import annotations

import numpy as np

from onboard.config import TrackConfig


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

    def predict(self, to_ns: int) -> None:
        """Carry state and covariance to another time, white noise in acceleration. Going back is a mistake."""
        dt = (to_ns - self.valid_at_ns) * 1e-9
        if dt < 0:
            raise ValueError(f"prediction backwards by {-dt:.3f} s")
        step = np.eye(4)
        step[:2, 2:] = np.eye(2) * dt
        q = self.config.acceleration_noise_mps2**2
        noise = np.kron(np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]]) * q, np.eye(2))
        self.state = step @ self.state
        self.covariance = step @ self.covariance @ step.T + noise
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
        keep = np.eye(4)
        keep[:, part] -= gain
        self.covariance = keep @ self.covariance @ keep.T + gain @ noise @ gain.T  # Joseph's form stays positive
