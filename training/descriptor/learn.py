"""Train a descriptor head on stored features of the frozen trunk: large batches, hard ones by similarity.

    pilotage train descriptor --model onboard/models/overhead.int8.onnx --data ../shared/data --out runs/descriptor

A batch is of `batch` places, each a tile with a large and a small view in it; L_G (UnifyGeo eq. 6) of either kind of
view with the tiles. A place is one of the eight variants of a piece of ground, so that a street is told from the same
street turned; no place is twice in a batch, whatever else shows the same ground lies elsewhere in it. Batches are
shuffled, then mined by similarity (GenGeo 3.4.2, `training.sampling`).
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import numpy as np
import torch
from torch import Tensor, nn

from training.descriptor.head import DescriptorHead, HeadConfig, save_head
from training.descriptor.heldback import Gallery, describe, recalls
from training.descriptor.store import Store
from training.losses import retrieval_loss
from training.sampling import PlaceBatches, SamplingConfig

VIEWS = ("large", "small")


@dataclass(frozen=True)
class LearnConfig:
    """What a training of the head is made of."""

    steps: int = 460
    batch: int = 256  # places, at most as many as there are
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    warm_up: int = 20
    cells: tuple[tuple[str, int], ...] = (("tile", 256), ("large", 128), ("small", 48))  # that a step sees of each
    small_weight: float = 1.0  # of the small views' loss beside the large ones'
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig("similarity", every_epochs=6))
    seed: int = 1
    save_every_s: float = 60.0
    judge_every: int = 120  # steps between two looks at the places held back
    stop_after: int = 0  # steps, for this time; 0: go on to the end


class Learner(nn.Module):
    """The head and the temperature of its loss: what is learnt."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.head = DescriptorHead(config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(20.0)))

    def scale(self) -> Tensor:
        return torch.exp(self.log_scale.clamp(max=math.log(100.0)))


def learn(
    store: Store,
    head: HeadConfig,
    config: LearnConfig,
    out: Path,
    facts: dict[str, object],
    gallery: Gallery | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Run or continue a training; returns OUT/head.pt, the head of its last step."""
    torch.manual_seed(config.seed)
    learner = Learner(head)
    optimizer = torch.optim.AdamW(_groups(learner, config.weight_decay), lr=config.learning_rate)
    batch = min(config.batch, len(np.unique(store.label)))
    batches = PlaceBatches(store.label, batch, config.sampling, config.seed)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, step = out / "checkpoint.pt", 0
    if checkpoint.exists():
        step = _load(checkpoint, learner, optimizer, batches)
        say(f"continuing from step {step}")
    began = saved = time.monotonic()
    mean: dict[str, float] = {}
    last = min(config.steps, config.stop_after or config.steps)
    endless = _endless(store, learner, batches)
    while step < last:
        parts = _step(store, learner, optimizer, next(endless), step, config)
        step, batches.done = step + 1, batches.done + 1
        mean = {name: 0.95 * mean.get(name, value) + 0.05 * value for name, value in parts.items()}
        if step % 20 == 0 or step == last:
            judged = gallery is not None and (step % config.judge_every == 0 or step == last)
            held = recalls(learner.head.eval(), gallery) if gallery is not None and judged else {}
            _tell(out, {"step": step, "s": round(time.monotonic() - began)} | mean | held, say)
        if step == last or time.monotonic() - saved > config.save_every_s:
            _save(checkpoint, learner, optimizer, batches, step)
            saved = time.monotonic()
    save_head(out / "head.pt", learner.head, {**facts, "steps": step})
    return out / "head.pt"


def _step(
    store: Store, learner: Learner, optimizer: torch.optim.Optimizer, chosen: list[int], step: int, config: LearnConfig
) -> dict[str, float]:
    torch.manual_seed(config.seed + step)  # so that a training that was interrupted ends where it would have
    for group in optimizer.param_groups:
        group["lr"] = rate(step, config)
    rows = np.sort(np.array(chosen))  # a file is read forwards
    learner.train()
    found = {kind: _found(store, learner.head, kind, rows, most) for kind, most in config.cells}
    losses = {kind: retrieval_loss(found[kind], found["tile"], learner.scale()) for kind in VIEWS}
    total = losses["large"] + config.small_weight * losses["small"]
    optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        own = torch.arange(len(rows))
        right = {k: float((found[k] @ found["tile"].T).argmax(1).eq(own).float().mean()) for k in VIEWS}
    return {f"loss {k}": float(losses[k].detach()) for k in VIEWS} | {f"R@1 {k}": right[k] for k in VIEWS}


def _found(store: Store, head: DescriptorHead, kind: str, rows: np.ndarray, most: int) -> Tensor:
    """Descriptors of at most `most` of each picture's cells, by chance: cheaper by far, and the more to learn from."""
    features, masks = store.features[kind][rows], store.masks[kind][rows]
    there = torch.from_numpy(masks.reshape(len(rows), -1)).float() / 255
    order = torch.where(there > 0, torch.rand_like(there), torch.full_like(there, 2.0)).argsort(dim=1)[:, :most]
    cells = np.take_along_axis(features.reshape(len(rows), features.shape[1], -1), order[:, None].numpy(), axis=2)
    numbers = (torch.from_numpy(cells).transpose(1, 2).float() - store.rounding.zero) * store.rounding.scale
    weights = there * head.importance(masks.shape[-1]).flatten()
    kept = weights.gather(1, order)
    more = there.sum(dim=1) / there.gather(1, order).sum(dim=1).clamp_min(1.0)
    return head.of_cells(numbers, kept * more[:, None])


def _endless(store: Store, learner: Learner, batches: PlaceBatches) -> Iterator[list[int]]:
    """Batches epoch after epoch, the table of neighbours made anew where it is due."""
    while True:
        if batches.done == 0 and batches.wants_descriptors(batches.epoch):
            described = [
                describe(learner.head.eval(), store.features[kind], store.masks[kind], store.rounding)
                for kind in ("large", "tile")
            ]
            batches.update(*described)
        yield from batches
        batches.set_epoch(batches.epoch + 1)


def rate(step: int, config: LearnConfig) -> float:
    """Linear warm-up, then half a cosine down to a fiftieth."""
    if step < config.warm_up:
        return config.learning_rate * (step + 1) / config.warm_up
    along = min(1.0, (step - config.warm_up) / max(1, config.steps - config.warm_up))
    return config.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * along)))


def _groups(learner: Learner, weight_decay: float) -> list[dict[str, Any]]:
    """Biases, rings and scales do not decay."""
    plain = [p for p in learner.parameters() if p.ndim < 2]
    return [
        {"params": [p for p in learner.parameters() if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def _tell(out: Path, line: dict[str, float], say: Callable[[str], None]) -> None:
    told = json.dumps({name: round(value, 3) for name, value in line.items()})
    say(told)
    with (out / "log.jsonl").open("a") as log:
        log.write(told + "\n")


def _save(path: Path, learner: Learner, optimizer: torch.optim.Optimizer, batches: PlaceBatches, step: int) -> None:
    beside = path.with_suffix(".partial")
    state = {"learner": learner.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**state, "batches": batches.state_dict(), "step": step}, beside)
    beside.replace(path)


def _load(path: Path, learner: Learner, optimizer: torch.optim.Optimizer, batches: PlaceBatches) -> int:
    state = torch.load(path, weights_only=True)
    learner.load_state_dict(state["learner"])
    optimizer.load_state_dict(state["optimizer"])
    batches.load_state_dict(state["batches"])
    return int(state["step"])
