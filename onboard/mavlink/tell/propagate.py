"""Between two fixes: the last estimate carried to the moment that is told, its doubt growing, and then silence.

Flight controllers want a steady stream; fixes come when the ground allows. What is told between them is the
prediction of the tracker (`onboard.track.filter`) by what the vehicle's IMU felt since, or at constant velocity where
that is not known, with its grown covariance, stamped with its own time. It is never a repetition, and it ends when the
last real fix is too old.

    probability_right(a) = p (1 - 0.9 a / silent_after_s),  at least 0.01

where p is the newest estimate's and a the time since the last real fix was captured: the quality that the firmware
sees falls to a tenth of what it was before the stream stops, and is never 0, which would mean "unknown".
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onboard.config import LinkConfig, TrackConfig
from onboard.mavlink.tell.covariance import largest_sigma
from onboard.records import Estimate, Telemetry
from onboard.telemetry import TelemetryBuffer
from onboard.track.filter import predicted

_KEPT = 64  # estimates: two seconds at 30 Hz, longer than any latency that firmware can be told
_PIECES = 4  # of the time that is bridged, for the way that a change of velocity within it makes
_LOST_AT_THE_END = 0.9  # of the probability
_LEAST_PROBABILITY = 0.01  # one per cent of quality


@dataclass(frozen=True, slots=True)
class Felt:
    """What an IMU felt from one instant to another: (2,) each, east and north, beyond a constant velocity."""

    moved_enu_m: np.ndarray
    change_enu_mps: np.ndarray


def felt(telemetry: TelemetryBuffer, from_ns: int, to_ns: int) -> Felt | None:
    """From the running sums of a buffer; None where one of them is not there."""
    velocities, runs = [], set()
    for at_ns in np.linspace(from_ns, to_ns, _PIECES + 1).astype(np.int64):
        at = telemetry.at(int(at_ns))
        if not isinstance(at, Telemetry) or at.inertia is None:
            return None
        velocities.append(at.inertia.velocity_enu_mps)
        runs.add(at.inertia.run)
    if len(runs) > 1:
        return None
    gained = np.array(velocities) - velocities[0]
    step_s = (to_ns - from_ns) * 1e-9 / _PIECES
    return Felt((gained[1:] + gained[:-1]).sum(axis=0) * step_s / 2, gained[-1])


class Propagator:
    """The last few estimates, and from them the one of any later instant.

    `felt` tells what the vehicle's IMU felt between two instants, None where that is not known.
    """

    def __init__(
        self, track: TrackConfig, link: LinkConfig, felt: Callable[[int, int], Felt | None] = lambda *_: None
    ) -> None:
        self._track, self._felt = track, felt
        self._silent_after_ns = round(link.silent_after_s * 1e9)
        self._estimates: deque[tuple[Estimate, int]] = deque(maxlen=_KEPT)

    def take(self, estimate: Estimate, fixed_at_ns: int) -> None:
        """A new estimate, and when the last real fix in it was captured. One not newer than the last is ignored.

        ValueError for a fix from after the estimate's time.
        """
        if fixed_at_ns > estimate.valid_at_ns:
            raise ValueError(f"fixed {(fixed_at_ns - estimate.valid_at_ns) * 1e-9:.3f} s after it is valid")
        if not self._estimates or estimate.valid_at_ns > self._estimates[-1][0].valid_at_ns:
            self._estimates.append((estimate, fixed_at_ns))

    def at(self, valid_at_ns: int) -> Estimate | None:
        """The estimate of an instant, from the newest one that is not after it.

        None before the first one, later than `silent_after_s` after the last real fix, and where the position has
        become less certain than the tracker itself would bear.
        """
        known = next((one for one in reversed(self._estimates) if one[0].valid_at_ns <= valid_at_ns), None)
        if known is None or valid_at_ns - known[1] > self._silent_after_ns:
            return None
        estimate, fixed_at_ns = known
        probability = self._probability(estimate.probability_right, valid_at_ns - fixed_at_ns)
        if valid_at_ns > estimate.valid_at_ns:
            estimate = self._carried(estimate, valid_at_ns)
        if largest_sigma(estimate.covariance[:2, :2]) > self._track.max_position_sigma_m:
            return None
        return dataclasses.replace(estimate, probability_right=probability)

    def clear(self) -> None:
        """Forget all: the position was lost, or the clock was set."""
        self._estimates.clear()

    def _probability(self, probability_right: float, age_ns: int) -> float:
        if math.isnan(probability_right):
            return probability_right
        return max(_LEAST_PROBABILITY, probability_right * (1 - _LOST_AT_THE_END * age_ns / self._silent_after_ns))

    def _carried(self, estimate: Estimate, valid_at_ns: int) -> Estimate:
        """Moved on with its velocity and what was felt; a heading that was measured then says nothing of now.

        Where no velocity is known the place stays and its doubt grows by the speed that the vehicle may have.
        """
        moving = bool(np.isfinite(estimate.velocity_enu_mps).all() and np.isfinite(estimate.covariance).all())
        state, covariance = np.zeros(4), np.zeros((4, 4))
        state[:2], covariance[:2, :2] = estimate.position_enu_m, estimate.covariance[:2, :2]
        if moving:
            state[2:], covariance = estimate.velocity_enu_mps, estimate.covariance
        else:
            covariance[2:, 2:] = np.eye(2) * (self._track.max_speed_mps / 2) ** 2
        dt_s = (valid_at_ns - estimate.valid_at_ns) * 1e-9
        felt = self._felt(estimate.valid_at_ns, valid_at_ns) if moving else None
        noise = self._track.acceleration_noise_mps2 if felt is None else self._track.inertial_noise_mps2
        state, covariance = predicted(state, covariance, dt_s, noise)
        if felt is not None:
            state += np.concatenate([felt.moved_enu_m, felt.change_enu_mps])
        if not moving:
            state[2:], covariance[2:, :], covariance[:, 2:] = math.nan, math.nan, math.nan
        return dataclasses.replace(
            estimate,
            valid_at_ns=valid_at_ns,
            position_enu_m=state[:2],
            velocity_enu_mps=state[2:],
            covariance=covariance,
            heading_rad=math.nan,
        )
