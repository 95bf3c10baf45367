"""Export: what flies is what was trained, and it says of itself what it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toy_world

from onboard.engine import Embeddings, open_engine
from onboard.errors import EngineError

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

import dataclasses  # noqa: E402

from export import onnx as exporter  # noqa: E402
from export.quantize import MIN_CALIBRATION, quantize  # noqa: E402
from training.model import ModelConfig, OverheadNet  # noqa: E402

SMALL = ModelConfig(128, 8, 12, 16, 2, 6, 5, 20)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random network whose batch norms have seen something."""
    torch.manual_seed(1)
    net = OverheadNet(SMALL).train()
    pictures = torch.from_numpy(frames(8)[0]).permute(0, 3, 1, 2).float()
    for _ in range(20):
        net(pictures, torch.ones(8, 1, 128, 128))
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.pt"
    torch.save({"model": net.state_dict(), "model_config": dataclasses.asdict(SMALL)}, path)
    return path


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    return exporter.export_onnx(checkpoint, checkpoint.with_name("tiny.onnx"), "tiny", "a toy world")


def frames(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of toy ground (count, 128, 128, 3) and masks, one of them half empty."""
    world, rng = toy_world.make_world(seed=31, size_px=512).rgb, np.random.default_rng(0)
    corners = rng.integers(0, 384, (count, 2))
    masks = np.ones((count, 128, 128), bool)
    masks[0, :, 64:] = False
    return np.stack([world[r : r + 128, c : c + 128] for r, c in corners]), masks


def by_torch(checkpoint: Path, images: np.ndarray, masks: np.ndarray) -> Embeddings:
    net = exporter.load_checkpoint(checkpoint)
    with torch.no_grad():
        descriptor, detail, fine = net(
            torch.from_numpy(images).permute(0, 3, 1, 2).float(), torch.from_numpy(masks)[:, None].float()
        )
    return Embeddings(descriptor.numpy(), detail.permute(0, 2, 3, 1).numpy(), fine.permute(0, 2, 3, 1).numpy())


def test_the_exported_model_gives_what_torch_gives_for_any_batch(exported: Path, checkpoint: Path) -> None:
    engine = open_engine(exported)
    for count in (1, 3):
        images, masks = frames(count)
        found, wanted = engine.embed(images, masks), by_torch(checkpoint, images, masks)
        for name in ("descriptors", "detail", "fine"):
            np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=5e-4)


def test_the_exported_model_carries_its_facts(exported: Path) -> None:
    facts = open_engine(exported).facts
    assert (facts.name, facts.view_px, facts.detail_stride, facts.fine_stride) == ("tiny", 128, 8, 4)
    assert (facts.detail_channels, facts.fine_channels, facts.descriptor_dim) == (6, 5, 20)
    assert facts.metadata["training_data"] == "a toy world"
    assert facts.metadata["precision"] == "float32"


def test_a_model_that_differs_from_torch_is_not_kept(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "TOLERANCE", 0.0)
    with pytest.raises(EngineError, match="ONNX differs from torch"):
        exporter.export_onnx(checkpoint, tmp_path / "out.onnx")
    assert list(tmp_path.iterdir()) == []


def test_no_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no checkpoint.*absent\.pt") as error:
        exporter.export_onnx(tmp_path / "absent.pt", tmp_path / "out.onnx")
    assert "\n" not in str(error.value)


def test_int8_keeps_the_features_and_the_facts(exported: Path, tmp_path: Path) -> None:
    images, masks = frames(MIN_CALIBRATION)
    out = quantize(exported, tmp_path / "tiny.int8.onnx", zip(images, masks, strict=True))
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.int8.onnx"]
    whole, small = open_engine(exported), open_engine(out)
    assert "int8" in small.facts.metadata["precision"]
    assert small.facts.metadata["training_data"] == "a toy world"
    assert small.facts.sha256 != whole.facts.sha256
    a, b = whole.embed(images[1:4], masks[1:4]), small.embed(images[1:4], masks[1:4])
    for name in ("descriptors", "detail", "fine"):
        assert (getattr(a, name) * getattr(b, name)).sum(axis=-1).mean() > 0.9, name


def test_int8_from_too_few_frames_is_refused_and_leaves_nothing(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="calibration frames: 3") as error:
        quantize(exported, tmp_path / "tiny.int8.onnx", zip(*frames(3), strict=True))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
