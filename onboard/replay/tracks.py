"""The tracks of a replay for other people's tools: TUM for evo, KML for Google Earth.

TUM lines are `seconds x y z qx qy qz qw`: east and north in metres about the map's anchor, z 0, since errors are
judged in the plane. The attitude is the heading measured on the map, no rotation where none was; truth has none.
Seconds carry all nine digits; a reader that makes a float of them keeps a quarter of a microsecond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from onboard.errors import PilotageError
from onboard.frames import MapFrame
from onboard.replay.fixes import FixRow
from onboard.replay.mapview import Tracks
from onboard.replay.score import FALSE_FIX_M

_KML = "http://www.opengis.net/kml/2.2"
# KML's colours are alpha, blue, green, red.
_STYLES = {"truth": ("ffffffff", 5), "estimate": ("ff1a7aff", 3), "wrong": ("ff2d2dff", 3)}


class TrackError(PilotageError):
    """A TUM file that cannot be read."""


def write_tum(path: Path, rows: Sequence[FixRow], points_enu_m: np.ndarray, with_heading: bool) -> None:
    """One line for each of `rows` whose point of (N, 2) east, north is finite."""
    lines = []
    for row, (east, north) in zip(rows, points_enu_m, strict=True):
        if not math.isfinite(east + north):
            continue
        z, w = _yaw_quaternion(row.heading_deg if with_heading else None)
        seconds, rest_ns = divmod(row.captured_at_ns, 1_000_000_000)
        lines.append(f"{seconds}.{rest_ns:09d} {east:.4f} {north:.4f} 0 0 0 {z:.6f} {w:.6f}\n")
    path.write_text("".join(lines), encoding="utf-8")


def read_tum(path: Path) -> dict[int, np.ndarray]:
    """(2,) east, north by capture time in nanoseconds, to the digit. Raises TrackError."""
    points = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            stamp, east, north, *_ = line.split()
            seconds, _, digits = stamp.partition(".")
            points[int(seconds) * 1_000_000_000 + int(f"{digits:0<9}"[:9])] = np.array([float(east), float(north)])
        except ValueError as error:
            raise TrackError(
                f"{path} line {number}", repr(line), "seconds x y z qx qy qz qw", "replay again"
            ) from error
    return points


def write_kml(path: Path, name: str, tracks: Tracks, frame: MapFrame) -> None:
    """The true and the estimated track on the ground, and a pin with a line to the truth at every false fix."""
    kml = ElementTree.Element("kml", xmlns=_KML)
    document = ElementTree.SubElement(kml, "Document")
    _text(document, "name", name)
    for style, (colour, width) in _STYLES.items():
        line = ElementTree.SubElement(ElementTree.SubElement(document, "Style", id=style), "LineStyle")
        _text(line, "color", colour)
        _text(line, "width", str(width))
    for style, points in (("truth", tracks.true_enu_m), ("estimate", tracks.published_enu_m)):
        if np.isfinite(points[:, 0]).any():
            geometry = ElementTree.SubElement(_placemark(document, style, style), "MultiGeometry")
            for run in _runs(points) if tracks.together else [points[i : i + 1] for i in _known(points)]:
                _geometry(geometry, run, frame)
    for i in np.flatnonzero(np.nan_to_num(tracks.error_m) > FALSE_FIX_M):
        pin = _placemark(document, "wrong", f"false fix, {tracks.error_m[i]:.0f} m off")
        geometry = ElementTree.SubElement(pin, "MultiGeometry")
        _geometry(geometry, tracks.published_enu_m[i : i + 1], frame)
        _geometry(geometry, np.stack([tracks.true_enu_m[i], tracks.published_enu_m[i]]), frame)
    ElementTree.indent(kml)
    ElementTree.ElementTree(kml).write(path, encoding="utf-8", xml_declaration=True)


def _yaw_quaternion(heading_deg: float | None) -> tuple[float, float]:
    """(z, w) of the turn about up from east to a heading clockwise from north; none without one."""
    half = 0.0 if heading_deg is None else math.radians(90.0 - heading_deg) / 2
    return math.sin(half), math.cos(half)


def _known(points: np.ndarray) -> list[int]:
    return [int(i) for i in np.flatnonzero(np.isfinite(points[:, 0]))]


def _runs(points: np.ndarray) -> list[np.ndarray]:
    """The pieces (n, 2) between gaps."""
    known = np.array(_known(points))
    return [points[piece] for piece in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1)]


def _placemark(document: ElementTree.Element, style: str, name: str) -> ElementTree.Element:
    placemark = ElementTree.SubElement(document, "Placemark")
    _text(placemark, "name", name)
    _text(placemark, "styleUrl", f"#{style}")
    return placemark


def _geometry(parent: ElementTree.Element, points: np.ndarray, frame: MapFrame) -> None:
    """A line, or a point where there is one only; both lie on the ground."""
    geometry = ElementTree.SubElement(parent, "LineString" if len(points) > 1 else "Point")
    if len(points) > 1:
        _text(geometry, "tessellate", "1")
    degrees = [frame.geodetic_from_enu(point) for point in points]
    _text(geometry, "coordinates", " ".join(f"{longitude:.8f},{latitude:.8f}" for latitude, longitude in degrees))


def _text(parent: ElementTree.Element, tag: str, text: str) -> None:
    # XML has no place for control characters, whatever a file may be called.
    ElementTree.SubElement(parent, tag).text = "".join(c if c.isprintable() else "?" for c in text)
