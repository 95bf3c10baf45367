"""A finished replay, read back from its folder: what comparisons and overviews start from."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onboard.errors import PilotageError
from onboard.frames import MapFrame
from onboard.replay import outputs
from onboard.replay.fixes import FixRow, read_fixes
from onboard.replay.score import mahalanobis_squared
from onboard.replay.tracks import read_tum


class RunError(PilotageError):
    """A folder that is not the result of a replay."""


@dataclass(frozen=True)
class Run:
    """One replay's results. `error_m` (N,) and `mahalanobis2` (N,) of the published fixes, nan where not known."""

    path: Path
    summary: dict[str, Any]
    rows: list[FixRow]
    error_m: np.ndarray
    mahalanobis2: np.ndarray


def read_run(path: Path) -> Run:
    """Read a run's folder. Raises RunError, FixesError or TrackError where it is none, or a broken one."""
    summary = read_summary(path)
    if "flights" in summary:
        raise RunError(f"{path} holds many flights", None, "the folder of one flight", "name one of the folders in it")
    if "flight" not in summary:
        raise RunError(f"{path / outputs.SUMMARY} is not of a replay", None, "the key `flight`", "replay again")
    rows = read_fixes(path / outputs.FIXES)
    truth = read_tum(path / outputs.TRUTH_TUM) if (path / outputs.TRUTH_TUM).is_file() else {}
    error_m, mahalanobis2 = np.full(len(rows), math.nan), np.full(len(rows), math.nan)
    frame = _map_frame(summary)
    for i, row in enumerate(rows):
        position = row.position_enu_m(frame) if frame is not None else None
        if row.published and position is not None and row.captured_at_ns in truth:
            error = position - truth[row.captured_at_ns]
            error_m[i] = np.hypot(*error)
            if row.covariance_enu_m2 is not None:
                mahalanobis2[i] = mahalanobis_squared(error, row.covariance_enu_m2)
    return Run(path, summary, rows, error_m, mahalanobis2)


def read_summary(path: Path) -> dict[str, Any]:
    """summary.json of a run, or of an overview of many (it has the key `flights`). Raises RunError."""
    try:
        summary = json.loads((path / outputs.SUMMARY).read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(
            "no results of a replay",
            f"{path} ({error.strerror})",
            f"a folder with {outputs.SUMMARY}",
            "run: pilotage replay FLIGHT --map MAP --out FOLDER",
        ) from error
    except ValueError as error:
        raise RunError("broken summary", f"{path / outputs.SUMMARY} ({error})", "JSON", "replay again") from error
    if not isinstance(summary, dict):
        raise RunError("broken summary", path / outputs.SUMMARY, "a JSON object", "replay again")
    return summary


def _map_frame(summary: dict[str, Any]) -> MapFrame | None:
    """The frame of the run's tracks; None where the summary does not tell the map's anchor."""
    told = summary.get("map", {})
    latitude, longitude = told.get("anchor_latitude_deg"), told.get("anchor_longitude_deg")
    return None if latitude is None or longitude is None else MapFrame(float(latitude), float(longitude))
