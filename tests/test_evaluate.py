"""Evaluate: a describer of colours and the shipped model through search, re-ranking, places, weather and the table."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import benchmark_fixtures as fixtures
import numpy as np
import pytest
import toy_world
from rich.console import Console
from typer.testing import CliRunner

from onboard.errors import ConfigError, EngineError, PilotageError
from training.benchmarks.base import Benchmark
from training.benchmarks.opening import open_benchmark
from training.data.weather import STYLES, degrade
from training.evaluation.describer import Match, Seen, open_describer
from training.evaluation.onnx import OnnxDescriber, correlate
from training.evaluation.run import Options, evaluate, take
from training.evaluation.table import drop, print_results, with_mean, write_json


class Colours:
    """The mean colour as a descriptor; places queries a quarter into the picture, and scores by colour too."""

    name = "colours"
    facts: Mapping[str, str] = {"model": "colours"}

    def __init__(self, matches: bool = False, spoilt: bool = False) -> None:
        self.matches, self.spoilt, self.described = matches, spoilt, 0

    def describe_queries(self, pictures: Sequence[Seen]) -> np.ndarray:
        self.described += len(pictures)
        found = np.array([rgb[mask].mean(axis=0) - 125 for rgb, mask in pictures], dtype=np.float32)
        if self.spoilt:
            found[:] = np.nan
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    describe_references = describe_queries

    def can_match(self, benchmark: Benchmark) -> bool:
        return self.matches

    def match(self, queries: Sequence[Seen], references: Sequence[Seen]) -> Match:
        return Match(np.full((len(queries), 2), 0.25), np.zeros(len(queries), np.float32))


def one(data: str, protocol: str | None = None) -> Benchmark:
    return open_benchmark(data, protocol)[0]


def test_a_describer_of_colours_finds_places_of_one_colour(tmp_path: Path) -> None:
    (result,) = evaluate(one(f"university1652:{fixtures.university1652(tmp_path)}", "satellite-drone"), Colours())
    assert list(result.metrics) == ["R@1", "R@5", "R@10", "R@1%", "AP"]
    assert result.metrics == dict.fromkeys(result.metrics, 1.0)
    assert (result.queries, result.references) == (3, 10)


def test_denseuav_gives_sdm_of_the_coordinates_found(tmp_path: Path) -> None:
    (result,) = evaluate(one(f"denseuav:{fixtures.denseuav(tmp_path)}"), Colours())
    assert result.metrics["SDM@1"] == pytest.approx(1.0)
    third = result.metrics["SDM@3"]
    assert third is not None
    assert 5 / 6 < third < 1.0  # two pictures of the place itself, then one at least 1e-4 degree off


def test_lengths_are_measured_in_the_tile_that_was_found(tmp_path: Path) -> None:
    benchmark = one(f"vigor:{fixtures.vigor(tmp_path)}")
    (centre,) = evaluate(benchmark, Colours())
    assert centre.metrics["R@1"] == 1.0
    off_px = np.hypot(32, 64)
    wanted = np.mean([off_px * metres for metres in (0.113248, 0.100817, 0.118141, 0.111262)])
    assert centre.metrics["mean m"] == pytest.approx(wanted)  # from the middle of the tile
    assert (centre.metrics["R@1m"], centre.metrics["R@10m"]) == (0.0, 1.0)
    (placed,) = evaluate(benchmark, Colours(matches=True))
    assert placed.metrics["mean m"] == pytest.approx(wanted / off_px * np.hypot(160 + 32, 160 + 64))
    assert any("matched" in note for note in placed.notes)


def test_weather_falls_on_the_drone_side_and_the_other_is_described_once(tmp_path: Path) -> None:
    benchmark = one(f"university1652:{fixtures.university1652(tmp_path)}")
    colours = Colours()
    results = evaluate(benchmark, colours, Options(weathers=("normal", "fog", "dark")))
    assert colours.described == 3 * len(benchmark.queries) + len(benchmark.references)
    assert [row.weather for row in results] == ["normal", "fog", "dark"]
    assert drop(results[0], results) == 0.0
    fallen = drop(results[2], results)
    assert fallen == pytest.approx((results[0].metrics["R@1"] or 0) - (results[2].metrics["R@1"] or 0))


def test_a_model_that_answers_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="not finite"):
        evaluate(one(f"cvusa:{fixtures.cvusa(tmp_path)}"), Colours(spoilt=True))


def test_a_trial_of_some_queries_says_so(tmp_path: Path) -> None:
    benchmark = one(f"university1652:{fixtures.university1652(tmp_path)}")
    some = take(benchmark, 2)
    assert len(some.queries) == 2
    assert len(some.references) == len(benchmark.references)
    assert "2 of 6 queries" in some.notes[-1]
    assert take(benchmark, 0) is benchmark


def test_sues_200_gets_the_mean_of_its_heights(tmp_path: Path) -> None:
    rows = [evaluate(b, Colours())[0] for b in open_benchmark(f"sues200:{fixtures.sues200(tmp_path)}")]
    mean = with_mean(rows)[-1]
    assert mean.protocol == "mean"
    assert mean.metrics["R@1"] == pytest.approx(np.mean([row.metrics["R@1"] for row in rows]))


def test_the_table_has_units_and_the_json_every_number(tmp_path: Path) -> None:
    results = evaluate(one(f"vigor:{fixtures.vigor(tmp_path / 'data')}"), Colours(), Options(("normal", "wind")))
    shown = io.StringIO()
    print_results(results, Console(width=160, file=shown))
    text = shown.getvalue()
    assert "VIGOR, test" in text
    assert "R@1 drop" in text
    assert "labels of splits__corrected" in text
    path = write_json(tmp_path / "deep/out.json", results, Colours.facts, {"rerank": 0})
    content = json.loads(path.read_text())
    assert content["model"] == {"model": "colours"}
    assert content["results"][0]["metrics"]["R@1"] == 1.0
    assert content["results"][1]["weather"] == "wind"
    assert [p.name for p in path.parent.iterdir()] == ["out.json"]


# ---- weather


@pytest.mark.parametrize("style", STYLES)
def test_weather_is_repeatable_and_of_its_own_kind(style: str, world: toy_world.World) -> None:
    clear = world.rgb[:128, :160]
    seen = degrade(clear, style, "place/1.jpg")
    assert seen.shape == clear.shape
    assert seen.dtype == np.uint8
    np.testing.assert_array_equal(seen, degrade(clear, style, "place/1.jpg"))
    change = float(np.abs(seen.astype(float) - clear).mean())
    assert (change == 0) == (style == "normal")
    if style not in ("normal", "dark"):
        assert not np.array_equal(seen, degrade(clear, style, "place/2.jpg"))
    brighter = float(seen.mean()) - float(clear.mean())
    if style in ("fog", "fog-snow", "fog-rain", "light", "snow"):
        assert brighter > 5
    if style == "dark":
        assert brighter < -20
    if style == "wind":
        assert np.abs(np.diff(seen.astype(float), axis=1)).mean() < np.abs(np.diff(clear.astype(float), axis=1)).mean()


def test_unknown_weather_is_refused() -> None:
    with pytest.raises(ConfigError, match="fog-rain"):
        degrade(np.zeros((8, 8, 3), np.uint8), "hail", 1)


# ---- the shipped model


def test_correlation_finds_a_known_displacement() -> None:
    rng = np.random.default_rng(2)
    detail = rng.normal(size=(1, 16, 16, 4)).astype(np.float32)
    template = np.zeros_like(detail)
    template[:, 4:12, 4:12] = detail[:, 7:15, 2:10]  # the view's cell (4, 4) is the tile's (7, 2)
    cells = np.zeros((1, 16, 16), bool)
    cells[:, 4:12, 4:12] = True
    scores = correlate(template, cells, detail, np.ones((1, 16, 16), bool))
    assert scores.shape == (1, 17, 17)
    assert np.unravel_index(scores.argmax(), scores.shape)[1:] == (8 + 3, 8 - 2)


def test_the_shipped_model_finds_and_places_views(tmp_path: Path, world: toy_world.World) -> None:
    describer = OnnxDescriber()
    (result,) = evaluate(one(f"places:{fixtures.dates(tmp_path, world.rgb)}"), describer, Options(rerank=4, batch=4))
    assert result.rerank == 4
    assert result.metrics["R@1"] == 1.0
    assert (result.metrics["median m"] or 99.0) < 1.5
    assert result.metrics["R@10m"] == 1.0


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path, world: toy_world.World) -> None:
    import typer

    from training.evaluation.cli import evaluate as command

    app = typer.Typer()
    app.command()(command)
    data, out = f"places:{fixtures.rendered(tmp_path / 'data', world.rgb)}", tmp_path / "numbers.json"
    ran = CliRunner().invoke(app, ["--data", data, "--weather", "fog-rain", "--limit", "2", "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    assert "median" in ran.output
    content = json.loads(out.read_text())
    assert [row["weather"] for row in content["results"]] == ["normal", "fog-rain"]
    assert len(content["model"]["sha256"]) == 64


def test_a_model_that_is_no_model_is_answered_with_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ONNX file, or a method's checkpoint\.pt"):
        open_describer(tmp_path / "checkpoint.pth")


def test_the_overhead_networks_checkpoint_is_answered_with_the_export(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"model": {}, "model_config": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(PilotageError, match="pilotage export onnx"):
        open_describer(tmp_path / "checkpoint.pt")
