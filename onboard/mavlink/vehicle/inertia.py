"""The vehicle's own motion without its estimator's opinion: what its IMU felt and turned, as running integrals.

An estimator that is told our fixes corrects its attitude and velocity by them. Used for the next fix, both would tell
us our own errors again. Accelerometers and gyroscopes do not know of fixes. So two integrals are kept:

    velocity   of R f + g: the specific force f as the attitude R of the same moment turns it
    lean       of log(R_k (R_k-1 exp(w dt))^T): by what the attitude changed beyond what the gyroscopes w turned

An attitude that leans by d towards a side makes accelerations err by g d to that side and fixes from a height h by h d
(`onboard.track.inertial` finds d from the two). Trapezoids of 20 ms: coning and sculling of faster motion are noise.

The rates that a vehicle tells have passed a low-pass filter, and are as old as its delay when the attitude beside them
is not. At 60 degrees a second 11 ms are 0.7 degrees, by which the sum would be off for as long as that lasts (over a
simulated flight 0.10 degrees RMS from second to second, 0.02 with the delay known). So the attitude is turned back to
the moment of its rates.
"""

from __future__ import annotations

import math

import numpy as np

from onboard.frames import rotation_from_quaternion
from onboard.mavlink.vehicle.readings import Quaternion, Vector
from onboard.records import Inertia

_GRAVITY_NED_MPS2 = np.array([0.0, 0.0, 9.80665])
_GAP_NS = 250_000_000  # without samples for so long nothing is known of what happened: a new run begins
_LAG_CYCLES = 2**0.5 / (2 * math.pi)  # delay of a Butterworth low-pass of the second order, times its frequency
_CHANGE_RAD = 0.2  # in one step: the estimator has begun anew, its attitude was not leaned but replaced


def rates_lag_ns(filter_hz: float) -> int:
    """How old the rates are that a vehicle tells, by the cut-off of its gyroscopes' low-pass (INS_GYRO_FILTER)."""
    return round(_LAG_CYCLES / filter_hz * 1e9)


class InertialSums:
    """Fed with attitudes and forces in order of time, by one clock. `rates_lag_ns`: how old the rates told are."""

    def __init__(self, rates_lag_ns: int = 0) -> None:
        self._lag_s = rates_lag_ns * 1e-9
        self._run = 0
        self._velocity_ned_mps = np.zeros(3)
        self._lean_ned_rad = np.zeros(3)
        self._attitude: tuple[int, np.ndarray, np.ndarray] | None = None  # when, ned_from_body, rad/s of the body
        self._then: np.ndarray | None = None  # ned_from_body of the moment of the last rates
        self._force: tuple[int, np.ndarray] | None = None  # when, m/s2 in NED, gravity taken off

    def attitude(self, t_ns: int, quat_wxyz: Quaternion, rates_frd_radps: Vector) -> None:
        """An attitude (ned_from_body) and the gyroscopes' bias-free rates of the same moment."""
        rates = np.array(rates_frd_radps)
        if not (np.isfinite(rates).all() and abs(float(np.linalg.norm(quat_wxyz)) - 1) < 0.1):
            return
        rotation = rotation_from_quaternion(quat_wxyz)
        before = self._attitude
        dt_ns = _GAP_NS + 1 if before is None else t_ns - before[0]
        if dt_ns <= 0:  # again, or late
            return
        self._attitude = (t_ns, rotation, rates)
        then_before, then = self._then, rotation @ _rotation(-rates * self._lag_s)
        self._then = then
        if before is None or then_before is None or dt_ns > _GAP_NS:
            self._run += 1
            return
        turned = then_before @ _rotation((before[2] + rates) / 2 * dt_ns * 1e-9)
        leaned = _vector(then @ turned.T)
        if np.abs(leaned).max() > _CHANGE_RAD:
            self._run += 1
            return
        self._lean_ned_rad += leaned

    def force(self, t_ns: int, specific_force_frd_mps2: Vector) -> Inertia | None:
        """A reading of the accelerometers; the sums up to it, None where it cannot be put in its place."""
        if self._attitude is None or abs(t_ns - self._attitude[0]) > _GAP_NS:
            self._force = None
            return None
        attitude_ns, rotation, rates = self._attitude
        now = rotation @ _rotation(rates * (t_ns - attitude_ns) * 1e-9)
        acceleration = now @ np.array(specific_force_frd_mps2) + _GRAVITY_NED_MPS2
        before = self._force
        dt_ns = _GAP_NS + 1 if before is None else t_ns - before[0]
        if dt_ns <= 0 or not np.isfinite(acceleration).all():
            return None
        self._force = (t_ns, acceleration)
        if before is None or dt_ns > _GAP_NS:
            self._run += 1
        else:
            self._velocity_ned_mps += (before[1] + acceleration) / 2 * dt_ns * 1e-9
        north, east, _ = self._lean_ned_rad
        # Leaned about the north axis it errs to the east, leaned about the east axis to the south.
        return Inertia(
            self._run,
            (float(self._velocity_ned_mps[1]), float(self._velocity_ned_mps[0])),
            (float(north), float(-east)),
        )

    def begin_anew(self) -> None:
        """What comes next has nothing to do with what was."""
        self._run += 1
        self._attitude = self._force = self._then = None


def _rotation(vector_rad: np.ndarray) -> np.ndarray:
    """(3, 3) of a small rotation vector, to the third order."""
    x, y, z = vector_rad
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    square = float(vector_rad @ vector_rad)
    return np.eye(3) + (1 - square / 6) * cross + (0.5 - square / 24) * cross @ cross


def _vector(rotation: np.ndarray) -> np.ndarray:
    """(3,) of a small rotation (3, 3), to the second order."""
    skew = (rotation - rotation.T) / 2
    return np.array([skew[2, 1], skew[0, 2], skew[1, 0]])
