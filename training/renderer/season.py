"""How ground looks: colours by land cover, season and crop, with texture at all scales and the sun's light."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np

from training.renderer.covers import Cover
from training.renderer.light import shade
from training.renderer.noise import band, octaves
from training.renderer.place import Place

_STRIP = 256  # rows painted at a time: small enough to stay in the cache
_FIRST_CROP = 32  # in the table of materials, after the covers


class Season(str, Enum):
    SPRING = "spring"
    SUMMER = "summer"
    AUTUMN = "autumn"
    WINTER = "winter"


@dataclass(frozen=True)
class Material:
    """`rgb` of level ground in the sun; how much texture of three sizes, and of its own, it shows.

    `spread` is the brightness that differs from one object to the next; `row_m` the spacing of its rows.
    """

    rgb: tuple[int, int, int]
    coarse: float = 0.05
    middle: float = 0.05
    fine: float = 0.03
    spread: float = 0.06
    rows: float = 0.0
    row_m: float = 3.0


_CROPS = {
    "wheat": Material((196, 174, 120), 0.06, 0.03, 0.02, 0.06, 0.03, 2.4),
    "barley_stubble": Material((186, 166, 122), 0.05, 0.05, 0.04, 0.06, 0.09, 6.2),
    "maize": Material((84, 108, 56), 0.07, 0.05, 0.05, 0.08, 0.06, 2.6),
    "beet": Material((96, 124, 62), 0.08, 0.05, 0.04, 0.07, 0.07, 3.1),
    "ley": Material((118, 138, 76), 0.09, 0.06, 0.04, 0.08, 0.03, 5.0),
    "fallow": Material((142, 136, 96), 0.10, 0.08, 0.06, 0.08, 0.02, 4.0),
    "ploughed": Material((128, 106, 84), 0.11, 0.05, 0.05, 0.10, 0.07, 2.2),
    "sown": Material((122, 128, 82), 0.12, 0.05, 0.03, 0.07, 0.06, 2.7),
    "rape": Material((188, 182, 70), 0.06, 0.04, 0.03, 0.05, 0.03, 2.4),
    "winter_wheat": Material((92, 126, 62), 0.09, 0.04, 0.03, 0.08, 0.05, 2.4),
    "dry_maize": Material((164, 146, 100), 0.07, 0.06, 0.05, 0.07, 0.07, 2.6),
}
_GROWN = {  # how often each crop is seen in each season
    Season.SPRING: {"winter_wheat": 4, "rape": 2, "ploughed": 2, "sown": 3, "ley": 2, "fallow": 1},
    Season.SUMMER: {"wheat": 4, "maize": 3, "beet": 2, "barley_stubble": 2, "ley": 3, "fallow": 1, "ploughed": 1},
    Season.AUTUMN: {"ploughed": 4, "barley_stubble": 2, "dry_maize": 2, "sown": 3, "ley": 3, "fallow": 1, "beet": 1},
    Season.WINTER: {"ploughed": 4, "sown": 3, "ley": 3, "fallow": 2, "winter_wheat": 2},
}
_COVERS = {
    Cover.UNKNOWN: Material((128, 128, 128)),
    Cover.MEADOW: Material((108, 130, 72), 0.10, 0.07, 0.05, 0.08),
    Cover.FOREST_FLOOR: Material((74, 78, 50), 0.10, 0.10, 0.06, 0.03),
    Cover.TREE: Material((70, 92, 50), 0.06, 0.08, 0.10, 0.14),
    Cover.ROAD: Material((134, 132, 130), 0.05, 0.03, 0.03, 0.0),
    Cover.TRACK: Material((172, 158, 130), 0.08, 0.08, 0.05, 0.0),
    Cover.WATER: Material((58, 76, 74), 0.08, 0.02, 0.015, 0.0),
    Cover.BANK: Material((122, 130, 80), 0.12, 0.10, 0.07, 0.0),
    Cover.GARDEN: Material((100, 124, 66), 0.14, 0.16, 0.07, 0.0),
    Cover.YARD: Material((164, 156, 144), 0.08, 0.06, 0.05, 0.0),
    Cover.ROOF: Material((150, 112, 96), 0.03, 0.04, 0.04, 0.10),
    Cover.PARKING: Material((120, 120, 122), 0.06, 0.04, 0.03, 0.0),
    Cover.MARKING: Material((214, 214, 208), 0.03, 0.08, 0.04, 0.0),
    Cover.CAR: Material((150, 150, 152), 0.0, 0.0, 0.02, 0.45),
}
_GREENS = {  # covers that live, and their colours where they differ from summer's
    Season.SPRING: {Cover.MEADOW: (112, 148, 66), Cover.TREE: (96, 120, 58), Cover.BANK: (124, 144, 76)},
    Season.SUMMER: {},
    Season.AUTUMN: {
        Cover.MEADOW: (116, 126, 74),
        Cover.TREE: (124, 100, 52),
        Cover.BANK: (134, 124, 82),
        Cover.GARDEN: (108, 116, 68),
        Cover.FOREST_FLOOR: (108, 84, 56),
    },
    Season.WINTER: {
        Cover.MEADOW: (124, 124, 86),
        Cover.TREE: (104, 92, 80),
        Cover.BANK: (134, 124, 96),
        Cover.GARDEN: (116, 116, 82),
        Cover.FOREST_FLOOR: (104, 90, 74),
    },
}
_ROOFS = ((158, 96, 74), (142, 82, 66), (120, 90, 80), (96, 94, 96), (176, 120, 92), (188, 184, 178), (112, 110, 112))
_TREE_TINTS = {  # colour spread of single crowns, as the RGB that the wildest get added
    Season.SPRING: (12, 12, -6),
    Season.SUMMER: (8, 4, -4),
    Season.AUTUMN: (46, 14, -14),
    Season.WINTER: (10, 8, 6),
}


def appearance(
    place: Place,
    season: Season | str,
    sun_azimuth_deg: float,
    sun_elevation_deg: float,
    seed: int,
    snow: float = 0.0,
) -> np.ndarray:
    """The place's look from above: uint8 RGB (H, W, 3).

    What lasts (soil, the tint of a roof) comes from the place's seed, what passes (crops, mud, the colour of
    leaves) from `seed`. `snow` 0..1 is the share of open ground under snow. A real place without land
    cover keeps its colours, tinted for the season; its picture holds its own shadows.
    """
    season = Season(season)
    if place.cover is None or place.objects is None:
        return _tinted(place.orthophoto, season, seed)
    lambert, lit = shade(place.surface_m, place.metres_per_pixel, sun_azimuth_deg, sun_elevation_deg)
    return _paint(place, place.cover, place.objects, season, seed, snow, lambert, lit)


def _paint(
    place: Place,
    covers: np.ndarray,
    all_objects: np.ndarray,
    season: Season,
    seed: int,
    snow: float,
    lambert: np.ndarray,
    lit: np.ndarray,
) -> np.ndarray:
    lasting, passing = np.random.default_rng([place.seed, 11]), np.random.default_rng([place.seed, seed, 12])
    shape, scale = covers.shape, place.metres_per_pixel
    coarse = octaves(lasting, shape, 70 / scale, 3, 0.6)
    cv2.scaleAdd(octaves(passing, shape, 45 / scale, 3, 0.6), 0.7, coarse, dst=coarse)
    middle = octaves(passing, shape, 7 / scale, 3, 0.75)
    fine = passing.integers(0, 256, shape, dtype=np.uint8)
    hue = band(lasting, shape, 26 / scale)
    colours, amounts, material_of_object, object_gain, object_tint = _tables(place, season, lasting, passing)
    snow_at = 1.0 - 2.2 * snow if snow > 0 else np.inf
    angle = np.zeros(65536, np.float32)
    angle[: len(place.parcel_angle_rad)] = place.parcel_angle_rad
    cos, sin = np.cos(angle), np.sin(angle)
    spacing = 1.0 + 0.15 * passing.standard_normal(65536).astype(np.float32).clip(-2, 2)
    right = (np.arange(shape[1], dtype=np.float32) * scale)[None]
    image = np.empty((*shape, 3), np.uint8)
    for top in range(0, shape[0], _STRIP):
        rows = slice(top, min(top + _STRIP, shape[0]))
        cover, objects = covers[rows], all_objects[rows]
        material = np.where(cover == Cover.FIELD, material_of_object[objects], cover)
        amount = amounts[material]  # (rows, cols, 6): coarse, middle, fine, spread, rows, row wavenumber
        gain = 1.0 + amount[..., 0] * coarse[rows] + amount[..., 1] * middle[rows]
        gain += amount[..., 2] * ((fine[rows].astype(np.float32) - 127.5) / 74)
        gain += amount[..., 3] * object_gain[objects]
        down = (np.arange(rows.start, rows.stop, dtype=np.float32) * scale)[:, None]
        across = down * cos[objects] - right * sin[objects] + 0.4 * coarse[rows]
        gain += _rows(across, amount, spacing[objects])
        direct = lambert[rows] * lit[rows]
        colour = colours[material] + object_tint[objects] * _TINTED[cover][..., None]
        warm = (0.018 * hue[rows] + 0.015 * coarse[rows])[..., None] * _HUE
        strip = colour * (gain[..., None] + warm * _LIVING[cover][..., None])
        if np.isfinite(snow_at):
            white = np.clip((coarse[rows] * 0.5 + 0.3 * middle[rows] - snow_at) * 3, 0, 1) * _SNOWED[cover]
            strip += white[..., None] * (np.array([226, 230, 236], np.float32) - strip)
        # Sky light is a good third and bluish; the sun gives the rest, so shadows are dark and blue.
        strip *= _SKY + (1 - _SKY) * direct[..., None]
        np.clip(strip, 0, 255, out=strip)
        image[rows] = strip.astype(np.uint8)
    return cv2.GaussianBlur(image, (0, 0), 0.55)  # the map's own lens: edges are never a pixel sharp


def _rows(across_m: np.ndarray, amount: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Rows of the crop and, every eighth or so, the pair of wheel tracks of the tractor."""
    phase = across_m * (amount[..., 5] / spacing)
    pattern = amount[..., 4] * np.sin(2 * np.pi * phase)
    tram = phase / 8
    tram -= np.floor(tram)
    return pattern - 0.9 * amount[..., 4] * ((tram < 0.06) | ((tram > 0.11) & (tram < 0.17)))


def _tables(
    place: Place, season: Season, lasting: np.random.Generator, passing: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Colours (M, 3) and texture amounts (M, 6) by material; crop, gain and tint (65536, ...) by object."""
    names = list(_CROPS)
    materials = {int(cover): material for cover, material in _COVERS.items()}
    materials |= {_FIRST_CROP + i: _CROPS[name] for i, name in enumerate(names)}
    colours, amounts = np.zeros((64, 3), np.float32), np.zeros((64, 6), np.float32)
    for index, m in materials.items():
        colours[index] = m.rgb
        amounts[index] = (m.coarse, m.middle, m.fine, m.spread, m.rows, 1 / m.row_m)
    for cover, rgb in _GREENS[season].items():
        colours[cover] = rgb
    weights = np.array([_GROWN[season].get(name, 0) for name in names], float)
    crop = (_FIRST_CROP + passing.choice(len(names), 65536, p=weights / weights.sum())).astype(np.uint8)
    gain = lasting.standard_normal(65536).astype(np.float32).clip(-2, 2)
    tint = np.zeros((65536, 3), np.float32)
    parcels = slice(0, len(place.parcel_angle_rad))
    tint[parcels] = passing.normal(0, 3.5, (65536, 3))[parcels]
    trees = slice(20000, 65536)
    tint[trees] = lasting.standard_normal((65536 - 20000, 1)).clip(-0.6, 2) * np.array(_TREE_TINTS[season])
    gain[parcels] = passing.standard_normal(65536).astype(np.float32)[parcels]
    roofs = place.roof_objects
    base = np.array(_COVERS[Cover.ROOF].rgb)
    tint[roofs] = (
        np.array(_ROOFS)[lasting.integers(0, len(_ROOFS), len(roofs))] - base + lasting.normal(0, 6, (len(roofs), 3))
    )
    return colours, amounts, crop, gain, tint


def _flags(*covers: Cover) -> np.ndarray:
    flags = np.zeros(64, np.float32)
    flags[list(covers)] = 1
    return flags


_LIVING = _flags(Cover.FIELD, Cover.MEADOW, Cover.FOREST_FLOOR, Cover.TREE, Cover.BANK, Cover.GARDEN)
_TINTED = _flags(Cover.FIELD, Cover.MEADOW, Cover.TREE, Cover.ROOF)
_SNOWED = _LIVING + 0.8 * _flags(Cover.ROOF, Cover.TRACK, Cover.YARD) - 0.5 * _flags(Cover.TREE)
_HUE = np.array([1.0, 0.1, -0.8], np.float32)
_SKY = np.array([0.34, 0.37, 0.44], np.float32)


def _tinted(orthophoto: np.ndarray, season: Season, seed: int) -> np.ndarray:
    """A real picture in another season's light: greens are pulled to its colours, brightness drifts in patches."""
    rng = np.random.default_rng([seed, 13])
    pull = {Season.SPRING: 0.15, Season.SUMMER: 0.0, Season.AUTUMN: 0.45, Season.WINTER: 0.55}[season]
    target = np.array(_GREENS[season].get(Cover.TREE, (100, 120, 70)), np.float32) / 100
    image = orthophoto.astype(np.float32)
    green = np.clip((2 * image[..., 1] - image[..., 0] - image[..., 2]) / 30, 0, 1)[..., None] * pull
    gray = image.mean(axis=2, keepdims=True)
    image += green * (gray * target - image)
    image *= 1 + 0.08 * octaves(rng, image.shape[:2], max(8.0, image.shape[0] / 6), 4)[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)
