"""Pairs from the project's renderer: relief, leaning buildings, shadows, another season, a real lens.

    python -m training.data.rendered --out runs/rendered --places 12 --views 50

Each view is a perspective picture of a procedural place, laid on the ground by the *onboard* rectifier under an
erroneous attitude and height: training sees exactly what flies. A sample is kept with more map round it than a
tile needs, so that each draw cuts another tile.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from onboard.config import RectifyConfig
from onboard.errors import ConfigError
from onboard.frames import ENU_FROM_NED, quaternion_from_rotation, rotation_from_euler
from onboard.records import Frame, Telemetry
from onboard.rectify import Rectifier
from training.data import appearance
from training.data.pairs import FIELD_STRIDE, Pair, PairConfig, draw_footprint, field_points, lies_px
from training.renderer.pairs import RenderedView, render_pairs
from training.renderer.place import Place, generate_place
from training.renderer.scene import follow

_CROP_PX = 400


class RenderedPairs:
    """The samples of one folder, in memory."""

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("*.npz"))
        if not files:
            raise ConfigError("no rendered pairs", folder, "*.npz", "python -m training.data.rendered --out FOLDER")
        self._samples = [dict(np.load(file)) for file in files]

    def draw(self, rng: np.random.Generator, config: PairConfig = PairConfig()) -> Pair:
        """One pair: another tile round the view, quarter turns and mirrors of both, another light."""
        sample = self._samples[rng.integers(len(self._samples))]
        n = config.view_px
        room = (_CROP_PX - n) // 2
        reach = min(room - 1, int(config.offset_px))
        step = rng.integers(-reach, reach + 1, 2)  # where the tile's middle lies from the crop's: row, col
        top, left = room + step
        tile = sample["crop"][top : top + n, left : left + n]
        tile_mask = sample["crop_mask"][top : top + n, left : left + n]
        edge = (len(sample["view"]) - n) // 2  # a smaller canvas is the middle of the stored one
        middle = slice(edge, edge + n)
        view, view_mask = sample["view"][middle, middle], sample["view_mask"][middle, middle]
        if config.crop_rendered:
            view_mask = view_mask & draw_footprint(n, rng, config)
        middle = slice(edge // FIELD_STRIDE, (edge + n) // FIELD_STRIDE)
        moved = sample["moved_px"][middle, middle] - step.astype(np.float32)
        turns, mirror = int(rng.integers(4)), rng.random() < 0.5
        pictures = [_turn(picture, turns, mirror) for picture in (tile, tile_mask, view, view_mask)]
        tile, tile_mask, view, view_mask = pictures
        moved = _turn_offset(_turn(moved, turns, mirror), turns, mirror).astype(np.float32)
        view = appearance.tone(view.astype(np.float32) / 255, rng, 0.5)
        if rng.random() < 0.2:
            view = appearance.shade(view, rng)
        view = appearance.sensor(view, rng)
        tile = appearance.sensor(appearance.tone(tile.astype(np.float32) / 255, rng, 0.5), rng)
        view[~view_mask], tile[~tile_mask] = 0, 0
        return Pair(tile, tile_mask, view, view_mask, lies_px(moved, view_mask), moved)


def _turn(picture: np.ndarray, turns: int, mirror: bool) -> np.ndarray:
    out = np.rot90(picture, turns)
    return np.ascontiguousarray(out[:, ::-1] if mirror else out)


def _turn_offset(offset: np.ndarray, turns: int, mirror: bool) -> np.ndarray:
    """Steps (..., 2) row, col after `_turn`: a quarter turn of np.rot90 takes (r, c) to (-c, r)."""
    for _ in range(turns):
        offset = np.stack([-offset[..., 1], offset[..., 0]], axis=-1)
    return offset * [1, -1] if mirror else offset


def make_sample(
    place: Place, seen: RenderedView, rng: np.random.Generator, view_px: int = 256
) -> dict[str, np.ndarray] | None:
    """One stored sample, or None where the view leaves the place. Errors: 4 deg heading, 6 % height, 1 deg tilt."""
    wrong = rotation_from_euler(*np.radians(rng.normal(0, 0.7, 2)), math.radians(rng.uniform(-4, 4)))
    ned_from_body = wrong @ seen.ned_from_body
    height = seen.height_above_ground_m * math.exp(rng.uniform(-0.06, 0.06))
    telemetry = Telemetry(0, quaternion_from_rotation(ned_from_body), height)
    rectifier = Rectifier(seen.camera, seen.body_from_camera, view_px, RectifyConfig(min_height_m=1.0))
    footprint = np.ptp(rectifier.footprint_enu_m(telemetry), axis=0).max()
    metres = float(np.clip(footprint / view_px * math.exp(rng.uniform(-0.5, 0.25)), place.metres_per_pixel, 1.25))
    view = rectifier.view(Frame(0, np.ascontiguousarray(seen.image_rgb[..., ::-1])), telemetry, metres)

    # A point of the view, seen through the wrong pose, is a ray of the camera; follow it with the true pose.
    points = field_points(view_px)
    east_north = (points - (view_px - 1) / 2) * [metres, -metres] + view.centre_from_vehicle_enu_m
    told = np.column_stack([east_north, np.full(len(points), -height)])
    turn = ENU_FROM_NED @ seen.ned_from_body @ ned_from_body.T @ ENU_FROM_NED.T
    lies = follow(seen.scene, seen.position_enu_m, told @ turn.T)[:, :2]
    true = turn @ [*view.centre_from_vehicle_enu_m, -height]
    centre = seen.position_enu_m[:2] + true[:2] * seen.height_above_ground_m / -true[2]

    scale = metres / place.metres_per_pixel
    col, row = (float(v) for v in place.pixel_from_enu @ [*centre, 1.0])
    rest = rng.uniform(-0.5, 0.5, 2)
    middle = (_CROP_PX - 1) / 2
    matrix = np.array([[scale, 0, col - scale * (middle + rest[1])], [0, scale, row - scale * (middle + rest[0])]])
    picture = place.orthophoto
    if scale > 1.3:
        picture = cv2.GaussianBlur(picture, (0, 0), 0.45 * scale)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(picture, matrix, (_CROP_PX, _CROP_PX), flags=flags)
    inside = np.ones(picture.shape[:2], np.uint8)
    mask = cv2.warpAffine(inside, matrix, (_CROP_PX, _CROP_PX), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP) > 0
    on_crop = (lies @ place.pixel_from_enu[:, :2].T + place.pixel_from_enu[:, 2] - matrix[:, 2]) / scale - middle
    moved = (on_crop - (points - (view_px - 1) / 2))[:, ::-1]
    side = view_px // FIELD_STRIDE
    if mask[100:-100, 100:-100].mean() < 0.8 or np.isnan(moved).mean() > 0.2:
        return None
    return {
        "view": view.image_rgb,
        "view_mask": view.mask,
        "crop": crop,
        "crop_mask": mask,
        "moved_px": moved.reshape(side, side, 2).astype(np.float32),
    }


def make_samples(out: Path, places: int, views: int, seed: int, size_m: float) -> None:
    """Render and keep samples; places that are done are not made again. The demo's place is none of them."""
    out.mkdir(parents=True, exist_ok=True)
    for index in track(range(places), description="rendering places"):
        if (out / f"{index:03d}_done").exists():
            continue
        place = generate_place(seed + index, size_m=size_m, metres_per_pixel=0.4 if index % 2 else 0.5)
        rng = np.random.default_rng([seed, index])
        for number, seen in enumerate(render_pairs(place, views, seed + index)):
            sample = make_sample(place, seen, rng)
            if sample is not None:
                np.savez_compressed(out / f"{index:03d}_{number:03d}.npz", **sample)  # type: ignore[arg-type]
        (out / f"{index:03d}_done").touch()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/rendered"))
    parser.add_argument("--places", type=int, default=12)
    parser.add_argument("--views", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--size-m", type=float, default=900.0)
    args = parser.parse_args()
    make_samples(args.out, args.places, args.views, args.seed, args.size_m)
