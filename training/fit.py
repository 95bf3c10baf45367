"""Train one of the three methods: the loop and what a run needs to know.

    pilotage train --preset unifygeo --size tiny --data small:runs/smallplaces --out runs/unifygeo
    torchrun --nproc-per-node 8 -m training.cli --preset unifygeo ...     the same on eight GPUs

Lightning Fabric puts the method on its device, wraps it for several processes and casts its forward pass; the loop is
ours. Fabric and not Accelerate: it leaves the order of data and the random numbers alone, and both must be in one hand
where a resumed run is to end with the same weights.

A run that was killed goes on from its checkpoint to the same weights, bit for bit on one process of the same machine:
a batch hangs on the seed, the epoch and the sampler's table of neighbours alone, and every step seeds torch with the
run's seed and its own number.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

# A spinning OpenMP pool costs small CPUs most of their speed beside other work; set before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import numpy as np
import torch
from torch import Tensor, nn

from onboard.errors import PilotageError
from training.benchmarks.base import Benchmark
from training.contact_sheet import write_sheet
from training.data.augment import augment
from training.data.batch import Batch
from training.evaluation.checkpoint import MethodDescriber
from training.fitting import checkpoint as files
from training.fitting.device import launch, precision
from training.fitting.heldout import HeldOut, held_out
from training.fitting.journal import Journal, read_log
from training.fitting.pairs import PairSource, batches
from training.methods import build_method
from training.methods.base import Method
from training.presets import Preset, Schedule, method_to_dict
from training.sampling import PlaceBatches

_LAST_SHARE = 0.01  # of the learning rate, where the cosine ends


class FitError(PilotageError):
    """A training that cannot go on."""


@dataclass(frozen=True, slots=True)
class Run:
    """How a preset is run. Of these only the seed, the precision and the clipping change what is learnt."""

    out: Path
    seed: int = 1
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    clip_norm: float = 1.0  # of the gradient
    workers: int = 0  # processes that draw pairs ahead
    save_every_s: float = 120.0
    stop_after: int = 0  # steps, then save and return: a long training in shares; 0: run to the end


class Losses(nn.Module):
    """`Method.training_losses` as a forward pass, which is what Fabric casts and what DDP synchronises."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.method.training_losses(batch)


def fit(preset: Preset, source: PairSource, run: Run, heldout: Sequence[Benchmark] = ()) -> Path:
    """Run or continue a training, then say how it does on `heldout`; returns the checkpoint's path.

    Raises CheckpointError where `run.out` holds another training, ConfigError for a batch larger than the number of
    places, FitError where the loss is no number any more.
    """
    run.out.mkdir(parents=True, exist_ok=True)
    training = Training(preset, source, run)
    continued = training.resume()
    journal = Journal(run.out, training.step, preset.schedule.epochs, training.first)
    for line in training.facts_in_words(continued):
        journal.say(line)
    began = time.monotonic()
    with journal:
        while training.sampler.epoch < preset.schedule.epochs:
            if not training.run_epoch(journal):
                return training.checkpoint
    training.keep()
    journal.say(f"trained: {training.step} steps, {time.monotonic() - began:.0f} s in this run; {training.checkpoint}")
    if training.first:
        report(training.method, heldout, run.out, journal)
    return training.checkpoint


class Training:
    """What lives from one step to the next: weights, optimizer, sampler, and how many steps were taken."""

    def __init__(self, preset: Preset, source: PairSource, run: Run) -> None:
        self.preset, self.source, self.run = preset, source, run
        torch.manual_seed(run.seed)
        self.method = build_method(preset.method)
        self.parameters = sum(p.numel() for p in self.method.main_parameters())
        self.precision = precision(run.precision, self.parameters)
        self.fabric = launch(self.precision)
        groups = parameter_groups(self.method, preset.schedule.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=preset.schedule.learning_rate)
        self.losses, self.optimizer = cast(Any, self.fabric.setup(Losses(self.method), optimizer))
        self.sampler = make_sampler(source, preset.schedule, run.seed, self.fabric.global_rank, self.fabric.world_size)
        self.step = 0
        self.checkpoint = run.out / "checkpoint.pt"
        self._saved = time.monotonic()

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.fabric.is_global_zero

    @property
    def facts(self) -> dict[str, Any]:
        """What makes this training this one: a checkpoint with others is another's."""
        preset, run = self.preset, self.run
        return {
            "preset": preset.name,
            "size": preset.size,
            "method_config": method_to_dict(preset.method),
            "schedule": dataclasses.asdict(preset.schedule),
            "data": self.source.name,
            "pairs": len(self.source),
            "seed": run.seed,
            "precision": self.precision,
            "clip_norm": run.clip_norm,
            "processes": self.fabric.world_size,
        }

    def facts_in_words(self, continued: bool) -> list[str]:
        """What a person should know before the first step."""
        lines = [
            f"{self.preset.name}, size {self.preset.size}: {self.parameters / 1e6:.2f} M parameters learn; "
            f"{len(self.source):,} pairs of {len(self.sampler.places):,} places in {self.source.name}; "
            f"{self.precision} on {self.fabric.world_size} x {self.fabric.device.type}"
        ]
        if continued:
            lines.append(f"continuing from step {self.step}")
        return lines

    def run_epoch(self, journal: Journal) -> bool:
        """The rest of the sampler's epoch; false where the run is to stop inside it."""
        sampler, run = self.sampler, self.run
        epoch = sampler.epoch
        if sampler.wants_descriptors(epoch) and sampler.done == 0:
            self._look_again()
        order = list(sampler)
        count = sampler.done + len(order)
        journal.begin(epoch, sampler.done, count)
        for batch in batches(self.source, order, epoch, run.seed, run.workers):
            rate = learning_rate(epoch + (sampler.done + 1) / count, self.preset.schedule)
            journal.step(self.step + 1, self._take_step(batch, rate))
            self.step += 1
            sampler.set_epoch(epoch, sampler.done + 1)
            stop = self.step == run.stop_after
            if stop or time.monotonic() - self._saved >= run.save_every_s:
                self.keep()
            if stop:
                return False
        journal.end(epoch, self.step)
        sampler.set_epoch(epoch + 1)
        return True

    def _take_step(self, batch: Batch, rate: float) -> dict[str, Tensor | float]:
        """One step of the optimizer and the method's own; the losses, detached."""
        # Each step draws from its own seed, so that no state of random numbers need be kept.
        seeds = np.random.SeedSequence([self.run.seed, self.step, self.fabric.global_rank])
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        batch = self.fabric.to_device(augment(batch, self.preset.schedule.augment))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.losses.train()
        parts = self.losses(batch)
        total = torch.stack([part.float() for part in parts.values()]).sum()
        if not torch.isfinite(total):
            raise FitError("loss", f"{float(total)} at step {self.step + 1}", "a number", "lower --learning-rate")
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(total)
        norm = self.fabric.clip_gradients(
            self.losses, self.optimizer, max_norm=self.run.clip_norm, error_if_nonfinite=False
        )
        self.optimizer.step()
        with self.fabric.autocast():
            self.method.own_steps(batch)
        named = {f"loss/{name}": part.detach() for name, part in parts.items()}
        return {"loss": total.detach(), **named, "learning rate": rate, "gradient norm": norm}

    def _look_again(self) -> None:
        """Descriptors of all pairs for the sampler, made by the first process and told to the others."""
        if self.first:
            self.sampler.update(*describe_all(self.method, self.source, self.run, self.fabric.device))
        self.sampler.neighbours = self.fabric.broadcast(self.sampler.neighbours)

    def keep(self) -> None:
        """Write the checkpoint."""
        self._saved = time.monotonic()
        if self.first:
            state = {"method": self.method.state_dict(), "own": self.method.own_state()}
            state |= {"optimizer": self.optimizer.state_dict(), "sampler": self.sampler.state_dict()}
            files.save(self.checkpoint, self.facts | state | {"step": self.step})

    def resume(self) -> bool:
        """Take up the folder's checkpoint where there is one; whether there was."""
        if not self.checkpoint.exists():
            return False
        kept = files.load(self.checkpoint)
        for name, value in self.facts.items():
            if kept[name] != value:
                found = f"{name} {kept[name]}"
                raise files.CheckpointError(
                    f"{self.checkpoint} is of another training", found, str(value), "use another --out"
                )
        self.method.load_state_dict(kept["method"])
        self.method.load_own_state(kept["own"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.sampler.load_state_dict(kept["sampler"])
        self.step = kept["step"]
        return True


def learning_rate(epoch: float, schedule: Schedule) -> float:
    """At a time in epochs: a linear warm-up, then half a cosine down to a hundredth."""
    if epoch < schedule.warmup_epochs:
        return schedule.learning_rate * epoch / schedule.warmup_epochs
    along = (epoch - schedule.warmup_epochs) / max(1e-9, schedule.epochs - schedule.warmup_epochs)
    return schedule.learning_rate * (_LAST_SHARE + (1 - _LAST_SHARE) * 0.5 * (1 + math.cos(math.pi * min(1.0, along))))


def parameter_groups(method: Method, weight_decay: float) -> list[dict[str, Any]]:
    """What the optimizer moves; biases, scales and temperatures do not decay."""
    parameters = list(method.main_parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def make_sampler(source: PairSource, schedule: Schedule, seed: int, rank: int = 0, ranks: int = 1) -> PlaceBatches:
    """The preset's sampling; where the data has no positions, the first epochs are shuffled."""
    config = schedule.sampling
    similar = config.kind == "similarity"
    where = source.where_m if similar and np.isfinite(source.where_m).all() else None
    return PlaceBatches(source.label, schedule.batch, config, seed, where, rank, ranks)


@torch.no_grad()
def describe_all(method: Method, source: PairSource, run: Run, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """(N, D) float32 descriptors of every pair's query and reference."""
    method.eval()
    order = [list(range(first, min(first + 64, len(source)))) for first in range(0, len(source), 64)]
    query, reference = [], []
    for batch in batches(source, order, 0, run.seed, run.workers):
        query.append(method.describe_query(batch["query"].to(device)).descriptor.float().cpu())
        reference.append(method.describe_reference(batch["reference"].to(device)).descriptor.float().cpu())
    return torch.cat(query).numpy(), torch.cat(reference).numpy()


def report(method: Method, benchmarks: Sequence[Benchmark], out: Path, journal: Journal) -> list[HeldOut]:
    """Say how the loss went and how the held-out pictures are found; draw the hard ones."""
    log = read_log(out)
    if len(log) > 1:
        journal.say(
            f"loss {log[0]['loss']:.4f} in epoch {log[0]['epoch']}, {log[-1]['loss']:.4f} in epoch {log[-1]['epoch']}"
        )
    describer = MethodDescriber(method)
    results = []
    for number, benchmark in enumerate(benchmarks):
        result = held_out(benchmark, describer)
        results.append(result)
        sheet = out / (f"hard_examples_{number + 1}.png" if len(benchmarks) > 1 else "hard_examples.png")
        journal.say(result.line)
        journal.say(f"hard examples: {write_sheet(sheet, benchmark, result.ranking)}")
    return results
