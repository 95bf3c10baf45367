"""Train the overhead network: about two hundred flat lines, every default on one screen.

    python -m training.train --data ../shared/data --out runs/train

Progress is printed, a checkpoint is written every few minutes (beside, then renamed), and the same command
continues from it. Real cross-date pairs come from NAIP, large single-date ground from the Namie
orthophoto, relief and built-up change from the project's renderer (`--rendered`, see training.data.rendered).
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

# A spinning OpenMP pool costs small CPUs most of their speed beside a data worker; set before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from onboard.errors import ConfigError
from training.data.stream import Mixture, PairStream
from training.fitting.device import has_bfloat16
from training.grow import fit, grown, settle
from training.losses import (
    Temperatures,
    correlate,
    gaussian_truth,
    matching_loss,
    patch_matching_loss,
    retrieval_loss,
    zero_mean_template,
)
from training.model import SIZES, OverheadNet, read_network
from training.schedule import STAGES, Stage, learning_rate, total_steps

DETAIL_STRIDE, FINE_STRIDE = 8, 4
REACH = 16  # cells of the detail map about the middle of a tile in which a view is sought


@dataclass(frozen=True)
class TrainConfig:
    """What a training run is made of. Weights of the losses are ours; the paper's are in training/README.md."""

    data: str = "../shared/data"
    out: str = "runs/train"
    rendered: str = ""  # a folder of rendered pairs; empty: none
    rendered_share: float = 0.3
    size: str = "small"  # of the network: SIZES
    start: str = ""  # a checkpoint to begin from, of this size or smaller; empty: random weights
    stages: tuple[Stage, ...] = STAGES
    weight_decay: float = 0.02
    warm_up: int = 100
    weight_retrieval: float = 0.7
    weight_matching: float = 1.0
    weight_fine: float = 0.7
    seed: int = 1
    stop_after: int = 0  # steps, for this time; 0: go on to the end
    save_every_s: float = 120.0
    workers: int = 1


def forward_losses(
    model: OverheadNet,
    temperatures: Temperatures,
    batch: dict[str, Tensor],
    config: TrainConfig,
    fine_patch: int = 16,
) -> tuple[Tensor, dict[str, float]]:
    """Total loss and its parts, with two figures that a person can read: recall@1 and right displacement."""
    size = len(batch["image"])
    image = batch["image"].transpose(0, 1).flatten(0, 1).float().contiguous(memory_format=torch.channels_last)
    mask = batch["mask"].transpose(0, 1).flatten(0, 1).float()
    with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=has_bfloat16()):
        descriptor, detail, fine = model(image, mask)
    descriptor, detail, fine = descriptor.float(), detail.float(), fine.float()
    detail_mask = (torch.nn.functional.avg_pool2d(mask, DETAIL_STRIDE) > 0.5).float()
    fine_mask = (torch.nn.functional.avg_pool2d(mask, FINE_STRIDE) > 0.5).float()
    scale = temperatures()

    template = zero_mean_template(detail[:size], detail_mask[:size])
    tiles = detail[size:] * detail_mask[size:]
    scores, share = correlate(template, detail_mask[:size], tiles, detail_mask[size:], REACH)
    truth = gaussian_truth(batch["offset_px"] / DETAIL_STRIDE, REACH, 0.6)
    matching = matching_loss(scores, share, truth, scale[0])
    fine_loss = patch_matching_loss(
        fine[:size],
        fine_mask[:size],
        fine[size:] * fine_mask[size:],
        fine_mask[size:],
        batch["moved_px"],
        batch["offset_px"],
        scale[2],
        FINE_STRIDE,
        fine_patch,
    )
    retrieval = retrieval_loss(descriptor[:size], descriptor[size:], scale[1])
    total = config.weight_matching * matching + config.weight_fine * fine_loss + config.weight_retrieval * retrieval

    with torch.no_grad():
        allowed = torch.where(share > 0.4, scores, torch.full_like(scores, -1.0))
        best = allowed.flatten(1).argmax(dim=1)
        side = 2 * REACH + 1
        tile, cell = best // (side * side), best % (side * side)
        found = torch.stack([cell // side - REACH, cell % side - REACH], dim=1)
        own = torch.arange(size, device=best.device)
        near = (found - batch["offset_px"] / DETAIL_STRIDE).norm(dim=1) < 1.5
        right = ((tile == own) & near).float().mean()
        recall = ((descriptor[:size] @ descriptor[size:].T).argmax(dim=1) == own).float().mean()
    return total, {
        "loss": float(total.detach()),
        "matching": float(matching.detach()),
        "fine": float(fine_loss.detach()),
        "retrieval": float(retrieval.detach()),
        "placed": float(right),
        "recall@1": float(recall),
    }


def save(
    path: Path,
    model: OverheadNet,
    temperatures: Temperatures,
    optimizer: torch.optim.Optimizer,
    step: int,
    config: TrainConfig,
) -> None:
    beside = path.with_suffix(".partial")
    torch.save(
        {
            "model": model.state_dict(),
            "temperatures": temperatures.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "model_config": dataclasses.asdict(model.config),
            "train_config": dataclasses.asdict(config),
        },
        beside,
    )
    beside.replace(path)


def begin(
    model: OverheadNet, temperatures: Temperatures, batch: dict[str, Tensor], config: TrainConfig, fine_patch: int
) -> None:
    """Weights of `config.start` into `model`, which may be larger; its norms and temperatures are fitted to `batch`."""
    network = read_network(Path(config.start))
    image, mask = (batch[name].transpose(0, 1).flatten(0, 1).float().cpu() for name in ("image", "mask"))
    settle(network, image, mask)
    model.load_state_dict(grown(network, model.config).state_dict())
    model.eval().requires_grad_(False)
    fitted = list(temperatures.parameters())
    loss = fit(fitted, lambda: forward_losses(model, temperatures, batch, config, fine_patch)[0])
    model.requires_grad_(True)
    print(f"beginning from {config.start}, loss {loss:.3f}", flush=True)


def train(config: TrainConfig) -> Path:
    """Run or continue a training; returns the checkpoint's path."""
    if not (Path(config.data) / "naip").is_dir():
        raise ConfigError("no training imagery", Path(config.data) / "naip", "NAIP chips", "see training/README.md")
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = OverheadNet(SIZES[config.size]).to(device, memory_format=torch.channels_last)
    temperatures = Temperatures().to(device)
    parameters = [*model.parameters(), *temperatures.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=config.stages[0].learning_rate, weight_decay=config.weight_decay)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, step = out / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if state["model_config"] != dataclasses.asdict(model.config):
            expected = f"one of size {config.size}: {model.config}"
            raise ConfigError("network to continue", checkpoint, expected, "another --out or --size")
        model.load_state_dict(state["model"])
        temperatures.load_state_dict(state["temperatures"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
        print(f"continuing from step {step}", flush=True)

    print(f"on {device.type} in {'bfloat16' if has_bfloat16() else 'float32'}", flush=True)
    mixture = Mixture(config.data, config.rendered, config.rendered_share)
    pairs, end = PairStream(mixture, config.stages, config.seed), total_steps(config.stages)
    if config.start and not checkpoint.exists():
        first = default_collate([pairs[which] for which in pairs.batches()[0]])
        first = {name: value.to(device) for name, value in first.items()}
        begin(model, temperatures, first, config, pairs.canvas(0).fine_patch)
    loader = DataLoader(
        pairs,
        batch_sampler=pairs.batches(step),
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,  # without workers nothing is fetched ahead
    )
    began, saved, mean = time.monotonic(), time.monotonic(), {}
    for batch in loader:
        torch.manual_seed(config.seed + step)  # so that a training that was interrupted ends where it would have
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config.stages, config.warm_up)
        batch = {name: value.to(device) for name, value in batch.items()}
        total, parts = forward_losses(model, temperatures, batch, config, pairs.canvas(step).fine_patch)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        for name, value in parts.items():
            mean[name] = 0.97 * mean.get(name, value) + 0.03 * value
        if step % 25 == 0:
            line = {"step": step, "s": round(time.monotonic() - began)} | {k: round(v, 3) for k, v in mean.items()}
            print(json.dumps(line), flush=True)
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
        last = step in (end, config.stop_after)
        if last or time.monotonic() - saved > config.save_every_s:
            save(checkpoint, model, temperatures, optimizer, step, config)
            saved = time.monotonic()
        if last:
            break
    return checkpoint
