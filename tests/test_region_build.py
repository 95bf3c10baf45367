"""The build of a region map: the same bytes or none, and the commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toy_region import ToyEngine, files_of, write_geotiff
from typer.testing import CliRunner

import onboard.engine
from export.region.build import BuildOptions, build_map
from export.region.cli import app
from onboard.engine import Embeddings
from onboard.errors import MapError


def test_two_builds_and_an_interrupted_one_give_the_same_bytes(tmp_path: Path) -> None:
    imagery = write_geotiff(tmp_path / "ortho.tif")
    whole = ToyEngine()
    for name in ("one/map", "two/map"):
        build_map([imagery], tmp_path / name, whole)
    out = tmp_path / "three/map"
    with pytest.raises(KeyboardInterrupt):
        build_map([imagery], out, ToyEngine(fails_at=3))
    assert not out.exists()
    journal = out.with_name("map.partial") / "journal.jsonl"
    journal.write_text(journal.read_text() + '"level0 r')  # cut off in the middle of an entry
    again = ToyEngine()
    result = build_map([imagery], out, again)
    assert result.resumed
    assert 0 < again.windows < whole.windows / 2
    first = files_of(tmp_path / "one/map")
    assert first == files_of(tmp_path / "two/map") == files_of(out)
    assert not out.with_name("map.partial").exists()


@pytest.mark.parametrize("change", ["model", "option", "imagery"])
def test_an_interrupted_build_of_something_else_starts_anew(tmp_path: Path, change: str) -> None:
    imagery, out = write_geotiff(tmp_path / "ortho.tif"), tmp_path / "map"
    with pytest.raises(KeyboardInterrupt):
        build_map([imagery], out, ToyEngine(fails_at=3))
    engine, options = ToyEngine("cd" * 32 if change == "model" else "ab" * 32), BuildOptions()
    if change == "option":
        options = BuildOptions(metres_per_pixel=1.0)
    if change == "imagery":
        write_geotiff(tmp_path / "ortho.tif", change=lambda bands: 255 - bands)
    assert not build_map([imagery], out, engine, options).resumed
    fresh = ToyEngine(engine.facts.sha256)
    build_map([imagery], tmp_path / "fresh/map", fresh, options)
    assert files_of(tmp_path / "fresh/map") == files_of(out)


def test_a_model_that_gives_nan_makes_no_map(tmp_path: Path) -> None:
    class Broken(ToyEngine):
        def embed(self, images_rgb: np.ndarray, masks: np.ndarray) -> Embeddings:
            found = super().embed(images_rgb, masks)
            found.detail[0, 0, 0, 0] = np.nan
            return found

    with pytest.raises(MapError, match="not finite"):
        build_map([write_geotiff(tmp_path / "ortho.tif")], tmp_path / "map", Broken())
    assert not list(tmp_path.glob("map*"))


def test_the_commands_build_a_map_and_say_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onboard.engine, "open_engine", lambda path, config: ToyEngine())
    imagery, out = write_geotiff(tmp_path / "ortho.tif"), tmp_path / "map"
    runner = CliRunner()
    built = runner.invoke(app, ["build", str(imagery), "--out", str(out), "--licence", "CC0", "--name", "field"])
    assert built.exit_code == 0, built.output
    said = runner.invoke(app, ["info", str(out), "--verify"])
    assert said.exit_code == 0
    for word in ("field", "ortho.tif", "CC0", "level0/detail.npy", "0.6", "abababababab", "size and hash"):
        assert word in said.output
    refused = runner.invoke(app, ["build", str(imagery), "--out", str(out)])
    assert isinstance(refused.exception, MapError)
