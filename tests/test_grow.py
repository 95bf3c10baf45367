"""What flies can be trained on: a file becomes a checkpoint, a checkpoint a larger network that gives the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from toy_imagery import toy_data

from onboard.engine import SHIPPED_MODEL
from onboard.errors import ConfigError, EngineError
from training.data.pairs import PairConfig
from training.schedule import Canvas, Stage

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
torch.set_num_threads(2)

from typer.testing import CliRunner  # noqa: E402

from export.checkpoint import network_of, write_checkpoint  # noqa: E402
from export.cli import app as export_app  # noqa: E402
from export.onnx import export_onnx  # noqa: E402
from training.cli import app as train_app  # noqa: E402
from training.grow import fit, grown, settle  # noqa: E402
from training.model import SIZES, ModelConfig, OverheadNet, read_network  # noqa: E402
from training.train import TrainConfig, train  # noqa: E402

SMALL = ModelConfig(128, 8, 12, 16, 2, 6, 5, 20, 24)
LARGER = dataclasses.replace(SMALL, stem_channels=12, quarter_channels=16, trunk_channels=20, trunk_blocks=4)
NARROW = PairConfig(view_px=128, offset_px=16.0, footprint_px=(54.0, 128.0), crop_rendered=True)


def pictures(seed: int, count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth random pictures, a part of each masked."""
    drawn = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 255
    image = torch.nn.functional.interpolate(drawn, size=(128, 128), mode="bilinear")
    mask = torch.ones(count, 1, 128, 128)
    mask[:, :, :, 100:] = 0
    return image * mask, mask


@pytest.fixture(scope="module")
def trained() -> OverheadNet:
    """A small random network whose weights and norms are none of them as they were made."""
    torch.manual_seed(3)
    net = OverheadNet(SMALL).train()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    for seed in range(20):
        net(*pictures(seed))
    return net.eval()


@pytest.fixture(scope="module")
def checkpoint(trained: OverheadNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("grow") / "checkpoint.pt"
    torch.save({"model": trained.state_dict(), "model_config": dataclasses.asdict(SMALL)}, path)
    return path


def worst(net: OverheadNet, other: OverheadNet) -> list[float]:
    """Largest difference of descriptor, detail and fine features over pictures that neither has seen."""
    with torch.no_grad():
        return [float((a - b).abs().max()) for a, b in zip(net(*pictures(99)), other(*pictures(99)), strict=True)]


def test_a_model_file_becomes_the_network_that_it_was_made_of(
    trained: OverheadNet, checkpoint: Path, tmp_path: Path
) -> None:
    model = export_onnx(checkpoint, tmp_path / "small.onnx", "small", "drawn pictures")
    result = CliRunner().invoke(export_app, ["checkpoint", str(model), "--out", str(tmp_path / "again.pt")])
    assert result.exit_code == 0, result.output
    again = read_network(tmp_path / "again.pt")
    assert again.config == SMALL
    assert max(worst(trained, again)) < 1e-4
    export_onnx(tmp_path / "again.pt", tmp_path / "again.onnx")  # held against torch
    assert list(tmp_path.glob("*.partial")) == []


def test_the_shipped_int8_file_becomes_a_checkpoint(tmp_path: Path) -> None:
    """Its features are held against the file's on the way; the head that was put on later is left behind."""
    net = read_network(write_checkpoint(SHIPPED_MODEL, tmp_path / "shipped.pt"))
    assert (net.config.view_px, net.config.detail_channels, net.config.descriptor_dim) == (256, 32, 256)


def test_what_is_not_the_overhead_network_becomes_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no model"):
        write_checkpoint(tmp_path / "none.onnx", tmp_path / "none.pt")
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    sides = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    other = tmp_path / "other.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "other", sides[:1], sides[1:])), other)
    with pytest.raises(EngineError, match="the overhead network as"):
        write_checkpoint(other, tmp_path / "none.pt")
    assert not (tmp_path / "none.pt").exists()


def test_a_grown_network_gives_what_the_smaller_one_gave_and_all_of_it_learns(trained: OverheadNet) -> None:
    torch.manual_seed(4)
    net = grown(trained, LARGER)
    assert net.config == LARGER
    assert max(worst(trained, net)) < 1e-5
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = {name: value.clone() for name, value in net.named_parameters()}
    for seed in range(4):  # what is new is heard from the second step on, and hears from the third
        optimizer.zero_grad()
        outputs = net.train()(*pictures(seed))
        torch.stack([(part * torch.randn_like(part)).sum() for part in outputs]).sum().backward()
        optimizer.step()
    still = [name for name, value in net.named_parameters() if bool((value == before[name]).all())]
    assert still == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"trunk_channels": 8}, "trunk_channels .*: 16; expected at most 8"),
        ({"detail_channels": 8}, "detail_channels .*: 6; expected 8"),
    ],
)
def test_a_network_neither_shrinks_nor_gives_other_maps(
    trained: OverheadNet, changed: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        grown(trained, dataclasses.replace(SMALL, **changed))


def test_settled_norms_give_in_training_what_the_network_gave_before(trained: OverheadNet, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": trained.state_dict(), "model_config": dataclasses.asdict(SMALL)}, path)
    folded = network_of(export_onnx(path, tmp_path / "small.onnx"))
    batch = pictures(5, 12)
    with torch.no_grad():
        wanted = folded(*batch)[0]
        far = (folded.train()(*batch)[0] - wanted).abs().max()
        folded = network_of(tmp_path / "small.onnx")
        settle(folded, *batch)
        assert not folded.training
        near = (folded.train()(*batch)[0] - wanted).abs().max()
    assert near < 2e-3 < 0.05 < far


def test_fit_moves_what_it_is_given_to_where_the_loss_is_least() -> None:
    value = torch.nn.Parameter(torch.zeros(2))
    last = fit([value], lambda: ((value - torch.tensor([0.5, -0.3])) ** 2).sum(), steps=200)
    np.testing.assert_allclose(value.detach().numpy(), [0.5, -0.3], atol=0.02)
    assert last < 1e-3


def test_a_training_begins_from_a_checkpoint_and_goes_on_from_its_own(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SIZES, "large", LARGER)
    stages = (Stage(2, 1e-3, ((1.0, Canvas(NARROW, 3, 8)),)),)
    data = str(toy_data(tmp_path / "data"))
    begun = {"size": "large", "start": str(checkpoint), "stages": stages, "workers": 0}
    config = TrainConfig(data=data, out=str(tmp_path / "run"), **begun)
    train(dataclasses.replace(config, stop_after=1))
    assert f"beginning from {checkpoint}" in capsys.readouterr().out
    parts = torch.load(train(config), weights_only=True)["model"]
    said = capsys.readouterr().out
    assert "continuing from step 1" in said
    assert "beginning" not in said
    whole = torch.load(train(dataclasses.replace(config, out=str(tmp_path / "whole"))), weights_only=True)["model"]
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
    with pytest.raises(ConfigError, match=r"network to continue: .*checkpoint\.pt; expected one of size small"):
        train(dataclasses.replace(config, size="small"))


def test_what_is_no_checkpoint_and_no_size_is_said(tmp_path: Path) -> None:
    for content in (b"no weights", b""):
        (tmp_path / "other.pt").write_bytes(content)
        with pytest.raises(EngineError, match="one of the overhead network; a model file becomes one with"):
            read_network(tmp_path / "other.pt")
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(EngineError, match="one of the overhead network"):
        read_network(tmp_path / "other.pt")
    result = CliRunner().invoke(train_app, ["--size", "huge", "--out", str(tmp_path / "run")])
    assert isinstance(result.exception, ConfigError)
    assert "size of the flagship: huge; expected small or large" in str(result.exception)
