"""The one table of frames, and the ways between them.

| frame  | axes                                     | origin                                   |
|--------|------------------------------------------|------------------------------------------|
| camera | x right, y down in the image, z optical  | the lens                                 |
| body   | x forward, y right, z down (FRD)         | the vehicle                              |
| gimbal | x where it points, y right, z down       | the gimbal (MAVLink's gimbal device)     |
| ned    | x north, y east, z down                  | the point below the vehicle, or the home |
| enu    | x east, y north, z up: *the map frame*   | the region map's anchor                  |
| image  | row, col; centre of the first pixel 0, 0 | top left                                 |

A rotation is called `to_from_from`: `ned_from_body @ body_from_camera = ned_from_camera`.
Headings are radians clockwise from true north. The map frame is a transverse Mercator projection about
the map's anchor (scale 1): metres are metres, and grid north is true north to 0.1 degrees within 10 km.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pyproj

# A body whose x axis points to the top of the image and whose z axis is the optical axis (the mount of a
# camera that looks straight down with the top of its image forward).
BODY_FROM_CAMERA_DOWN = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
# A camera that looks where its gimbal points, the top of its image up where that is the horizon.
GIMBAL_FROM_CAMERA = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
ENU_FROM_NED = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
FLU_FROM_FRD = np.diag([1.0, -1.0, -1.0])


def rotation_from_euler(roll_rad: float, pitch_rad: float, yaw_rad: float) -> np.ndarray:
    """ned_from_body (3, 3) of the aerospace angles: R = Rz(yaw) Ry(pitch) Rx(roll)."""
    cr, sr = math.cos(roll_rad), math.sin(roll_rad)
    cp, sp = math.cos(pitch_rad), math.sin(pitch_rad)
    cy, sy = math.cos(yaw_rad), math.sin(yaw_rad)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def euler_from_rotation(ned_from_body: np.ndarray) -> tuple[float, float, float]:
    """(roll, pitch, yaw) in radians of ned_from_body; the inverse of `rotation_from_euler`."""
    r = ned_from_body
    return (
        math.atan2(r[2, 1], r[2, 2]),
        math.asin(max(-1.0, min(1.0, -r[2, 0]))),
        math.atan2(r[1, 0], r[0, 0]),
    )


def rotation_from_quaternion(quat_wxyz: tuple[float, float, float, float]) -> np.ndarray:
    """Rotation (3, 3) of a quaternion w, x, y, z; it is normalised here."""
    w, x, y, z = np.asarray(quat_wxyz, dtype=float) / np.linalg.norm(quat_wxyz)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_from_rotation(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """Unit quaternion w, x, y, z (w >= 0) of a rotation (3, 3)."""
    k = np.array(
        [
            [np.trace(rotation), 0.0, 0.0, 0.0],
            [rotation[2, 1] - rotation[1, 2], 2 * rotation[0, 0] - np.trace(rotation), 0.0, 0.0],
            [rotation[0, 2] - rotation[2, 0], rotation[1, 0] + rotation[0, 1], 0.0, 0.0],
            [rotation[1, 0] - rotation[0, 1], rotation[2, 0] + rotation[0, 2], rotation[2, 1] + rotation[1, 2], 0.0],
        ]
    )
    k[2, 2] = 2 * rotation[1, 1] - np.trace(rotation)
    k[3, 3] = 2 * rotation[2, 2] - np.trace(rotation)
    w, x, y, z = np.linalg.eigh(k)[1][:, -1]  # eigh reads the lower triangle (Bar-Itzhack 2000)
    sign = 1.0 if w >= 0 else -1.0
    return (float(sign * w), float(sign * x), float(sign * y), float(sign * z))


def quaternion_from_euler(roll_rad: float, pitch_rad: float, yaw_rad: float) -> tuple[float, float, float, float]:
    """Quaternion w, x, y, z, ned_from_body, of the aerospace angles."""
    return quaternion_from_rotation(rotation_from_euler(roll_rad, pitch_rad, yaw_rad))


def wrap_angle(angle_rad: float) -> float:
    """The same angle in (-pi, pi]."""
    return math.pi - (math.pi - angle_rad) % (2 * math.pi)


@dataclass(frozen=True)
class MapFrame:
    """The map frame: east, north metres about an anchor on WGS 84."""

    anchor_latitude_deg: float
    anchor_longitude_deg: float
    _to_enu: pyproj.Transformer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        transformer = pyproj.Transformer.from_crs("EPSG:4326", self.proj4, always_xy=True)
        object.__setattr__(self, "_to_enu", transformer)

    @property
    def proj4(self) -> str:
        """The frame as a PROJ string, for standard tools."""
        return (
            f"+proj=tmerc +lat_0={self.anchor_latitude_deg:.9f} +lon_0={self.anchor_longitude_deg:.9f}"
            " +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"
        )

    def enu_from_geodetic(self, latitude_deg: float, longitude_deg: float) -> np.ndarray:
        """(2,) east, north in metres."""
        return np.array(self._to_enu.transform(longitude_deg, latitude_deg), dtype=float)

    def geodetic_from_enu(self, position_enu_m: np.ndarray) -> tuple[float, float]:
        """(latitude, longitude) in degrees of a point (2,) east, north."""
        longitude, latitude = self._to_enu.transform(
            float(position_enu_m[0]), float(position_enu_m[1]), direction="INVERSE"
        )
        return latitude, longitude
