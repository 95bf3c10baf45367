"""Train and evaluate every variant with every seed. What was done is not done again: a cell is a file."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.smallplaces import STYLES, benchmark
from training.evaluation.checkpoint import open_checkpoint
from training.evaluation.run import Options, evaluate, take
from training.facts.ablations import VARIANTS, reranked, variant_preset
from training.fit import Run, fit
from training.fitting.checkpoint import CheckpointError
from training.fitting.journal import read_log
from training.fitting.sources import open_small


@dataclass(frozen=True, slots=True)
class Study:
    """What is run: `epochs` of each training, 0: its method's; `queries` of each domain's held-out views, 0: all;
    `only` the variants of these methods, empty: all."""

    out: Path
    data: Path
    seeds: tuple[int, ...] = (1, 2, 3)
    epochs: int = 0
    queries: int = 216
    only: tuple[str, ...] = ()

    def cells(self) -> Iterator[tuple[str, int]]:
        """(variant, seed), a whole seed after the other, so that a stopped study still compares."""
        for seed in self.seeds:
            for variant, (method, _) in VARIANTS.items():
                if not self.only or method in self.only:
                    yield variant, seed


def run_study(study: Study) -> list[dict[str, Any]]:
    """The cells that there are at the end: all of them. Raises CheckpointError where the folder is another study's."""
    study.out.mkdir(parents=True, exist_ok=True)
    wanted = list(study.cells())
    done = []
    for number, (variant, seed) in enumerate(wanted, start=1):
        path = study.out / "cells" / f"{_slug(variant)}_{seed}.json"
        print(f"-- {number}/{len(wanted)}: {variant}, seed {seed}", flush=True)
        if not path.exists():
            _write(path, run_cell(study, variant, seed))
        cell = json.loads(path.read_text(encoding="utf-8"))
        if cell["study"] != _settings(study, variant):
            raise CheckpointError(
                f"{path} is of another study", cell["study"], str(_settings(study, variant)), "use another --out"
            )
        done.append(cell)
    return done


def run_cell(study: Study, variant: str, seed: int) -> dict[str, Any]:
    """Train one variant with one seed, then find the held-out places of both domains, with and without re-ranking."""
    began = time.monotonic()
    preset = variant_preset(variant, study.epochs)
    folder = study.out / "runs" / f"{_slug(variant)}_{seed}"
    own = next(iter(STYLES))
    source, _ = open_small(study.data, own, preset)
    describer = open_checkpoint(fit(preset, source, Run(folder, seed, save_every_s=30.0)))
    log = read_log(folder)
    results = []
    for domain in STYLES:
        held = take(benchmark(study.data, domain), study.queries)
        for rerank in reranked(variant):
            result = evaluate(held, describer, Options(rerank=rerank))[0]
            results.append({"domain": "own" if domain == own else "other", **dataclasses.asdict(result)})
    shutil.rmtree(folder)  # the figures stay; thirty checkpoints need not
    return {
        "study": _settings(study, variant),
        "variant": variant,
        "seed": seed,
        "loss": [log[0]["loss"], log[-1]["loss"]],
        "seconds": round(time.monotonic() - began, 1),
        "results": results,
    }


def figure(
    cells: Sequence[dict[str, Any]], variant: str, seed: int, rerank: int, domain: str, metric: str
) -> float | None:
    """One number of a study; None where it was not measured."""
    for cell in cells:
        if (cell["variant"], cell["seed"]) == (variant, seed):
            for result in cell["results"]:
                if (result["domain"], result["rerank"]) == (domain, rerank):
                    value = result["metrics"].get(metric)
                    return None if value is None else float(value)
    return None


def _settings(study: Study, variant: str) -> dict[str, Any]:
    """What a cell's figures hang on, as JSON keeps it."""
    manifest = json.loads((study.data / "manifest.json").read_text(encoding="utf-8"))
    preset = dataclasses.asdict(variant_preset(variant, study.epochs))
    return json.loads(json.dumps({"data": manifest["sha256"], "queries": study.queries, "preset": preset}))


def _slug(variant: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", variant)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)
