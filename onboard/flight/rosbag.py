"""What `rosbags` has to be told and asked to read any bag: types without definitions, and how it complains."""

from __future__ import annotations

import importlib
import sqlite3
import struct
from collections.abc import Iterator

from rosbags.highlevel import AnyReaderError
from rosbags.rosbag2 import ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from onboard.flight import ros

_ALTITUDE_DEFINITION = "std_msgs/Header header\n" + "".join(
    f"float32 {name}\n" for name in ("monotonic", "amsl", "local", "relative", "terrain", "bottom_clearance")
)
_HOME_DEFINITIONS = {
    "geographic_msgs/msg/GeoPoint": "float64 latitude\nfloat64 longitude\nfloat64 altitude\n",
    ros.HOME: "std_msgs/Header header\ngeographic_msgs/GeoPoint geo\ngeometry_msgs/Point position\n"
    "geometry_msgs/Quaternion orientation\ngeometry_msgs/Vector3 approach\n",
}


def _zstd_errors() -> Iterator[type[Exception]]:
    """ZstdError of whichever library this Python's rosbags unpacks chunks with."""
    for name in ("compression.zstd", "backports.zstd", "zstandard"):
        try:
            yield importlib.import_module(name).ZstdError
        except ModuleNotFoundError:
            continue


# What the readers raise on bytes that are not what they should be, besides their own errors.
BROKEN: tuple[type[Exception], ...] = (
    AnyReaderError,
    ReaderError,
    SerdeError,
    TypesysError,
    struct.error,
    sqlite3.Error,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    MemoryError,
    AssertionError,
    RuntimeError,  # lz4's
    *_zstd_errors(),
)


def types_without_definitions() -> Typestore:
    """For bags that do not carry their definitions: those of ROS 2 itself, and two of MAVROS."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg(_ALTITUDE_DEFINITION, ros.ALTITUDE))
    for name, definition in _HOME_DEFINITIONS.items():
        store.register(get_types_from_msg(definition, name))
    return store
