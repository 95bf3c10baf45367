"""Folders of overlapping pictures, one a place, as clouds are reconstructed from: PLACE/*.jpg.

Where a folder has positions.csv (name,east_m,north_m,up_m about the place) the cloud is laid on it.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from training.clouds.points import CloudError

IMAGES = frozenset({".jpg", ".jpeg", ".png"})
POSITIONS = "positions.csv"


def places_of(folder: Path) -> dict[str, list[Path]]:
    """Pictures by place, both sorted. Raises CloudError where no folder in `folder` holds a picture."""
    found = {}
    for place in sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []:
        pictures = sorted(path for path in place.iterdir() if path.suffix.lower() in IMAGES)
        if pictures:
            found[place.name] = pictures
    if not found:
        raise CloudError("no pictures", folder, "folders of overlapping pictures, one a place")
    return found


def positions_of(pictures: list[Path]) -> dict[str, np.ndarray]:
    """(3,) east, north, up of pictures by name; empty where the folder does not tell. Raises CloudError for a file
    that does not read."""
    path = pictures[0].parent / POSITIONS
    if not path.is_file():
        return {}
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
            return {row["name"]: np.array([float(row[k]) for k in ("east_m", "north_m", "up_m")]) for row in rows}
    except (KeyError, ValueError, TypeError) as error:
        raise CloudError("positions", f"{path} ({error!r})", "columns name, east_m, north_m, up_m") from error
