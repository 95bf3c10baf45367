"""The overhead network and its training: promises of shape and norm, and a training that goes on where it stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_imagery import toy_data

from training.data.pairs import PairConfig
from training.data.stream import Mixture, PairStream
from training.schedule import LARGE, SMALL, Canvas, Stage

torch = pytest.importorskip("torch")
torch.set_num_threads(2)

from training.fitting.device import has_bfloat16  # noqa: E402
from training.model import ModelConfig, OverheadNet  # noqa: E402
from training.train import TrainConfig, train  # noqa: E402

NARROW = PairConfig(view_px=128, offset_px=16.0, footprint_px=(54.0, 128.0), crop_rendered=True)


def small() -> ModelConfig:
    return ModelConfig(128, 8, 12, 16, 2, 6, 5, 20)


def test_the_network_keeps_its_promises_of_shape_norm_and_mask() -> None:
    torch.manual_seed(0)
    net = OverheadNet(small()).train()
    for _ in range(20):
        net(torch.rand(4, 3, 128, 128) * 255, torch.ones(4, 1, 128, 128))
    net.eval()
    image, mask = torch.rand(2, 3, 128, 128) * 255, torch.ones(2, 1, 128, 128)
    mask[:, :, :, 64:] = 0
    with torch.no_grad():
        descriptor, detail, fine = net(image, mask)
        image[:, :, :, 64:] = 0
        again = net(image, mask)
    assert (descriptor.shape, detail.shape, fine.shape) == ((2, 20), (2, 6, 16, 16), (2, 5, 32, 32))
    for part in (descriptor, detail, fine):
        np.testing.assert_allclose(part.norm(dim=1).numpy(), 1.0, atol=1e-3)
    np.testing.assert_allclose(again[0].numpy(), descriptor.numpy(), atol=1e-5)
    np.testing.assert_allclose(again[1].numpy(), detail.numpy(), atol=1e-5)


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["model"]


def test_a_training_learns_and_one_that_was_interrupted_ends_with_the_same_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(toy_data(tmp_path / "data"))
    stages = (Stage(2, 2e-3, ((1.0, Canvas(SMALL.pairs, 2)),)), Stage(2, 1e-3, ((1.0, Canvas(NARROW, 3, 8)),)))
    config = TrainConfig(data=data, out=str(tmp_path / "run"), stages=stages, workers=0, warm_up=1)
    first = train(dataclasses.replace(config, stop_after=2))
    before = tensors(first)
    assert torch.load(first, weights_only=True)["step"] == 2
    said = capsys.readouterr().out
    assert "continuing" not in said
    assert ("in bfloat16" if has_bfloat16() else "in float32") in said
    assert train(config) == first
    assert "continuing from step 2" in capsys.readouterr().out
    after = tensors(first)
    changed = [k for k, v in before.items() if v.is_floating_point() and not torch.equal(v, after[k])]
    assert len(changed) > 0.8 * sum(v.is_floating_point() for v in before.values())
    assert all(torch.isfinite(v).all() for v in after.values())
    whole = tensors(train(dataclasses.replace(config, out=str(tmp_path / "whole"))))
    assert all(torch.equal(after[k], whole[k]) for k in whole)
    assert list((tmp_path / "run").glob("*.partial")) == []


def halves(steps: int, batch: int, **changes: Any) -> Stage:
    """The shipped canvases with small batches, each for half of a stage."""
    return Stage(steps, 1e-3, tuple((0.5, dataclasses.replace(c, batch=batch)) for c in (SMALL, LARGE)), **changes)


def test_a_pair_is_the_same_whoever_draws_it_and_the_canvas_grows_once(tmp_path: Path) -> None:
    mixture = Mixture(str(toy_data(tmp_path)))
    one, other = (PairStream(mixture, (halves(4, 3),), seed=5) for _ in range(2))
    assert one.batches() == [[(step, number) for number in range(3)] for step in range(4)]
    assert one.batches(3) == [[(3, 0), (3, 1), (3, 2)]]
    _ = other[0, 0], other[1, 0]
    for which in ((3, 2), (2, 1)):
        for key, value in one[which].items():
            np.testing.assert_array_equal(value, other[which][key])
    assert [one[step, 0]["image"].shape[-1] for step in range(4)] == [192, 192, 256, 256]
    assert not np.array_equal(one[0, 1]["image"], one[0, 2]["image"])


def test_a_stage_more_changes_nothing_before_it_and_may_mix_its_canvases(tmp_path: Path) -> None:
    mixture = Mixture(str(toy_data(tmp_path)))
    mixed = Stage(40, 1e-3, ((0.5, Canvas(NARROW, 5)), (0.5, Canvas(SMALL.pairs, 2))), mixed=True)
    short, long = (PairStream(mixture, stages, seed=5) for stages in ((halves(4, 3),), (halves(4, 3), mixed)))
    assert long.batches()[:4] == short.batches()
    np.testing.assert_array_equal(short[3, 2]["image"], long[3, 2]["image"])
    sides = [long[batch[0]]["image"].shape[-1] for batch in long.batches(4)]
    assert 8 < sides.count(128) < 32
    assert sides.count(128) + sides.count(192) == 40
    assert [len(batch) for batch in long.batches(4)] == [5 if side == 128 else 2 for side in sides]
    assert not np.array_equal(long[4, 0]["image"], long[5, 0]["image"])


def test_weather_comes_with_its_stage_and_stays_inside_the_view(tmp_path: Path) -> None:
    data = str(toy_data(tmp_path))
    clear, wet = (
        PairStream(Mixture(data), (halves(2, 4), halves(2, 4, weather_share=share)), seed=5) for share in (0.0, 1.0)
    )
    for step, number in (which for batch in clear.batches() for which in batch):
        one, other = clear[step, number], wet[step, number]
        assert np.array_equal(one["image"][0], other["image"][0]) == (step < 2)
        np.testing.assert_array_equal(one["image"][1], other["image"][1])  # no weather on the map
        assert not other["image"][0][:, ~other["mask"][0, 0]].any()


def test_training_without_imagery_is_refused_in_one_line(tmp_path: Path) -> None:
    from onboard.errors import ConfigError

    with pytest.raises(ConfigError, match="no training imagery") as error:
        train(TrainConfig(data=str(tmp_path), out=str(tmp_path / "run")))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
