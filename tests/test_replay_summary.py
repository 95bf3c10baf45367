"""The summary of a replay: its keys for programs, its words for people."""

from __future__ import annotations

import json
import math

import numpy as np
from toy_replay import FRAME, flight_steps, make_step, rows_of, summary_of

from onboard.config import Config
from onboard.records import Reason
from onboard.replay.score import score
from onboard.replay.summary import About, Timings, in_words, summarize


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
