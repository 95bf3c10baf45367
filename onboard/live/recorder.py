"""A flight folder written in flight: the very frames and telemetry that the localizer saw, and what it made of them.

`pilotage replay DIR` is given the same to the last bit: images are PNG, numbers are written in full. Pictures are
packed on a thread of their own behind a short queue; when that is full, a frame is left out and counted. A full disk
ends the recording with one line, never the flight. A row is written after its image, so that a cut leaves a whole
folder.

    camera.yaml mount.yaml config.yaml recording.json   what flew
    frames.csv frames/*.png                             a row a recorded frame, as `onboard.flight.folder` reads it
    fixes.csv                                           a row a step, recorded or not, as a replay writes it
"""

from __future__ import annotations

import csv
import json
import logging
import math
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
import yaml

from onboard.camera import CameraModel
from onboard.config import Config
from onboard.errors import PilotageError
from onboard.flight.folder import COLUMNS, EXACT_COLUMNS, HOME_COLUMNS, INERTIA_COLUMNS, VELOCITY_COLUMNS, write_mount
from onboard.frames import MapFrame, euler_from_rotation, rotation_from_quaternion
from onboard.live.worker import FrameItem
from onboard.records import Frame, HeightReference, Inertia, Reason, Step, Telemetry
from onboard.replay.fixes import COLUMNS as FIX_COLUMNS
from onboard.replay.fixes import format_row, row_of

_COLUMNS = (*COLUMNS, *HOME_COLUMNS, *VELOCITY_COLUMNS, *EXACT_COLUMNS)
_log = logging.getLogger(__name__)
_QUEUE = 16  # 100 MB of full HD at worst
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]  # an aircraft has more disk than time


class RecordError(PilotageError):
    """A recording that cannot be begun."""


@dataclass(frozen=True, slots=True)
class RecorderStatus:
    """`written` frames are on disk, `dropped` steps found the queue full. `stopped` says why no more is written."""

    written: int
    dropped: int
    stopped: str


class Recorder:
    """Writes `folder`, which must not hold anything yet (RecordError). Of the frames, each `every`-th is kept."""

    def __init__(
        self,
        folder: Path | str,
        camera: CameraModel,
        body_from_camera: np.ndarray,
        map_frame: MapFrame,
        *,
        config: Config = Config(),
        facts: Mapping[str, Any] | None = None,
        every: int = 1,
    ) -> None:
        self.folder, self._map_frame, self._every = Path(folder), map_frame, every
        self._offered = self._written = self._dropped = 0
        self._stopped = ""
        self._queue: queue.Queue[tuple[FrameItem, np.ndarray | None, Step] | None] = queue.Queue(_QUEUE)
        try:
            self._begin(camera, body_from_camera, config, facts or {})
        except OSError as error:
            why = f"{folder} ({error.strerror or error})"
            raise RecordError("cannot record", why, "a place that can be written", "give another --record") from error
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def offer(self, item: FrameItem, frame: Frame | None, step: Step) -> None:
        """Take a worked-off frame; never waits. A stale one leaves no image: it moved nothing, and has no place in
        a table sorted by time."""
        image = None
        if frame is not None and step.reason is not Reason.STALE_FRAME:
            image = frame.image_bgr if self._offered % self._every == 0 else None
            self._offered += 1
        if self._stopped:
            return
        try:
            self._queue.put_nowait((item, image, step))
        except queue.Full:
            self._dropped += 1

    def status(self) -> RecorderStatus:
        return RecorderStatus(self._written, self._dropped, self._stopped)

    def in_words(self) -> str:
        """One line on what is there."""
        left_out = f", {self._dropped} left out: the disk is too slow" if self._dropped else ""
        stopped = f"; it stopped: {self._stopped}" if self._stopped else ""
        return f"Recorded: {self._written} frames in {self.folder}{left_out}{stopped}"

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what waits, for twice `timeout_s` at most, and close the files."""
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            self._stopped = "closed before all was written"
        self._thread.join(timeout_s)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(
        self, camera: CameraModel, body_from_camera: np.ndarray, config: Config, facts: Mapping[str, Any]
    ) -> None:
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise RecordError("--record is there already", self.folder, "a new or an empty folder", "give another one")
        (self.folder / "frames").mkdir(parents=True, exist_ok=True)
        camera.to_yaml(self.folder / "camera.yaml")
        write_mount(self.folder, body_from_camera)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config.to_dict(), sort_keys=False), encoding="utf-8")
        (self.folder / "recording.json").write_text(json.dumps(dict(facts), indent=2) + "\n", encoding="utf-8")
        self._frames_file = _table(self.folder / "frames.csv", _COLUMNS)
        self._fixes_file = _table(self.folder / "fixes.csv", FIX_COLUMNS)

    def _run(self) -> None:
        try:
            while (entry := self._queue.get()) is not None and not self._stopped:
                self._write(*entry)
        except OSError as error:
            self._stopped = f"{error.strerror or error}"
            _log.warning("recording stopped: %s: %s", self.folder, self._stopped)
        finally:
            for file in (self._frames_file, self._fixes_file):
                try:
                    file.close()
                except OSError:  # the same full disk, met again by what was buffered
                    continue

    def _write(self, item: FrameItem, image: np.ndarray | None, step: Step) -> None:
        if image is not None:
            packed = cv2.imencode(".png", image, _PNG)[1]
            (self.folder / item.source).write_bytes(packed.tobytes())
            _append(self._frames_file, frame_row(item))
            self._written += 1
        _append(self._fixes_file, format_row(row_of(step, self._map_frame)))


def frame_row(item: FrameItem) -> list[str]:
    """The cells of frames.csv: angles for the eye, the quaternion in full; a reason where there is no telemetry."""
    told = item.telemetry
    if not isinstance(told, Telemetry):
        return [item.source, str(item.captured_at_ns), *[""] * (len(_COLUMNS) - 3), told.value]
    roll, pitch, yaw = map(math.degrees, euler_from_rotation(rotation_from_quaternion(told.attitude_quat_wxyz)))
    return [
        item.source,
        str(item.captured_at_ns),
        f"{roll:.4f}",
        f"{pitch:.4f}",
        f"{yaw:.4f}" if told.heading_known else "",
        *_height_cells(told),
        *([""] * 2 if told.velocity_ned_mps is None else [repr(float(v)) for v in told.velocity_ned_mps[:2]]),
        *(repr(float(v)) for v in told.attitude_quat_wxyz),
        *_inertia_cells(told.inertia),
        *([""] * 4 if told.gimbal_quat_wxyz is None else [repr(float(v)) for v in told.gimbal_quat_wxyz]),
        "",
    ]


def _height_cells(told: Telemetry) -> list[str]:
    height = repr(float(told.height_above_ground_m))
    if told.height_reference is HeightReference.GROUND:
        return [height, "", "", ""]
    return ["", height, *([""] * 2 if told.home_deg is None else [repr(float(v)) for v in told.home_deg])]


def _inertia_cells(inertia: Inertia | None) -> list[str]:
    if inertia is None:
        return [""] * len(INERTIA_COLUMNS)
    return [str(inertia.run), *(repr(float(v)) for v in (*inertia.velocity_enu_mps, *inertia.lean_enu_rad))]


def _table(path: Path, columns: tuple[str, ...]) -> TextIO:
    file = path.open("w", newline="", encoding="utf-8")
    _append(file, columns)
    return file


def _append(file: TextIO, cells: list[str] | tuple[str, ...]) -> None:
    """A row that is out of our hands at once: power may be cut at any time."""
    csv.writer(file, lineterminator="\n").writerow(cells)
    file.flush()
