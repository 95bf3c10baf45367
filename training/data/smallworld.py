"""One procedural world of a small places data set: sites on a grid, map tiles and views of each, clouds.

Views are taken by a camera from above and obliquely, then laid on the ground by the *onboard* rectifier under an
erroneous pose: training sees what flies. The oblique picture itself, turned north up, is kept too: that is what public
drone data sets show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from onboard.config import RectifyConfig
from onboard.frames import BODY_FROM_CAMERA_DOWN, ENU_FROM_NED, quaternion_from_rotation, rotation_from_euler
from onboard.records import Frame, Telemetry
from onboard.rectify import Rectifier
from training.clouds.surface import sample_surface
from training.renderer.changes import changed
from training.renderer.flight import default_camera
from training.renderer.place import Place, generate_place
from training.renderer.scene import Scene, render
from training.renderer.season import Season, appearance
from training.renderer.sensor import degrade

KINDS = ("overhead", "oblique", "perspective")  # of the views of one day, in their order
RECTIFIED = KINDS[:2]  # laid on the ground, at the scale of the map: what flies
REFERENCES = 3  # the map's picture twice, its centre at different spots, and another date of it
_MARGIN_M = 110.0  # from the border: an oblique camera does not look beyond it
_SPACING_M = 110.0
_REFERENCE_JITTER_M = 12.0
_AIM_JITTER_M = 15.0
_CAMERA_PX = (320, 240)


@dataclass(frozen=True, slots=True)
class Style:
    """What makes a domain: land, map and the days on which it is flown over. `sun_deg` is least and greatest
    elevation, `snow` the greatest share of open ground under it, `faded` how much the map's colours are washed out."""

    first_seed: int
    relief_m: float
    map_season: Season
    map_sun_deg: tuple[float, float]  # azimuth, elevation
    faded: float
    seasons: tuple[Season, ...]
    sun_deg: tuple[float, float]
    snow: float
    weather: float


@dataclass(frozen=True, slots=True)
class WorldConfig:
    """Sizes: `side` by `side` sites, `days` of views, pictures of `picture_px` at `metres_per_pixel`."""

    side: int = 6
    days: int = 2
    picture_px: int = 128
    metres_per_pixel: float = 1.0

    @property
    def size_m(self) -> float:
        return max(240.0, 2 * _MARGIN_M + (self.side - 1) * _SPACING_M)


def make_world(seed: int, style: Style, config: WorldConfig) -> dict[str, np.ndarray]:
    """All of one world, S sites in rows from the north west.

    site_enu_m (S, 2); reference uint8 (S, R, N, N, 3) and reference_enu_m (S, R, 2), their centres; query uint8
    (S, Q, N, N, 3), query_mask bool (S, Q, N, N), query_enu_m (S, Q, 2), the ground at their centres, Q being days by
    KINDS; season (Q,) its number; cloud float32 (S, 1024, 3) about the site.
    """
    place = _place(seed, style, config)
    rng = np.random.default_rng([seed, 7])
    steps = (np.arange(config.side) - (config.side - 1) / 2) * _SPACING_M
    sites = np.array([[east, -south] for south in steps for east in steps])
    side_m = config.picture_px * config.metres_per_pixel
    clouds = [
        sample_surface(place.surface_m, place.metres_per_pixel, _pixel(place, site), side_m, rng) for site in sites
    ]
    maps = (place.orthophoto, place.orthophoto, _faded(_day(place, style, rng)[1].picture, style.faded / 2))
    tiles = [[_tile(place, picture, site, rng, config) for picture in maps] for site in sites]
    views: list[list[_View]] = [[] for _ in sites]
    seasons: list[int] = []
    for _ in range(config.days):
        season, scene = _day(place, style, rng)
        seasons += [list(Season).index(season)] * len(KINDS)
        reach = np.array(place.size_m) / 2 + _MARGIN_M
        scene.ground(-reach, reach)  # one mesh, and one lens, for the whole day
        camera = default_camera(*_CAMERA_PX, hfov_deg=float(rng.uniform(58, 74)))
        rectifier = Rectifier(camera, BODY_FROM_CAMERA_DOWN, config.picture_px, RectifyConfig(min_height_m=1.0))
        for number, site in enumerate(sites):
            views[number] += _views(scene, rectifier, site, style, rng, config)
    return {
        "site_enu_m": sites,
        "reference": np.stack([[picture for picture, _ in row] for row in tiles]),
        "reference_enu_m": np.array([[centre for _, centre in row] for row in tiles]),
        "query": np.stack([[view.rgb for view in row] for row in views]),
        "query_mask": np.stack([[view.mask for view in row] for row in views]),
        "query_enu_m": np.array([[view.centre_enu_m for view in row] for row in views]),
        "season": np.array(seasons),
        "cloud": np.stack(clouds),
    }


def _place(seed: int, style: Style, config: WorldConfig) -> Place:
    """The world with the map's look of its style."""
    place = generate_place(seed, config.size_m, 0.5, style.relief_m)
    picture = appearance(changed(place, seed, removed_share=0.0), style.map_season, *style.map_sun_deg, seed=seed)
    return replace(place, orthophoto=_faded(picture, style.faded))


def _faded(picture: np.ndarray, share: float) -> np.ndarray:
    """Colours drawn towards grey, and haze over them."""
    grey = picture.mean(axis=2, keepdims=True)
    out = picture + share * (grey - picture)
    return np.asarray(out * (1 - 0.25 * share) + 50 * share).clip(0, 255).astype(np.uint8)


def _day(place: Place, style: Style, rng: np.random.Generator) -> tuple[Season, Scene]:
    season = style.seasons[int(rng.integers(len(style.seasons)))]
    day = int(rng.integers(1 << 30))
    azimuth, elevation = rng.uniform(100, 260), rng.uniform(*style.sun_deg)
    snow = rng.uniform(0, style.snow) if season == Season.WINTER else 0.0
    today = changed(place, day)
    return season, Scene(today, appearance(today, season, azimuth, elevation, day, snow))


def _pixel(place: Place, point_enu_m: np.ndarray) -> tuple[float, float]:
    """col, row of a point."""
    col, row = place.pixel_from_enu @ [*point_enu_m, 1.0]
    return float(col), float(row)


def _tile(
    place: Place, picture: np.ndarray, site: np.ndarray, rng: np.random.Generator, config: WorldConfig
) -> tuple[np.ndarray, np.ndarray]:
    """A map tile round about a site, and its centre."""
    centre = site + rng.uniform(-_REFERENCE_JITTER_M, _REFERENCE_JITTER_M, 2)
    scale = config.metres_per_pixel / place.metres_per_pixel
    col, row = _pixel(place, centre)
    middle = (config.picture_px - 1) / 2
    warp = np.array([[scale, 0, col - scale * middle], [0, scale, row - scale * middle]])
    soft = cv2.GaussianBlur(picture, (0, 0), 0.45 * scale) if scale > 1.3 else picture
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(soft, warp, (config.picture_px, config.picture_px), flags=flags), centre


@dataclass(frozen=True, slots=True)
class _View:
    rgb: np.ndarray
    mask: np.ndarray
    centre_enu_m: np.ndarray


def _views(
    scene: Scene, rectifier: Rectifier, site: np.ndarray, style: Style, rng: np.random.Generator, config: WorldConfig
) -> list[_View]:
    """One view of each of KINDS; the last two are of one picture."""
    camera, out = rectifier.camera, []
    for kind in RECTIFIED:
        lean = rng.normal(0, math.radians(3.5), 2)
        if kind == "oblique":
            lean[1] = math.radians(rng.uniform(20, 30))  # nose up: the camera looks ahead
        ned_from_body = rotation_from_euler(float(lean[0]), float(lean[1]), rng.uniform(-math.pi, math.pi))
        height = rng.uniform(70, 105)
        flat = Telemetry(0, quaternion_from_rotation(ned_from_body), height)
        footprint = rectifier.footprint_enu_m(flat)
        aim = site + rng.uniform(-_AIM_JITTER_M, _AIM_JITTER_M, 2)
        spot = aim - (footprint.min(axis=0) + footprint.max(axis=0)) / 2
        position = np.array([*spot, float(scene.place.terrain_height_m(spot)[0]) + height])
        image = render(scene, camera, BODY_FROM_CAMERA_DOWN, ned_from_body, position)
        image = degrade(image, rng, style.weather * float(rng.uniform(0.4, 1.2)))
        out.append(_rectified(scene.place, image, rectifier, ned_from_body, position, height, rng, config))
        if kind == "oblique":
            axis = camera.rays(np.array([[(camera.width - 1) / 2, (camera.height - 1) / 2]]))[0]
            ray = ENU_FROM_NED @ ned_from_body @ BODY_FROM_CAMERA_DOWN @ axis
            centre = _on_ground(scene.place, position, ray)
            forward = ENU_FROM_NED @ ned_from_body[:, 0]
            heading = math.atan2(forward[0], forward[1]) + math.radians(rng.uniform(-4, 4))
            out.append(_View(*_north_up(image, heading, config.picture_px), centre))
    return out


def _rectified(
    place: Place,
    image_rgb: np.ndarray,
    rectifier: Rectifier,
    ned_from_body: np.ndarray,
    position_enu_m: np.ndarray,
    height_m: float,
    rng: np.random.Generator,
    config: WorldConfig,
) -> _View:
    """The ground view under errors of 4 deg in heading, 6 % in height, 0.7 deg (1 sigma) in tilt; its true centre."""
    roll, pitch = np.radians(rng.normal(0, 0.7, 2))
    wrong = rotation_from_euler(float(roll), float(pitch), math.radians(rng.uniform(-4, 4)))
    believed = wrong @ ned_from_body
    height = height_m * math.exp(rng.uniform(-0.06, 0.06))
    telemetry = Telemetry(0, quaternion_from_rotation(believed), height)
    frame = Frame(0, np.ascontiguousarray(image_rgb[..., ::-1]))
    view = rectifier.view(frame, telemetry, config.metres_per_pixel)
    # The view's middle, seen through the wrong pose, is this ray of the camera; follow it with the true pose.
    ray = (ENU_FROM_NED @ believed).T @ [*view.centre_from_vehicle_enu_m, -height]
    return _View(view.image_rgb, view.mask, _on_ground(place, position_enu_m, ENU_FROM_NED @ ned_from_body @ ray))


def _on_ground(place: Place, position_enu_m: np.ndarray, ray_enu: np.ndarray) -> np.ndarray:
    """Where a ray from a position meets the bare ground: east, north. Slopes are gentle: a few steps settle it."""
    at = position_enu_m[:2]
    for _ in range(6):
        drop = position_enu_m[2] - float(place.terrain_height_m(at)[0])
        at = position_enu_m[:2] + ray_enu[:2] * drop / -ray_enu[2]
    return at


def _north_up(image_rgb: np.ndarray, heading_rad: float, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """The picture turned about its middle so that what lies north of it is up: rgb, and the mask of what it saw."""
    height, width = image_rgb.shape[:2]
    scale = height / size_px
    cos, sin = scale * math.cos(heading_rad), scale * math.sin(heading_rad)
    linear = np.array([[cos, sin], [-sin, cos]])  # picture from canvas: canvas up is the picture's north
    middle, centre = np.full(2, (size_px - 1) / 2), np.array([width - 1, height - 1]) / 2
    warp = np.hstack([linear, (centre - linear @ middle)[:, None]])
    soft = cv2.GaussianBlur(image_rgb, (0, 0), 0.45 * scale)
    flags = cv2.WARP_INVERSE_MAP
    rgb = cv2.warpAffine(soft, warp, (size_px, size_px), flags=cv2.INTER_LINEAR | flags)
    ones = np.ones((height, width), np.uint8)
    mask = cv2.warpAffine(ones, warp, (size_px, size_px), flags=cv2.INTER_NEAREST | flags) > 0
    return rgb, mask
