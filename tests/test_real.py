"""Real photos and real aerial imagery, where they are at hand: what is found is right, what is wrong is refused.

A handful of frames of a drone flight over a reference made from its other photos, and views of one year over a map
of another. No start position; every frame alone over the whole map.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from calibration.trials.views import ViewConfig, write_views
from export.region.build import build_map
from onboard.config import Config
from onboard.engine import SHIPPED_MODEL, Engine
from onboard.flight import open_flight
from onboard.localizer import Localizer
from onboard.match.evidence import read_confidence
from onboard.records import Telemetry
from onboard.region import RegionMap

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FOUND_M = 8.0
FALSE_M = 30.0
FRAMES = 4

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no real imagery beside the checkout (../shared/data)")


def fly_alone(flight: Path, region: RegionMap, engine: Engine) -> tuple[np.ndarray, np.ndarray]:
    """(errors in metres of the best guess, inf where there was none; whether it was published) of each frame."""
    config = Config()
    recorded = open_flight(flight, config.rectify)
    truth = recorded.truth()
    assert truth is not None
    localizer = Localizer(
        engine, region, recorded.camera, recorded.body_from_camera, read_confidence(SHIPPED_MODEL), config,
        independent=True,
    )  # fmt: skip
    errors, published = [], []
    for item in recorded.items():
        assert isinstance(item.telemetry, Telemetry)
        place = truth.at(item.captured_at_ns)
        assert place is not None
        step = localizer.step(item.frame, item.telemetry, item.captured_at_ns, item.source)
        best = step.best_position_enu_m
        miss = np.inf if best is None else float(np.linalg.norm(best - region.frame.enu_from_geodetic(*place)))
        errors.append(miss)
        published.append(step.published)
    return np.array(errors), np.array(published)


def few_frames(flight: Path, out: Path, rows: slice) -> Path:
    """A flight folder with some of the frames of another."""
    out.mkdir()
    shutil.copy(flight / "camera.yaml", out)
    lines = (flight / "frames.csv").read_text().splitlines(keepends=True)
    (out / "frames.csv").write_text("".join([lines[0], *lines[1:][rows]]))
    (out / "photos").symlink_to(flight / "photos")
    return out


def test_photos_of_a_real_flight_find_themselves_on_the_reference(shipped_engine: Engine, tmp_path: Path) -> None:
    garfield = DATA / "flights" / "garfield"
    build_map([garfield / "reference.tif"], tmp_path / "map", shipped_engine)
    region = RegionMap.open(tmp_path / "map", shipped_engine.facts)
    errors, published = fly_alone(
        few_frames(garfield, tmp_path / "flight", slice(3, 3 + FRAMES)), region, shipped_engine
    )
    assert len(errors) == FRAMES
    assert (errors < FOUND_M).sum() >= 3, errors
    assert not (published & (errors > FALSE_M)).any(), errors


def test_views_of_2020_over_a_map_of_2016_are_found_or_refused(shipped_engine: Engine, tmp_path: Path) -> None:
    claremont = DATA / "naip" / "claremont"
    build_map(sorted(claremont.glob("*_2016.tif"))[:20], tmp_path / "map", shipped_engine)
    region = RegionMap.open(tmp_path / "map", shipped_engine.facts)
    views = sorted(claremont.glob("*_2020.tif"))[2:20:3]
    assert len(views) == 6
    errors, published = fly_alone(write_views(views, tmp_path / "flight", ViewConfig(seed=3)), region, shipped_engine)
    assert (errors < FOUND_M).sum() >= 4, errors
    assert not (published & (errors > FALSE_M)).any(), errors
    off_the_map = sorted(claremont.glob("*_2020.tif"))[40:43]
    elsewhere = fly_alone(write_views(off_the_map, tmp_path / "elsewhere", ViewConfig(seed=4)), region, shipped_engine)
    assert not elsewhere[1].any(), "a view of ground that is not on the map was published"
