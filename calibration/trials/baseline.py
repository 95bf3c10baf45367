"""The baseline that is easy to forget and hard to beat: normalised cross-correlation over the whole map.

The view, at the told heading and height, is correlated with the imagery: grey levels, or gradient magnitudes. No
network, no search over rotations, no idea of being wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from onboard.config import Config
from onboard.errors import ConfigError
from onboard.flight import open_flight
from onboard.match.correlate import covered_boxes
from onboard.match.witness import gradient_magnitude
from onboard.records import GroundView, Telemetry
from onboard.rectify import Rectifier
from onboard.region import Level, RegionMap
from onboard.region.level import cut

_VIEW_PX = 256
_BLOCK_PX = 512


def run(flight: Path, map_path: Path, grey: bool, within_m: float) -> tuple[int, int]:
    """(found, frames): frames whose best place lies within `within_m` of the truth."""
    config = Config()
    recorded, region = open_flight(flight, config.rectify), RegionMap.open(map_path)
    truth = recorded.truth()
    if truth is None:
        raise ConfigError("flight without truth", flight, "latitude_deg, longitude_deg in frames.csv")
    rectifier = Rectifier(recorded.camera, recorded.body_from_camera, _VIEW_PX, config.rectify)
    found = frames = 0
    for item in track(recorded.items(), total=recorded.frame_count, description="correlating"):
        if item.frame is None or not isinstance(item.telemetry, Telemetry):
            continue
        place = truth.at(item.captured_at_ns)
        if place is None or rectifier.check(item.frame, item.telemetry) is not None:
            continue
        level = region.levels[region.level_for(rectifier.ground_side_m(item.telemetry), _VIEW_PX)]
        view = rectifier.view(item.frame, item.telemetry, level.metres_per_pixel)
        position = best_place(level, view, grey) - np.array(view.centre_from_vehicle_enu_m)
        frames += 1
        found += bool(np.linalg.norm(position - region.frame.enu_from_geodetic(*place)) < within_m)
    return found, frames


def best_place(level: Level, view: GroundView, grey: bool) -> np.ndarray:
    """(2,) east, north of the view's centre where the masked zero-mean correlation is highest."""
    rows, cols = np.flatnonzero(view.mask.any(axis=1)), np.flatnonzero(view.mask.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
    template = _signal(view.image_rgb, grey)[box]
    mask = cv2.erode(view.mask.astype(np.uint8), np.ones((5, 5), np.uint8))[box].astype(np.float32)
    middle = (np.array([rows[0] + rows[-1], cols[0] + cols[-1]]) - (_VIEW_PX - 1)) / 2  # of the box, from the view's
    height, width = template.shape
    best, answer = -2.0, np.full(2, np.nan)
    for top, left, side in _squares(level, max(height, width)):
        rgb, valid = cut(level.image, level.valid, top, left, side)
        score = masked_ncc(_signal(rgb, grey), valid.astype(np.float32), template, mask)
        i, j = np.unravel_index(int(score.argmax()), score.shape)
        if score[i, j] > best:
            best = float(score[i, j])
            row, col = top + i + (height - 1) / 2 - middle[0], left + j + (width - 1) / 2 - middle[1]
            answer = level.enu_of_pixel(row, col)
    return answer


def _squares(level: Level, template_px: int) -> Iterator[tuple[int, int, int]]:
    """First row, first col and side in pixels of squares over which a template of that size reaches all imagery."""
    stride = round(level.cell_m / level.metres_per_pixel)
    margin = template_px // 2
    for row, col, rows, cols in covered_boxes(level) * stride:
        side = min(max(rows, cols), _BLOCK_PX) + 2 * margin
        step = side - template_px
        for top in range(row - margin, row + rows, step):
            for left in range(col - margin, col + cols, step):
                yield top, left, side


def masked_ncc(image: np.ndarray, valid: np.ndarray, template: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Zero-mean normalised correlation over the pixels that both have; -1 where fewer than half are valid."""

    def correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return cv2.matchTemplate(a.astype(np.float32), b.astype(np.float32), cv2.TM_CCORR).astype(np.float64)

    image, template = image * valid, template * mask
    count = np.maximum(correlate(valid, mask), 1.0)
    sum_i, sum_t = correlate(image, mask), correlate(valid, template)
    cross = correlate(image, template) - sum_i * sum_t / count
    var_i = correlate(image * image, mask) - sum_i**2 / count
    var_t = correlate(valid, template * template) - sum_t**2 / count
    score = cross / np.sqrt(np.maximum(var_i, 1e-3) * np.maximum(var_t, 1e-3))
    score[(count < 0.5 * mask.sum()) | (var_i < 1.0) | (var_t < 1.0)] = -1.0
    return score


def _signal(rgb: np.ndarray, grey: bool) -> np.ndarray:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) if grey else gradient_magnitude(rgb)
