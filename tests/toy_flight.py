"""Pictures and a camera for toy flights, and how their telemetry and their refusals are read."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from onboard.camera import CameraModel
from onboard.frames import euler_from_rotation, rotation_from_quaternion
from onboard.records import Reason, Telemetry

START_NS = 1_700_000_000_000_000_000
MS = 1_000_000
CAMERA = CameraModel(64, 48, np.array([[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]]), (0.01, 0.0, 0.0, 0.0, 0.0))


def angles_deg(telemetry: Telemetry | Reason) -> tuple[float, ...]:
    """(roll, pitch, yaw) in degrees."""
    assert isinstance(telemetry, Telemetry), telemetry
    return tuple(map(math.degrees, euler_from_rotation(rotation_from_quaternion(telemetry.attitude_quat_wxyz))))


def picture(seed: int = 0, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)


def jpeg(seed: int = 0, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    return cv2.imencode(".jpg", picture(seed, size))[1].ravel()


def told_in_one_line(raised: pytest.ExceptionInfo[Any], *words: str) -> None:
    message = str(raised.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def rows_of(flight: Path) -> list[dict[str, str]]:
    with (flight / "frames.csv").open(newline="") as file:
        return list(csv.DictReader(file))
