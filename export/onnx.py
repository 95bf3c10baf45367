"""A checkpoint becomes an ONNX file: float32, normalisation inside, its facts in the metadata, written to run fast.

Inputs: image uint8 (B, N, N, 3) RGB, mask uint8 (B, N, N) 0 or 1. Outputs: descriptor, detail, fine as
`onboard.engine.Embeddings` describes, channels last. The file is held against torch before it is kept.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from export.facts import PORTS, git_revision, set_facts, sha256_of
from export.rewrite import faster
from onboard.engine.base import FORMAT, INPUTS, OUTPUTS
from onboard.errors import EngineError
from training.data.pairs import PairConfig
from training.model import OverheadNet, read_network

OPSET = 18
TOLERANCE = 2e-4  # largest difference of a unit-norm feature that is put down to the order of additions


class Deployed(nn.Module):
    """The network as it flies: bytes in, channels last, out."""

    def __init__(self, net: OverheadNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        planes = image.to(torch.float32).permute(0, 3, 1, 2)
        descriptor, detail, fine = self.net(planes, mask.to(torch.float32)[:, None])
        return descriptor, detail.permute(0, 2, 3, 1), fine.permute(0, 2, 3, 1)


def export_onnx(checkpoint: Path, out: Path, name: str = "overhead", training_data: str = "") -> Path:
    """Write `out` (beside, then renamed); returns it. Raises EngineError when it differs from torch."""
    model = Deployed(read_network(checkpoint)).eval()
    config = model.net.config
    n = config.view_px
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (2, n, n, 3), dtype=np.uint8))
    mask = torch.ones((2, n, n), dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.onnx.export(
        model,
        (image, mask),
        input_names=list(INPUTS),
        output_names=list(OUTPUTS),
        dynamic_shapes={"image": {0: batch}, "mask": {0: batch}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    beside = out.with_suffix(".partial.onnx")
    out.parent.mkdir(parents=True, exist_ok=True)
    program.save(str(beside), external_data=False)
    try:
        proto = onnx.load(beside)
        facts = {
            "format": FORMAT,
            "name": name,
            "precision": "float32",
            "view_px": n,
            "detail_stride": 8,
            "detail_channels": config.detail_channels,
            "descriptor_dim": config.descriptor_dim,
            "fine_stride": 4,
            "fine_channels": config.fine_channels,
            "resolutions_m_per_px": "{} to {}".format(*PairConfig().resolutions),
            "training_data": training_data,
            "git_revision": git_revision(),
            "checkpoint_sha256": sha256_of(checkpoint),
            **PORTS,
        }
        set_facts(proto, facts)
        onnx.save(faster(proto), beside)
        worst = compare(model, beside, image, mask)
        if worst > TOLERANCE:
            raise EngineError(
                "ONNX differs from torch", f"{worst:.2e}", f"at most {TOLERANCE}", "report it with versions"
            )
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
    return out


def compare(model: nn.Module, path: Path, image: Tensor, mask: Tensor) -> float:
    """Largest difference of any output between torch and ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = session.run(list(OUTPUTS), {"image": image.numpy(), "mask": mask.numpy()})
    with torch.no_grad():
        wanted = model(image, mask)
    return max(float(np.abs(a - b.numpy()).max()) for a, b in zip(got, wanted, strict=True))
