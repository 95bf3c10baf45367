"""The small places data set: the same each time, whole or refused, its positions where the pictures say they are."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.benchmarks.base import BenchmarkError
from training.benchmarks.opening import open_benchmark
from training.data import smallplaces
from training.data.smallplaces import STYLES, SmallPairs, SmallPlacesConfig, SmallPlacesError, make, open_sites
from training.data.smallworld import KINDS, RECTIFIED, REFERENCES, WorldConfig, make_world

TINY = SmallPlacesConfig(train_worlds=1, test_worlds=1, world=WorldConfig(side=2, days=1, picture_px=64))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small")
    make(path, TINY, processes=1)
    return path


@pytest.fixture(scope="module")
def world() -> dict[str, np.ndarray]:
    """One world of sharp pictures, 9 places, to measure in."""
    return make_world(42, STYLES["lowland"], WorldConfig(side=3, days=1))


def test_a_world_holds_tiles_views_clouds_and_positions_of_every_site(world: dict[str, np.ndarray]) -> None:
    assert world["reference"].shape == (9, REFERENCES, 128, 128, 3)
    assert world["query"].shape == (9, len(KINDS), 128, 128, 3)
    assert world["cloud"].shape == (9, 1024, 3)
    assert len(np.unique(world["site_enu_m"], axis=0)) == 9
    share = (world["query_enu_m"][:, :, None] - world["reference_enu_m"][:, None]) / 128.0
    assert np.abs(share).max() < 0.45  # every view's middle lies in each of its tiles


def gradient(rgb: np.ndarray) -> np.ndarray:
    grey = cv2.GaussianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (0, 0), 1.5).astype(np.float32)
    return np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))


@pytest.mark.parametrize("kind", ["overhead", "oblique"])
def test_a_rectified_view_laid_where_its_position_says_shows_what_the_map_shows(
    world: dict[str, np.ndarray], kind: str
) -> None:
    """Edges correlate with the map best within some metres of the told place (pose errors are a part of the data)."""
    view, errors = KINDS.index(kind), []
    for site in range(9):
        mask = cv2.erode(world["query_mask"][site, view].astype(np.uint8), np.ones((9, 9)))[32:96, 32:96].astype(
            np.float32
        )
        template = gradient(world["query"][site, view])[32:96, 32:96]
        score = cv2.matchTemplate(gradient(world["reference"][site, 0]), template, cv2.TM_CCORR_NORMED, mask=mask)
        row, col = np.unravel_index(np.argmax(score), score.shape)
        east, north = world["query_enu_m"][site, view] - world["reference_enu_m"][site, 0]
        errors.append(np.hypot(row - 32 - (-north), col - 32 - east))
    assert np.median(errors) < 5.0


def test_the_perspective_picture_is_turned_north_up(world: dict[str, np.ndarray]) -> None:
    """Its middle resembles the rectified view of the same picture as it is more than upside down, at some scale."""
    better = []
    for site in range(9):
        seen, flat = (world["query"][site, KINDS.index(kind)] for kind in ("perspective", "oblique"))
        scores = []
        for turned in (seen, seen[::-1, ::-1]):
            middles = [cv2.resize(turned[a:-a, a:-a], (64, 64)) for a in (24, 32, 40)]
            scores.append(
                max(cv2.matchTemplate(gradient(flat), gradient(m), cv2.TM_CCOEFF_NORMED).max() for m in middles)
            )
        better.append(scores[0] > scores[1])
    assert np.mean(better) > 0.75


def test_clouds_stand_on_the_ground_that_the_tiles_show(world: dict[str, np.ndarray]) -> None:
    cloud = world["cloud"]
    assert np.abs(cloud[..., :2]).max() < 65.0
    assert np.abs(np.median(cloud[..., 2], axis=1)).max() < 8.0  # of the points; nought is the ground's
    assert np.ptp(cloud[..., 2], axis=1).max() > 5.0  # houses or trees somewhere


def test_making_it_again_gives_the_same_bytes_and_what_is_missing_alone_is_made(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    files = sorted(manifest["worlds"])
    assert len(files) == 4
    times = {name: (folder / name).stat().st_mtime_ns for name in files}
    (folder / files[0]).unlink()
    (folder / "manifest.json").unlink()
    make(folder, TINY, processes=1)
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    assert all((folder / name).stat().st_mtime_ns == times[name] for name in files[1:])
    assert not list(folder.glob("*.partial"))


def test_domains_and_splits_share_no_ground(folder: Path) -> None:
    worlds = SmallPlacesConfig().worlds()
    assert len({seed for _, _, seed in worlds}) == len(worlds)
    seasons = [set(style.seasons) for style in STYLES.values()]
    assert not seasons[0] & seasons[1]
    pictures = [open_sites(folder, d, s).reference.tobytes() for d in STYLES for s in smallplaces.SPLITS]
    assert len(set(pictures)) == 4


def test_a_data_set_of_other_settings_or_with_a_broken_file_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SmallPlacesError, match="settings"):
        make(folder, SmallPlacesConfig())
    with pytest.raises(SmallPlacesError, match="python -m training"):
        open_sites(tmp_path, "lowland", "train")
    with pytest.raises(SmallPlacesError, match="lowland or upland"):
        open_sites(folder, "moon", "train")
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    broken = next(tmp_path.glob("lowland_train_*.npz"))
    broken.write_bytes(broken.read_bytes()[:-1])
    with pytest.raises(SmallPlacesError, match="broken"):
        open_sites(tmp_path, "lowland", "train")
    assert len(open_sites(tmp_path, "upland", "train").where_m) == 4


def test_a_drawn_pair_is_a_batchs_row_with_the_views_place_in_the_tile(folder: Path) -> None:
    sites = open_sites(folder, "lowland", "train")
    pairs = SmallPairs(sites, query_size=(48, 48), reference_size=(32, 32))
    assert len(pairs) == 4 * len(RECTIFIED)
    assert pairs.label.tolist() == [site for site in range(4) for _ in RECTIFIED]
    one, again = (pairs.draw(3, np.random.default_rng(3)) for _ in range(2))
    assert all(np.array_equal(one[key], again[key]) for key in one)
    assert one["query"].shape == (3, 48, 48)
    assert one["reference"].shape == (3, 32, 32)
    assert one["cloud"].shape == (1024, 3)
    assert float(one["metres_per_pixel"]) == 2.0  # 64 m over 32 pixels
    wanted = []
    for tile in range(REFERENCES):
        east, north = sites.query_enu_m[1, 1] - sites.reference_enu_m[1, tile]
        wanted.append([0.5 - north / 64.0, 0.5 + east / 64.0])
    assert min(np.abs(np.array(wanted) - one["position"]).max(axis=1)) < 1e-6
    with pytest.raises(SmallPlacesError, match="kinds"):
        SmallPairs(sites, kinds=("sideways",))


def test_evaluation_reads_it_as_a_benchmark_by_domain_and_kind(folder: Path) -> None:
    (whole,) = open_benchmark(f"small:{folder}", "upland")
    assert (len(whole.queries), len(whole.references)) == (4 * len(RECTIFIED), 4)
    assert whole.same_scale
    (raw,) = open_benchmark(f"small:{folder}", "upland-perspective")
    assert not raw.same_scale
    (one,) = open_benchmark(f"small:{folder}", "upland-overhead")
    assert len(one.queries) == 4
    assert one.same_scale
    row, col = one.position_in(0, 0) or (np.nan, np.nan)
    assert 0 < row < 1
    assert 0 < col < 1
    rgb, mask = one.queries[0].picture.read()
    assert rgb.shape == (64, 64, 3)
    assert 0.1 < mask.mean() <= 1
    with pytest.raises(BenchmarkError, match="upland-oblique"):
        open_benchmark(f"small:{folder}", "no-such")
