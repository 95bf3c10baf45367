"""Geotagged drone photos become a flight folder: what their tags say, in the table that a replay reads.

The photos' GPS is truth, for scoring only. The folder is made beside its place and renamed: it is whole or absent.
"""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onboard.camera import CameraModel
from onboard.errors import CameraError, FlightError
from onboard.flight.exif import Photo, read_photo
from onboard.flight.folder import COLUMNS, TRUTH_COLUMNS
from onboard.flight.lens import camera_from_tags

_SUFFIXES = (".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class PhotoOptions:
    """What the user knows better than the tags. At most one of the two heights is given."""

    height_above_ground_m: float | None = None
    ground_altitude_m: float | None = None
    camera_yaml: Path | None = None
    skip_without_gps: bool = False
    ignore_yaw: bool = False


@dataclass(frozen=True, slots=True)
class PhotoSummary:
    """What became of the photos, for the user's eyes; `assumptions` are what nobody told."""

    photos: int
    skipped: int
    heights_m: tuple[float, float]
    height_source: str
    attitude_source: str
    camera: str
    assumptions: tuple[str, ...]


def flight_from_photos(
    photos: Sequence[Path | str],
    out: Path | str,
    options: PhotoOptions = PhotoOptions(),
    on_progress: Callable[[str, int, int], None] | None = None,
) -> PhotoSummary:
    """Write the flight folder `out` of JPEG files or folders of them.

    `on_progress(what, done, total)` is called as it goes. Raises FlightError or CameraError and then leaves nothing.
    """
    out = Path(out).absolute()
    if out.exists():
        raise FlightError("output is there already", out, "a new folder", "remove it, or give another --out")
    read = _read_all(list_photos(photos), on_progress)
    kept = [photo for photo in read if photo.latitude_deg is not None]
    if len(kept) < len(read) and not options.skip_without_gps:
        raise FlightError(
            f"{len(read) - len(kept)} of {len(read)} photos without GPS, the first",
            next(photo.path for photo in read if photo.latitude_deg is None),
            "EXIF GPSLatitude and GPSLongitude",
            "take the photos as the camera wrote them, or leave those out with --skip-without-gps",
        )
    if not kept:
        raise FlightError("no photo with GPS", read[0].path.parent, "geotagged photos")
    kept.sort(key=lambda photo: (photo.captured_at_ns, photo.path.name))
    heights = [_height(photo, options) for photo in kept]
    camera, camera_source = _camera(kept, options)
    stage = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        try:
            _write(stage, kept, [h for h, _ in heights], camera, options, on_progress)
            os.replace(stage, out)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise FlightError(
            "cannot write", f"{out} ({error.strerror or error})", "a place that can be written", "give another --out"
        ) from error
    metres = [h for h, _ in heights]
    return PhotoSummary(
        len(kept),
        len(read) - len(kept),
        (min(metres), max(metres)),
        _joined(source for _, source in heights),
        _joined(photo.attitude.source for photo in kept),
        f"{kept[0].camera}, {camera.width}x{camera.height}, f = {camera.focal_px:.0f} px from {camera_source}",
        tuple(_assumptions(kept, options)),
    )


def list_photos(paths: Iterable[Path | str]) -> list[Path]:
    """The JPEG files of files and folders, each once; FlightError where there are none."""
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise FlightError("no photos", path, "JPEG files or a folder of them", "check the path")
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise FlightError("no photos in the folder", path, "files ending in .jpg or .jpeg", "check the path")
        found.update(dict.fromkeys(p.resolve() for p in inside))
    return list(found)


def strictly_rising_ns(photos: Sequence[Photo]) -> list[int]:
    """Capture times (sorted photos) made strictly rising: photos of the same whole second are spread over it."""
    times: list[int] = []
    of_instant = Counter(photo.captured_at_ns for photo in photos)
    seen: Counter[int] = Counter()
    for photo in photos:
        step_ns = 1_000_000 if photo.has_subsecond else 1_000_000_000 // of_instant[photo.captured_at_ns]
        at_ns = photo.captured_at_ns + seen[photo.captured_at_ns] * step_ns
        times.append(max(at_ns, times[-1] + 1) if times else at_ns)
        seen[photo.captured_at_ns] += 1
    return times


def _read_all(paths: Sequence[Path], on_progress: Callable[[str, int, int], None] | None) -> list[Photo]:
    photos = []
    for path in paths:
        photos.append(read_photo(path))
        if on_progress is not None:
            on_progress("reading tags", len(photos), len(paths))
    return photos


def _height(photo: Photo, options: PhotoOptions) -> tuple[float, str]:
    """(height above ground in metres, its source in words)."""
    if options.height_above_ground_m is not None:
        return options.height_above_ground_m, "--height-above-ground-m"
    if options.ground_altitude_m is not None:
        if photo.altitude_m is None:
            raise FlightError(f"no altitude in {photo.path}", None, "EXIF GPSAltitude", "give --height-above-ground-m")
        return photo.altitude_m - options.ground_altitude_m, "EXIF altitude minus --ground-altitude-m"
    if photo.height_above_takeoff_m is not None:
        return photo.height_above_takeoff_m, "DJI RelativeAltitude"
    raise FlightError(
        f"no height above ground in {photo.path}",
        None,
        "XMP drone-dji:RelativeAltitude",
        "give --ground-altitude-m (the ground's altitude, of the kind that EXIF tells) or --height-above-ground-m",
    )


def _camera(photos: Sequence[Photo], options: PhotoOptions) -> tuple[CameraModel, str]:
    """One camera for all photos, which must be of one size and one make."""
    first = photos[0]
    for photo in photos:
        if photo.size != first.size or photo.camera != first.camera:
            raise FlightError(
                f"{photo.path} is of another camera than {first.path.name}",
                f"{photo.camera} {photo.size[0]}x{photo.size[1]}",
                f"{first.camera} {first.size[0]}x{first.size[1]}",
                "make one flight folder for each camera",
            )
    if options.camera_yaml is None:
        return camera_from_tags(first)
    camera = CameraModel.from_yaml(options.camera_yaml)
    if (camera.width, camera.height) != first.size:
        raise CameraError(
            f"image size of {options.camera_yaml}",
            f"{camera.width}x{camera.height}",
            f"{first.size[0]}x{first.size[1]} as the photos are",
            "calibrate at the size of the photos",
        )
    return camera, str(options.camera_yaml)


def _write(
    stage: Path,
    photos: Sequence[Photo],
    heights_m: Sequence[float],
    camera: CameraModel,
    options: PhotoOptions,
    on_progress: Callable[[str, int, int], None] | None,
) -> None:
    (stage / "photos").mkdir(parents=True)
    camera.to_yaml(stage / "camera.yaml", photos[0].camera)
    taken: set[str] = set()
    with (stage / "frames.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*COLUMNS, *TRUTH_COLUMNS))
        for photo, at_ns, height_m in zip(photos, strictly_rising_ns(photos), heights_m, strict=True):
            name = _free_name(photo.path, taken)
            shutil.copyfile(photo.path, stage / "photos" / name)
            attitude = photo.attitude
            yaw = "" if attitude.yaw_deg is None or options.ignore_yaw else f"{attitude.yaw_deg:.3f}"
            angles = (f"{attitude.roll_deg:.3f}", f"{attitude.pitch_deg:.3f}", yaw)
            place = (f"{photo.latitude_deg:.8f}", f"{photo.longitude_deg:.8f}")
            writer.writerow((f"photos/{name}", at_ns, *angles, f"{height_m:.3f}", *place))
            if on_progress is not None:
                on_progress("copying photos", len(taken), len(photos))


def _free_name(path: Path, taken: set[str]) -> str:
    """The photo's own name, or one that no other has: cards of one flight may count from the start again."""
    name, count = path.name, 1
    while name.lower() in taken:
        name, count = f"{path.parent.name}_{path.stem}{f'_{count}' if count > 1 else ''}{path.suffix}", count + 1
    taken.add(name.lower())
    return name


def _assumptions(photos: Sequence[Photo], options: PhotoOptions) -> list[str]:
    said = []
    if not all(photo.has_zone for photo in photos):
        said.append("times without a zone are read as UTC")
    if options.height_above_ground_m is None and options.ground_altitude_m is None:
        said.append("the ground is as high as where the drone took off")
    if any(photo.attitude.source.startswith("none") for photo in photos):
        said.append("photos without angles look straight down, their heading unknown")
    if options.ignore_yaw:
        said.append("heading left unknown")
    return said


def _joined(sources: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(sources))
