"""The loop that closes through the vehicle: its attitude moves our fixes, our fixes move its attitude.

One axis of ArduPilot's EKF3, linear, with its own process noises: position, velocity and tilt errors. A tilt error d
lets the estimator drift by g d and moves a fix from h metres by h d to the same side. Flights in simulation fell out of
the sky where this model diverges, and flew where it does not.
"""

from __future__ import annotations

import numpy as np
import pytest

from onboard.config import Config, RectifyConfig, TrackConfig
from onboard.records import Fix, Inertia, Reason, Telemetry
from onboard.track.tracker import Tracker

G_MPS2, HEIGHT_M = 9.81, 100.0
DT_S, FIX_EVERY = 0.1, 5
FIX_SIGMA_M, SYSTEMATIC_M = 2.0, 1.5
VELOCITY_VARIANCE_PER_S, TILT_VARIANCE_PER_S = 0.35**2 * 0.012, 0.015**2 * 0.012  # EK3_ACC_P_NSE, EK3_GYRO_P_NSE


class Estimator:
    """Errors (3,) of position, velocity and tilt, and the Kalman filter that believes each message to be a new one."""

    def __init__(self) -> None:
        self.errors = np.array([0.0, 0.0, 0.01])
        self.felt_mps, self.leaned_rad = 0.0, 0.0  # what its accelerometers say, and what it did to its own attitude
        self._covariance = np.diag([1.0, 0.1, 1e-4])
        self._step = np.array([[1, DT_S, G_MPS2 * DT_S**2 / 2], [0, 1, G_MPS2 * DT_S], [0, 0, 1]])
        self._noise = np.diag([0, VELOCITY_VARIANCE_PER_S, TILT_VARIANCE_PER_S]) * DT_S

    def predict(self) -> None:
        self.felt_mps += G_MPS2 * self.errors[2] * DT_S
        self.errors = self._step @ self.errors
        self._covariance = self._step @ self._covariance @ self._step.T + self._noise

    def fuse(self, position_m: float, variance_m2: float) -> None:
        gain = self._covariance[:, 0] / (self._covariance[0, 0] + variance_m2)
        correction = gain * (position_m - self.errors[0])
        self.leaned_rad += correction[2]
        self.errors = self.errors + correction
        self._covariance = self._covariance - np.outer(gain, self._covariance[0])


def largest_errors_m(
    track: TrackConfig, correlation_s: float, on_gimbal: bool = False, seconds: float = 240.0
) -> tuple[float, float]:
    """The estimator's largest position error in the first and in the last quarter of a flight that begins tilted."""
    config = Config(track=track, rectify=RectifyConfig(on_gimbal=on_gimbal))
    tracker, estimator = Tracker(config), Estimator()
    alike = max(1.0, correlation_s / DT_S)
    history, told = [], None
    for tick in range(int(seconds / DT_S)):
        estimator.predict()
        if tick % FIX_EVERY == 0:
            at_ns = round(tick * DT_S * 1e9)
            velocity = np.array([estimator.errors[1], 0.0])
            position = np.array([0.0 if on_gimbal else HEIGHT_M * estimator.errors[2], 0.0])
            inertia = Inertia(0, (estimator.felt_mps, 0.0), (estimator.leaned_rad, 0.0))
            telemetry = Telemetry(at_ns, (1.0, 0.0, 0.0, 0.0), HEIGHT_M, inertia=inertia)
            evidence = {"heading_offset_rad": 0.0}
            fix = Fix(at_ns, position, np.eye(2) * FIX_SIGMA_M**2, 0.0, 1.0, 0.999, evidence)
            if tracker.filter is None:
                tracker.predict(at_ns, velocity, telemetry)
                tracker.acquire(at_ns, [fix], velocity)
            else:
                tracker.predict(at_ns, velocity, telemetry)
                if tracker.filter is None or tracker.update(fix, None) is Reason.GATED:
                    return 0.0, np.inf
            told = tracker.filter
        if told is not None:
            age_s = tick % FIX_EVERY * DT_S
            variance = (told.covariance[0, 0] + SYSTEMATIC_M**2) * alike
            estimator.fuse(float(told.state[0] + age_s * told.state[2]), variance)
        history.append(abs(estimator.errors[0]))
    quarter = len(history) // 4
    return max(history[:quarter]), max(history[-quarter:])


def test_with_the_velocitys_changes_and_errors_told_as_lasting_the_loop_is_damped() -> None:
    begin, end = largest_errors_m(TrackConfig(velocity_use="increment"), correlation_s=5.0)
    assert 0.1 < begin < 10
    assert end < 0.02 * begin


@pytest.mark.parametrize("correlation_s", [0.0, 5.0])
def test_where_the_lean_is_estimated_the_loop_is_damped_however_fast_the_vehicle_follows(correlation_s: float) -> None:
    begin, end = largest_errors_m(TrackConfig(velocity_use="inertial"), correlation_s)
    assert 0.1 < begin < 5
    assert end < 0.05


def test_on_a_gimbal_there_is_no_loop_and_the_estimator_may_follow_firmly() -> None:
    track = TrackConfig(velocity_use="inertial")
    firm, loose = (largest_errors_m(track, correlation_s, on_gimbal=True) for correlation_s in (0.3, 2.0))
    assert firm[1] < 0.05
    assert firm[0] < 0.8 * loose[0]


@pytest.mark.parametrize(
    ("track", "correlation_s"),
    [
        (TrackConfig(velocity_use="measured"), 0.0),
        (TrackConfig(velocity_use="increment", acceleration_noise_mps2=0.2), 0.0),
    ],
    ids=["the velocity itself", "changes believed more than fixes"],
)
def test_what_fell_in_flight_falls_here(track: TrackConfig, correlation_s: float) -> None:
    begin, end = largest_errors_m(track, correlation_s)
    assert end > begin
