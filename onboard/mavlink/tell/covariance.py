"""What is put into a pose covariance so that the firmware ends with the honest figure.

**ArduPilot** makes one number of it, e = cbrt(c0^2 + c6^2 + c11^2), and takes e as the 1 sigma of north and of east
alike (GCS_MAVLINK::handle_odometry, AP_VisualOdom_MAV, EKF3's R_OBS[3] = R_OBS[4] = e^2; limited to VISO_POS_M_NSE at
the lower end and 100 m at the upper). The covariances themselves would come out wrong both ways: 9 m2 on each axis as
6.24 m, 0.25 m2 as 0.57 m, and the height's share would count as horizontal. So the whole block P of the position is
sent as k P with

    k = sqrt(sigma^3 / (P_nn^2 + P_ee^2 + P_zz^2)),        sigma^2 = the largest eigenvalue of the horizontal block,

after which e is sigma: the error along the worst direction, which does not flatter the others (the firmware's own log,
VISP.PErr, says 3.068465 m for a sigma of 3.068465 m). The shape is kept, so a reader that knows the equation gets P
back: k = (the largest eigenvalue of what was sent) / e^2.

**PX4** reads the variances axis by axis, as MAVLink means them: nothing is changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# The vehicle's height sensor, not ours.
HEIGHT_VARIANCE_M2 = 1.0
# An angle that may be anything: uniform over the circle. ArduPilot caps what comes of it at 1.5 rad.
UNMEASURED_ANGLE_RAD2 = math.pi**2 / 3
_NORTH_NORTH, _NORTH_EAST, _EAST_EAST, _DOWN_DOWN = 0, 1, 6, 11  # of the upper triangle of 6 x 6, by rows
_ANGLES = (15, 18, 20)


def pose_covariance(covariance_enu_m2: np.ndarray) -> list[float]:
    """21 numbers of x, y, z, roll, pitch, yaw of a covariance (2, 2); ours is east, north, theirs north, east.

    Variances are numbers, correlations that nobody knows are NaN. Without a position covariance the first is
    NaN, which says "all unknown" (MAVLink's rule).
    """
    upper = [math.nan] * 21
    (ee, en), (_, nn) = covariance_enu_m2
    if not np.isfinite([ee, en, nn]).all():
        return upper
    upper[_NORTH_NORTH], upper[_NORTH_EAST], upper[_EAST_EAST] = float(nn), float(en), float(ee)
    upper[_DOWN_DOWN] = HEIGHT_VARIANCE_M2
    for angle in _ANGLES:
        upper[angle] = UNMEASURED_ANGLE_RAD2
    return upper


def ardupilot_pose_covariance(covariance_enu_m2: np.ndarray) -> list[float]:
    """The same 21 numbers with the position's block scaled so that ArduPilot's 1 sigma is the worst direction's."""
    upper = pose_covariance(covariance_enu_m2)
    if math.isnan(upper[0]):
        return upper
    sigma = largest_sigma(covariance_enu_m2)
    k = math.sqrt(sigma**3) / math.hypot(upper[_NORTH_NORTH], upper[_EAST_EAST], upper[_DOWN_DOWN])
    for entry in (_NORTH_NORTH, _NORTH_EAST, _EAST_EAST, _DOWN_DOWN):
        upper[entry] *= k
    return upper


def position_error_m(upper: Sequence[float]) -> float:
    """The 1 sigma that ArduPilot makes of 21 numbers, before its limits."""
    sum_m4 = upper[_NORTH_NORTH] ** 2 + upper[_EAST_EAST] ** 2 + upper[_DOWN_DOWN] ** 2
    return float(np.cbrt(sum_m4))


def enu_covariance(upper: Sequence[float]) -> np.ndarray:
    """(2, 2) of east, north in m2 of 21 numbers as MAVLink means them."""
    north_east = upper[_NORTH_EAST]
    return np.array([[upper[_EAST_EAST], north_east], [north_east, upper[_NORTH_NORTH]]], dtype=float)


def enu_covariance_of_ardupilot(upper: Sequence[float]) -> np.ndarray:
    """(2, 2) of east, north in m2 of what `ardupilot_pose_covariance` made; NaN where it was unknown."""
    sent = enu_covariance(upper)
    largest = largest_sigma(sent) ** 2
    return sent if not largest > 0 else sent * (position_error_m(upper) ** 2 / largest)


def largest_sigma(covariance: np.ndarray) -> float:
    """The 1 sigma of the worst direction of a covariance (n, n); NaN where it is unknown."""
    if not np.isfinite(covariance).all():
        return math.nan
    return math.sqrt(max(0.0, float(np.linalg.eigvalsh(covariance)[-1])))
