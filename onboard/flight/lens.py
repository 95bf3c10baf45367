"""A camera model of a photo's own tags, the best source first.

1. XMP calibrations: DJI's DewarpData (of photos not yet dewarped), Pix4D's `Camera:Perspective...` (Parrot, senseFly).
2. DJI's CalibratedFocalLength, in pixels.
3. EXIF focal length and focal-plane resolution.
4. EXIF focal length in 35 mm equivalent, as width over 36 mm (on DJI and Parrot within 4 %).

Only the first knows distortion. A calibrated camera.yaml beats them all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from onboard.camera import CameraModel
from onboard.errors import FlightError
from onboard.flight.exif import Lens, Photo

_FULL_FRAME_MM = 36.0


def camera_from_tags(photo: Photo) -> tuple[CameraModel, str]:
    """(the camera of this photo's stored pixels, where it is from in words); FlightError where no tag tells."""
    width, height = photo.size
    lens, scale = photo.lens, _scale(photo)
    centre = (width - 1) / 2, (height - 1) / 2
    for make in (_from_dewarp_data, _from_perspective):
        made = make(lens, photo.size, scale)
        if made is not None:
            return made
    calibrated_px = _numbers(lens.tags, "drone-dji:CalibratedFocalLength", 1)
    if calibrated_px is not None and calibrated_px[0] > 0 and lens.original_width_px is not None:
        return _pinhole(photo.size, calibrated_px[0] * scale, centre), "DJI's calibrated focal length, no distortion"
    by_35_px = lens.focal_35_mm / _FULL_FRAME_MM * max(width, height) if lens.focal_35_mm else None
    if lens.focal_mm and lens.pixels_per_mm:
        by_plane_px = lens.focal_mm * lens.pixels_per_mm * scale
        # Focal-plane tags are often nonsense; believed where the 35 mm equivalent does not contradict them.
        if by_35_px is None or 0.75 < by_plane_px / by_35_px < 1.33:
            return _pinhole(photo.size, by_plane_px, centre), "EXIF focal length and focal plane, no distortion"
    if by_35_px is not None:
        return _pinhole(photo.size, by_35_px, centre), "EXIF 35 mm focal length, no distortion"
    raise FlightError(
        f"no focal length in the tags of {photo.path}",
        photo.camera,
        "EXIF FocalLengthIn35mmFilm, or FocalLength with FocalPlaneXResolution",
        "give a calibration with --camera camera.yaml",
    )


def _scale(photo: Photo) -> float:
    """Stored pixels over original pixels; 1 where the original's size is not told or is of another shape."""
    (width, height), lens = photo.size, photo.lens
    if not lens.original_width_px or not lens.original_height_px:
        return 1.0
    across, down = width / lens.original_width_px, height / lens.original_height_px
    return across if abs(across / down - 1.0) < 0.01 else 1.0


def _from_dewarp_data(lens: Lens, size: tuple[int, int], scale: float) -> tuple[CameraModel, str] | None:
    """DJI: "date;fx,fy,cx,cy,k1,k2,p1,p2,k3" in original pixels, the principal point from the image's middle."""
    values = _numbers({"": lens.tags.get("drone-dji:DewarpData", "").split(";")[-1]}, "", 9)
    if values is None or lens.tags.get("drone-dji:DewarpFlag") == "1" or not (values[0] > 0 and values[1] > 0):
        return None
    fx, fy, cx, cy, k1, k2, p1, p2, k3 = values
    centre = (size[0] - 1) / 2 + cx * scale, (size[1] - 1) / 2 + cy * scale
    return _brown(size, (fx * scale, fy * scale), centre, (k1, k2, p1, p2, k3)), "DJI's dewarp data"


def _from_perspective(lens: Lens, size: tuple[int, int], scale: float) -> tuple[CameraModel, str] | None:
    """Pix4D: focal length and principal point in mm on the sensor, distortion k1, k2, k3, p1, p2."""
    if lens.tags.get("Camera:ModelType", "perspective") != "perspective" or not lens.pixels_per_mm:
        return None
    focal_mm = _numbers(lens.tags, "Camera:PerspectiveFocalLength", 1)
    centre_mm = _numbers(lens.tags, "Camera:PrincipalPoint", 2)
    distortion = _numbers(lens.tags, "Camera:PerspectiveDistortion", 5)
    if focal_mm is None or centre_mm is None or distortion is None or focal_mm[0] <= 0:
        return None
    stored_px_per_mm = lens.pixels_per_mm * scale
    k1, k2, k3, p1, p2 = distortion
    # The sensor's millimetres begin at the first pixel's corner, our pixels at its centre.
    centre = centre_mm[0] * stored_px_per_mm - 0.5, centre_mm[1] * stored_px_per_mm - 0.5
    focal_px = focal_mm[0] * stored_px_per_mm
    return _brown(size, (focal_px, focal_px), centre, (k1, k2, p1, p2, k3)), "the XMP calibration of the camera"


def _pinhole(size: tuple[int, int], focal_px: float, centre: tuple[float, float]) -> CameraModel:
    return _brown(size, (focal_px, focal_px), centre, (0.0, 0.0, 0.0, 0.0, 0.0))


def _brown(
    size: tuple[int, int], focal_px: tuple[float, float], centre: tuple[float, float], distortion: tuple[float, ...]
) -> CameraModel:
    matrix = np.array([[focal_px[0], 0.0, centre[0]], [0.0, focal_px[1], centre[1]], [0.0, 0.0, 1.0]])
    return CameraModel(size[0], size[1], matrix, distortion)


def _numbers(tags: Mapping[str, str], name: str, count: int) -> list[float] | None:
    """The `count` finite numbers of a comma-separated tag; None for anything else."""
    try:
        values = [float(part) for part in tags.get(name, "").split(",")]
    except ValueError:
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None
