"""The flight folder: camera.yaml, images, and frames.csv with one row an image.

Roll, pitch and yaw are the aerospace angles of a body whose x axis points to the top of the image and whose
z axis is the optical axis, so the mount is `BODY_FROM_CAMERA_DOWN`. An empty yaw is an unknown heading.

A folder recorded by `pilotage fly` says more, so that a replay is given the same to the last bit: mount.yaml holds
`body_from_camera` (the angles are then the vehicle's), and `EXACT_COLUMNS` hold the attitude as a quaternion
(ned_from_body, which goes before the angles), the sums of its IMU, the attitude of the gimbal that the camera hangs
on (ned_from_gimbal; the mount is then on that), and the reason of a frame without telemetry.

A row whose height_above_ground_m is empty may tell height_above_home_m instead, with home_latitude_deg and
home_longitude_deg where home is known: over a map with heights the height above ground follows (`onboard.height`).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml

from onboard.camera import CameraModel
from onboard.errors import FlightError
from onboard.flight.source import FlightItem, Truth
from onboard.frames import BODY_FROM_CAMERA_DOWN, quaternion_from_euler
from onboard.records import Frame, HeightReference, Inertia, Reason, Telemetry

COLUMNS = ("file", "captured_at_ns", "roll_deg", "pitch_deg", "yaw_deg", "height_above_ground_m")
HOME_COLUMNS = ("height_above_home_m", "home_latitude_deg", "home_longitude_deg")
TRUTH_COLUMNS = ("latitude_deg", "longitude_deg")
VELOCITY_COLUMNS = ("velocity_north_mps", "velocity_east_mps")
INERTIA_COLUMNS = ("inertia_run", "inertia_east_mps", "inertia_north_mps", "lean_east_rad", "lean_north_rad")
GIMBAL_COLUMNS = ("gimbal_w", "gimbal_x", "gimbal_y", "gimbal_z")
EXACT_COLUMNS = ("quat_w", "quat_x", "quat_y", "quat_z", *INERTIA_COLUMNS, *GIMBAL_COLUMNS, "no_telemetry")
_HEIGHT = COLUMNS[-1]
_MOUNT = "mount.yaml"
_AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION  # camera.yaml speaks of the pixels as they are stored


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of frames.csv; `latitude_deg`, `longitude_deg` are NaN where no truth is told."""

    file: str
    captured_at_ns: int
    telemetry: Telemetry | Reason
    latitude_deg: float
    longitude_deg: float


class FolderFlight:
    """A flight folder, its rows and the sizes of its images checked. Raises FlightError or CameraError."""

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self.name = self._path.resolve().name
        self.camera = CameraModel.from_yaml(self._path / "camera.yaml")
        self.body_from_camera, self._mount = _read_mount(self._path / _MOUNT)
        self._rows = _read_rows(self._path / "frames.csv")
        self._check_images()

    @property
    def frame_count(self) -> int:
        return len(self._rows)

    @property
    def facts(self) -> Mapping[str, str]:
        return {"kind": "flight folder", "image": "frames.csv", "mount": self._mount}

    def items(self) -> Iterator[FlightItem]:
        """The frames in order of capture; each image is read when it is asked for."""
        for row in self._rows:
            image = cv2.imread(str(self._path / row.file), _AS_STORED)
            frame = Frame(row.captured_at_ns, image, row.file) if image is not None else None
            yield FlightItem(row.captured_at_ns, row.file, frame, row.telemetry)

    def truth(self) -> Truth | None:
        told = [row for row in self._rows if math.isfinite(row.latitude_deg + row.longitude_deg)]
        if not told:
            return None
        return Truth(
            np.array([row.captured_at_ns for row in told], dtype=np.int64),
            np.array([row.latitude_deg for row in told]),
            np.array([row.longitude_deg for row in told]),
        )

    def _check_images(self) -> None:
        missing = [row.file for row in self._rows if not (self._path / row.file).is_file()]
        if missing:
            raise FlightError(
                f"{len(missing)} of {len(self._rows)} images of {self._path / 'frames.csv'} are missing, the first",
                missing[0],
                "every file of the table in the folder",
                "copy them there, or take their rows out",
            )
        for row in self._rows:
            size = stored_size(self._path / row.file)
            if size is not None and size != (self.camera.width, self.camera.height):
                raise FlightError(
                    f"image size of {self._path / row.file}",
                    f"{size[0]}x{size[1]}",
                    f"{self.camera.width}x{self.camera.height} as in camera.yaml",
                    "give the camera.yaml of these images, or resize it with them",
                )


def stored_size(path: Path) -> tuple[int, int] | None:
    """(width, height) of an image file from its header, unrotated; None where it is no image."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.size
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return None


def write_mount(folder: Path, body_from_camera: np.ndarray) -> None:
    """Put mount.yaml into a flight folder: `body_from_camera` (3, 3) in full."""
    rows = [[float(v) for v in row] for row in body_from_camera]
    (folder / _MOUNT).write_text(yaml.safe_dump({"body_from_camera": rows}), encoding="utf-8")


def _read_mount(path: Path) -> tuple[np.ndarray, str]:
    """(body_from_camera, where it is from in words); straight down where no file tells."""
    if not path.is_file():
        return BODY_FROM_CAMERA_DOWN, "top of the image forward, looking down"
    try:
        matrix = np.array(yaml.safe_load(path.read_text(encoding="utf-8"))["body_from_camera"], dtype=float)
    except (KeyError, TypeError, ValueError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FlightError("unreadable mount", f"{path} ({error!r})", "body_from_camera: three rows of three") from error
    if matrix.shape != (3, 3) or not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-6) or np.linalg.det(matrix) < 0:
        raise FlightError("mount", f"{path} ({matrix.tolist()})", "body_from_camera as a rotation, three rows of three")
    return matrix, _MOUNT


def _read_rows(path: Path) -> list[_Row]:
    """The rows of frames.csv in order of capture time."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            there = set(reader.fieldnames or ())
            missing = [name for name in COLUMNS if name not in there]
            if missing and not (missing == [_HEIGHT] and HOME_COLUMNS[0] in there):
                raise FlightError(f"columns missing in {path}", ", ".join(missing), ", ".join(COLUMNS), "add them")
            rows = [_row(_Cells(path, reader.line_num, cells)) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FlightError("unreadable table", f"{path} ({error})", "a CSV file in UTF-8") from error
    if not rows:
        raise FlightError("no frames", path, "one row an image", "see README, flight folder")
    return sorted(rows, key=lambda row: row.captured_at_ns)


class _Cells:
    """The cells of one row; what cannot be read is told with file, line and column."""

    def __init__(self, path: Path, line: int, cells: Mapping[str, str | None]) -> None:
        self._path, self._line, self._cells = path, line, cells

    def text(self, column: str) -> str:
        return (self._cells.get(column) or "").strip()

    def number(self, column: str) -> float:
        """The number of a cell; NaN where it is empty."""
        try:
            return float(self.text(column) or "nan")
        except ValueError:
            raise self.wrong(column, "a number, or nothing where it is not known") from None

    def whole(self, column: str) -> int:
        try:
            return int(self.text(column))
        except ValueError:
            raise self.wrong(column, "a whole number of nanoseconds") from None

    def reason(self, column: str) -> Reason:
        try:
            return Reason(self.text(column))
        except ValueError:
            raise self.wrong(column, "a reason, or nothing") from None

    def degrees(self, columns: tuple[str, str]) -> tuple[float, float]:
        """Latitude and longitude; NaN where empty."""
        latitude, longitude = (self.number(column) for column in columns)
        if abs(latitude) > 90:
            raise self.wrong(columns[0], "degrees within 90")
        if abs(longitude) > 180:
            raise self.wrong(columns[1], "degrees within 180")
        return latitude, longitude

    def wrong(self, column: str, expected: str) -> FlightError:
        where = f"{self._path}, line {self._line}, column {column}"
        return FlightError(where, repr(self.text(column)), expected, "correct the table")


def _row(cells: _Cells) -> _Row:
    file, captured_at_ns = cells.text("file"), cells.whole("captured_at_ns")
    if not file:
        raise cells.wrong("file", "the path of an image in the folder")
    if not 0 <= captured_at_ns < 2**63:
        raise cells.wrong("captured_at_ns", "nanoseconds since 1970")
    latitude, longitude = cells.degrees(TRUTH_COLUMNS)
    return _Row(file, captured_at_ns, _telemetry(cells, captured_at_ns), latitude, longitude)


def _telemetry(cells: _Cells, captured_at_ns: int) -> Telemetry | Reason:
    """What one row says of the vehicle, or what of it is missing."""
    if cells.text("no_telemetry"):
        return cells.reason("no_telemetry")
    heading_known = cells.text("yaw_deg") != ""
    angles_deg = cells.number("roll_deg"), cells.number("pitch_deg"), cells.number("yaw_deg") if heading_known else 0.0
    height = _height(cells)
    north, east = (cells.number(column) for column in VELOCITY_COLUMNS)
    if not all(map(math.isfinite, angles_deg)):
        return Reason.BAD_TELEMETRY
    if height is None:
        return Reason.NO_HEIGHT
    roll, pitch, yaw = map(math.radians, angles_deg)
    w, x, y, z = (cells.number(column) for column in EXACT_COLUMNS[:4])
    attitude = (w, x, y, z) if math.isfinite(w + x + y + z) else quaternion_from_euler(roll, pitch, yaw)
    velocity = (north, east, 0.0) if math.isfinite(north + east) else None
    height_m, reference, home_deg = height
    inertia = _inertia(cells)
    w, x, y, z = (cells.number(column) for column in GIMBAL_COLUMNS)
    gimbal_quat = (w, x, y, z) if math.isfinite(w + x + y + z) else None
    return Telemetry(
        captured_at_ns, attitude, height_m, heading_known, velocity, inertia, reference, home_deg, gimbal_quat
    )


def _height(cells: _Cells) -> tuple[float, HeightReference, tuple[float, float] | None] | None:
    """(metres, above what, home in degrees where told); None where there is no height."""
    height_m, above_home_m = cells.number(_HEIGHT), cells.number(HOME_COLUMNS[0])
    latitude, longitude = cells.degrees(HOME_COLUMNS[1:])
    if math.isfinite(height_m):
        return height_m, HeightReference.GROUND, None
    if not math.isfinite(above_home_m):
        return None
    known = math.isfinite(latitude + longitude)
    return above_home_m, HeightReference.HOME, (latitude, longitude) if known else None


def _inertia(cells: _Cells) -> Inertia | None:
    """The IMU's sums; None where a column is empty."""
    run, east, north, lean_east, lean_north = (cells.number(column) for column in INERTIA_COLUMNS)
    if not math.isfinite(run + east + north + lean_east + lean_north):
        return None
    return Inertia(int(run), (east, north), (lean_east, lean_north))
