"""summary.json: the figures of one replay, and the same in words."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from onboard import __version__
from onboard.replay.fixes import FixRow
from onboard.replay.score import GUESSED_M, Score, spread

_LIBRARIES = ("numpy", "opencv-python-headless", "onnxruntime", "faiss-cpu", "pymavlink", "pyproj")
_AS_GIVEN = ("model", "map", "config", "flight")  # settings and facts are not rounded; figures are
_DECIMALS = 4


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds a frame: of each stage (only frames that reached it) and of the whole step."""

    stage_ms: Mapping[str, Sequence[float]]
    frame_ms: Sequence[float]


@dataclass(frozen=True, slots=True)
class About:
    """What the replay was made with: plain mappings that go into the summary as they are."""

    flight: Mapping[str, Any]
    model: Mapping[str, Any]
    map: Mapping[str, Any]
    config: Mapping[str, Any]


def summarize(
    rows: Sequence[FixRow], score: Score, timings: Timings, mavlink: Mapping[str, Any], about: About
) -> dict[str, Any]:
    """The whole summary: plain Python values only, rounded, null where there is nothing to say."""
    refused = Counter(row.reason or "unknown" for row in rows if not row.published)
    summary = {
        "frames": score.frames,
        "fixes": score.fixes,
        "rejected": dict(sorted(refused.items(), key=lambda item: (-item[1], item[0]))),
        "availability": score.availability,
        "error_m": _spread_dict(score.errors),
        "false_fixes": score.false_fixes,
        "coverage_95": score.coverage_95,
        "stage_ms": {stage: _milliseconds(values) for stage, values in timings.stage_ms.items()},
        "frame_ms": _milliseconds(timings.frame_ms),
        "mavlink": dict(mavlink),
        "model": dict(about.model),
        "map": dict(about.map),
        "config": dict(about.config),
        "versions": versions(),
        "flight": dict(about.flight),
        "truth": score.has_truth,
        "availability_after_15s": score.availability_after_15s,
        "time_to_first_fix_s": score.time_to_first_fix_s,
        "first_fix_error_m": score.first_fix_error_m,
        "found_within_8_m": score.found_within_8_m,
        "nees_mean": score.nees_mean,
        "ate_rmse_m": score.ate_rmse_m,
        "best_guess_error_m": _spread_dict(score.best_errors),
        **{f"best_guess_within_{m}_m": (score.best_within_m or {}).get(m) for m in GUESSED_M},
        "five_guesses_within_10_m": score.five_within_10_m,
        "first_tile_covers": score.first_tile_covers,
        "five_tiles_cover": score.five_tiles_cover,
    }
    return {key: plain(value, None if key in _AS_GIVEN else _DECIMALS) for key, value in summary.items()}


def versions() -> dict[str, str]:
    """Of the program and of the libraries that its figures depend on."""
    found = {"pilotage": __version__, "python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue  # an aircraft may carry its own build under another name
    return found


def write_summary(summary: Mapping[str, Any], path: Path) -> None:
    """As JSON, beside and then renamed."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def verdict(summary: Mapping[str, Any]) -> tuple[str, str]:
    """(tone, sentence): tone is good, warn or bad; the sentence is the one that matters most."""
    frames, fixes, false_fixes, errors = (summary[k] for k in ("frames", "fixes", "false_fixes", "error_m"))
    if not frames:
        return "bad", "The flight holds no frames."
    if not fixes:
        return "bad", f"No fix: none of {_count(frames, 'frame')} was placed on the map."
    if not summary["truth"]:
        return "warn", f"{_count(fixes, 'fix')} published, but the flight holds no truth to check them against."
    if false_fixes:
        return "bad", f"{_count(false_fixes, 'false fix')}: published, and more than 30 m wrong."
    share, when = availability_words(summary)
    coverage = summary["coverage_95"]
    tone = "good" if share >= 0.8 and errors["median"] <= 10 and (coverage is None or coverage >= 0.8) else "warn"
    return tone, f"Found itself to {errors['median']:.1f} m in {percent(share)} of the frames{when}, with no false fix."


def is_independent(summary: Mapping[str, Any]) -> bool:
    """Whether every frame stood alone, so that no time was needed to find the first fix."""
    return bool(summary["flight"].get("independent"))


def availability_words(summary: Mapping[str, Any]) -> tuple[float, str]:
    """(share of frames with a fix, of which frames): of those after the first 15 s, where that means anything."""
    late = summary["availability_after_15s"]
    if late is None or is_independent(summary):
        return summary["availability"], ""
    return late, " after the first 15 s"


def in_words(summary: Mapping[str, Any], report_path: Path | str) -> list[str]:
    """How it went, line by line, in plain words; the last line says where the report is."""
    lines = [verdict(summary)[1]]
    frames, fixes = summary["frames"], summary["fixes"]
    line = f"Frames: {frames}, of which {fixes} gave a fix"
    if frames:
        line += f" ({percent(summary['availability'])}"
        share, when = availability_words(summary)
        line += f"; {percent(share)}{when})" if when else ")"
    if summary["time_to_first_fix_s"] is not None and not is_independent(summary):
        line += f"; the first after {summary['time_to_first_fix_s']:.1f} s"
    lines.append(line + ".")
    if summary["rejected"]:
        lines.append("No fix because: " + ", ".join(f"{k} {n}" for k, n in summary["rejected"].items()) + ".")
    lines += _error_words(summary)
    if summary["frame_ms"] is not None:
        lines.append(
            f"Time from frame to answer: median {summary['frame_ms']['median']:.0f} ms, "
            f"95 % within {summary['frame_ms']['p95']:.0f} ms."
        )
    if (words := mavlink_words(summary["mavlink"])) is not None:
        lines.append(words)
    return [*lines, f"Report: {report_path}"]


def _error_words(summary: Mapping[str, Any]) -> list[str]:
    errors = summary["error_m"]
    if not summary["truth"]:
        return ["The flight holds no truth, so nothing here says whether the fixes are right."]
    if errors is None:
        return []
    lines = [
        f"Error: median {errors['median']:.1f} m, 95 % within {errors['p95']:.1f} m, worst {errors['max']:.1f} m; "
        f"{summary['found_within_8_m']} of {_count(summary['frames'], 'frame')} found within 8 m."
    ]
    if summary["false_fixes"]:
        lines.append(
            f"FALSE FIXES: {summary['false_fixes']} (published, more than 30 m wrong). Do not fly this set-up."
        )
    else:
        lines.append("False fixes (published, more than 30 m wrong): none.")
    if summary["coverage_95"] is not None:
        share = summary["coverage_95"]
        judged = "" if share >= 0.9 else " - it claims to be surer than it is"
        lines.append(f"The stated 95 % ellipse holds {percent(share)} of the errors{judged}.")
    return lines


def mavlink_words(mavlink: Mapping[str, Any]) -> str | None:
    """What went over the link; None without one."""
    sent, received = mavlink.get("sent"), mavlink.get("received")
    if sent is None:
        return None
    words = f"MAVLink: {_count(sent, 'message')} sent"
    if received is None:
        return words + "; nobody counted what arrived."
    words += f", {received} received"
    if received < sent:
        words += f": {sent - received} LOST"
    check = mavlink.get("verified")
    if check is not None:
        faults = [f"{check[key]} {key}" for key in ("missing", "unexpected", "differing") if check[key]]
        if faults:
            words += f"; NOT what fixes.csv says: {', '.join(faults)}, {check['matched']} right"
        else:
            words += f"; all {check['matched']} fixes decode to fixes.csv"
    return words + "."


def _milliseconds(values: Sequence[float]) -> dict[str, float] | None:
    found = spread(np.asarray(values, dtype=float))
    return None if found is None else {"median": found.median, "p95": found.p95}


def _spread_dict(found: Any) -> dict[str, float] | None:
    return None if found is None else dataclasses.asdict(found)


def plain(value: Any, decimals: int | None) -> Any:
    """Python's own types; floats rounded where `decimals` says so; nan and inf become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item, decimals) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist(), decimals)
    if isinstance(value, (list, tuple)):
        return [plain(item, decimals) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item(), decimals)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if decimals is None else round(value, decimals)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def percent(share: float) -> str:
    """Never rounded up to 100 % nor down to 0 %."""
    percent = 100.0 * share
    if 99.5 <= percent < 100.0 or 0.0 < percent < 0.5:
        return f"{percent:.1f} %" if 0.05 <= percent <= 99.949 else ("over 99.9 %" if percent > 50 else "under 0.1 %")
    return f"{percent:.0f} %"


def _count(n: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("x") else "s")
    return f"{n} {noun if n == 1 else plural}"
