"""The region map as it is carried: a folder, bound to the model that made it, read piece by piece."""

from onboard.region.level import Level
from onboard.region.manifest import Manifest
from onboard.region.map import RegionMap

__all__ = ["Level", "Manifest", "RegionMap"]
