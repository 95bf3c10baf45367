"""The trainer of the methods: it learns, it is found again by the evaluation, and a kill costs steps but no weight."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import benchmark_fixtures
import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from onboard.errors import ConfigError, PilotageError

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")
torch.set_num_threads(1)

import toy_training as toy  # noqa: E402

from training import fit as trainer  # noqa: E402
from training.benchmarks.opening import open_benchmark  # noqa: E402
from training.cli import app  # noqa: E402
from training.contact_sheet import CAPTION_PX, CELL_PX, MARGIN_PX, draw_sheet, hard_queries  # noqa: E402
from training.evaluation.checkpoint import open_checkpoint  # noqa: E402
from training.evaluation.describer import open_describer  # noqa: E402
from training.evaluation.retrieve import search  # noqa: E402
from training.evaluation.run import Options, evaluate  # noqa: E402
from training.fitting import checkpoint as files  # noqa: E402
from training.fitting.heldout import held_out  # noqa: E402
from training.fitting.journal import read_log  # noqa: E402
from training.fitting.pairs import BenchmarkPairs, DataError, batches  # noqa: E402
from training.fitting.sources import open_training  # noqa: E402
from training.presets import Schedule  # noqa: E402


def same(left: object, right: object) -> bool:
    """Equal in every bit, whatever it is nested in."""
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and torch.equal(left, right)
    if isinstance(left, dict):
        return isinstance(right, dict) and left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return isinstance(right, list | tuple) and len(left) == len(right) and all(map(same, left, right))
    return left == right


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted training of GenGeo: dropout, and negatives mined from its own descriptors."""
    out = tmp_path_factory.mktemp("whole")
    return trainer.fit(toy.toy_preset("gengeo"), toy.ToyPairs(), toy.toy_run(out), [toy.toy_benchmark()])


# ---- a kill costs steps, no weight


def test_a_killed_training_ends_with_the_weights_of_an_uninterrupted_one(whole: Path, tmp_path: Path) -> None:
    command = [sys.executable, toy.__file__, "gengeo", str(tmp_path), "11"]
    done = subprocess.run(command, cwd=Path(trainer.__file__).parents[1], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    stopped = files.load(tmp_path / "checkpoint.pt")
    assert 0 < stopped["step"] < 10  # steps were lost
    assert stopped["sampler"]["done"] > 0  # in the middle of an epoch
    (tmp_path / "checkpoint.pt.partial").write_bytes(b"cut short by another kill")
    trainer.fit(toy.toy_preset("gengeo"), toy.ToyPairs(), toy.toy_run(tmp_path))
    one, two = files.load(whole), files.load(tmp_path / "checkpoint.pt")
    assert one["step"] == two["step"] == 18
    assert not same(stopped["method"], two["method"])
    for part in ("method", "optimizer", "sampler"):
        assert same(one[part], two[part]), part


@pytest.mark.parametrize("method", ["unifygeo", "geolink"])
def test_a_training_in_shares_is_the_training_at_once(method: str, tmp_path: Path) -> None:
    preset, pairs = toy.toy_preset(method, epochs=2), toy.ToyPairs()
    for steps in (4, 9, 0):
        shares = trainer.fit(preset, pairs, toy.toy_run(tmp_path / "shares", steps))
    at_once = trainer.fit(preset, pairs, toy.toy_run(tmp_path / "at_once"))
    one, two = files.load(at_once), files.load(shares)
    assert one["step"] > 9
    assert bool(one["own"]) == (method == "geolink")  # the estimators' optimizers are kept too
    assert same(one, two)


def test_a_log_tells_each_epoch_once_after_a_resume(tmp_path: Path) -> None:
    preset, pairs = toy.toy_preset("gengeo", epochs=2), toy.ToyPairs()
    trainer.fit(preset, pairs, toy.toy_run(tmp_path, 8))
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"epoch": 2, "step": 12, "loss": 1.0}\n{"epoch": 2, "st')  # of a run that was killed after it
    trainer.fit(preset, pairs, toy.toy_run(tmp_path))
    assert [line["epoch"] for line in read_log(tmp_path)] == [1, 2]


def test_another_training_is_not_continued(whole: Path) -> None:
    preset = toy.toy_preset("gengeo")
    other = dataclasses.replace(preset, schedule=dataclasses.replace(preset.schedule, learning_rate=1.0))
    with pytest.raises(files.CheckpointError, match=r"of another training: schedule .*use another --out"):
        trainer.fit(other, toy.ToyPairs(), toy.toy_run(whole.parent))


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04 and then nothing"])
def test_a_broken_checkpoint_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(files.CheckpointError, match="does not read"):
        open_describer(tmp_path / "checkpoint.pt")


def test_a_checkpoint_of_the_overhead_network_is_named_as_such(tmp_path: Path) -> None:
    torch.save({"model": {}, "step": 3}, tmp_path / "checkpoint.pt")
    with pytest.raises(files.CheckpointError, match="pilotage export onnx"):
        open_checkpoint(tmp_path / "checkpoint.pt")


def test_a_loss_that_is_no_number_stops_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer.Losses, "forward", lambda self, batch: {"retrieval": torch.tensor(float("nan"))})
    with pytest.raises(trainer.FitError, match=r"nan at step 1.*lower --learning-rate"):
        trainer.fit(toy.toy_preset("gengeo"), toy.ToyPairs(), toy.toy_run(tmp_path))


# ---- it learns, and is evaluated


def test_a_training_learns_and_says_so(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = read_log(whole.parent)
    assert log[-1]["loss"] < log[0]["loss"]
    trainer.fit(toy.toy_preset("gengeo"), toy.ToyPairs(), toy.toy_run(whole.parent), [toy.toy_benchmark()])  # finished
    said = capsys.readouterr().out
    assert "continuing from step 18" in said
    assert f"loss {log[0]['loss']:.4f} in epoch 1" in said
    assert "times chance (8.33 %): toy all test, 12 queries, gallery of 12" in said
    assert cv2.imread(str(whole.parent / "hard_examples.png")) is not None


def test_scalars_of_every_step_are_in_tensorboard(whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole.parent / "tensorboard"))
    events.Reload()
    assert {"loss", "loss/retrieval", "learning rate", "gradient norm"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 19))


@pytest.mark.parametrize("method", ["unifygeo", "geolink"])
def test_a_checkpoint_is_evaluated_as_the_method_that_was_trained(method: str, tmp_path: Path) -> None:
    path = trainer.fit(toy.toy_preset(method, epochs=1), toy.ToyPairs(), toy.toy_run(tmp_path))
    describer = open_describer(path)
    held = toy.toy_benchmark()
    assert describer.facts["model"] == f"{method} toy"
    assert describer.can_match(held) == (method == "unifygeo")
    descriptors = describer.describe_queries([query.picture.read() for query in held.queries])
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1.0, atol=1e-5)
    result = evaluate(held, describer, Options(rerank=5))[0]
    assert result.rerank == (5 if method == "unifygeo" else 0)
    assert result.metrics["median m"] is not None
    assert 0.0 <= result.metrics["median m"] <= 23.0  # inside the reference of 32 m


def test_matching_gives_the_likeliest_pixel_and_what_equation_4_adds(tmp_path: Path) -> None:
    path = trainer.fit(toy.toy_preset("unifygeo", epochs=1), toy.ToyPairs(), toy.toy_run(tmp_path, 1))
    describer, held = open_checkpoint(path), toy.toy_benchmark()
    asked, seen = ([x.picture.read() for x in side[:3]] for side in (held.queries, held.references))
    match = describer.match(asked, seen)
    method = describer.method
    query, reference = (
        f(torch.from_numpy(np.stack([rgb.transpose(2, 0, 1) for rgb, _ in pictures])))
        for f, pictures in ((method.describe_query, asked), (method.describe_reference, seen))
    )
    chance = method.locate(query, reference).detach().numpy()
    for k in range(3):
        row, col = np.unravel_index(chance[k].argmax(), chance[k].shape)
        np.testing.assert_allclose(match.place[k], [(row + 0.5) / toy.PX, (col + 0.5) / toy.PX])
    base = torch.full((3, 1), 0.25)
    np.testing.assert_allclose(method.rerank(query, reference, base).detach()[:, 0] - 0.25, match.score, atol=1e-5)


def test_chance_counts_every_right_reference() -> None:
    class Colours:
        def describe_queries(self, pictures: list) -> np.ndarray:
            means = np.array([rgb.reshape(-1, 3).mean(axis=0) - 128 for rgb, _ in pictures])
            return means / np.linalg.norm(means, axis=1, keepdims=True)

        describe_references = describe_queries

    held = toy.toy_benchmark()
    twice = tuple(dataclasses.replace(q, positives=(k, (k + 1) % toy.PLACES)) for k, q in enumerate(held.queries))
    result = held_out(dataclasses.replace(held, queries=twice), Colours())  # type: ignore[arg-type]
    assert result.chance == pytest.approx(2 / 12)
    assert result.recall > 5 / 12


# ---- the schedule, the pairs, the picture


def test_the_rate_warms_up_and_ends_at_a_hundredth() -> None:
    schedule = Schedule(epochs=10, learning_rate=1e-3, warmup_epochs=2.0)
    wanted = {0.0: 0.0, 1.0: 5e-4, 2.0: 1e-3, 6.0: 1e-3 * (0.01 + 0.99 * 0.5), 10.0: 1e-5}
    for epoch, rate in wanted.items():
        assert trainer.learning_rate(epoch, schedule) == pytest.approx(rate)


def test_scales_and_temperatures_do_not_decay() -> None:
    from training.methods import build_method

    method = build_method(toy.toy_preset("gengeo").method)
    decayed, kept = trainer.parameter_groups(method, 0.1)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(list(method.main_parameters()))


def test_a_draw_does_not_hang_on_what_was_drawn_before_or_by_whom() -> None:
    pairs = toy.ToyPairs()
    straight = list(batches(pairs, [[0, 3], [5, 7]], epoch=2, seed=1, workers=0))
    alone = next(iter(batches(pairs, [[5, 7]], epoch=2, seed=1, workers=1)))
    assert same(dict(straight[1]), dict(alone))
    again = next(iter(batches(pairs, [[5, 7]], epoch=3, seed=1, workers=0)))
    assert not torch.equal(alone["query"], again["query"])


def test_a_public_data_set_gives_its_training_pairs(tmp_path: Path) -> None:
    root = benchmark_fixtures.university1652(tmp_path)
    pairs = BenchmarkPairs(open_benchmark(f"university1652:{root}", None, "train"), (24, 24), (32, 32))
    assert (len(pairs), len(set(pairs.label))) == (6, 3)
    assert np.isnan(pairs.where_m).all()
    sampler = trainer.make_sampler(pairs, Schedule(batch=3, sampling=toy.toy_preset("gengeo").schedule.sampling), 1)
    batch = next(iter(batches(pairs, list(sampler), 0, 1, 0)))
    assert batch["query"].shape == (3, 3, 24, 24)
    assert batch["reference"].shape == (3, 3, 32, 32)
    assert batch["label"].unique().numel() == 3  # no place twice
    assert torch.isnan(batch["position"]).all()
    colours = [batch[view].float().mean(dim=(2, 3)) for view in ("query", "reference")]
    assert (colours[0] - colours[1]).abs().max() < 6  # a query and its own reference


def test_positions_and_scale_come_from_a_benchmark_that_knows_them() -> None:
    pairs = BenchmarkPairs([toy.toy_benchmark()], (16, 16), (64, 64))
    sample = pairs.draw(3, np.random.default_rng(0))
    np.testing.assert_allclose(sample["position"], [0.5, 0.5])
    assert sample["metres_per_pixel"] == pytest.approx(0.5)
    np.testing.assert_allclose(pairs.where_m[3], [0.0, 300.0])


def test_a_contact_sheet_shows_the_worst_first_and_only_what_was_wrong() -> None:
    held = toy.toy_benchmark()
    gallery = np.eye(toy.PLACES, dtype=np.float32)
    asked = gallery.copy()
    asked[4, :3], asked[4, 4] = 0.5, 0.1  # its truth is fourth
    asked[7, 2], asked[7, 7] = 0.8, 0.2  # its truth is second
    ranking = search(asked, gallery, held.queries, 10)
    assert hard_queries(ranking, 5) == [4, 7]
    assert hard_queries(ranking, 1) == [4]
    sheet = draw_sheet(held, ranking, wrong=3)
    row = CAPTION_PX + CELL_PX + MARGIN_PX
    assert sheet.shape == (CAPTION_PX + 2 * row, 5 * (CELL_PX + MARGIN_PX) + MARGIN_PX, 3)
    second = sheet[CAPTION_PX + row + CAPTION_PX :, :]
    third, fourth = (second[:CELL_PX, k * (CELL_PX + MARGIN_PX) + MARGIN_PX :][:, :CELL_PX] for k in (2, 3))
    assert third.std() > 5.0  # the one reference that stood before the truth
    assert (fourth == 255).all()  # and no more


# ---- the command


def invoke(*arguments: str) -> object:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_training_data_without_a_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="small:FOLDER"):
        invoke("--preset", "gengeo", "--size", "tiny", "--data", "somewhere", "--out", str(tmp_path))
    with pytest.raises(DataError, match="lowland or upland"):
        open_training(f"small:{tmp_path}@moon", toy.toy_preset("gengeo"))


@pytest.mark.parametrize("native", [False, True])
def test_bfloat16_is_taken_only_where_the_processor_has_it(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.fitting import device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert device.has_bfloat16() is native
    assert device.precision("auto", 10_000_000) == ("bf16-mixed" if native else "32-true")
    assert device.precision("auto", 1_000_000) == "32-true"
    assert device.precision("bf16-mixed", 1) == "bf16-mixed"


@pytest.mark.parametrize(("option", "value"), [("--preset", "resnet"), ("--size", "huge"), ("--precision", "int8")])
def test_a_wrong_choice_is_named(option: str, value: str) -> None:
    arguments = {"--preset": "gengeo", "--size": "tiny"} | {option: value}
    with pytest.raises(ConfigError, match=value):
        invoke(*(word for pair in arguments.items() for word in pair))


def test_without_a_preset_the_overhead_network_is_trained_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    from training import train as overhead
    from training.schedule import resized

    asked = []
    monkeypatch.setattr(overhead, "train", lambda config: asked.append(config) or Path("x"))
    invoke("--data", "D", "--rendered", "R", "--out", "O", "--steps", "7")
    shorter = resized(overhead.TrainConfig().stages, 7, None)
    assert asked == [overhead.TrainConfig(data="D", rendered="R", out="O", stages=shorter)]
    invoke()
    assert asked[1].stages == overhead.TrainConfig().stages


# ---- directional facts


def cell(variant: str, seed: int, **figures: float) -> dict:
    results = [
        {"domain": domain, "rerank": rerank, "metrics": {"R@1": figures.get(f"{domain}{rerank}"), "mean m": 2.0}}
        for domain in ("own", "other")
        for rerank in (0, 5)
    ]
    return {"variant": variant, "seed": seed, "results": results}


def test_a_fact_is_said_to_hold_only_where_every_seed_says_so() -> None:
    from training.facts.table import findings

    cells = [
        *(
            cell("unifygeo", seed, own0=0.5, own5=0.5 + gain, other0=0.4, other5=0.3)
            for seed, gain in ((1, 0.1), (2, 0.2))
        ),
        *(cell("gengeo", seed, other0=0.3) for seed in (1, 2)),
        cell("gengeo, no dustbin", 1, other0=0.2),
        cell("gengeo, no dustbin", 2, other0=0.35),
        cell("gengeo, clusters apart", 1, other0=0.2),
    ]
    found = {(f.fact.statement, f.fact.domain): f for f in findings(cells, (1, 2))}
    assert len(found) == 3  # what lacks a seed is not reported
    own = found["re-ranking raises R@1", "own"]
    assert own.verdict == "holds"
    np.testing.assert_allclose(own.gains, [10.0, 20.0])
    assert found["re-ranking raises R@1", "other"].verdict == "reversed"
    assert found["the dustbin helps", "other"].verdict == "mixed"


def test_fewer_metres_are_a_gain() -> None:
    from training.facts.ablations import FACTS
    from training.facts.table import Finding

    metres = next(fact for fact in FACTS if fact.metric == "mean m")
    np.testing.assert_allclose(Finding(metres, (1, 2), (3.0, 4.0), (2.0, 1.0)).gains, [1.0, 3.0])


def test_every_variant_differs_from_its_method_in_what_its_name_says() -> None:
    from training.facts.ablations import FACTS, VARIANTS, variant_preset

    presets = {name: variant_preset(name, 2).method for name in VARIANTS}
    assert not presets["gengeo, no dustbin"].aggregator.dustbin
    assert presets["gengeo, clusters apart"].clusters == "separate"
    alone = presets["unifygeo, localization alone"].losses
    assert (alone.retrieval, alone.rerank) == (0.0, 0.0)
    assert alone.localization > 0.0
    assert len({json.dumps(dataclasses.asdict(preset), sort_keys=True) for preset in presets.values()}) == len(VARIANTS)
    assert all(measure.variant in VARIANTS for fact in FACTS for measure in (fact.better, fact.worse))


def test_a_study_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.facts import run as facts

    (tmp_path / "manifest.json").write_text('{"sha256": "0"}')
    study = facts.Study(tmp_path / "out", tmp_path, seeds=(1, 2), only=("gengeo",))
    ran = []

    def once(study: facts.Study, variant: str, seed: int) -> dict:
        if len(ran) == 4:
            raise KeyboardInterrupt
        ran.append((variant, seed))
        return cell(variant, seed) | {"study": facts._settings(study, variant)}

    monkeypatch.setattr(facts, "run_cell", once)
    with pytest.raises(KeyboardInterrupt):
        facts.run_study(study)
    before = list(ran)
    ran.clear()
    assert len(facts.run_study(study)) == 6
    assert len(ran) == 2
    assert not set(ran) & set(before)
    with pytest.raises(PilotageError, match="another study"):
        facts.run_study(dataclasses.replace(study, epochs=99))
