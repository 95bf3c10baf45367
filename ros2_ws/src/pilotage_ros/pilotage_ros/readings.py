"""What only a running system needs of the messages that come in; their conversions are `onboard.flight.ros`'s.

Messages are taken by their attributes: no message class is imported.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from onboard.flight.choose import PARTS

# The types that may play a part, preferred ones first: those that replay reads of a bag.
KINDS: dict[str, tuple[str, ...]] = {part: PARTS[part].kinds for part in ("image", "attitude", "height", "velocity")}


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a serialized message, read without the rest of it. A stamp of zero is none."""

    stamp_ns: int
    frame_id: str


def header_of(raw: bytes) -> Header | None:
    """The std_msgs/Header that a CDR message begins with; None where the bytes are no such message.

    An image is several megabytes, and most of them are dropped unread: this costs the same for all.
    """
    if len(raw) < 16 or raw[0] != 0 or raw[1] not in (0, 1):  # plain CDR, big or little endian
        return None
    order = "<" if raw[1] == 1 else ">"
    seconds, nanoseconds, length = struct.unpack_from(order + "iII", raw, 4)
    if length < 1 or 16 + length > len(raw):
        return None
    name = raw[16 : 16 + length - 1].decode("utf-8", "replace")
    return Header(max(0, seconds) * 1_000_000_000 + nanoseconds, name)


def gps_degrees(message: Any) -> tuple[float, float] | None:
    """(latitude, longitude) of a NavSatFix; None where it has no fix."""
    latitude, longitude = float(message.latitude), float(message.longitude)
    has_fix = message.status.status >= 0 and math.isfinite(latitude + longitude)
    return (latitude, longitude) if has_fix else None


def start_enu_m(message: Any) -> np.ndarray | None:
    """(2,) east, north of a PoseWithCovarianceStamped in the map frame; None where it is no place."""
    position = message.pose.pose.position
    found = np.array([position.x, position.y], dtype=float)
    return found if np.isfinite(found).all() else None
