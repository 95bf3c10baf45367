"""What a flying program says of itself: one record, for the screen, for a line of JSON, for the watchdog."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onboard.live.camera import CameraStatus
from onboard.live.recorder import RecorderStatus
from onboard.live.worker import WorkerStatus
from onboard.mavlink.status import LinkStatus

_CHI2_95 = 5.991  # of two dimensions
# The longest that a part may take for one piece of work and still count as going.
_TICK_NS, _STEP_NS, _GRAB_NS = 2_000_000_000, 30_000_000_000, 20_000_000_000


@dataclass(frozen=True, slots=True)
class FlyStatus:
    """One moment of `pilotage fly`.

    Position and `ellipse_95_m` (long, short half axis) are of the last published estimate. `fixes` counts the frames
    whose own fix was published, `fix_age_s` is the time since the last of them was captured. `reasons` counts the
    frames without a fix since the start; `recent_reasons` are the last ones, newest last. `overrun` frames were lost
    because the link's thread did not fetch them.
    """

    at_ns: int
    state: str
    latitude_deg: float | None
    longitude_deg: float | None
    ellipse_95_m: tuple[float, float] | None
    fix_age_s: float | None
    fixes: int
    reasons: Mapping[str, int]
    recent_reasons: tuple[str, ...]
    overrun: int
    ticked_at_ns: int
    camera: CameraStatus
    worker: WorkerStatus
    recorder: RecorderStatus | None
    link: LinkStatus

    @property
    def going(self) -> bool:
        """Whether link, localizer and camera all get on with their work: what the watchdog is fed for."""
        busy_since_ns = self.worker.busy_since_ns
        return (
            self.at_ns - self.ticked_at_ns < _TICK_NS
            and not self.worker.failed
            and (busy_since_ns is None or self.at_ns - busy_since_ns < _STEP_NS)
            and (self.camera.ended or self.at_ns - self.camera.alive_at_ns < _GRAB_NS)
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: numbers that are none are null, and the last step is left out (its outcome is told above)."""
        told = {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        told["worker"].pop("last")
        return told | {"going": self.going}


def ellipse_95_m(covariance_enu_m2: np.ndarray) -> tuple[float, float]:
    """Long and short half axis of the ellipse that holds 95 %."""
    short, long = np.sqrt(_CHI2_95 * np.maximum(np.linalg.eigvalsh(covariance_enu_m2), 0.0))
    return float(long), float(short)


def plain(value: Any) -> Any:
    """What JSON knows of records, enums, arrays and mappings; nan and inf become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(getattr(key, "value", key)): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), 9) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    return str(getattr(value, "value", value))
