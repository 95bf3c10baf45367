"""What the vehicle's heading and height are told wrong by, as fixes have shown it.

Two scalar Kalman filters. Each error wanders (first-order Gauss-Markov): what was learnt fades to what is told within a
minute or so, for a compass goes wrong by degrees within seconds of a hard start, and a barometer drifts. What a fix
says counts by how well its patches tell it: over a corner of two fields a height is hardly seen, and an error of a
tenth that is believed there moves the point below the vehicle by metres. A search round a prediction is made under what
is believed already, and finds it again in part: what it says counts as if it were half as sharp.
"""

from __future__ import annotations

import math

from onboard.config import SearchConfig
from onboard.frames import wrap_angle
from onboard.records import Fix

_LASTS_S = 60.0
_ASKED_FOR = 2.0  # times the sigma of what was looked for
_SIGMAS = 1.5  # of what a heading or height may be off, as the search counts them


class ToldErrors:
    """`heading_offset_rad`: the true heading less the one told; `height_scale`: the true height over the one told."""

    def __init__(self, search: SearchConfig) -> None:
        self._heading_variance_told = (math.radians(search.heading_error_deg) / _SIGMAS) ** 2
        self._height_variance_told = (search.height_error / _SIGMAS) ** 2
        self.forget()

    def forget(self) -> None:
        """Nothing is known but what is told."""
        self.heading_offset_rad, self.height_scale = 0.0, 1.0
        self._heading_variance, self._height_variance = self._heading_variance_told, self._height_variance_told
        self._at_ns: int | None = None

    def turned(self, turn_rad: float) -> None:
        """The vehicle tells of more turning than there was, clockwise, by so much (visual odometry)."""
        self.heading_offset_rad = wrap_angle(self.heading_offset_rad - turn_rad)

    def learn(self, fix: Fix, heading_known: bool, local: bool) -> None:
        """Take in what a believed fix has shown, `local`: of a search round a prediction. Where no heading is told at
        all, the fix's is taken as it is."""
        self.fade(fix.captured_at_ns, heading_known)
        miss = wrap_angle(fix.evidence["heading_offset_rad"] - self.heading_offset_rad)
        blunter = _ASKED_FOR if local else 1.0
        gain = _gain(self._heading_variance, blunter * fix.heading_sigma_rad) if heading_known else 1.0
        self.heading_offset_rad = wrap_angle(self.heading_offset_rad + gain * miss)
        self._heading_variance *= 1 - gain
        gain = _gain(self._height_variance, blunter * fix.height_scale_sigma)
        self.height_scale += gain * (fix.height_scale - self.height_scale)
        self._height_variance *= 1 - gain

    def fade(self, at_ns: int, heading_known: bool) -> None:
        """What was learnt, at a later time."""
        elapsed_s = 0.0 if self._at_ns is None else max(at_ns - self._at_ns, 0) * 1e-9
        self._at_ns = at_ns
        keep = math.exp(-elapsed_s / _LASTS_S)
        if heading_known:
            self.heading_offset_rad *= keep
            self._heading_variance = _faded(self._heading_variance, self._heading_variance_told, keep)
        self.height_scale = 1 + (self.height_scale - 1) * keep
        self._height_variance = _faded(self._height_variance, self._height_variance_told, keep)


def _gain(variance: float, sigma: float) -> float:
    return variance / (variance + sigma**2) if variance > 0 else 0.0


def _faded(variance: float, told: float, keep: float) -> float:
    return told + (variance - told) * keep**2
