"""A map of several dates: the ground as it was at each of them, and a flight over ground that has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import toy_world
from affine import Affine
from toy_localizer import errors_m, fly
from toy_region import ToyEngine, files_of, write_geotiff
from toy_world import HandEngine, Moment, World
from typer.testing import CliRunner

import onboard.engine
from export.region.build import BuildOptions, build_map
from export.region.cli import app
from onboard.config import RectifyConfig
from onboard.errors import MapError
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.rectify import Rectifier
from onboard.region import RegionMap
from onboard.replay.gallery import look


def without_west(bands: np.ndarray) -> np.ndarray:
    """(3, H, W) whose western half becomes 0."""
    bands = bands.copy()
    bands[:, :, : bands.shape[2] // 2] = 0
    return bands


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Map `one` of a date; `two` of that and another one, of which only the eastern half is there."""
    folder = tmp_path_factory.mktemp("dates")
    (folder / "later").mkdir()
    write_geotiff(folder / "2016.tif")
    write_geotiff(folder / "later/2020.tif", change=without_west, nodata=0)
    build_map([folder / "2016.tif"], folder / "one", ToyEngine(), BuildOptions(name="place"))
    build_two(folder, folder / "two", ToyEngine())
    return folder


def build_two(folder: Path, out: Path, engine: ToyEngine) -> bool:
    options = BuildOptions(name="place", other_dates=(folder / "later",))
    return build_map([folder / "2016.tif"], out, engine, options).resumed


def edited(maps: Path, folder: Path, **fields: Any) -> Path:
    """A copy of map `two` whose manifest says something else; None takes a field out."""
    shutil.copytree(maps / "two", folder)
    manifest = json.loads((folder / "manifest.json").read_text()) | fields
    (folder / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if v is not None}))
    return folder


# ---- what is built


def test_another_date_is_added_and_changes_nothing_of_the_first(maps: Path) -> None:
    one, two = files_of(maps / "one"), files_of(maps / "two")
    assert {name.split("/")[0] for name in set(two) - set(one)} == {"date1"}
    assert all(two[name] == one[name] for name in one if name != "manifest.json")
    region = RegionMap.open(maps / "two", verify=True)
    for index, own in enumerate(region.levels):
        first, other = region.dates_of(index)
        assert first is own
        middle = own.valid.shape[1] // 2
        assert own.valid[:, : middle - 8].any()
        assert not other.valid[:, : middle - 8].any()
        both = (own.valid > 0) & (other.valid > 0)
        assert both.sum() > 0.4 * own.valid.size
        np.testing.assert_allclose(own.image[both], other.image[both], atol=8)  # nodata's edge is resampled, too
        assert 0 < len(other.tiles) <= len(own.tiles)
        assert not other.detail[:, : (middle - 8) // 8].any()
        assert other.detail[:, middle // 8 + 2 :].any()


def test_the_manifest_names_what_each_date_is_made_of_and_an_old_program_refuses_it_by_the_number(maps: Path) -> None:
    single = json.loads((maps / "one/manifest.json").read_text())
    assert single["format_version"] == 1
    assert "other_dates" not in single
    manifest = RegionMap.open(maps / "two").manifest
    assert manifest.format_version == 3
    assert [source.file for source in manifest.sources] == ["2016.tif"]
    (other,) = manifest.other_dates
    assert [source.file for source in other.sources] == ["2020.tif"]
    assert other.levels[0].valid_px < 0.6 * manifest.levels[0].valid_px


def test_an_interrupted_build_goes_on_to_the_same_bytes_and_with_another_date_starts_anew(
    maps: Path, tmp_path: Path
) -> None:
    calls = ToyEngine()
    build_two(maps, tmp_path / "whole", calls)
    for fails_at in (3, 6):  # in the first date, in the other
        with pytest.raises(KeyboardInterrupt):
            build_two(maps, tmp_path / "map", ToyEngine(fails_at=fails_at))
        again = ToyEngine()
        assert build_two(maps, tmp_path / "map", again)
        assert again.windows < calls.windows
        assert files_of(tmp_path / "map") == files_of(maps / "two")
        shutil.rmtree(tmp_path / "map")
    with pytest.raises(KeyboardInterrupt):
        build_two(maps, tmp_path / "map", ToyEngine(fails_at=3))
    options = BuildOptions(name="place")
    assert not build_map([maps / "2016.tif"], tmp_path / "map", ToyEngine(), options).resumed
    assert files_of(tmp_path / "map") == files_of(maps / "one")


def test_a_date_of_other_ground_and_one_that_is_not_there_are_refused(maps: Path, tmp_path: Path) -> None:
    away = write_geotiff(tmp_path / "away.tif", centre_enu_m=(3000.0, 0.0))
    with pytest.raises(
        MapError, match=r"no valid pixels: in 1 file\(s\) of date 1; expected imagery on the map's ground"
    ):
        build_map([maps / "2016.tif"], tmp_path / "map", ToyEngine(), BuildOptions(other_dates=(away,)))
    with pytest.raises(MapError, match="no such imagery"):
        build_map([maps / "2016.tif"], tmp_path / "map", ToyEngine(), BuildOptions(other_dates=(tmp_path / "none",)))
    assert not list(tmp_path.glob("map*"))


def test_how_far_a_date_lies_off_the_maps_own_is_measured_and_warned_of(
    maps: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def built(name: str, imagery: Path) -> tuple[float, float] | None:
        build_map([maps / "2016.tif"], tmp_path / name, ToyEngine(), BuildOptions(other_dates=(imagery,)))
        return RegionMap.open(tmp_path / name).manifest.other_dates[0].offset_enu_m

    def moved(east_m: float, north_m: float) -> Path:
        away = Path(shutil.copy(maps / "2016.tif", tmp_path / "away.tif"))
        with rasterio.open(away, "r+") as file:
            a, b, west, d, e, north = file.transform[:6]
            file.transform = Affine(a, b, west + east_m, d, e, north + north_m)
        return away

    assert built("near", moved(0.3, -0.6)) == pytest.approx((0.3, -0.6), abs=0.06)
    assert not caplog.records
    assert built("far", moved(2.4, 1.5)) == pytest.approx((2.4, 1.5), abs=0.06)
    assert "date 1 lies 2." in caplog.text
    assert built("blank", write_geotiff(tmp_path / "blank.tif", change=lambda bands: bands * 0 + 90)) is None
    assert "cannot be told" in caplog.text


def test_a_manifest_whose_dates_do_not_fit_is_refused(maps: Path, tmp_path: Path) -> None:
    dates = json.loads((maps / "two/manifest.json").read_text())["other_dates"]
    with pytest.raises(MapError, match="other_dates exactly in version 3"):
        RegionMap.open(edited(maps, tmp_path / "a", other_dates=None))
    with pytest.raises(MapError, match="other_dates exactly in version 3"):
        RegionMap.open(edited(maps, tmp_path / "b", format_version=1))
    with pytest.raises(MapError, match="date2/level0/image"):
        RegionMap.open(edited(maps, tmp_path / "c", other_dates=dates * 2))
    dates[0]["levels"][0]["west_m"] += 1
    with pytest.raises(MapError, match="grids of another date"):
        RegionMap.open(edited(maps, tmp_path / "d", other_dates=dates))


def test_the_commands_take_another_date_and_say_what_is_in_it(
    maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onboard.engine, "open_engine", lambda path, config: ToyEngine())
    runner, out = CliRunner(), tmp_path / "map"
    dates = ["--other-date", str(maps / "later"), "--other-date", str(maps / "2016.tif")]
    built = runner.invoke(app, ["build", str(maps / "2016.tif"), *dates, "--out", str(out)])
    assert built.exit_code == 0, built.output
    said = runner.invoke(app, ["info", str(out), "--verify"])
    assert said.exit_code == 0
    for word in ("2016.tif", "2020.tif", "0 of date 1", "1 of date 2", "date2/level0/detail.npy"):
        assert word in said.output
    refused = runner.invoke(
        app, ["build", str(maps / "2016.tif"), "--other-date", "nowhere", "--out", str(out), "--force"]
    )
    assert isinstance(refused.exception, MapError)


# ---- what is found


@pytest.fixture(scope="module")
def rebuilt(world: World) -> World:
    """The same world after its middle, over which the flight goes, was torn down and built anew."""
    rgb, other = world.rgb.copy(), toy_world.make_world(seed=77).rgb
    rgb[150:-150, 150:-150] = other[150:-150, 150:-150]
    return World(rgb, world.metres_per_pixel)


def test_a_flight_over_ground_that_has_changed_is_found_at_the_date_that_shows_it(
    hand_engine: HandEngine, world: World, rebuilt: World, tmp_path: Path
) -> None:
    flight: list[Moment] = toy_world.make_flight(world, count=7)
    for name in ("one", "both"):
        (tmp_path / name).mkdir()
    changed = toy_world.build_toy_map(rebuilt, hand_engine, tmp_path / "one")
    assert not any(step.published for step in fly(hand_engine, changed, flight))

    both = toy_world.build_toy_map(rebuilt, hand_engine, tmp_path / "both", world)
    steps = fly(hand_engine, both, flight)  # a search of the whole map at first, then round predictions
    assert all(step.published for step in steps[2:])
    assert errors_m(steps, flight).max() < 3.0
    assert {step.fix.map_date for step in steps if step.fix is not None} == {1}
    fix = steps[5].fix
    assert fix is not None
    rectifier = Rectifier(toy_world.toy_camera(), BODY_FROM_CAMERA_DOWN, 256, RectifyConfig())
    seen = look(rectifier, both, flight[5].frame, flight[5].telemetry, fix, fix.position_enu_m)
    alike = [
        np.corrcoef(seen.view_rgb[seen.both].ravel(), ground[seen.both].ravel())[0, 1]
        for ground in (both.window(0, seen.centre_enu_m, 256)[0], seen.map_rgb)
    ]
    assert alike[0] < 0.3 < 0.6 < alike[1]  # what a report shows is what was found
    alone = fly(hand_engine, both, flight[:3], independent=True)
    assert all(step.published for step in alone)
    assert errors_m(alone, flight[:3]).max() < 3.0


def test_a_second_date_that_shows_the_same_is_no_rival_of_the_first(
    hand_engine: HandEngine, hand_map: RegionMap, world: World, tmp_path: Path
) -> None:
    flight = toy_world.make_flight(world)[:3]
    twice = toy_world.build_toy_map(world, hand_engine, tmp_path, world)
    for once, again in zip(
        fly(hand_engine, hand_map, flight, independent=True),
        fly(hand_engine, twice, flight, independent=True),
        strict=True,
    ):
        assert once.fix is not None
        assert again.fix is not None
        np.testing.assert_allclose(again.fix.position_enu_m, once.fix.position_enu_m, atol=0.05)
        assert again.fix.probability_right == pytest.approx(once.fix.probability_right, abs=0.01)
        assert again.fix.evidence["rivals"] == pytest.approx(once.fix.evidence["rivals"], abs=0.01)
