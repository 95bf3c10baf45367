"""Public data sets in miniature: each official layout with a few pictures of a few pixels.

A place's number decides what its pictures look like, so that a describer of colours finds them.
"""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

PLACES = 200  # of SUES-200, whose loader wants all of them
VIGOR_CITIES = ("NewYork", "Seattle", "SanFrancisco", "Chicago")


def picture(place: int, seed: int = 0, shape: tuple[int, int] = (16, 16)) -> np.ndarray:
    """uint8 (h, w, 3): a colour of the place's own and a little noise of the seed's."""
    colour = np.random.default_rng(place).uniform(30, 220, 3)
    noise = np.random.default_rng([place, seed]).normal(0, 3, (*shape, 3))
    return np.clip(colour + noise, 0, 255).astype(np.uint8)


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def university1652(root: Path) -> Path:
    """Three places asked for, five in the gallery; two drone pictures a place, one satellite picture."""
    for place in (1, 2, 3, 4, 5):
        folders = ["test/gallery_{}"] + (["test/query_{}", "train/{}"] if place <= 3 else [])
        for folder in folders:
            for number in (0, 1):
                write(
                    root / folder.format("drone") / f"{place:04d}" / f"image-{number:02d}.jpeg", picture(place, number)
                )
            write(root / folder.format("satellite") / f"{place:04d}" / f"{place:04d}.jpg", picture(place, 9))
    write(root / "test/4K_drone/0002/0002.png", picture(2, 7))
    return root


def sues200(root: Path) -> Path:
    """All 200 places, as the loader insists: one drone picture a height."""
    for place in range(1, PLACES + 1):
        for height in (150, 200, 250, 300):
            write(root / f"drone_view_512/{place:04d}/{height}/0.jpg", picture(place, height, (4, 4)))
        write(root / f"satellite-view/{place:04d}/0.png", picture(place, 1, (4, 4)))
    return root


def denseuav(root: Path) -> Path:
    """Two places asked for, three in the gallery, 1e-4 degree of latitude apart; two dates of a satellite picture."""
    lines = []
    for place in (1, 2, 3):
        name = f"{place:06d}"
        for suffix in ("H80.tif", "H80_old.tif"):
            write(root / "test/gallery_satellite" / name / suffix, picture(place, len(suffix)))
        write(root / "test/gallery_drone" / name / "H80.JPG", picture(place))
        if place <= 2:
            write(root / "test/query_drone" / name / "H80.JPG", picture(place))
            write(root / "test/query_satellite" / name / "H80.tif", picture(place))
        lines.append(f"test/gallery_drone/{name}/H80.JPG E120.5 N{30.2 + 1e-4 * place:.7f} 92.0")
    (root / "Dense_GPS_ALL.txt").write_text("\n".join(lines) + "\n")
    return root


def vigor(root: Path) -> Path:
    """Four satellite pictures a city, on a grid half a picture apart, and one panorama for each split.

    The panorama lies 32 px south and 64 px east of the middle of the first.
    """
    for number, city in enumerate(VIGOR_CITIES):
        latitude, longitude, half = 40.0 + number, -75.0, 3.2e-4
        corners = [(latitude - half * (k // 2), longitude + half * (k % 2)) for k in range(4)]
        names = [f"satellite_{a:.6f}_{b:.6f}.png" for a, b in corners]
        for k, name in enumerate(names):
            write(root / city / "satellite" / name, picture(10 * number + k))
        deltas = [(32.0, -64.0), (30.0, 250.0), (-290.0, -60.0), (-288.0, 255.0)]
        for corrected in (False, True):
            labels = root / ("splits__corrected" if corrected else "splits") / city
            labels.mkdir(parents=True, exist_ok=True)
            (labels / "satellite_list.txt").write_text("\n".join(names) + "\n")
            for split in ("same_area_balanced_train", "same_area_balanced_test", "pano_label_balanced"):
                pano = f"{split},{latitude - 3e-5:.6f},{longitude + 8e-5:.6f},.jpg"
                write(root / city / "panorama" / pano, picture(10 * number, 5, (8, 16)))
                cells = " ".join(f"{name} {row} {col}" for name, (row, col) in zip(names, deltas, strict=True))
                (labels / f"{split}{'__corrected' if corrected else ''}.txt").write_text(f"{pano} {cells}\n")
    return root


def cvusa(root: Path) -> Path:
    """Three pairs to test on, two to train on."""
    for split, places in (("val", (1, 2, 3)), ("train", (4, 5))):
        rows = []
        for place in places:
            names = f"bingmap/19/{place:07d}.jpg", f"streetview/panos/{place:07d}.jpg"
            write(root / names[0], picture(place))
            write(root / names[1], picture(place, 1, (8, 16)))
            rows.append((*names, f"streetview/annotations/{place:07d}.png"))
        (root / "splits").mkdir(exist_ok=True)
        with (root / f"splits/{split}-19zl.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return root


def cvact(root: Path) -> Path:
    """Six panoramas in Matlab's list, 4 m apart: one to train on, two for val, three for the test."""
    import scipy.io

    names = [f"pano{k}" for k in range(6)]
    parts = {"trainSet": ("trainInd", [1]), "valSet": ("valInd", [2, 3]), "valSetAll": ("valInd", [4, 5, 6])}
    data = {key: {"other": 0.0, field: np.array(index)[:, None]} for key, (field, index) in parts.items()}
    utm = np.array([[4.0 * k, 100.0] for k in range(6)])
    root.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(str(root / "ACT_data.mat"), {"panoIds": np.array(names), "utm": utm, **data})
    for k, name in enumerate(names):
        folder = root / ("ANU_data_small" if k < 3 else "ANU_data_test")
        write(folder / "streetview" / f"{name}_grdView.jpg", picture(k, 1, (8, 16)))
        write(folder / "satview_polish" / f"{name}_satView_polish.jpg", picture(k))
    return root


def uavvisloc(root: Path) -> Path:
    """Flight 01 over one map of 600 by 900 m at 3 m/px; flight 02's map in two pieces. One image lies off its map."""
    degree_m = 111_000.0
    rows = [("mapname", "LT_lat_map", "LT_lon_map", "RB_lat_map", "RB_lon_map", "region")]
    for flight, latitude in (("01", 0.1), ("02", 0.3)):
        image = np.zeros((200, 300, 3), np.uint8)
        for tile in range(6):
            block = slice(100 * (tile // 3), 100 * (tile // 3) + 100), slice(100 * (tile % 3), 100 * (tile % 3) + 100)
            image[block] = picture(int(flight) * 10 + tile, 0, (100, 100))
        if flight == "01":
            write(root / "01/satellite01.tif", image)
        else:
            write(root / "02/satellite02_01-01.tif", image[:, :200])
            write(root / "02/satellite02_01-02.tif", image[:, 200:])
        south, east = latitude - 600 / degree_m, 900 / degree_m
        rows.append((f"satellite{flight}.tif", *(f"{v:.9f}" for v in (latitude, 0.0, south, east)), "toy"))
        lines = [("num", "filename", "date", "lat", "lon", "height")]
        for number, (down_m, right_m) in enumerate(
            [(150.0, 150.0), (450.0, 760.0), (900.0, 150.0)][: 3 - int(flight == "02")]
        ):
            name = f"{flight}_{number + 1:04d}.JPG"
            tile = 3 * int(down_m // 300) + int(right_m // 300)
            write(root / flight / "drone" / name, picture(int(flight) * 10 + tile, 3))
            place = f"{latitude - down_m / degree_m:.9f}", f"{right_m / degree_m:.9f}"
            lines.append((str(number), name, "2023-01-01", *place, "400"))
        with (root / flight / f"{flight}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(lines)
    with (root / "satellite_ coordinates_range.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def dates(root: Path, texture: np.ndarray, places: int = 4, side_px: int = 256) -> Path:
    """PLACE_2016.tif and PLACE_2020.tif at 0.6 m/px, cut from one texture; 2020 is darker."""
    import rasterio
    from affine import Affine

    root.mkdir(parents=True, exist_ok=True)
    for place in range(places):
        top, left = (int(v) for v in np.random.default_rng(place).integers(0, len(texture) - side_px, 2))
        rgb = texture[top : top + side_px, left : left + side_px]
        facts = {
            "count": 3,
            "dtype": "uint8",
            "crs": "EPSG:32610",
            "transform": Affine(0.6, 0, 5e5 + 1e3 * place, 0, -0.6, 4e6),
        }
        for date, gain in (("2016", 1.0), ("2020", 0.8)):
            with rasterio.open(
                root / f"{place:03d}_{date}.tif", "w", driver="GTiff", width=side_px, height=side_px, **facts
            ) as file:
                file.write(np.moveaxis((gain * rgb).astype(np.uint8), -1, 0))
    return root


def rendered(root: Path, texture: np.ndarray, count: int = 3) -> Path:
    """Samples as training.data.rendered keeps them: a crop of 400 px, and a view of its middle."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        top, left = (int(v) for v in np.random.default_rng(50 + number).integers(0, len(texture) - 400, 2))
        crop = texture[top : top + 400, left : left + 400]
        view, inside = crop[72:328, 72:328].copy(), np.zeros((256, 256), bool)
        inside[50:206, 40:216] = True
        view[~inside] = 0
        np.savez(
            root / f"000_{number:03d}.npz",
            crop=crop,
            crop_mask=np.ones((400, 400), bool),
            view=view,
            view_mask=inside,
            moved_px=np.zeros((32, 32, 2), np.float32),
        )
    return root
