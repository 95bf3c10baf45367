"""What the ground is made of: the labels of the land-cover raster."""

from enum import IntEnum


class Cover(IntEnum):
    """One label a pixel, uint8. A FIELD's crop is not here: it belongs to the season and the parcel."""

    UNKNOWN = 0
    FIELD = 1
    MEADOW = 2
    FOREST_FLOOR = 3
    TREE = 4
    ROAD = 5
    TRACK = 6
    WATER = 7
    BANK = 8
    GARDEN = 9
    YARD = 10
    ROOF = 11
    PARKING = 12
    MARKING = 13
    CAR = 14


GROWN = tuple(cover for cover in Cover if cover not in (Cover.UNKNOWN, Cover.CAR))  # what a generated place holds
