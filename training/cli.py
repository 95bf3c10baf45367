"""`pilotage train`: train the overhead network from imagery."""

from __future__ import annotations

from typing import Annotated

import typer


def train(
    data: Annotated[str, typer.Option(help="Folder with naip/ and namie/, see training/README.md.")] = "../shared/data",
    out: Annotated[str, typer.Option(help="Where checkpoint.pt and log.jsonl go; continued if there.")] = "runs/train",
    rendered: Annotated[str, typer.Option(help="Folder of rendered pairs; empty: none.")] = "",
    steps: int = 1200,
    batch: int = 16,
    seed: int = 1,
) -> None:
    """Train the overhead network; the same command continues after an interruption."""
    from training.train import TrainConfig
    from training.train import train as run

    path = run(TrainConfig(data=data, out=out, rendered=rendered, steps=steps, batch=batch, seed=seed))
    print(f"checkpoint: {path}")
