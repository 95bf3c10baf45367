"""The debug image: the frame laid on the ground, the map where it was found, and how likely each place there was."""

from __future__ import annotations

import cv2
import numpy as np

from onboard.camera import CameraModel
from onboard.config import RectifyConfig
from onboard.match.heatmap import Heatmap
from onboard.records import Frame, Step, Telemetry
from onboard.rectify import Rectifier
from onboard.replay.drawing import jpeg
from onboard.replay.gallery import Look, look
from onboard.replay.mapview import Region

SIDE_PX = 288


class DebugImage:
    """Draws debug images of one camera over one map."""

    def __init__(
        self,
        camera: CameraModel,
        body_from_camera: np.ndarray,
        region: Region,
        rectify: RectifyConfig = RectifyConfig(),
        side_px: int = SIDE_PX,
    ) -> None:
        self._rectifier, self._region = Rectifier(camera, body_from_camera, side_px, rectify), region

    def draw(self, frame: Frame | None, telemetry: object, step: Step, heatmap: Heatmap | None) -> np.ndarray | None:
        """RGB uint8 (S, 3 S, 3): view, map, heatmap, side by side and north up; None where there is nothing to show.

        The heatmap is that of this very step (`Localizer.heatmap`); without one its part is the map, dark.
        """
        position = step.fix.position_enu_m if step.fix is not None else step.best_position_enu_m
        if frame is None or not isinstance(telemetry, Telemetry) or position is None:
            return None
        if self._rectifier.check(frame, telemetry) is not None:
            return None
        seen = look(self._rectifier, self._region, frame, telemetry, step.fix, position)
        return np.hstack([seen.view_rgb, seen.map_rgb, heat_over(seen, heatmap)])


class Pictures:
    """Keeps debug images as JPEG, at most `limit` of a flight of `frame_count` frames, evenly spread."""

    def __init__(self, drawing: DebugImage, frame_count: int, limit: int = 60) -> None:
        self._drawing, self._every, self._limit = drawing, max(1, -(-frame_count // limit)), limit
        self._seen = self._next = 0
        self.jpegs: list[tuple[int, bytes]] = []  # captured_at_ns, JPEG

    def offer(self, frame: Frame | None, telemetry: object, step: Step, heatmap: Heatmap | None) -> None:
        """Draw this frame if its turn has come; a turn that shows nothing goes to the next frame that does."""
        if self._seen >= self._next and len(self.jpegs) < self._limit:
            picture = self._drawing.draw(frame, telemetry, step, heatmap)
            if picture is not None:
                self.jpegs.append((step.captured_at_ns, jpeg(picture, 80)))
                self._next = self._seen + self._every
        self._seen += 1


def heat_over(seen: Look, heatmap: Heatmap | None) -> np.ndarray:
    """The map of a look with the scores of places laid over it: dark where nothing was searched, bright at the best.

    A score belongs to the centre of the view, so the best place of a right fix is the middle of the picture.
    """
    ground = (seen.map_rgb * 0.4).astype(np.uint8)
    if heatmap is None:
        return ground
    side_px = len(ground)
    scores = scores_at(heatmap, seen.centre_enu_m, seen.metres_across / side_px, side_px)
    searched = scores > -1.0
    if not searched.any():
        return ground
    best = max(float(block.score.max()) for block in heatmap.blocks)
    share = np.clip((scores - heatmap.mean) / max(best - heatmap.mean, 1e-6), 0.0, 1.0)
    colours = cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    ground[searched] = (0.3 * seen.map_rgb[searched] + 0.7 * colours[searched]).astype(np.uint8)
    return ground


def scores_at(heatmap: Heatmap, centre_enu_m: np.ndarray, metres_per_pixel: float, side_px: int) -> np.ndarray:
    """(N, N) float32, north up about the centre: the score of the nearest cell, -1 where none was searched."""
    steps = (np.arange(side_px) - (side_px - 1) / 2) * metres_per_pixel
    rows, cols = heatmap.level.cell_of(np.stack([centre_enu_m[0] + steps, centre_enu_m[1] - steps], axis=-1))
    found = np.full((side_px, side_px), -1.0, np.float32)
    for block in heatmap.blocks:
        i, j = np.rint(rows - block.row).astype(int), np.rint(cols - block.col).astype(int)
        in_rows, in_cols = (i >= 0) & (i < block.score.shape[0]), (j >= 0) & (j < block.score.shape[1])
        there = np.ix_(in_rows, in_cols)
        found[there] = np.maximum(found[there], block.score[np.ix_(i[in_rows], j[in_cols])])
    return found
