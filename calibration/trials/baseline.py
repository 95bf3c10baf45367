"""Classical baselines on the frames of a flight: where each says that a view is, and how far that is from the truth.

They get what the network gets, the view at the told heading and height, and the whole map.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.progress import track

from calibration.trials.ncc import best_place
from calibration.trials.sift import SiftFinder
from onboard.config import Config
from onboard.errors import ConfigError
from onboard.flight import open_flight
from onboard.records import GroundView, Telemetry
from onboard.rectify import Rectifier
from onboard.region import Level, RegionMap

_VIEW_PX = 256

Finder = Callable[[Level, GroundView], np.ndarray]  # (2,) east, north of the view's centre


def finder_of(name: str) -> Finder:
    """gradient or grey: correlation of gradient magnitudes or of grey levels; sift: keypoints."""
    return SiftFinder() if name == "sift" else lambda level, view: best_place(level, view, grey=name == "grey")


def run(flight: Path, map_path: Path, finder: Finder, every: int = 1) -> np.ndarray:
    """(N,) metres from the truth of each `every`-th frame that can be laid on the ground; inf where none is found."""
    config = Config()
    recorded, region = open_flight(flight, config.rectify), RegionMap.open(map_path)
    truth = recorded.truth()
    if truth is None:
        raise ConfigError("flight without truth", flight, "latitude_deg, longitude_deg in frames.csv")
    rectifier = Rectifier(recorded.camera, recorded.body_from_camera, _VIEW_PX, config.rectify)
    errors = []
    for number, item in enumerate(track(recorded.items(), total=recorded.frame_count, description="looking")):
        if number % every or item.frame is None or not isinstance(item.telemetry, Telemetry):
            continue
        place = truth.at(item.captured_at_ns)
        if place is None or rectifier.check(item.frame, item.telemetry) is not None:
            continue
        level = region.levels[region.level_for(rectifier.ground_side_m(item.telemetry), _VIEW_PX)]
        view = rectifier.view(item.frame, item.telemetry, level.metres_per_pixel)
        position = finder(level, view) - np.array(view.centre_from_vehicle_enu_m)
        errors.append(float(np.linalg.norm(position - region.frame.enu_from_geodetic(*place))))
    return np.nan_to_num(np.array(errors), nan=np.inf)
