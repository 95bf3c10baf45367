"""Model, map and localizer of the node: opened, built when the camera is known, begun anew on request.

The localizer itself is `onboard.localizer.Localizer`, the same that replay runs. Requests may come from any thread;
they take effect at the next frame, on the localizer's thread, so that no step is ever disturbed.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np

from onboard.camera import CameraModel
from onboard.config import Config
from onboard.engine import SHIPPED_MODEL, Engine, open_engine
from onboard.errors import ConfigError, PilotageError
from onboard.localizer import Localizer
from onboard.match.evidence import Confidence, read_confidence
from onboard.match.heatmap import Heatmap
from onboard.records import Frame, Reason, Step, Telemetry
from onboard.region import RegionMap

_log = logging.getLogger(__name__)


class Brain:
    """What stays between activations. `start_enu_m` is where a track that begins anew is looked for first."""

    def __init__(self, engine: Engine, region: RegionMap, confidence: Confidence, config: Config) -> None:
        self.engine, self.region, self.config = engine, region, config
        self._confidence = confidence
        self.start_enu_m: np.ndarray | None = None
        self._camera: CameraModel | None = None
        self._body_from_camera: np.ndarray | None = None
        self._lock = threading.Lock()
        self._stale = True
        self._localizer: Localizer | None = None

    @classmethod
    def open(cls, map_path: str, model_path: str, config: Config, start: str = "") -> Brain:
        """PilotageError in one line where the map, the model or the start is not usable."""
        if not map_path:
            raise ConfigError(
                "parameter map", repr(map_path), "the folder of a region map", "set it before configuring"
            )
        engine = open_engine(Path(model_path) if model_path else None, config.engine)
        try:
            region = RegionMap.open(Path(map_path), engine.facts)
            confidence = read_confidence(Path(model_path) if model_path else SHIPPED_MODEL)
            brain = cls(engine, region, confidence, config)
            brain.start_enu_m = start_on_map(start, region)
        except PilotageError:
            engine.close()
            raise
        return brain

    def build(self, camera: CameraModel, body_from_camera: np.ndarray) -> None:
        """The camera is known: frames can be localized."""
        with self._lock:
            self._camera, self._body_from_camera, self._stale = camera, body_from_camera, True

    def reset(self) -> None:
        """Forget the track; begin anew from `start_enu_m`, or from anywhere where that is None."""
        with self._lock:
            self._stale = True

    def start_at(self, start_enu_m: np.ndarray | None) -> None:
        with self._lock:
            self.start_enu_m, self._stale = start_enu_m, True

    def load_map(self, map_path: str) -> None:
        """Take another map; the track and a start on the old one are forgotten. PilotageError: the old one stays."""
        region = RegionMap.open(Path(map_path), self.engine.facts)
        with self._lock:
            self.region, self.start_enu_m, self._stale = region, None, True

    def step(self, frame: Frame | None, telemetry: Telemetry | Reason, captured_at_ns: int, source: str) -> Step:
        """`Localizer.step`, with a new localizer where one was asked for."""
        with self._lock:
            if self._stale or self._localizer is None:
                self._localizer = self._new()
                self._stale = False
            localizer = self._localizer
        return localizer.step(frame, telemetry, captured_at_ns, source)

    @property
    def heatmap(self) -> Heatmap | None:
        """Of the last step; for its own thread only."""
        return None if self._localizer is None else self._localizer.heatmap

    def close(self) -> None:
        self._localizer = None
        self.engine.close()

    def _new(self) -> Localizer:
        assert self._camera is not None  # frames come after `build`
        assert self._body_from_camera is not None
        return Localizer(
            self.engine,
            self.region,
            self._camera,
            self._body_from_camera,
            self._confidence,
            self.config,
            start_enu_m=self.start_enu_m,
        )


def start_on_map(start: str, region: RegionMap) -> np.ndarray | None:
    """(2,) east, north of "LAT,LON"; None for an empty text. ConfigError for no such place, or one off the map."""
    if not start:
        return None
    parts = start.split(",")
    try:
        latitude, longitude = (float(part) for part in parts)
    except ValueError as error:
        raise ConfigError("parameter start", repr(start), "LAT,LON in degrees, or empty") from error
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        raise ConfigError("parameter start", repr(start), "latitude within 90, longitude within 180 degrees")
    return on_map(region.frame.enu_from_geodetic(latitude, longitude), region)


def on_map(position_enu_m: np.ndarray, region: RegionMap) -> np.ndarray:
    """The position itself; ConfigError where the map does not reach."""
    west, south, east, north = region.bounds_enu_m
    if not (west <= position_enu_m[0] <= east and south <= position_enu_m[1] <= north):
        found = f"{position_enu_m[0]:.0f} m east, {position_enu_m[1]:.0f} m north of the map's anchor"
        wanted = f"{west:.0f} to {east:.0f} m east, {south:.0f} to {north:.0f} m north"
        raise ConfigError("start lies outside the map", found, wanted, "take the map of that place")
    return position_enu_m
