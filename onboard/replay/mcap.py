"""results.mcap: what a replay found, as the ROS topics that the node would have published, for Foxglove and RViz.

Every message is stamped and logged at the capture of its frame, so that it lies beside the recorded flight's own.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from onboard.frames import MapFrame
from onboard.records import Estimate, State, Step
from onboard.replay.score import CHI2_95, Score

FIX, POSE, ODOMETRY, ELLIPSE = "/pilotage/fix", "/pilotage/pose", "/pilotage/odometry", "/pilotage/ellipse"
DEBUG_IMAGE, DIAGNOSTICS, PATH = "/pilotage/debug_image", "/diagnostics", "/pilotage/path"
TRUTH_FIX, TRUTH_PATH, ERROR = "/pilotage/truth/fix", "/pilotage/truth/path", "/pilotage/truth/error_m"
MAP_FRAME, BODY_FRAME = "map", "base_link"

_UNKNOWN_M2 = 1e6  # variance of what is not measured: a kilometre
_UNKNOWN_RAD2 = (2 * math.pi) ** 2
_FLAT_M = 0.1
_COVARIANCE_KNOWN = 3
_COLOURS = {State.TRACKING: (0.0, 0.62, 0.45), State.COASTING: (0.9, 0.62, 0.0)}
_LATEST_S = 2**31 - 1  # what builtin_interfaces/Time can hold


class ResultsBag:
    """Gathers the messages of one replay and writes them as one MCAP file."""

    def __init__(self, frame: MapFrame) -> None:
        self._frame = frame
        self._store = get_typestore(Stores.ROS2_JAZZY)
        self._gathered: list[tuple[int, str, str, bytes]] = []  # logged at, topic, type, CDR
        self._path: list[tuple[int, np.ndarray]] = []

    def add(self, step: Step) -> None:
        """What the node would publish of a step."""
        at_ns, estimate = step.captured_at_ns, step.estimate
        if estimate is not None:
            self._put(at_ns, FIX, self._fix(at_ns, *self._frame.geodetic_from_enu(estimate.position_enu_m), estimate))
            self._put(at_ns, POSE, self._pose_stamped(at_ns, estimate))
            if np.isfinite(estimate.velocity_enu_mps).all():  # none of frames that stand alone
                self._put(at_ns, ODOMETRY, self._odometry(at_ns, estimate))
            self._path.append((at_ns, estimate.position_enu_m))
        self._put(at_ns, ELLIPSE, self._ellipse(at_ns, step))
        self._put(at_ns, DIAGNOSTICS, self._diagnostics(at_ns, step))

    def add_picture(self, captured_at_ns: int, jpeg: bytes) -> None:
        """A debug image."""
        header, data = self._header(captured_at_ns, ""), np.frombuffer(jpeg, np.uint8)
        self._put(captured_at_ns, DEBUG_IMAGE, self._new("sensor_msgs/CompressedImage", header, "jpeg", data))

    def add_truth(self, times_ns: Sequence[int], score: Score) -> None:
        """Where the vehicle really was, and the errors; one entry of `score`'s arrays for each time."""
        points = []
        for at_ns, point, error_m in zip(times_ns, score.truth_enu_m, score.error_m, strict=True):
            if np.isfinite(point).all():
                self._put(at_ns, TRUTH_FIX, self._fix(at_ns, *self._frame.geodetic_from_enu(point), None))
                points.append((at_ns, point))
            if math.isfinite(error_m):
                self._put(at_ns, ERROR, self._new("std_msgs/Float64", float(error_m)))
        if points:
            self._put(points[0][0], TRUTH_PATH, self._line(points))

    def write(self, path: Path) -> None:
        """Write all in order of time; a folder beside `path` holds it until it is whole."""
        if self._path:
            self._put(self._path[0][0], PATH, self._line(self._path))
            self._path = []
        folder = path.with_name(f".{path.name}.partial")
        shutil.rmtree(folder, ignore_errors=True)
        writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        try:
            with writer:
                connections: dict[str, Any] = {}
                for at_ns, topic, kind, raw in sorted(self._gathered, key=lambda entry: entry[0]):
                    if topic not in connections:
                        connections[topic] = writer.add_connection(topic, kind, typestore=self._store)
                    writer.write(connections[topic], at_ns, raw)
            os.replace(next(folder.glob("*.mcap")), path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _put(self, at_ns: int, topic: str, message: Any) -> None:
        kind = message.__msgtype__
        self._gathered.append((at_ns, topic, kind, bytes(self._store.serialize_cdr(message, kind))))

    def _new(self, kind: str, *fields: Any) -> Any:
        return self._store.types[kind.replace("/", "/msg/")](*fields)

    def _header(self, at_ns: int, frame_id: str) -> Any:
        seconds, rest_ns = divmod(at_ns, 1_000_000_000)
        stamp = self._new("builtin_interfaces/Time", min(seconds, _LATEST_S), rest_ns)
        return self._new("std_msgs/Header", stamp, frame_id)

    def _fix(self, at_ns: int, latitude_deg: float, longitude_deg: float, estimate: Estimate | None) -> Any:
        covariance = np.zeros(9)
        if estimate is not None:
            covariance[[0, 1, 3, 4]] = estimate.covariance[:2, :2].ravel()
            covariance[8] = _UNKNOWN_M2
        known = 0 if estimate is None else _COVARIANCE_KNOWN
        status, header = self._new("sensor_msgs/NavSatStatus", 0, 0), self._header(at_ns, BODY_FRAME)
        place = header, status, latitude_deg, longitude_deg, math.nan  # no altitude, as NavSatFix wants it said
        return self._new("sensor_msgs/NavSatFix", *place, covariance, known)

    def _pose(self, estimate: Estimate) -> Any:
        """In the map, at the ground's height; heading as measured, else none."""
        known = math.isfinite(estimate.heading_rad)
        half = (math.pi / 2 - estimate.heading_rad) / 2 if known else 0.0
        covariance = np.diag([0.0, 0.0, _UNKNOWN_M2, _UNKNOWN_RAD2, _UNKNOWN_RAD2, _UNKNOWN_RAD2])
        covariance[:2, :2] = estimate.covariance[:2, :2]
        pose = self._at(estimate.position_enu_m, self._turn(half))
        return self._new("geometry_msgs/PoseWithCovariance", pose, covariance.ravel())

    def _pose_stamped(self, at_ns: int, estimate: Estimate) -> Any:
        header = self._header(at_ns, MAP_FRAME)
        return self._new("geometry_msgs/PoseWithCovarianceStamped", header, self._pose(estimate))

    def _odometry(self, at_ns: int, estimate: Estimate) -> Any:
        """As `_pose`; the twist is told in the child frame, so it is turned by the pose's own heading."""
        heading = estimate.heading_rad if math.isfinite(estimate.heading_rad) else math.pi / 2
        sin, cos = math.sin(heading), math.cos(heading)
        body_from_enu = np.array([[sin, cos], [-cos, sin]])  # forward, left of east, north
        covariance = np.diag([0.0, 0.0, _UNKNOWN_M2, _UNKNOWN_RAD2, _UNKNOWN_RAD2, _UNKNOWN_RAD2])
        covariance[:2, :2] = body_from_enu @ estimate.covariance[2:, 2:] @ body_from_enu.T
        forward, left = (float(v) for v in body_from_enu @ estimate.velocity_enu_mps)
        twist = self._new("geometry_msgs/Twist", self._vector(forward, left, 0.0), self._vector(0.0, 0.0, 0.0))
        told = self._new("geometry_msgs/TwistWithCovariance", twist, covariance.ravel())
        return self._new("nav_msgs/Odometry", self._header(at_ns, MAP_FRAME), BODY_FRAME, self._pose(estimate), told)

    def _ellipse(self, at_ns: int, step: Step) -> Any:
        """The 95 % ellipse, flat on the ground; a step without an estimate takes it away."""
        marker: Any = self._store.types["visualization_msgs/msg/Marker"]
        east_north, turn, axes, colour = np.zeros(2), 0.0, (1.0, 1.0), (0.0, 0.0, 0.0)
        if step.estimate is not None:
            values, vectors = np.linalg.eigh(step.estimate.covariance[:2, :2])
            minor, major = (2 * math.sqrt(max(float(v), 0.0) * CHI2_95) for v in values)
            east_north, turn, axes = step.estimate.position_enu_m, math.atan2(*vectors[::-1, 1]), (major, minor)
            colour = _COLOURS.get(step.state, colour)
        return self._new(
            "visualization_msgs/Marker",
            self._header(at_ns, MAP_FRAME),
            "pilotage",
            0,
            marker.CYLINDER,
            marker.DELETE if step.estimate is None else marker.ADD,
            self._at(east_north, self._turn(turn / 2)),
            self._vector(*axes, _FLAT_M),
            self._new("std_msgs/ColorRGBA", *colour, 0.4),
            self._new("builtin_interfaces/Duration", 0, 0),
            False,
            [],
            [],
            "",
            self._new("sensor_msgs/CompressedImage", self._header(at_ns, ""), "", np.zeros(0, np.uint8)),
            [],
            "",
            "",
            self._new("visualization_msgs/MeshFile", "", np.zeros(0, np.uint8)),
            False,
        )

    def _diagnostics(self, at_ns: int, step: Step) -> Any:
        """OK where a fix was published, WARN where not; state, reason and the fix's evidence as values."""
        reason = step.reason.value if step.reason is not None else ""
        values = {"state": step.state.value, "reason": reason, "source": step.source, "detail": step.detail}
        if step.fix is not None:
            values["probability_right"] = f"{step.fix.probability_right:.6f}"
            values |= {key: f"{value:.4f}" for key, value in step.fix.evidence.items()}
        told = [self._new("diagnostic_msgs/KeyValue", key, value) for key, value in values.items() if value]
        words = step.state.value + (f": {reason}" if reason else "")
        status = self._new("diagnostic_msgs/DiagnosticStatus", int(not step.published), "pilotage", words, "", told)
        return self._new("diagnostic_msgs/DiagnosticArray", self._header(at_ns, ""), [status])

    def _line(self, points: Sequence[tuple[int, np.ndarray]]) -> Any:
        poses = [
            self._new("geometry_msgs/PoseStamped", self._header(at_ns, MAP_FRAME), self._at(point, self._turn(0.0)))
            for at_ns, point in points
        ]
        return self._new("nav_msgs/Path", self._header(points[0][0], MAP_FRAME), poses)

    def _at(self, point_enu_m: np.ndarray, orientation: Any) -> Any:
        east, north = (float(v) for v in point_enu_m)
        return self._new("geometry_msgs/Pose", self._new("geometry_msgs/Point", east, north, 0.0), orientation)

    def _turn(self, half_rad: float) -> Any:
        """About up, by twice the angle."""
        return self._new("geometry_msgs/Quaternion", 0.0, 0.0, math.sin(half_rad), math.cos(half_rad))

    def _vector(self, x: float, y: float, z: float) -> Any:
        return self._new("geometry_msgs/Vector3", x, y, z)
