"""The page of a replay and its pictures: true to scale, complete, and loading nothing from anywhere."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from toy_replay import CAMERA, FRAME, REGION, T0_NS, ToyTruth, flight_steps, make_step, rows_of, summary_of

from onboard.frames import BODY_FROM_CAMERA_DOWN, quaternion_from_euler
from onboard.records import Estimate, Fix, Frame, Reason, State, Step, Telemetry
from onboard.replay.drawing import ellipse_95, radius_95_m, round_steps, scale_bar_m, thin
from onboard.replay.gallery import Gallery
from onboard.replay.mapview import draw_map, tracks_of
from onboard.replay.report import REASON_WORDS, flatten, render_report
from onboard.replay.score import CHI2_95, score


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


def test_small_things_of_drawing() -> None:
    assert scale_bar_m(1000.0) == 200.0
    assert scale_bar_m(37.0) == 5.0
    assert round_steps(0.0, 180.0, 10) == [0, 30, 60, 90, 120, 150, 180]
    assert thin(range(100), 4) == [0, 33, 66, 99]
    assert flatten({"a": {"b": 1.5}, "c": [1, 2]}) == [("a.b", "1.5"), ("c", "1, 2")]
