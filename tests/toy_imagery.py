"""Training imagery small enough for a test, in the layout of ../shared/data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import toy_world
from affine import Affine


def toy_data(root: Path) -> Path:
    """Imagery in the layout that the trainer reads: two places in each of three cities, a larger orthophoto."""
    from training.data.stream import CITIES

    def write(path: Path, rgb: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"crs": "EPSG:32611", "transform": Affine(0.6, 0, 400000, 0, -0.6, 3700000), "dtype": "uint8"}
        with rasterio.open(path, "w", driver="GTiff", height=len(rgb), width=len(rgb), count=3, **facts) as file:
            file.write(np.moveaxis(rgb, -1, 0))

    for number, city in enumerate(CITIES):
        for place in range(2):
            rgb = toy_world.make_world(seed=10 * number + place, size_px=256).rgb
            for year, light in (("2016", 1.0), ("2018", 0.8)):
                write(root / "naip" / city / f"{place:03d}_{year}.tif", (rgb * light).astype(np.uint8))
    write(root / "namie" / "orthophoto_2017.tif", toy_world.make_world(seed=50, size_px=1024).rgb)
    return root
