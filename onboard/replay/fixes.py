"""fixes.csv: one row a frame, in fixed decimals, so that the same replay gives the same bytes."""

from __future__ import annotations

import csv
import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from onboard.errors import PilotageError
from onboard.frames import MapFrame
from onboard.records import Step

DEGREES_DECIMALS = 9  # 0.1 mm on the ground
COVARIANCE_DECIMALS = 4
HEADING_DECIMALS = 3


class FixesError(PilotageError):
    """A fixes.csv that cannot be read."""


@dataclass(frozen=True, slots=True)
class FixRow:
    """One frame's outcome as text keeps it: geodetic degrees on WGS 84, covariance of east and north in m2.

    `latitude_deg` to `cov_nn_m2` are of the published estimate and None without one. `best_...` is the first
    guess, also when it was refused, `rivals` the next ones, (latitude_deg, longitude_deg) each. `heading_deg` is
    clockwise from north and None where it was not measured.
    """

    captured_at_ns: int
    source: str
    state: str
    published: bool
    latitude_deg: float | None
    longitude_deg: float | None
    cov_ee_m2: float | None
    cov_en_m2: float | None
    cov_nn_m2: float | None
    heading_deg: float | None
    reason: str
    best_latitude_deg: float | None
    best_longitude_deg: float | None
    rivals: tuple[tuple[float, float], ...] = ()

    @property
    def covariance_enu_m2(self) -> np.ndarray | None:
        """(2, 2) east, north; None without a published estimate."""
        if self.cov_ee_m2 is None or self.cov_en_m2 is None or self.cov_nn_m2 is None:
            return None
        return np.array([[self.cov_ee_m2, self.cov_en_m2], [self.cov_en_m2, self.cov_nn_m2]])

    def position_enu_m(self, frame: MapFrame) -> np.ndarray | None:
        """(2,) east, north of the published position; None without one."""
        return _enu(frame, self.latitude_deg, self.longitude_deg)

    def best_position_enu_m(self, frame: MapFrame) -> np.ndarray | None:
        """(2,) east, north of the first guess; None without one."""
        return _enu(frame, self.best_latitude_deg, self.best_longitude_deg)

    def rivals_enu_m(self, frame: MapFrame) -> list[np.ndarray]:
        """(2,) east, north of each of the guesses after the first."""
        return [frame.enu_from_geodetic(*place) for place in self.rivals]


COLUMNS = tuple(field.name for field in dataclasses.fields(FixRow))
_DECIMALS = {
    **dict.fromkeys(("latitude_deg", "longitude_deg", "best_latitude_deg", "best_longitude_deg"), DEGREES_DECIMALS),
    **dict.fromkeys(("cov_ee_m2", "cov_en_m2", "cov_nn_m2"), COVARIANCE_DECIMALS),
    "heading_deg": HEADING_DECIMALS,
}


def row_of(step: Step, frame: MapFrame) -> FixRow:
    """The row of one step whose positions are in the map frame `frame`."""
    latitude = longitude = best_latitude = best_longitude = None
    cov_ee = cov_en = cov_nn = None
    if step.estimate is not None:
        latitude, longitude = frame.geodetic_from_enu(step.estimate.position_enu_m)
        covariance = step.estimate.covariance
        cov_ee, cov_en, cov_nn = float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])
    if step.best_position_enu_m is not None:
        best_latitude, best_longitude = frame.geodetic_from_enu(step.best_position_enu_m)
    return FixRow(
        step.captured_at_ns,
        step.source,
        step.state.value,
        step.published,
        latitude,
        longitude,
        cov_ee,
        cov_en,
        cov_nn,
        _heading_deg(step),
        step.reason.value if step.reason else "",
        best_latitude,
        best_longitude,
        tuple(frame.geodetic_from_enu(place) for place in step.rivals_enu_m),
    )


def format_row(row: FixRow) -> list[str]:
    """The cells of a row, in the order of `COLUMNS`; empty where there is nothing."""
    return [_cell(name, getattr(row, name)) for name in COLUMNS]


class FixesWriter:
    """Writes rows to a name beside `path`; a clean end renames it to `path`, an exception removes it."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self._file = self._partial.open("w", newline="", encoding="utf-8")
        self._csv = csv.writer(self._file, lineterminator="\n")
        self._csv.writerow(COLUMNS)

    def write(self, row: FixRow) -> None:
        self._csv.writerow(format_row(row))

    def __enter__(self) -> FixesWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None:
            os.replace(self._partial, self.path)
        else:
            self._partial.unlink(missing_ok=True)


def read_fixes(path: Path | str) -> list[FixRow]:
    """The rows of a fixes.csv. Raises FixesError for a missing file, other columns or a cell that is no number."""
    path = Path(path)
    if not path.is_file():
        raise FixesError("no fixes file", path, "the fixes.csv of a replay", "run: pilotage replay FLIGHT ...")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) not in (COLUMNS, COLUMNS[:-1]):  # files of before `rivals`
            raise FixesError("columns of fixes file", f"{path} ({reader.fieldnames})", ",".join(COLUMNS))
        rows = []
        for cells in reader:
            try:
                rows.append(_parse(cells))
            except (TypeError, ValueError) as error:
                raise FixesError(
                    "unreadable row",
                    f"{path} line {reader.line_num} ({error})",
                    "the cells of a replay",
                    "replay again",
                ) from error
    return rows


def _parse(cells: dict[str, str]) -> FixRow:
    numbers = {name: float(cells[name]) if cells[name] else None for name in _DECIMALS}
    if cells["published"] not in ("0", "1"):
        raise ValueError(f"published is {cells['published']!r}, not 0 or 1")
    return FixRow(
        captured_at_ns=int(cells["captured_at_ns"]),
        source=cells["source"],
        state=cells["state"],
        published=cells["published"] == "1",
        reason=cells["reason"],
        rivals=tuple(_place(words) for words in cells.get("rivals", "").split(";") if words),
        **numbers,
    )


def _place(words: str) -> tuple[float, float]:
    latitude, longitude = words.split(" ")
    return float(latitude), float(longitude)


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, tuple):
        return ";".join(" ".join(f"{degrees:.{DEGREES_DECIMALS}f}" for degrees in place) for place in value)
    if name not in _DECIMALS:
        return str(value)
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        return ""
    decimals = _DECIMALS[name]
    rounded = round(number, decimals)
    if name == "heading_deg":
        rounded = rounded % 360.0  # 359.9996 is written 0.000, not 360.000
    return f"{rounded + 0.0:.{decimals}f}"  # + 0.0: no "-0.0000"


def _heading_deg(step: Step) -> float | None:
    """The estimate's heading, else the frame's own; None where the map did not show it."""
    for heading_rad in (
        step.estimate.heading_rad if step.estimate is not None else math.nan,
        step.fix.heading_rad if step.fix is not None else math.nan,
    ):
        if math.isfinite(heading_rad):
            return math.degrees(heading_rad) % 360.0
    return None


def _enu(frame: MapFrame, latitude_deg: float | None, longitude_deg: float | None) -> np.ndarray | None:
    if latitude_deg is None or longitude_deg is None:
        return None
    return frame.enu_from_geodetic(latitude_deg, longitude_deg)
