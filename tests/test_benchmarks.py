"""Loaders: each official layout in miniature gives the right relation, and a lack is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import benchmark_fixtures as fixtures
import numpy as np
import pytest
import toy_world

from onboard.region import RegionMap
from training.benchmarks import sues200, vigor
from training.benchmarks.base import Benchmark, BenchmarkError
from training.benchmarks.opening import KINDS, open_benchmark

# The miniature maps say where they lie in a table only, as the loader reads it.
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def only(data: str, protocol: str | None = None, split: str = "test") -> Benchmark:
    (benchmark,) = open_benchmark(data, protocol, split)
    return benchmark


def places_agree(benchmark: Benchmark) -> bool:
    """Whether each query's positives are of its place."""
    return all(benchmark.references[k].place == q.place for q in benchmark.queries for k in q.positives)


def test_university_1652_matches_by_folder(tmp_path: Path) -> None:
    data = f"university1652:{fixtures.university1652(tmp_path)}"
    down = only(data)
    assert (len(down.queries), len(down.references), down.drone) == (6, 5, "queries")
    assert places_agree(down)
    assert "not comparable" in down.notes[0]
    up = only(data, "satellite-drone")
    assert (len(up.queries), len(up.references), up.drone) == (3, 10, "references")
    assert [len(q.positives) for q in up.queries] == [2, 2, 2]
    assert [q.place for q in only(data, "4K-satellite").queries] == ["0002"]
    assert len(only(data, "drone-satellite", "train").references) == 3


def test_sues_200_asks_for_the_eighty_places_not_trained_on(tmp_path: Path) -> None:
    data = f"sues200:{fixtures.sues200(tmp_path)}"
    found = open_benchmark(data)
    assert [b.protocol for b in found] == [f"drone-satellite {h} m" for h in (150, 200, 250, 300)]
    assert len(sues200.TRAINING) == 120
    for benchmark in found:
        assert (len(benchmark.queries), len(benchmark.references)) == (80, 200)
        assert places_agree(benchmark)
        assert not {int(q.place) for q in benchmark.queries} & sues200.TRAINING
    train = open_benchmark(data, "satellite-drone", "train")[0]
    assert (len(train.queries), len(train.references)) == (120, 120)
    assert places_agree(train)


def test_denseuav_reads_east_before_north(tmp_path: Path) -> None:
    benchmark = only(f"denseuav:{fixtures.denseuav(tmp_path)}")
    assert (len(benchmark.queries), len(benchmark.references)) == (2, 6)
    assert benchmark.queries[0].degrees == (pytest.approx(30.2001), 120.5)
    assert [len(q.positives) for q in benchmark.queries] == [2, 2]
    assert places_agree(benchmark)


def test_vigor_puts_the_panorama_where_its_label_says(tmp_path: Path) -> None:
    data = f"vigor:{fixtures.vigor(tmp_path)}"
    same = only(data)
    assert (len(same.queries), len(same.references)) == (4, 16)
    assert [q.positives[0] for q in same.queries] == [0, 4, 8, 12]
    assert same.queries[1].covering == (5, 6, 7)
    assert same.position_in(1, 4) == (0.5 + 32 / 640, 0.5 + 64 / 640)
    assert same.position_in(1, 0) is None  # another city
    side = same.references[4].size_m
    assert side == (pytest.approx(640 * vigor.METRES_PER_PIXEL["Seattle"]),) * 2
    cross = only(data, "cross-area")
    assert {q.area for q in cross.queries} == {"SanFrancisco", "Chicago"}
    assert {q.area for q in only(data, "cross-area", "train").queries} == {"NewYork", "Seattle"}
    original = only(data, "same-area-original")
    assert original.references[0].size_m == (pytest.approx(640 * 0.114),) * 2


def test_vigor_without_corrected_labels_says_where_they_are(tmp_path: Path) -> None:
    fixtures.vigor(tmp_path)
    shutil.rmtree(tmp_path / "splits__corrected")
    with pytest.raises(BenchmarkError, match="SliceMatch, or a protocol ending in -original"):
        open_benchmark(f"vigor:{tmp_path}")


def test_cvusa_pairs_the_columns_of_its_list(tmp_path: Path) -> None:
    data = f"cvusa:{fixtures.cvusa(tmp_path)}"
    benchmark = only(data)
    assert [q.positives for q in benchmark.queries] == [(0,), (1,), (2,)]
    assert benchmark.queries[0].picture.name == "streetview/panos/0000001.jpg"
    assert benchmark.references[0].picture.name == "bingmap/19/0000001.jpg"
    assert len(only(data, "val", "train").queries) == 2


def test_cvact_has_three_protocols(tmp_path: Path) -> None:
    data = f"cvact:{fixtures.cvact(tmp_path)}"
    assert [q.place for q in only(data).queries] == ["pano1", "pano2"]
    test = only(data, "test")
    assert [(q.place, q.positives) for q in test.queries] == [("pano3", (0,)), ("pano4", (1,)), ("pano5", (2,))]
    near = only(data, "test-5m")  # 4 m apart: neighbours are right too, the query's own first
    assert [q.positives for q in near.queries] == [(0, 1), (1, 0, 2), (2, 1)]
    assert [q.place for q in only(data, "val", "train").queries] == ["pano0"]


def test_uavvisloc_finds_the_tile_under_the_drone(tmp_path: Path) -> None:
    benchmark = only(f"uavvisloc:{fixtures.uavvisloc(tmp_path)}")
    assert len(benchmark.references) == 2 * 15  # 3 rows, 5 columns of 300 m tiles, half a tile apart
    assert len(benchmark.queries) == 4
    assert "1 images taken outside their map are left out" in benchmark.notes
    first = benchmark.queries[0]
    assert benchmark.references[first.positives[0]].picture.name == "01/0_0"
    row, col = benchmark.position_in(0, first.positives[0]) or (np.nan, np.nan)
    assert (row, col) == (pytest.approx(0.5, abs=0.01), pytest.approx(0.5, abs=0.01))
    assert benchmark.queries[3].area == "02"


def test_uavvisloc_puts_a_map_in_pieces_together(tmp_path: Path) -> None:
    benchmark = only(f"uavvisloc:{fixtures.uavvisloc(tmp_path)}")
    (across,) = (r for r in benchmark.references if r.picture.name == "02/0_150")  # columns 150 to 250, cut at 200
    rgb, mask = across.picture.read()
    assert rgb.shape == (100, 100, 3)
    assert mask.all()
    left, right = fixtures.picture(21)[..., ::-1].mean(axis=(0, 1)), fixtures.picture(22)[..., ::-1].mean(axis=(0, 1))
    np.testing.assert_allclose(rgb[:, :50].mean(axis=(0, 1)), left, atol=2)
    np.testing.assert_allclose(rgb[:, 50:].mean(axis=(0, 1)), right, atol=2)


def test_views_over_a_map_lie_where_they_were_taken(
    tmp_path: Path, hand_map: RegionMap, world: toy_world.World
) -> None:
    flight = write_flight(tmp_path / "flight", world)
    benchmark = only(f"places:{flight}@{hand_map.path}")
    assert benchmark.same_scale
    assert len(benchmark.references) == len(benchmark.references[0].picture.level.tiles)  # type: ignore[attr-defined]
    assert len(benchmark.queries) == 3
    for number, (query, moment) in enumerate(zip(benchmark.queries, moments(world), strict=True)):
        assert query.position_enu_m is not None
        assert np.linalg.norm(np.array(query.position_enu_m) - moment.position_enu_m) < 15.0  # tilt moves the centre
        share = benchmark.position_in(number, query.positives[0])
        assert share is not None
        assert all(0.2 < v < 0.8 for v in share)


def moments(world: toy_world.World) -> list[toy_world.Moment]:
    return toy_world.make_flight(world, count=3)


def write_flight(folder: Path, world: toy_world.World) -> Path:
    """The toy flight as a flight folder with truth."""
    (folder / "photos").mkdir(parents=True)
    toy_world.toy_camera().to_yaml(folder / "camera.yaml", "toy")
    lines = ["file,captured_at_ns,roll_deg,pitch_deg,yaw_deg,height_above_ground_m,latitude_deg,longitude_deg"]
    for k, moment in enumerate(moments(world)):
        fixtures.write(folder / f"photos/{k}.png", moment.frame.image_bgr)
        angles = (3 * np.sin(k / 2), 4 * np.cos(k / 3), 30 + 2 * np.sin(k))
        cells = [*angles, 90.0, *toy_world.PLACE.geodetic_from_enu(moment.position_enu_m)]
        lines.append(f"photos/{k}.png,{moment.frame.captured_at_ns}," + ",".join(f"{v:.9f}" for v in cells))
    (folder / "frames.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_two_dates_are_told_apart_by_the_protocol(tmp_path: Path, world: toy_world.World) -> None:
    root = fixtures.dates(tmp_path, world.rgb)
    benchmark = only(f"places:{root}")
    assert benchmark.protocol == "2020-2016"
    assert len(benchmark.queries) == len(benchmark.references) == 4
    view, mask = benchmark.queries[0].picture.read()
    tile, _ = benchmark.references[0].picture.read()
    assert view.shape == tile.shape == (256, 256, 3)
    assert 0.1 < mask.mean() < 0.9
    assert not view[~mask].any()
    with pytest.raises(BenchmarkError, match="VIEWED-MAPPED of 2016, 2020"):
        open_benchmark(f"places:{root}", "2020-1999")


def test_a_rendered_view_lies_in_its_tile(tmp_path: Path, world: toy_world.World) -> None:
    benchmark = only(f"places:{fixtures.rendered(tmp_path, world.rgb)}")
    for number, query in enumerate(benchmark.queries):
        row, col = benchmark.position_in(number, number) or (np.nan, np.nan)
        top, left = round((row - 0.5) * 256), round((col - 0.5) * 256)
        view, mask = query.picture.read()
        tile, _ = benchmark.references[number].picture.read()
        i, j = np.argwhere(mask)[len(np.argwhere(mask)) // 2]
        np.testing.assert_array_equal(view[i, j], tile[i + top, j + left])


@pytest.mark.parametrize(
    ("kind", "build", "lost", "named"),
    [
        ("university1652", fixtures.university1652, "test/gallery_satellite/0002", "1 of 3 places missing"),
        ("university1652", fixtures.university1652, "test/query_drone", "query_drone"),
        ("sues200", fixtures.sues200, "drone_view_512/0017/200", "1 of 200 places without images"),
        ("denseuav", fixtures.denseuav, "Dense_GPS_ALL.txt", "1 of 1 files missing"),
        ("vigor", fixtures.vigor, "Chicago/satellite/satellite_43.000000_-75.000000.png", "1 of 4 files missing"),
        ("cvusa", fixtures.cvusa, "bingmap/19/0000002.jpg", "1 of 6 files missing"),
        ("cvact", fixtures.cvact, "ANU_data_small/streetview/pano1_grdView.jpg", "1 of 4 files missing"),
        ("cvact", fixtures.cvact, "ACT_data.mat", "ACT_data.mat"),
        ("uavvisloc", fixtures.uavvisloc, "01/drone/01_0002.JPG", "1 of 3 files missing"),
        ("uavvisloc", fixtures.uavvisloc, "01/satellite01.tif", "satellite01.tif"),
        ("uavvisloc", fixtures.uavvisloc, "satellite_ coordinates_range.csv", "satellite_coordinates_range.csv"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, kind: str, build: Callable[[Path], Path], lost: str, named: str
) -> None:
    root = build(tmp_path)
    gone = root / lost
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(BenchmarkError) as raised:
        open_benchmark(f"{kind}:{root}")
    assert named in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_image_that_does_not_decode_is_named(tmp_path: Path) -> None:
    benchmark = only(f"cvusa:{fixtures.cvusa(tmp_path)}")
    (tmp_path / "bingmap/19/0000001.jpg").write_bytes(b"<html>404</html>")
    with pytest.raises(BenchmarkError, match=r"0000001\.jpg"):
        benchmark.references[0].picture.read()


def test_a_table_with_a_word_for_a_number_is_named(tmp_path: Path) -> None:
    root = fixtures.uavvisloc(tmp_path)
    table = root / "02/02.csv"
    table.write_text(table.read_text().replace("0.29", "north", 1))
    with pytest.raises(BenchmarkError, match=r"02\.csv: lat is 'north"):
        open_benchmark(f"uavvisloc:{root}")


@pytest.mark.parametrize("name", ["000_2016.tif", "000_000.npz"])
def test_a_broken_place_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not what it says")
    with pytest.raises(BenchmarkError, match=name):
        open_benchmark(f"places:{tmp_path}", "2016-2016" if name.endswith("tif") else None)


@pytest.mark.parametrize("data", ["vigor", "mars:/tmp", "vigor:", "cvusa:/nowhere/at/all", "places:/nowhere/at/all"])
def test_data_that_is_not_there_is_refused(data: str) -> None:
    with pytest.raises(BenchmarkError):
        open_benchmark(data)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "places"])
def test_an_unknown_protocol_is_answered_with_the_known_ones(tmp_path: Path, kind: str) -> None:
    with pytest.raises(BenchmarkError, match="expected"):
        open_benchmark(f"{kind}:{tmp_path}", "no-such-protocol")
