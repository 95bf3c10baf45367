"""What a recorded flight is to those who replay it, whatever it was recorded in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onboard.camera import CameraModel
from onboard.records import Frame, Reason, Telemetry

_MAX_TRUTH_GAP_NS = 2_000_000_000  # between fixes further apart the vehicle may have turned


@dataclass(frozen=True, slots=True)
class FlightItem:
    """One frame of a flight and what the vehicle said at that instant; never where it really was.

    `frame` is None where the image cannot be decoded. `source` names the image for logs.
    """

    captured_at_ns: int
    source: str
    frame: Frame | None
    telemetry: Telemetry | Reason


@dataclass(frozen=True, slots=True)
class Truth:
    """Where the vehicle really was, for the scorer only: times (N,) int64 rising, degrees (N,) on WGS 84."""

    captured_at_ns: np.ndarray
    latitude_deg: np.ndarray
    longitude_deg: np.ndarray

    def at(self, captured_at_ns: int) -> tuple[float, float] | None:
        """(latitude, longitude) in degrees, interpolated linearly; None outside the record and in its gaps."""
        times = self.captured_at_ns
        newer = int(np.searchsorted(times, captured_at_ns))
        if newer == len(times):
            return None
        latitude, longitude = float(self.latitude_deg[newer]), float(self.longitude_deg[newer])
        if int(times[newer]) == captured_at_ns:
            return latitude, longitude
        gap_ns = int(times[newer]) - int(times[newer - 1])
        if newer == 0 or gap_ns > _MAX_TRUTH_GAP_NS:
            return None
        back = (int(times[newer]) - captured_at_ns) / gap_ns
        turn = (longitude - float(self.longitude_deg[newer - 1]) + 180.0) % 360.0 - 180.0  # over the date line
        longitude = (longitude - back * turn + 180.0) % 360.0 - 180.0
        return latitude - back * (latitude - float(self.latitude_deg[newer - 1])), longitude


@dataclass(frozen=True, slots=True)
class Topics:
    """ROS topics to read where the choice by type and name is not the right one; None leaves the choice."""

    image: str | None = None
    camera_info: str | None = None
    attitude: str | None = None
    height: str | None = None
    velocity: str | None = None
    home: str | None = None
    truth: str | None = None


class Flight(Protocol):
    """A recorded flight: opened and checked, its images not yet decoded.

    `body_from_camera` (3, 3) is the mount. `facts` says in words where each part comes from.
    `items` yields in order of capture time and may raise FlightError where the recording breaks off.
    """

    @property
    def name(self) -> str: ...
    @property
    def camera(self) -> CameraModel: ...
    @property
    def body_from_camera(self) -> np.ndarray: ...
    @property
    def frame_count(self) -> int: ...
    @property
    def facts(self) -> Mapping[str, str]: ...
    def items(self) -> Iterator[FlightItem]: ...
    def truth(self) -> Truth | None: ...
