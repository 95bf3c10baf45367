"""What a drone photo says of itself: EXIF for place, time and lens, XMP for attitude and height.

| source | angles                                        | height above take-off | lens                            |
|--------|-----------------------------------------------|-----------------------|---------------------------------|
| DJI    | drone-dji:Gimbal{Yaw,Pitch,Roll}Degree        | RelativeAltitude      | DewarpData, CalibratedFocalLength |
| Parrot, senseFly, Pix4D | Camera:{Yaw,Pitch,Roll}      | -                     | Camera:Perspective...           |
| others | -                                             | -                     | EXIF focal length               |

A DJI gimbal turns by yaw about down, then pitch, then roll, and looks along its x axis: pitch -90 is straight
down. Pix4D's `Camera` angles are those of a body whose x axis is the top of the image: 0, 0, 0 is straight down.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from onboard.errors import FlightError
from onboard.frames import euler_from_rotation, rotation_from_euler

# The body's axes in the gimbal's (x optical, y right, z down in the image): x is the top of the image, z optical.
_GIMBAL_FROM_BODY = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
_XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\x00"
_XMP_VALUE = re.compile(r"""([\w-]+:\w+)\s*=\s*"([^"]*)\"|<([\w-]+:\w+)>([^<]*)</""")
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_MAKE, _MODEL, _DATE_TIME = 0x010F, 0x0110, 0x0132
_DATE_TIME_ORIGINAL, _SUBSEC_ORIGINAL, _OFFSET, _OFFSET_ORIGINAL = 0x9003, 0x9291, 0x9010, 0x9011
_FOCAL_MM, _FOCAL_35_MM, _PIXELS_X, _PIXELS_Y = 0x920A, 0xA405, 0xA002, 0xA003
_PLANE_X_RESOLUTION, _PLANE_UNIT = 0xA20E, 0xA210
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # FocalPlaneResolutionUnit: inch, cm, mm, um


@dataclass(frozen=True, slots=True)
class Attitude:
    """Aerospace angles of a body whose x axis points to the top of the image; `yaw_deg` None is unknown."""

    roll_deg: float
    pitch_deg: float
    yaw_deg: float | None
    source: str


@dataclass(frozen=True, slots=True)
class Lens:
    """What the tags say of the lens, each None where it says nothing.

    `original_width_px`, `original_height_px`: the size that the tags speak of (the photo may have been shrunk since).
    `pixels_per_mm` on the sensor, of the original. `tags` are XMP's own calibrations, as text.
    """

    original_width_px: int | None
    original_height_px: int | None
    focal_mm: float | None
    focal_35_mm: float | None
    pixels_per_mm: float | None
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo. `has_subsecond` tells whether its time is finer than a second, `has_zone` whether it is UTC for sure.

    `latitude_deg`, `longitude_deg`, `altitude_m` (of EXIF) and `height_above_takeoff_m` (of XMP) may be None.
    """

    path: Path
    size: tuple[int, int]
    camera: str
    captured_at_ns: int
    has_subsecond: bool
    has_zone: bool
    latitude_deg: float | None
    longitude_deg: float | None
    altitude_m: float | None
    height_above_takeoff_m: float | None
    attitude: Attitude
    lens: Lens


def read_photo(path: Path) -> Photo:
    """The tags of one photo; FlightError where it is no image or has no time."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            size, tags = image.size, image.getexif()
            exif, gps = tags.get_ifd(_EXIF_IFD), tags.get_ifd(_GPS_IFD)
            xmp = parse_xmp(_xmp_bytes(image))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FlightError(
            "unreadable photo", f"{path} ({error})", "a JPEG", "copy it again, or leave it out"
        ) from error
    captured_at_ns, has_subsecond, has_zone = _captured_at(path, exif, tags)
    latitude, longitude = _place(gps)
    return Photo(
        path,
        size,
        " ".join(str(tags.get(tag, "")).strip("\x00 ") for tag in (_MAKE, _MODEL)).strip() or "unknown camera",
        captured_at_ns,
        has_subsecond,
        has_zone,
        latitude,
        longitude,
        _altitude(gps),
        _number(xmp.get("drone-dji:RelativeAltitude")),
        attitude_from_xmp(xmp),
        _lens(exif, xmp),
    )


def parse_xmp(raw: bytes) -> dict[str, str]:
    """The simple properties of an XMP packet, by "prefix:Name", written as attributes or as elements."""
    found = _XMP_VALUE.findall(raw.decode("utf-8", "replace"))
    return {name or element: value or text for name, value, element, text in found}


def attitude_from_xmp(xmp: Mapping[str, str]) -> Attitude:
    """The attitude that XMP tells; level with unknown heading where it tells none."""

    def number(name: str) -> float | None:
        return _number(xmp.get(name))

    yaw, pitch = number("drone-dji:GimbalYawDegree"), number("drone-dji:GimbalPitchDegree")
    if yaw is None:
        yaw = number("drone-dji:FlightYawDegree")
    if pitch is not None:
        roll = number("drone-dji:GimbalRollDegree") or 0.0
        return attitude_from_gimbal(yaw, pitch, roll)
    if yaw is not None:
        return Attitude(0.0, 0.0, yaw % 360.0, "DJI yaw, taken as level")
    yaw, pitch, roll_deg = (number(f"Camera:{name}") for name in ("Yaw", "Pitch", "Roll"))
    if pitch is not None and roll_deg is not None:
        return Attitude(roll_deg, pitch, None if yaw is None else yaw % 360.0, "XMP camera angles")
    return Attitude(0.0, 0.0, None, "none, taken as level")


def attitude_from_gimbal(yaw_deg: float | None, pitch_deg: float, roll_deg: float) -> Attitude:
    """The image's attitude of a DJI gimbal's angles (pitch -90 looks straight down)."""
    ned_from_gimbal = rotation_from_euler(*(math.radians(a) for a in (roll_deg, pitch_deg, yaw_deg or 0.0)))
    roll, pitch, yaw = (math.degrees(a) for a in euler_from_rotation(ned_from_gimbal @ _GIMBAL_FROM_BODY))
    return Attitude(roll, pitch, None if yaw_deg is None else yaw % 360.0, "DJI gimbal")


def _xmp_bytes(image: Any) -> bytes:
    """The XMP packet: from the JPEG's own segments, since not every Pillow puts it into `info`."""
    for marker, segment in getattr(image, "applist", ()):
        if marker == "APP1" and segment.startswith(_XMP_HEADER):
            return bytes(segment[len(_XMP_HEADER) :])
    packet = image.info.get("xmp", b"")
    return packet if isinstance(packet, bytes) else b""


def _captured_at(path: Path, exif: Mapping[int, Any], tags: Mapping[int, Any]) -> tuple[int, bool, bool]:
    """(ns since 1970, finer than a second, time zone known); a time without a zone is read as UTC."""
    text = str(exif.get(_DATE_TIME_ORIGINAL) or tags.get(_DATE_TIME) or "").strip("\x00 ")
    try:
        at = datetime.strptime(text, "%Y:%m:%d %H:%M:%S").replace(tzinfo=timezone.utc)
    except ValueError:
        raise FlightError(
            f"time of {path}", repr(text), "EXIF DateTimeOriginal", "take the photo as the camera wrote it"
        ) from None
    zone = re.fullmatch(
        r"([+-])(\d\d):(\d\d)", str(exif.get(_OFFSET_ORIGINAL) or exif.get(_OFFSET) or "").strip("\x00 ")
    )
    if zone:
        ahead = timedelta(hours=int(zone[2]), minutes=int(zone[3]))
        at -= ahead if zone[1] == "+" else -ahead
    digits = str(exif.get(_SUBSEC_ORIGINAL, "")).strip("\x00 ")
    fraction_ns = int(digits[:9].ljust(9, "0")) if digits.isdecimal() else 0
    since_1970 = at - datetime(1970, 1, 1, tzinfo=timezone.utc)
    seconds = since_1970.days * 86_400 + since_1970.seconds
    if seconds < 0:
        raise FlightError(f"time of {path}", text, "a time after 1970", "set the camera's clock")
    return seconds * 1_000_000_000 + fraction_ns, digits.isdecimal(), zone is not None


def _place(gps: Mapping[int, Any]) -> tuple[float | None, float | None]:
    """(latitude, longitude) in degrees; None, None where there is no fix."""
    if str(gps.get(9, "A")).strip("\x00 ") == "V":  # GPSStatus: void
        return None, None
    latitude, longitude = _degrees(gps.get(2)), _degrees(gps.get(4))
    if latitude is None or longitude is None or (latitude == 0.0 and longitude == 0.0):
        return None, None
    south, west = (str(gps.get(ref, "")).strip("\x00 ").upper() for ref in (1, 3))
    latitude, longitude = -latitude if south == "S" else latitude, -longitude if west == "W" else longitude
    return (latitude, longitude) if abs(latitude) <= 90 and abs(longitude) <= 180 else (None, None)


def _degrees(value: Any) -> float | None:
    """Degrees of EXIF's three rationals: degrees, minutes, seconds."""
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        return None
    parts = [_number(part) for part in value]
    if any(part is None for part in parts):
        return None
    return sum(part / 60**i for i, part in enumerate(parts) if part is not None)


def _altitude(gps: Mapping[int, Any]) -> float | None:
    """EXIF's altitude in metres, above the sea or whatever the camera takes for it."""
    altitude = _number(gps.get(6))
    below = gps.get(5) in (1, b"\x01")
    return -altitude if altitude is not None and below else altitude


def _lens(exif: Mapping[int, Any], xmp: Mapping[str, str]) -> Lens:
    def positive(tag: int) -> float | None:
        value = _number(exif.get(tag))
        return value if value is not None and value > 0 else None

    width, height = positive(_PIXELS_X), positive(_PIXELS_Y)
    resolution, unit = positive(_PLANE_X_RESOLUTION), _UNIT_MM.get(int(positive(_PLANE_UNIT) or 2))
    return Lens(
        int(width) if width else None,
        int(height) if height else None,
        positive(_FOCAL_MM),
        positive(_FOCAL_35_MM),
        resolution / unit if resolution and unit else None,
        {name: text for name, text in xmp.items() if name.startswith(("Camera:P", "Camera:M", "drone-dji:"))},
    )


def _number(value: Any) -> float | None:
    """A finite number of a tag or text; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None
