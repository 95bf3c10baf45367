"""Does what the peer received say what was published? Every published row once, and nothing else."""

from __future__ import annotations

import csv
import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onboard.errors import LinkError
from onboard.frames import MapFrame
from onboard.mavlink.peer.received import ReceivedFix, read_csv

TOLERANCE_M = 0.01
# The rounding of float32 on the wire (of four numbers that ArduPilot's scale is made of), and of four decimals in
# fixes.csv. An error of the scale is one of the whole ellipse: it is held against the larger variance.
_COVARIANCE_RELATIVE, _COVARIANCE_M2 = 2.0**-22, 6e-5
_CARRY_COVARIANCE = ("ODOMETRY", "VISION_POSITION_ESTIMATE")
_COVARIANCES = ("cov_ee_m2", "cov_en_m2", "cov_nn_m2")
_NEEDED = ("captured_at_ns", "published", "latitude_deg", "longitude_deg", *_COVARIANCES)
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Verification:
    """`matched` published rows arrived as they are; `differing` ones arrived otherwise, by more than 0.01 m or float32.

    `missing` published rows never arrived; `unexpected` positions arrived that nobody published, or twice.
    `worst_m` is the largest distance over all that arrived (nan if none did, or none had a place). `problems` names
    the first few.
    """

    matched: int
    worst_m: float
    missing: int
    unexpected: int
    differing: int
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not (self.missing or self.unexpected or self.differing)


@dataclass(frozen=True, slots=True)
class _Published:
    latitude_deg: float
    longitude_deg: float
    covariance_m2: tuple[float, float, float]  # ee, en, nn


def verify(received_csv: Path | str, fixes_csv: Path | str) -> Verification:
    """Compare a listener's file with the log of the flight, by the microsecond of validity.

    LinkError where one of the files is missing or not what it should be.
    """
    published = _published(Path(fixes_csv))
    frame: MapFrame | None = None
    worst_m, matched, unexpected, differing = math.nan, 0, 0, 0
    problems: list[str] = []
    for fix in read_csv(Path(received_csv)):
        rows = published.get(fix.time_usec)
        if not rows:
            unexpected += 1
            problems.append(
                f"{fix.message} of {fix.time_usec} us {'was not published' if rows is None else 'came twice'}"
            )
            continue
        row = rows.popleft()
        frame = frame or MapFrame(row.latitude_deg, row.longitude_deg)
        distance_m = _distance_m(frame, fix, row)
        worst_m = max(worst_m, distance_m) if math.isfinite(worst_m) else distance_m
        if not distance_m <= TOLERANCE_M:  # NaN differs as well
            differing += 1
            problems.append(f"{fix.message} of {fix.time_usec} us is {distance_m:.3f} m from the published row")
        elif not _same_covariance(fix, row):
            differing += 1
            problems.append(f"{fix.message} of {fix.time_usec} us has another covariance than the published row")
        else:
            matched += 1
    missing = sorted(time_usec for time_usec, rows in published.items() for _ in rows)
    problems += [f"the row of {time_usec} us never arrived" for time_usec in missing[:_NAMED]]
    return Verification(matched, worst_m, len(missing), unexpected, differing, tuple(problems[:_NAMED]))


def _distance_m(frame: MapFrame, fix: ReceivedFix, row: _Published) -> float:
    if not (math.isfinite(fix.latitude_deg) and math.isfinite(fix.longitude_deg)):
        return math.nan
    here = frame.enu_from_geodetic(fix.latitude_deg, fix.longitude_deg)
    return float(np.linalg.norm(here - frame.enu_from_geodetic(row.latitude_deg, row.longitude_deg)))


def _same_covariance(fix: ReceivedFix, row: _Published) -> bool:
    """Only messages that carry a covariance can get it wrong; there a missing one is wrong."""
    if fix.message not in _CARRY_COVARIANCE:
        return True
    got = (fix.cov_ee_m2, fix.cov_en_m2, fix.cov_nn_m2)
    pairs = zip(got, row.covariance_m2, strict=True)
    tolerance_m2 = _COVARIANCE_M2 + _COVARIANCE_RELATIVE * max(row.covariance_m2)
    return all(abs(a - b) <= tolerance_m2 for a, b in pairs)


def _published(path: Path) -> dict[int, deque[_Published]]:
    """The published rows of fixes.csv by microsecond, in the order of the file."""
    if not path.is_file():
        raise LinkError("no file of fixes", path, "the fixes.csv of `pilotage replay`")
    rows: dict[int, deque[_Published]] = {}
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if lacking := set(_NEEDED) - set(reader.fieldnames or ()):
            raise LinkError("not a file of fixes", path, "the columns " + ", ".join(sorted(lacking)))
        for number, texts in enumerate(reader, start=2):
            if texts["published"].lower() not in ("1", "true"):
                continue
            try:
                ee, en, nn = (float(texts[name]) for name in _COVARIANCES)
                place = (float(texts["latitude_deg"]), float(texts["longitude_deg"]))
                time_usec = int(texts["captured_at_ns"]) // 1000
                rows.setdefault(time_usec, deque()).append(_Published(*place, (ee, en, nn)))
            except ValueError as error:
                raise LinkError(f"{path}, line {number}", error, "numbers in a published row") from error
    return rows
