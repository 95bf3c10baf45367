"""What is flown: up, a square without GPS with the camera dark for a while, and down where it began.

The course is a generator that is resumed ten times a second and yields the name of its phase.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from ground import GUIDED, LAND, Ground

ARRIVED_M = 3.0
LAST_LOOK_M = 40.0
_TICKS_PER_S = 10
_HORIZONTAL = 1 << 3 | 1 << 4  # EKF_POS_HORIZ_REL, EKF_POS_HORIZ_ABS


class CourseError(Exception):
    """The vehicle did not do what the course needs."""


@dataclass
class Course:
    """The plan. `known` says whether Pilotage tells positions; `set_gps` turns the receiver on and off."""

    start_enu_m: np.ndarray
    side_m: float
    height_m: float
    speed_mps: float
    known: Callable[[], bool]
    blackout_leg: int = 2  # 0 to 3; -1: none
    blackout_s: float = 20.0
    dark: bool = field(default=False, init=False)  # whether the camera is

    @property
    def corners(self) -> list[np.ndarray]:
        """(2,) east, north: the square's corners in the order flown; the last is the start."""
        ways = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], dtype=float)
        return [self.start_enu_m + self.side_m * way for way in ways]

    def fly(self, ground: Ground) -> Iterator[str]:
        """Phase after phase; CourseError when one takes far longer than it can."""
        yield from _arm(ground)
        ground.command(22, 0, 0, 0, 0, 0, 0, self.height_m)  # MAV_CMD_NAV_TAKEOFF
        yield from _until(lambda: ground.believed[-1].height_m > self.height_m - 1, 90, "climb")
        yield from _until(self.known, 90, "acquire")
        yield from _for(5, "settle")
        ground.set_parameter("SIM_GPS1_ENABLE", 0)
        yield from _for(10, "gps off")
        for leg, corner in enumerate(self.corners):
            ground.go_to(corner, self.height_m)
            yield from self._leg(ground, leg, corner)
        # Too low the camera sees too little of the ground: at rest straight above the point before that.
        ground.go_to(self.corners[-1], LAST_LOOK_M)
        yield from _until(lambda: ground.believed[-1].height_m < LAST_LOOK_M + 1, 90, "descend")
        yield from _for(15, "hover")
        ground.command(176, 1, LAND)  # MAV_CMD_DO_SET_MODE
        yield from _until(lambda: not ground.armed, 120, "land")

    def _leg(self, ground: Ground, leg: int, corner: np.ndarray) -> Iterator[str]:
        limit_s = 30 + 2 * self.side_m / self.speed_mps
        dark_from_s = 10.0
        for tick in range(int(limit_s * _TICKS_PER_S)):
            since_s = tick / _TICKS_PER_S
            self.dark = leg == self.blackout_leg and dark_from_s <= since_s < dark_from_s + self.blackout_s
            if np.linalg.norm(ground.believed[-1].position_enu_m - corner) < ARRIVED_M:
                break
            if ground.mode != GUIDED:
                raise CourseError(f"leg {leg + 1}: the vehicle left GUIDED for mode {ground.mode}")
            yield f"leg {leg + 1}"
        else:
            raise CourseError(f"leg {leg + 1} not flown within {limit_s:.0f} s")
        self.dark = False
        yield from _for(2, f"corner {leg + 1}")


def _arm(ground: Ground) -> Iterator[str]:
    """GUIDED and armed, once the estimator holds a position and the checks pass."""
    yield from _until(lambda: bool(ground.flags & _HORIZONTAL) and bool(ground.believed), 120, "boot")
    for _ in range(60):
        ground.command(176, 1, GUIDED)
        ground.command(400, 1)  # MAV_CMD_COMPONENT_ARM_DISARM
        yield from _for(2, "arm")
        if ground.armed and ground.mode == GUIDED:
            return
    raise CourseError("the vehicle does not arm")


def _until(done: Callable[[], bool], limit_s: float, phase: str) -> Iterator[str]:
    for _ in range(int(limit_s * _TICKS_PER_S)):
        if done():
            return
        yield phase
    raise CourseError(f"{phase}: not within {limit_s:.0f} s")


def _for(seconds: float, phase: str) -> Iterator[str]:
    for _ in range(int(seconds * _TICKS_PER_S)):
        yield phase
