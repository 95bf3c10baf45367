"""What other programs read of a replay: TUM and KML tracks, results.mcap, debug images."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from toy_replay import (
    CAMERA,
    FRAME,
    REGION,
    T0_NS,
    ToyFlight,
    ToyLocalizer,
    ToyTruth,
    flight_steps,
    make_step,
    rows_of,
    truth_enu,
)

from onboard.frames import BODY_FROM_CAMERA_DOWN, quaternion_from_euler
from onboard.match.correlate import ScoreBlock
from onboard.match.heatmap import Heatmap
from onboard.records import Fix, Frame, Reason, State, Step, Telemetry
from onboard.region.level import Level
from onboard.replay import mcap
from onboard.replay.drawing import ellipse_95
from onboard.replay.mapview import tracks_of
from onboard.replay.mcap import ResultsBag
from onboard.replay.pictures import DebugImage, Pictures, scores_at
from onboard.replay.run import replay
from onboard.replay.score import score
from onboard.replay.tracks import TrackError, read_tum, write_kml, write_tum

KML = "{http://www.opengis.net/kml/2.2}"


def replayed(tmp_path: Path, steps: list[Step]) -> Path:
    replay(ToyFlight(steps), ToyLocalizer(steps), REGION, tmp_path / "out")
    return tmp_path / "out"


def messages(path: Path) -> list[tuple[str, int, Any]]:
    """(topic, logged at, message) in order of the log."""
    with AnyReader([path]) as reader:
        return [(c.topic, at_ns, reader.deserialize(raw, c.msgtype)) for c, at_ns, raw in reader.messages()]


def test_a_tum_line_has_nine_digits_metres_and_the_heading_as_a_turn_from_east(tmp_path: Path) -> None:
    row = rows_of([make_step(0.5, (3.0, 0.0), heading_rad=0.0)])
    write_tum(tmp_path / "t", row, np.array([[1.25, -2.5]]), with_heading=True)
    half = math.sqrt(0.5)
    assert (tmp_path / "t").read_text() == f"1700000000.500000000 1.2500 -2.5000 0 0 0 {half:.6f} {half:.6f}\n"
    write_tum(tmp_path / "t", row, np.array([[1.25, -2.5]]), with_heading=False)
    assert (tmp_path / "t").read_text().endswith(" 0 0 0 0.000000 1.000000\n")


def test_stamps_come_back_from_tum_to_the_nanosecond(tmp_path: Path) -> None:
    steps = [make_step(1e-9, (0.0, 0.0)), make_step(12.3, (0.0, 0.0))]
    write_tum(tmp_path / "t", rows_of(steps), np.array([[1.0, 2.0], [3.0, 4.0]]), with_heading=False)
    points = read_tum(tmp_path / "t")
    assert list(points) == [step.captured_at_ns for step in steps]
    assert points[T0_NS + 12_300_000_000] == pytest.approx([3.0, 4.0])


def test_a_broken_tum_file_is_one_line_of_error(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("1.5 1 2\nno numbers at all\n")
    with pytest.raises(TrackError, match="line 2"):
        read_tum(tmp_path / "t")


def test_the_tum_files_give_the_rmse_of_the_summary(tmp_path: Path) -> None:
    """As evo pairs them: equal stamps, no alignment."""
    steps = [make_step(k / 2, (float(k % 7), -2.0)) for k in range(30)] + flight_steps()[:1]
    steps[-1] = make_step(40.0, None, reason=Reason.GATED)
    out = replayed(tmp_path, steps)
    truth, estimate = read_tum(out / "truth.tum"), read_tum(out / "estimate.tum")
    assert (len(truth), len(estimate)) == (31, 30)
    squared = [float(np.sum((estimate[at_ns] - truth[at_ns]) ** 2)) for at_ns in estimate]
    told = json.loads((out / "summary.json").read_text())["ate_rmse_m"]
    assert told == pytest.approx(math.sqrt(np.mean(squared)), abs=2e-4)
    assert told == pytest.approx(math.sqrt(np.mean([(k % 7) ** 2 + 4 for k in range(30)])), abs=1e-3)


def test_the_kml_shows_both_tracks_broken_at_gaps_and_pins_false_fixes(tmp_path: Path) -> None:
    steps = [make_step(k / 2, (1.0, 0.0)) for k in range(40)]
    steps[10] = make_step(5.0, None, reason=Reason.GATED)
    steps[20] = make_step(10.0, (60.0, 0.0))
    rows = rows_of(steps)
    tracks = tracks_of(rows, score(rows, ToyTruth(), FRAME), FRAME)
    write_kml(tmp_path / "t.kml", "a <flight>\x07 & more", tracks, FRAME)
    document = ElementTree.parse(tmp_path / "t.kml").getroot().find(f"{KML}Document")
    assert document is not None
    assert document.findtext(f"{KML}name") == "a <flight>? & more"
    marks = {mark.findtext(f"{KML}name"): mark for mark in document.findall(f"{KML}Placemark")}
    assert list(marks) == ["truth", "estimate", "false fix, 60 m off"]
    lines = marks["estimate"].findall(f".//{KML}LineString/{KML}coordinates")
    assert [len((line.text or "").split()) for line in lines] == [10, 29]
    (truth,) = marks["truth"].findall(f".//{KML}LineString/{KML}coordinates")
    longitude, latitude = map(float, (truth.text or "").split()[0].split(","))
    assert FRAME.enu_from_geodetic(latitude, longitude) == pytest.approx(truth_enu(T0_NS), abs=0.01)
    styles = {style.get("id") for style in document.findall(f"{KML}Style")}
    assert {mark.findtext(f"{KML}styleUrl") for mark in marks.values()} == {f"#{style}" for style in styles}


def test_photos_far_apart_are_points_not_a_line(tmp_path: Path) -> None:
    rows = rows_of([make_step(60.0 * k, (1.0, 0.0)) for k in range(5)])
    write_kml(tmp_path / "t.kml", "photos", tracks_of(rows, score(rows, ToyTruth(), FRAME), FRAME), FRAME)
    root = ElementTree.parse(tmp_path / "t.kml").getroot()
    assert len(root.findall(f".//{KML}Point")) == 10
    assert root.findall(f".//{KML}LineString") == []


def test_without_truth_there_is_no_track_of_it(tmp_path: Path) -> None:
    class Blind(ToyFlight):
        def truth(self) -> None:  # type: ignore[override]
            return None

    steps = flight_steps()
    replay(Blind(steps), ToyLocalizer(steps), REGION, tmp_path / "out")
    assert not (tmp_path / "out" / "truth.tum").exists()
    assert {topic for topic, _, _ in messages(tmp_path / "out" / "results.mcap")}.isdisjoint(
        {mcap.TRUTH_FIX, mcap.TRUTH_PATH, mcap.ERROR}
    )


def test_the_results_bag_holds_each_frame_at_its_capture(tmp_path: Path) -> None:
    steps = flight_steps()
    found = messages(replayed(tmp_path, steps) / "results.mcap")
    counts = Counter(topic for topic, _, _ in found)
    assert counts == {
        mcap.FIX: 37,
        mcap.POSE: 37,
        mcap.ODOMETRY: 37,
        mcap.ERROR: 37,
        mcap.ELLIPSE: 40,
        mcap.DIAGNOSTICS: 40,
        mcap.TRUTH_FIX: 40,
        mcap.DEBUG_IMAGE: 39,  # one frame has no place to show
        mcap.PATH: 1,
        mcap.TRUTH_PATH: 1,
    }
    for _, at_ns, message in found:
        if hasattr(message, "header"):
            assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == at_ns
    assert [at_ns for topic, at_ns, _ in found if topic == mcap.DIAGNOSTICS] == [s.captured_at_ns for s in steps]
    assert [p.name for p in (tmp_path / "out").iterdir() if p.name.startswith(".")] == []


def test_the_results_bag_tells_the_numbers_of_the_step(tmp_path: Path) -> None:
    covariance = np.array([[9.0, 4.0], [4.0, 25.0]])
    step = make_step(0.0, (3.0, 4.0), covariance, heading_rad=0.3)
    assert step.estimate is not None
    bag = ResultsBag(FRAME)
    bag.add(step)
    bag.add(make_step(1.0, None, reason=Reason.GATED, state=State.COASTING))
    rows = rows_of([step])
    bag.add_truth([T0_NS], score(rows, ToyTruth(), FRAME))
    bag.write(tmp_path / "results.mcap")
    told: dict[str, list[Any]] = {}
    for topic, _, message in messages(tmp_path / "results.mcap"):
        told.setdefault(topic, []).append(message)
    fix, truth = told[mcap.FIX][0], told[mcap.TRUTH_FIX][0]
    assert (fix.latitude, fix.longitude) == pytest.approx(FRAME.geodetic_from_enu(step.estimate.position_enu_m))
    assert fix.position_covariance[[0, 1, 3, 4]] == pytest.approx([9, 4, 4, 25])
    assert math.isnan(fix.altitude)
    assert FRAME.enu_from_geodetic(truth.latitude, truth.longitude) == pytest.approx(truth_enu(T0_NS), abs=1e-6)
    assert told[mcap.ERROR][0].data == pytest.approx(5.0, abs=1e-3)
    pose, odometry = told[mcap.POSE][0].pose, told[mcap.ODOMETRY][0]
    assert (pose.pose.position.x, pose.pose.position.y) == pytest.approx((3.0, -96.0))
    yaw_rad = 2 * math.atan2(pose.pose.orientation.z, pose.pose.orientation.w)
    assert yaw_rad == pytest.approx(math.pi / 2 - 0.3)
    linear = odometry.twist.twist.linear  # 5 m/s north, told forward and left of a nose 0.3 rad east of north
    assert (linear.x, linear.y) == pytest.approx((5 * math.cos(0.3), 5 * math.sin(0.3)))
    good, bad = (message.status[0] for message in told[mcap.DIAGNOSTICS])
    assert (good.level, good.message) == (0, "tracking")
    assert (bad.level, bad.message) == (1, "coasting: gated")
    assert {v.key: v.value for v in good.values}["score"] == "0.7000"


def test_a_frame_that_stands_alone_has_a_pose_but_no_odometry(tmp_path: Path) -> None:
    step = make_step(0.0, (0.0, 0.0))
    assert step.estimate is not None
    alone = dataclasses.replace(step.estimate, velocity_enu_mps=np.full(2, math.nan))
    bag = ResultsBag(FRAME)
    bag.add(dataclasses.replace(step, estimate=alone))
    bag.write(tmp_path / "results.mcap")
    topics = {topic for topic, _, _ in messages(tmp_path / "results.mcap")}
    assert mcap.POSE in topics
    assert mcap.ODOMETRY not in topics


def test_the_ellipse_is_that_of_the_report_and_goes_with_the_estimate(tmp_path: Path) -> None:
    covariance = np.array([[9.0, 4.0], [4.0, 25.0]])
    bag = ResultsBag(FRAME)
    bag.add(make_step(0.0, (0.0, 0.0), covariance))
    bag.add(make_step(1.0, None, reason=Reason.GATED))
    bag.write(tmp_path / "results.mcap")
    shown, gone = (m for topic, _, m in messages(tmp_path / "results.mcap") if topic == mcap.ELLIPSE)
    drawn = ellipse_95(covariance, 1.0)
    assert (shown.scale.x, shown.scale.y) == pytest.approx((2 * drawn.semi_major_px, 2 * drawn.semi_minor_px))
    turn_rad = 2 * math.atan2(shown.pose.orientation.z, shown.pose.orientation.w)
    across = math.degrees(turn_rad) + drawn.rotation_deg  # a picture's y points south
    assert math.sin(math.radians(across)) == pytest.approx(0.0, abs=1e-9)
    assert (shown.action, gone.action) == (0, 2)


def test_the_same_replay_gives_the_same_tracks_and_messages(tmp_path: Path) -> None:
    one, two = (replayed(tmp_path / name, flight_steps()) for name in "ab")
    for name in ("estimate.tum", "truth.tum", "estimate.kml"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert str(messages(one / "results.mcap")) == str(messages(two / "results.mcap"))


def heatmap_with_a_peak_at(east_m: float, north_m: float) -> Heatmap:
    """100 cells of 2 m each way, its first cell's corner at (-100, 100)."""
    empty = np.zeros((0, 0))
    level = Level(0.5, -100.0, 100.0, 2.0, 256, *(empty,) * 6)
    score_of = np.full((100, 100), 0.1, np.float32)
    row, col = (round(float(v)) for v in level.cell_of(np.array([east_m, north_m])))
    score_of[row, col] = 0.9
    return Heatmap(level, (ScoreBlock(0, 0, score_of, np.zeros((100, 100), int)),), 0.1, 0.1)


def test_scores_are_drawn_where_they_belong() -> None:
    scores = scores_at(heatmap_with_a_peak_at(31.0, -21.0), np.array([30.0, -20.0]), 0.5, 201)
    rows, cols = np.nonzero(scores == np.float32(0.9))
    assert (rows.mean() - 100) * 0.5 == pytest.approx(1.0, abs=0.3)  # 1 m south, so below the middle
    assert (cols.mean() - 100) * 0.5 == pytest.approx(1.0, abs=0.3)  # 1 m east
    assert len(rows) == pytest.approx(16, abs=9)  # a cell of 2 m at half a metre a pixel
    far = scores_at(heatmap_with_a_peak_at(0.0, 0.0), np.array([500.0, 0.0]), 0.5, 51)
    assert (far == -1.0).all()


def test_the_debug_image_shows_view_map_and_heatmap_side_by_side() -> None:
    position, yaw_rad = np.array([20.0, -90.0]), 0.7
    fix = Fix(T0_NS, position, np.eye(2), yaw_rad, 1.0, 0.99)
    step = Step(T0_NS, "", State.TRACKING, None, None, position, fix, {})
    telemetry = Telemetry(T0_NS, quaternion_from_euler(0, 0, yaw_rad), 100.0)
    drawing = DebugImage(CAMERA, BODY_FROM_CAMERA_DOWN, REGION, side_px=120)
    frame = Frame(T0_NS, REGION.seen_from(position, yaw_rad, 100.0))
    picture = drawing.draw(frame, telemetry, step, heatmap_with_a_peak_at(20.0, -90.0))
    assert picture is not None
    assert picture.shape == (120, 360, 3)
    view, ground, heat = (part.astype(float) for part in np.hsplit(picture, 3))
    seen = cv2.erode((view.sum(axis=2) > 0).astype(np.uint8), np.ones((9, 9))) > 0
    assert np.corrcoef(view[seen].ravel(), ground[seen].ravel())[0, 1] > 0.97
    brightest = np.unravel_index(int(heat.sum(axis=2).argmax()), (120, 120))
    assert np.abs(np.array(brightest) - 59.5).max() < 5
    assert drawing.draw(None, telemetry, step, None) is None
    assert drawing.draw(frame, Reason.NO_TELEMETRY, step, None) is None


def test_pictures_are_few_and_spread_over_the_flight() -> None:
    drawing = DebugImage(CAMERA, BODY_FROM_CAMERA_DOWN, REGION, side_px=32)
    pictures = Pictures(drawing, 100, limit=8)
    image = REGION.seen_from(np.zeros(2), 0.0, 100.0)
    for k in range(100):
        step = make_step(k, (0.0, 0.0), heading_rad=0.0)
        telemetry = Telemetry(step.captured_at_ns, quaternion_from_euler(0, 0, 0), 100.0)
        pictures.offer(Frame(step.captured_at_ns, image), telemetry, step, None)
    at_s = [(at_ns - T0_NS) / 1e9 for at_ns, _ in pictures.jpegs]
    assert at_s == [0, 13, 26, 39, 52, 65, 78, 91]
