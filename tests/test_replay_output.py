"""What a replay leaves behind: rows, figures, words, a page; scored against a truth that nobody else may read."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
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
    summary_of,
)

from onboard.config import Config
from onboard.errors import ConfigError, FlightError
from onboard.frames import BODY_FROM_CAMERA_DOWN, quaternion_from_euler
from onboard.records import Estimate, Fix, Frame, Reason, State, Step, Telemetry
from onboard.replay.drawing import ellipse_95, radius_95_m, round_steps, scale_bar_m, thin
from onboard.replay.fixes import COLUMNS, FixesError, FixesWriter, FixRow, format_row, read_fixes, row_of
from onboard.replay.gallery import Gallery
from onboard.replay.mapview import draw_map, tracks_of
from onboard.replay.outputs import OURS, OutputError, staged
from onboard.replay.report import REASON_WORDS, flatten, render_report
from onboard.replay.run import Progress, replay
from onboard.replay.score import CHI2_95, mahalanobis_squared, score
from onboard.replay.start import parse_start
from onboard.replay.summary import About, Timings, in_words, summarize


def test_a_row_is_written_in_fixed_decimals() -> None:
    numbers = 37.4900000001, -0.5, 1.0, -0.00001, 2.34567, 359.9996
    row = FixRow(1700000000500000000, "cam", "tracking", True, *numbers, "", 37.0, None)
    assert ",".join(format_row(row)) == (
        "1700000000500000000,cam,tracking,1,37.490000000,-0.500000000,1.0000,0.0000,2.3457,0.000,,37.000000000,"
    )


def test_the_columns_are_those_that_others_read() -> None:
    assert ",".join(COLUMNS) == (
        "captured_at_ns,source,state,published,latitude_deg,longitude_deg,cov_ee_m2,cov_en_m2,cov_nn_m2,"
        "heading_deg,reason,best_latitude_deg,best_longitude_deg"
    )


def test_a_refused_frame_has_a_reason_and_a_guess_but_no_position() -> None:
    row = row_of(flight_steps()[0], FRAME)
    assert (row.published, row.latitude_deg, row.cov_ee_m2, row.heading_deg) == (False, None, None, None)
    assert (row.reason, row.state) == ("weak_match", "lost")
    assert row.best_position_enu_m(FRAME) == pytest.approx([120, -100], abs=1e-5)


def test_a_heading_is_written_only_where_it_was_measured() -> None:
    assert row_of(make_step(0, (0, 0), heading_rad=-math.pi / 2), FRAME).heading_deg == pytest.approx(270)
    assert row_of(make_step(0, (0, 0)), FRAME).heading_deg is None


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = rows_of(flight_steps())
    with FixesWriter(tmp_path / "fixes.csv") as writer:
        for row in rows:
            writer.write(row)
    back = read_fixes(tmp_path / "fixes.csv")
    assert [format_row(row) for row in back] == [format_row(row) for row in rows]
    assert [p.name for p in tmp_path.iterdir()] == ["fixes.csv"]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AttributeError), FixesWriter(tmp_path / "fixes.csv") as writer:
        writer.write(None)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda text: text.replace("state", "mood", 1), lambda text: text + "x,y\n"])
def test_a_damaged_fixes_file_is_one_line_of_error(tmp_path: Path, damage) -> None:
    with FixesWriter(tmp_path / "fixes.csv") as writer:
        writer.write(rows_of(flight_steps())[5])
    (tmp_path / "fixes.csv").write_text(damage((tmp_path / "fixes.csv").read_text()))
    with pytest.raises(FixesError, match=r"fixes\.csv"):
        read_fixes(tmp_path / "fixes.csv")


def test_figures_of_known_errors_are_exact() -> None:
    errors = [1.0, 2.0, 3.0, 4.0, 40.0]
    steps = [make_step(k, (e, 0.0), np.diag([e * e / 4.0, 1.0])) for k, e in enumerate(errors)]
    steps += [make_step(5, None, reason=Reason.GATED, best_error_enu_m=(0.0, 6.0)), make_step(20, (0.0, 5.0))]
    steps[4] = make_step(4, (40.0, 0.0), np.eye(2))
    found = score(rows_of(steps), ToyTruth(), FRAME)
    assert found.errors is not None
    assert found.errors.median == pytest.approx(3.5, abs=1e-3)
    assert found.errors.max == pytest.approx(40.0, abs=1e-3)
    assert found.errors.p95 == pytest.approx(np.percentile([1, 2, 3, 4, 40, 5], 95), abs=1e-3)
    assert (found.frames, found.fixes, found.false_fixes, found.found_within_8_m) == (7, 6, 1, 5)
    assert found.availability == pytest.approx(6 / 7)
    assert found.availability_after_15s == 1.0
    # Four errors of two sigma (squared 4) lie inside; 40 and 5 sigma do not.
    assert found.coverage_95 == pytest.approx(4 / 6)
    assert found.nees_mean == pytest.approx((4 * 4 + 1600 + 25) / 6, abs=0.01)
    assert found.first_fix_error_m == pytest.approx(1.0, abs=1e-3)
    assert found.best_within_m is not None
    assert {m: found.best_within_m[m] for m in (8, 10)} == {8: 6, 10: 6}  # of 1 m one lies on the edge


@pytest.mark.parametrize(("error_m", "inside"), [(math.sqrt(CHI2_95) - 0.01, 1.0), (math.sqrt(CHI2_95) + 0.01, 0.0)])
def test_coverage_turns_at_the_edge_of_the_ellipse(error_m: float, inside: float) -> None:
    assert score(rows_of([make_step(0, (0.0, error_m))]), ToyTruth(), FRAME).coverage_95 == inside


def test_an_error_along_the_long_axis_weighs_less_than_one_across() -> None:
    covariance = np.array([[5.0, 4.0], [4.0, 5.0]])  # 9 along the diagonal, 1 across
    diagonal = np.array([1.0, 1.0]) / math.sqrt(2)
    assert mahalanobis_squared(3 * diagonal, covariance) == pytest.approx(1.0)
    assert mahalanobis_squared(3 * diagonal * [1, -1], covariance) == pytest.approx(9.0)
    assert mahalanobis_squared(diagonal, np.zeros((2, 2))) == math.inf


def test_without_truth_the_figures_of_error_are_null() -> None:
    summary = summary_of(flight_steps(), None)
    for key in ("error_m", "false_fixes", "coverage_95", "nees_mean", "found_within_8_m", "best_guess_error_m"):
        assert summary[key] is None
    assert summary["truth"] is False
    assert summary["fixes"] == 37


def test_a_frame_without_truth_is_not_scored() -> None:
    class OnlyEarly:
        def at(self, captured_at_ns: int) -> tuple[float, float] | None:
            return ToyTruth().at(captured_at_ns) if captured_at_ns < T0_NS + 2_000_000_000 else None

    found = score(rows_of([make_step(0, (1, 0)), make_step(10, (90, 0))]), OnlyEarly(), FRAME)
    assert found.errors is not None
    assert found.errors.max == pytest.approx(1.0, abs=1e-3)
    assert (found.fixes, found.false_fixes) == (2, 0)


def test_the_summary_has_the_keys_that_others_read_and_counts_every_frame() -> None:
    summary = summary_of(flight_steps())
    needed = (
        "frames fixes rejected availability error_m false_fixes coverage_95 stage_ms frame_ms mavlink model map config"
    )
    assert list(summary)[:14] == [*needed.split(), "versions"]
    assert summary["frames"] == summary["fixes"] + sum(summary["rejected"].values()) == 40
    assert summary["rejected"] == {"acquiring": 1, "no_image": 1, "weak_match": 1}
    assert summary["error_m"] == {"median": 1.0, "p95": 1.0, "max": 1.0}
    assert summary["stage_ms"]["embed"] == {"median": 15.0, "p95": 19.5}
    assert summary["time_to_first_fix_s"] == 1.5
    assert summary["config"]["track"]["acquire_fixes"] == Config().track.acquire_fixes
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_numbers_of_numpy_and_nan_become_plain_json() -> None:
    rows = rows_of(flight_steps())
    about = About({}, {"a": np.float32(0.5), "b": math.nan}, {"c": np.arange(2)}, {"tiny": 1e-7})
    summary = summarize(rows, score(rows, None, FRAME), Timings({}, []), {"sent": np.int64(3)}, about)
    assert (summary["model"], summary["map"], summary["mavlink"]) == ({"a": 0.5, "b": None}, {"c": [0, 1]}, {"sent": 3})
    assert summary["config"] == {"tiny": 1e-7}
    assert summary["frame_ms"] is None


def test_words_of_a_good_flight_say_how_good() -> None:
    words = "\n".join(in_words(summary_of(flight_steps()), "out/report.html"))
    assert "Found itself to 1.0 m in 100 % of the frames after the first 15 s, with no false fix." in words
    assert "none" in words
    assert words.endswith("Report: out/report.html")
    assert "weak_match 1" in words


def test_words_of_independent_frames_count_them_all() -> None:
    summary = summary_of(flight_steps())
    summary["flight"]["independent"] = True
    words = "\n".join(in_words(summary, "r"))
    assert "in 92 % of the frames, with no false fix" in words
    assert "first" not in words


def test_words_of_a_flight_with_a_false_fix_say_so_first() -> None:
    summary = summary_of([*flight_steps(), make_step(21, (50.0, 0.0))])
    words = in_words(summary, "report.html")
    assert words[0].startswith("1 false fix")
    assert any("Do not fly" in line for line in words)


def test_words_of_a_flight_without_truth_do_not_praise_it() -> None:
    words = "\n".join(in_words(summary_of(flight_steps(), None), "report.html"))
    assert "no truth" in words
    assert "Found itself" not in words
    assert "Error" not in words


def test_words_of_a_flight_without_a_fix() -> None:
    words = in_words(summary_of(flight_steps()[:3]), "report.html")
    assert words[0] == "No fix: none of 3 frames was placed on the map."


def test_nearly_all_is_not_called_all() -> None:
    steps = [make_step(k / 100, (1.0, 0.0)) for k in range(999)] + [make_step(10, None, reason=Reason.GATED)]
    assert "(99.9 %)" in "\n".join(in_words(summary_of(steps), "r"))


def test_lost_messages_are_told() -> None:
    summary = summary_of(flight_steps())
    summary["mavlink"] = {
        "sent": 10,
        "received": 9,
        "verified": {"matched": 9, "missing": 1, "unexpected": 0, "differing": 0},
    }
    words = "\n".join(in_words(summary, "r"))
    assert "1 LOST" in words
    assert "1 missing" in words


@pytest.mark.parametrize("bearing_deg", [0.0, 30.0, 90.0, 135.0])
def test_an_ellipse_points_where_the_covariance_does(bearing_deg: float) -> None:
    """Sigma 4 m along a bearing (clockwise from north), 1 m across, drawn at 2 px a metre."""
    bearing = math.radians(bearing_deg)
    along, across = np.array([math.sin(bearing), math.cos(bearing)]), np.array([math.cos(bearing), -math.sin(bearing)])
    covariance = 16 * np.outer(along, along) + np.outer(across, across)
    ellipse = ellipse_95(covariance, 2.0)
    assert ellipse.semi_major_px == pytest.approx(2 * 4 * math.sqrt(CHI2_95))
    assert ellipse.semi_minor_px == pytest.approx(2 * 1 * math.sqrt(CHI2_95))
    assert radius_95_m(covariance) == pytest.approx(4 * math.sqrt(CHI2_95))
    turn = math.radians(ellipse.rotation_deg)
    drawn = np.array([math.cos(turn), -math.sin(turn)])  # SVG y points down: east, north of the major axis
    assert abs(float(drawn @ along)) == pytest.approx(1.0)


def test_the_map_draws_fixes_and_ellipses_to_scale() -> None:
    covariance = np.diag([9.0, 100.0])
    steps = [make_step(k / 2, (1.0, 0.0), covariance) for k in range(40)]
    rows = rows_of(steps)
    tracks = tracks_of(rows, score(rows, ToyTruth(), FRAME), FRAME)
    svg, where_px = draw_map(REGION, tracks)
    root = ElementTree.fromstring(svg)
    ellipses, fixes = root.findall("ellipse"), root.findall("circle[@class='fix']")
    assert len(fixes) == 40
    # The flight goes 97.5 m north: that sets the scale.
    flown_px = float(fixes[0].get("cy")) - float(fixes[-1].get("cy"))
    pixels_per_metre = flown_px / 97.5
    assert float(ellipses[0].get("rx")) == pytest.approx(10 * math.sqrt(CHI2_95) * pixels_per_metre, rel=0.01)
    assert float(ellipses[0].get("ry")) == pytest.approx(3 * math.sqrt(CHI2_95) * pixels_per_metre, rel=0.01)
    assert float(ellipses[0].get("cx")) == pytest.approx(where_px[0][0], abs=0.1)
    assert abs(float(re.match(r"rotate\((\S+)", ellipses[0].get("transform"))[1])) == pytest.approx(90.0)


class _Page(HTMLParser):
    """Collects what a page would load, and whether its tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "data", "action")]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def render(steps: list[Step], truth: ToyTruth | None = ToyTruth()) -> str:
    rows = rows_of(steps)
    return render_report(summary_of(steps, truth), rows, score(rows, truth, FRAME), REGION, [])


@pytest.mark.parametrize("truth", [ToyTruth(), None])
def test_the_page_loads_nothing_from_anywhere(truth: ToyTruth | None) -> None:
    text = render(flight_steps(), truth)
    page = _Page(text)
    assert page.open == []
    assert page.loads
    assert all(load.startswith("data:image/jpeg;base64,") for load in page.loads)
    assert re.findall(r"https?://|url\(|@import|<link", text) == []
    assert len(text) < 4_000_000


def test_the_page_says_the_verdict_and_each_reason() -> None:
    text = render(flight_steps())
    assert "Found itself to 1.0 m" in text
    assert REASON_WORDS[Reason.WEAK_MATCH] in text
    assert text.count('class="err"') == 37
    assert text.count('class="miss"') == 2


def test_a_false_fix_stands_out_on_the_page() -> None:
    text = render([*flight_steps(), make_step(21, (50.0, 0.0))])
    assert "1 false fix: published" in text
    assert '<circle class="wrong"' in text
    assert '<path class="wrong"' in text


def test_words_from_a_flight_cannot_break_out_of_the_page() -> None:
    steps = flight_steps()
    summary = summary_of(steps)
    summary["flight"]["name"] = "</title><script>alert(1)</script>"
    summary["rejected"] = {"</script><b>": 2}
    rows = rows_of(steps)
    text = render_report(summary, rows, score(rows, None, FRAME), REGION, [])
    assert "<script>alert" not in text
    assert "</script><b>" not in text


@pytest.mark.parametrize("steps", [[], [make_step(0, (1, 0))], flight_steps()[:1], flight_steps()[2:3]])
def test_the_page_stands_for_the_shortest_flights(steps: list[Step]) -> None:
    assert _Page(render(steps)).open == []


def test_single_photos_far_apart_in_time_are_counted_not_timed() -> None:
    text = render([make_step(3600.0 * k, (1.0, 0.0)) for k in range(8)])
    assert ">frame</text>" in text
    assert ">seconds</text>" not in text


def test_every_reason_has_words() -> None:
    assert set(REASON_WORDS) == set(Reason)


def test_replay_writes_all_and_scores_what_it_wrote(tmp_path: Path) -> None:
    steps, progress = flight_steps(), []
    flight, localizer = ToyFlight(steps), ToyLocalizer(steps)
    summary = replay(flight, localizer, REGION, tmp_path / "out", on_progress=progress.append)
    assert {p.name for p in (tmp_path / "out").iterdir()} == set(OURS) - {"received.csv"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert (summary["frames"], summary["fixes"], summary["false_fixes"]) == (40, 37, 0)
    assert summary["error_m"]["median"] == 1.0
    assert summary["frame_ms"] is not None
    assert progress[-1] == Progress(40, 40, 37, State.TRACKING)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<figcaption>laid on the ground") == 6
    assert len(page) < 4_000_000


def test_the_localizer_is_shown_nothing_but_the_item(tmp_path: Path) -> None:
    steps = flight_steps()
    localizer = ToyLocalizer(steps)
    replay(ToyFlight(steps), localizer, REGION, tmp_path / "out")  # ToyFlight.truth asserts that it is called last
    for (frame, telemetry, captured_at_ns, source), step in zip(localizer.shown, steps, strict=True):
        assert (type(frame), type(telemetry), source) == (Frame, Telemetry, "toy")
        assert captured_at_ns == step.captured_at_ns


def test_the_same_replay_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        replay(ToyFlight(flight_steps()), ToyLocalizer(flight_steps()), REGION, tmp_path / name)
    assert (tmp_path / "a" / "fixes.csv").read_bytes() == (tmp_path / "b" / "fixes.csv").read_bytes()


def test_a_flight_that_breaks_off_leaves_the_earlier_result(tmp_path: Path) -> None:
    replay(ToyFlight(flight_steps()), ToyLocalizer(flight_steps()), REGION, tmp_path / "out")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    with pytest.raises(FlightError, match="truncated"):
        replay(ToyFlight(flight_steps(), 20), ToyLocalizer(flight_steps()), REGION, tmp_path / "out")
    with pytest.raises(FlightError, match="truncated"):
        replay(ToyFlight(flight_steps(), 20), ToyLocalizer(flight_steps()), REGION, tmp_path / "other")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_other_files_in_the_folder_stay_and_stale_results_go(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "flight.mcap").write_text("mine")
    (out / "received.csv").write_text("of an earlier replay")
    (out / "fixes.csv").write_text("of an earlier replay")
    replay(ToyFlight(flight_steps()), ToyLocalizer(flight_steps()), REGION, out)
    assert (out / "flight.mcap").read_text() == "mine"
    assert not (out / "received.csv").exists()
    assert len(read_fixes(out / "fixes.csv")) == 40


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="no folder"), staged(tmp_path / "out"):
        pass
    assert (tmp_path / "out").read_text() == "a file"


def test_what_is_sent_is_received_and_is_what_the_log_says(tmp_path: Path) -> None:
    from onboard.mavlink.peer.listener_process import ListenerProcess
    from onboard.mavlink.tell.link import MavlinkLink

    steps = flight_steps()
    with ListenerProcess("udpin:127.0.0.1:0", tmp_path / "heard.csv") as peer, MavlinkLink.open(peer.peer) as link:
        link.set_origin(FRAME.anchor_latitude_deg, FRAME.anchor_longitude_deg, 0.0, FRAME)
        summary = replay(ToyFlight(steps), ToyLocalizer(steps), REGION, tmp_path / "out", link=link, listener=peer)
    told = summary["mavlink"]
    assert told["sent"] == told["received"] > 37
    assert told["sent_by_message"]["ODOMETRY"] == 37
    assert told["verified"]["matched"] == 37
    assert (told["verified"]["missing"], told["verified"]["unexpected"], told["verified"]["differing"]) == (0, 0, 0)
    assert (tmp_path / "out" / "received.csv").is_file()


def test_the_gallery_keeps_few_frames_spread_over_the_flight() -> None:
    gallery = Gallery(CAMERA, BODY_FROM_CAMERA_DOWN, REGION)
    image = REGION.seen_from(np.zeros(2), 0.0, 100.0)
    for k in range(300):
        step = make_step(k / 10, (0.0, 0.0), heading_rad=0.0)
        telemetry = Telemetry(step.captured_at_ns, quaternion_from_euler(0, 0, 0), 100.0)
        gallery.offer(Frame(step.captured_at_ns, image), telemetry, step)
        assert sum(map(len, gallery._kept.values())) < 12
    at_s = [(sample.captured_at_ns - T0_NS) / 1e9 for sample in gallery.samples()]
    assert len(at_s) == 6
    assert at_s[0] == 0.0
    assert at_s[-1] > 15.0
    assert np.diff(at_s).max() < 3 * np.diff(at_s).min()


def test_the_gallery_shows_the_map_below_the_frame() -> None:
    """The told heading is 10 degrees and the told height 8 % off; the fix knows better, and the pictures agree."""
    position, yaw_rad, height_m = np.array([20.0, -90.0]), 0.7, 100.0
    gallery = Gallery(CAMERA, BODY_FROM_CAMERA_DOWN, REGION)
    fix = Fix(T0_NS, position, np.eye(2), yaw_rad, 1.08, 0.99)
    estimate = Estimate(T0_NS, position, np.zeros(2), np.eye(4), yaw_rad, height_m, 0.99)
    telemetry = Telemetry(T0_NS, quaternion_from_euler(0, 0, yaw_rad + 0.17), height_m / 1.08)
    image = REGION.seen_from(position, yaw_rad, height_m)
    gallery.offer(Frame(T0_NS, image), telemetry, Step(T0_NS, "", State.TRACKING, estimate, None, position, fix, {}))
    sample = gallery.samples()[0]
    view, ground = (
        cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE).astype(float)
        for content in (sample.view_jpeg, sample.map_jpeg)
    )
    seen = cv2.erode((view > 0).astype(np.uint8), np.ones((9, 9))) > 0
    assert seen.mean() > 0.2
    assert np.corrcoef(view[seen], ground[seen])[0, 1] > 0.97


@pytest.mark.parametrize("text", ["", "37", "north,east", "95,10", "10,200", "nan,1", "1,2,3"])
def test_a_start_that_is_no_place_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="--start"):
        parse_start(text)


def test_a_start_is_latitude_then_longitude() -> None:
    assert parse_start("-33.5, 151.25") == (-33.5, 151.25)
    assert parse_start(None) is None


def test_small_things_of_drawing() -> None:
    assert scale_bar_m(1000.0) == 200.0
    assert scale_bar_m(37.0) == 5.0
    assert round_steps(0.0, 180.0, 10) == [0, 30, 60, 90, 120, 150, 180]
    assert thin(range(100), 4) == [0, 33, 66, 99]
    assert flatten({"a": {"b": 1.5}, "c": [1, 2]}) == [("a.b", "1.5"), ("c", "1, 2")]
