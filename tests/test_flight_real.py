"""Real photos, where there are some: their tags against the poses found in their images."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from toy_flight import rows_of

from onboard.camera import CameraModel
from onboard.flight import open_flight
from onboard.flight.photos import PhotoOptions, flight_from_photos
from onboard.records import Telemetry

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "flights"


def difference_deg(a: float, b: float) -> float:
    return abs((a - b + 180) % 360 - 180)


# By set: how far tags may lie from the poses found in the images: median tilt, median yaw, focal length as a share.
REAL = {"brighton": (2.0, 4.0, 0.05), "chia": (1.0, 3.0, 0.02), "garfield": (8.0, 7.0, 0.002)}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real flights: {DATA} is not there")
def test_real_photos_agree_with_the_poses_found_in_their_images(tmp_path: Path, name: str) -> None:
    max_tilt_deg, max_yaw_deg, max_focal = REAL[name]
    options = PhotoOptions(ground_altitude_m=229.0) if name == "garfield" else PhotoOptions()
    flight_from_photos([DATA / name / "photos"], tmp_path / "flight", options)
    rows = {Path(row["file"]).name: row for row in rows_of(tmp_path / "flight")}
    with (DATA / name / "poses.csv").open(newline="") as file:
        poses = list(csv.DictReader(file))
    assert len(rows) == len(poses)
    tilts, yaws, metres = [], [], []
    for pose in poses:
        row = rows[pose["file"]]
        roll = float(row["roll_deg"]) + float(pose["roll_deg"])  # poses.csv counts roll to the right
        tilts.append(math.hypot(roll, float(row["pitch_deg"]) - float(pose["pitch_deg"])))
        yaws.append(difference_deg(float(row["yaw_deg"]), float(pose["yaw_deg"])))
        metres.append(abs(float(row["latitude_deg"]) - float(pose["exif_latitude_deg"])) * 111_000)
        assert abs(int(row["captured_at_ns"]) - int(pose["captured_at_ns"])) < 1000
    assert np.median(tilts) < max_tilt_deg
    assert np.median(yaws) < max_yaw_deg
    assert max(metres) < 0.01
    made, found = (CameraModel.from_yaml(path / "camera.yaml") for path in (tmp_path / "flight", DATA / name))
    assert made.focal_px == pytest.approx(found.focal_px, rel=max_focal)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real flights: {DATA} is not there")
def test_real_flight_folders_open(name: str) -> None:
    flight = open_flight(DATA / name)
    items = list(flight.items())
    truth = flight.truth()
    assert len(items) == flight.frame_count > 0
    assert truth is not None
    for item in items:
        assert item.frame is not None
        assert isinstance(item.telemetry, Telemetry)
        assert truth.at(item.captured_at_ns) is not None
