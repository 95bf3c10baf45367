"""report.html: one self-contained page about one replay; it needs no network and works without scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from onboard.records import Reason, State
from onboard.replay.drawing import data_uri
from onboard.replay.fixes import FixRow
from onboard.replay.gallery import Sample
from onboard.replay.mapview import Region, draw_lenses, draw_map, tracks_of
from onboard.replay.pages import render, write_page
from onboard.replay.score import Score
from onboard.replay.summary import availability_words, is_independent, mavlink_words, percent, verdict
from onboard.replay.timeline import Timeline, draw_timeline

REASON_WORDS = {
    Reason.NO_IMAGE: "no image, or one of another size",
    Reason.BLANK_IMAGE: "blank image",
    Reason.STALE_FRAME: "frame too old",
    Reason.FROZEN_FRAME: "the camera repeats itself",
    Reason.NO_TELEMETRY: "no attitude at that time",
    Reason.NO_HEIGHT: "no height at that time",
    Reason.NO_GIMBAL: "the gimbal that the camera hangs on does not say how it stands",
    Reason.BAD_TELEMETRY: "attitude or velocity is not a number",
    Reason.HEIGHT_OUT_OF_RANGE: "too low or too high",
    Reason.TILT_TOO_LARGE: "camera tilted too far",
    Reason.VIEW_TOO_SMALL: "too little ground in view",
    Reason.OUTSIDE_MAP: "outside the map",
    Reason.ENGINE_FAULT: "the network gave no numbers",
    Reason.NO_CANDIDATE: "no likely place",
    Reason.WEAK_MATCH: "no place matched well enough",
    Reason.AMBIGUOUS: "several places matched",
    Reason.INCONSISTENT: "the stages disagree",
    Reason.GATED: "too far from where it can be",
    Reason.ACQUIRING: "still gathering evidence",
}
STATE_WORDS = {
    State.LOST: "does not know where it is",
    State.ACQUIRING: "has a guess, tells nobody yet",
    State.TRACKING: "knows, and says so",
    State.COASTING: "goes on by motion alone",
}
_MOST_EVIDENCE = 5


def write_report(
    path: Path,
    summary: Mapping[str, Any],
    rows: Sequence[FixRow],
    score: Score,
    region: Region,
    samples: Sequence[Sample],
) -> None:
    """Draw the page and write it, beside and then renamed."""
    write_page(path, render_report(summary, rows, score, region, samples))


def render_report(
    summary: Mapping[str, Any], rows: Sequence[FixRow], score: Score, region: Region, samples: Sequence[Sample]
) -> str:
    """The page as text. `rows` and `score` are of the same frames, in the same order."""
    tracks = tracks_of(rows, score, region.frame)
    map_svg, where_px = draw_map(region, tracks)
    timeline = draw_timeline(rows, tracks) if rows else None
    tone, sentence = verdict(summary)
    return render(
        "report.html.j2",
        tone=tone,
        sentence=sentence,
        summary=summary,
        figures=key_figures(summary),
        map_svg=Markup(map_svg),
        together=tracks.together,
        lenses=[(lens.title, lens.words, Markup(lens.svg)) for lens in draw_lenses(region, tracks)],
        timeline=Markup(timeline.svg) if timeline else None,
        pointer=Markup(_pointer_data(rows, score, timeline, where_px)) if timeline else None,
        states=[(s.value, STATE_WORDS[s], sum(row.state == s.value for row in rows)) for s in State],
        reasons=_reasons(summary["rejected"]),
        stages=_stages(summary),
        mavlink=mavlink_words(summary["mavlink"]),
        cards=[_card(sample, rows, score) for sample in samples],
        tables=[(name, flatten(summary[name.lower()])) for name in ("Flight", "Map", "Model", "Versions")],
        config=flatten(summary["config"]),
    )


def key_figures(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(value, unit, what it is) of the figures at the head of the page."""
    figures = []
    if (errors := summary["error_m"]) is not None:
        figures.append((f"{errors['median']:.1f}", "m", "median error"))
        figures.append((f"{errors['p95']:.1f}", "m", "95 % of errors within"))
    if summary["false_fixes"] is not None:
        figures.append((str(summary["false_fixes"]), "", "false fixes (beyond 30 m)"))
    if summary["frames"]:
        share, when = availability_words(summary)
        figures.append((percent(share).removesuffix(" %"), "%", "of frames gave a fix" + when))
    if summary["time_to_first_fix_s"] is not None and not is_independent(summary):
        figures.append((f"{summary['time_to_first_fix_s']:.1f}", "s", "to the first fix"))
    if summary["coverage_95"] is not None:
        figures.append((percent(summary["coverage_95"]).removesuffix(" %"), "%", "of errors inside the stated 95 %"))
    if summary["frame_ms"] is not None:
        figures.append((f"{summary['frame_ms']['median']:.0f}", "ms", "from frame to answer (median)"))
    return figures


def flatten(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """(dotted key, text) of a nested mapping, for a table."""
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in flatten(item, f"{prefix}.{key}" if prefix else key)]
    if isinstance(value, list):
        if any(isinstance(item, Mapping) for item in value):
            return [pair for i, item in enumerate(value) for pair in flatten(item, f"{prefix}[{i}]")]
        return [(prefix, ", ".join(_text(item) for item in value))]
    return [(prefix, _text(value))]


def _text(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _reasons(rejected: Mapping[str, int]) -> list[tuple[str, str, int, float]]:
    """(reason, in words, frames, share of the longest bar)."""
    known = {reason.value: words for reason, words in REASON_WORDS.items()}
    most = max(rejected.values(), default=1)
    return [(reason, known.get(reason, reason), n, n / most) for reason, n in rejected.items()]


def _stages(summary: Mapping[str, Any]) -> list[tuple[str, float, float, float, float]]:
    """(stage, median ms, p95 ms, and both as shares of the longest bar); the whole frame last."""
    measured = {k: v for k, v in {**summary["stage_ms"], "whole frame": summary["frame_ms"]}.items() if v is not None}
    most = max((v["p95"] for v in measured.values()), default=0.0) or 1.0
    return [(k, v["median"], v["p95"], v["median"] / most, v["p95"] / most) for k, v in measured.items()]


def _card(sample: Sample, rows: Sequence[FixRow], score: Score) -> dict[str, Any]:
    """What the template shows of a sample."""
    index = next((i for i, row in enumerate(rows) if row.captured_at_ns == sample.captured_at_ns), None)
    error, at_s, source = math.nan, 0.0, ""
    if index is not None:
        source = rows[index].source
        error = float(score.error_m[index] if sample.published else score.best_error_m[index])
        at_s = (sample.captured_at_ns - rows[0].captured_at_ns) / 1e9
    pictures = (
        ("camera", sample.camera_jpeg),
        ("laid on the ground", sample.view_jpeg),
        ("map at that place", sample.map_jpeg),
        ("both by turns", sample.overlay_jpeg),
    )
    evidence = [(key.replace("_", " "), f"{value:.3g}") for key, value in sample.evidence.items()][:_MOST_EVIDENCE]
    if sample.probability_right is not None:
        evidence.insert(0, ("right with", f"{100 * sample.probability_right:.2f} %"))
    return {
        "at": f"{at_s:.1f} s" if at_s < 86400 else f"frame {index}",
        "source": source,
        "published": sample.published,
        "error": f"{error:.1f} m off" if math.isfinite(error) else "",
        "reason": sample.reason,
        "across": f"{sample.metres_across:.0f} m across",
        "pictures": [(words, data_uri(content)) for words, content in pictures],
        "evidence": evidence,
    }


def _pointer_data(rows: Sequence[FixRow], score: Score, timeline: Timeline, where_px: np.ndarray) -> str:
    """JSON for the pointer: per frame its x in the timeline, its place on the map, and words.

    "<" is escaped, so that no text of the flight can end the script that holds it.
    """
    data = []
    for i, row in enumerate(rows):
        seconds = (row.captured_at_ns - rows[0].captured_at_ns) / 1e9
        words = [f"frame {i}" if timeline.counts_frames else f"{seconds:.1f} s", row.state]
        if row.published:
            words.append(f"{score.error_m[i]:.1f} m off" if math.isfinite(score.error_m[i]) else "fix")
        else:
            words.append("no fix: " + (row.reason or "unknown"))
        x, y = (float(v) if math.isfinite(v) else -99.0 for v in where_px[i])
        data.append([round(float(timeline.x_px[i]), 1), round(x, 1), round(y, 1), " · ".join(words)])
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
