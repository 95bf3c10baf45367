"""What a peer received: the positions decoded back to the globe, and the sums.

Decoding uses nothing but what was on the wire: the origin of SET_GPS_GLOBAL_ORIGIN and the message's own fields. A
local message is read as the firmware that it is for reads it: ODOMETRY in LOCAL_NED is PX4's, all others ArduPilot's.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.errors import LinkError
from onboard.mavlink.tell.covariance import enu_covariance, enu_covariance_of_ardupilot
from onboard.mavlink.tell.globe import ARDUPILOT_GLOBE, PX4_GLOBE, Globe
from onboard.mavlink.tell.place import Home


@dataclass(frozen=True, slots=True)
class ReceivedFix:
    """One position as a flight controller would read it; NaN where the message does not say.

    `time_usec` is the instant that the position is valid at. Latitude and longitude of a local message are
    derived from the origin; NaN where none had come. Covariance in east, north, m2.
    """

    message: str
    time_usec: int
    latitude_deg: float
    longitude_deg: float
    x_north_m: float
    y_east_m: float
    z_down_m: float
    cov_ee_m2: float
    cov_en_m2: float
    cov_nn_m2: float
    quality: int
    reset_counter: int


@dataclass(frozen=True, slots=True)
class Received:
    """The sums of one listening: messages by name and in all, and what was lost by the gaps of the numbering.

    `bad` counts pieces that are no MAVLink message; `out_of_order` repeated or overtaken ones (still counted).
    """

    address: str
    total: int
    by_name: Mapping[str, int]
    lost: int
    out_of_order: int
    bad: int
    fixes: int
    origin: Home | None
    csv_path: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the origin in degrees and metres."""
        home = self.origin
        origin = None
        if home is not None:
            origin = {
                "latitude_deg": home.latitude_deg,
                "longitude_deg": home.longitude_deg,
                "altitude_m": home.altitude_m,
            }
        return {
            "address": self.address,
            "total": self.total,
            "by_name": dict(sorted(self.by_name.items())),
            "lost": self.lost,
            "out_of_order": self.out_of_order,
            "bad": self.bad,
            "fixes": self.fixes,
            "origin": origin,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], csv_path: Path | None = None) -> Received:
        """The inverse of `to_dict`."""
        origin = content["origin"]
        if origin is not None:
            origin = Home.at(origin["latitude_deg"], origin["longitude_deg"], origin["altitude_m"])
        sums = {name: content[name] for name in ("address", "total", "by_name", "lost", "out_of_order", "bad", "fixes")}
        return cls(**sums, origin=origin, csv_path=csv_path)


COLUMNS = tuple(field.name for field in fields(ReceivedFix))
_Local = tuple[float, float, float, float, float, float, float, float]


def decode(message: mav.MAVLink_message, home: Home | None) -> ReceivedFix | None:
    """The position that a message carries, if it is one of those that carry one."""
    kind = message.get_type()
    if kind == "ODOMETRY" and message.frame_id == mav.MAV_FRAME_LOCAL_NED:
        local = _local(message, home, PX4_GLOBE, enu_covariance(message.pose_covariance))
        return ReceivedFix(kind, message.time_usec, *local, message.quality, message.reset_counter)
    if kind == "ODOMETRY":
        local = _local(message, home, ARDUPILOT_GLOBE, enu_covariance_of_ardupilot(message.pose_covariance))
        return ReceivedFix(kind, message.time_usec, *local, message.quality, message.reset_counter)
    if kind == "VISION_POSITION_ESTIMATE":
        local = _local(message, home, ARDUPILOT_GLOBE, enu_covariance_of_ardupilot(message.covariance))
        return ReceivedFix(kind, message.usec, *local, 0, message.reset_counter)
    unknown = (math.nan,) * 6
    if kind == "GPS_INPUT":
        return ReceivedFix(kind, message.time_usec, message.lat / 1e7, message.lon / 1e7, *unknown, 0, 0)
    if kind == "GLOBAL_POSITION_SENSOR":
        valid_usec = message.time_usec - message.processing_time
        return ReceivedFix(kind, valid_usec, message.lat / 1e7, message.lon / 1e7, *unknown, 0, 0)
    return None


def row(fix: ReceivedFix) -> list[str]:
    """One CSV row in the order of `COLUMNS`: nine digits after a degree's point (0.1 mm), float32 in full."""
    texts = []
    for name, value in asdict(fix).items():
        if isinstance(value, float):
            texts.append("" if math.isnan(value) else f"{value:.9f}" if name.endswith("_deg") else f"{value:.9g}")
        else:
            texts.append(str(value))
    return texts


def read_csv(path: Path) -> Iterator[ReceivedFix]:
    """The rows that a listener wrote. LinkError for a file that is not such a one."""
    if not path.is_file():
        raise LinkError("no file of received messages", path, "the CSV of `pilotage listen`")
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise LinkError("not a file of received messages", path, "the columns " + ",".join(COLUMNS))
        for number, texts in enumerate(rows, start=2):
            try:
                numbers = {name: float(texts[name] or "nan") for name in COLUMNS[2:10]}
                yield ReceivedFix(
                    message=texts["message"],
                    time_usec=int(texts["time_usec"]),
                    quality=int(texts["quality"]),
                    reset_counter=int(texts["reset_counter"]),
                    **numbers,
                )
            except (TypeError, ValueError) as error:
                raise LinkError(f"{path}, line {number}", error, "a row of `pilotage listen`") from error


def _local(message: mav.MAVLink_message, home: Home | None, globe: Globe, covariance_enu_m2: np.ndarray) -> _Local:
    """Latitude, longitude, x, y, z and the covariance ee, en, nn of a local message."""
    north, east, down = message.x, message.y, message.z
    place = (math.nan, math.nan)
    if home is not None and math.isfinite(north) and math.isfinite(east):
        place = globe.geodetic(home.degrees, north, east)
    (ee, en), (_, nn) = covariance_enu_m2
    return (*place, north, east, down, float(ee), float(en), float(nn))
