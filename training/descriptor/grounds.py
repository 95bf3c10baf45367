"""Which ground the descriptor learns from, and which chooses its settings: the overhead network's own cities."""

from __future__ import annotations

from pathlib import Path

from onboard.errors import ConfigError
from training.data.ground import Ground, cut, naip_places, read_raster, split
from training.data.stream import CITIES

NAMIE_PX = 768  # 182 m: room for a window and for where it lies


def learnt(data: Path) -> list[Ground]:
    """NAIP chips of the training cities without each seventh, and Namie in pieces that do not overlap."""
    if not (data / "naip").is_dir():
        raise ConfigError("no training imagery", data / "naip", "NAIP chips", "see training/README.md")
    grounds = [ground for city in CITIES for ground in split(naip_places(data / "naip", city))[0]]
    namie = data / "namie" / "orthophoto_2017.tif"
    if namie.is_file():
        rgb, valid, metres = read_raster(namie)
        grounds += cut(Ground("namie", (rgb,), valid, metres), NAMIE_PX)
    return grounds


def held_back(data: Path) -> tuple[list[Ground], list[Ground]]:
    """Each seventh place of the training cities, and all the others: what a gallery is made of."""
    cities = [split(naip_places(data / "naip", city)) for city in CITIES]
    return [g for _, held in cities for g in held], [g for train, _ in cities for g in train]
