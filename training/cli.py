"""`pilotage train`: the shipped overhead network from imagery, or one of the papers' methods by its preset."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from onboard.errors import ConfigError
from training.clouds.cli import app as clouds_app
from training.descriptor.cli import descriptor
from training.facts.cli import facts

FLAGSHIP = "flagship"

app = typer.Typer(help="Train a network; the same command continues after an interruption.")
app.command("facts")(facts)
app.command("descriptor")(descriptor)
app.add_typer(clouds_app, name="clouds")


@app.callback(invoke_without_command=True)
def train(
    context: typer.Context,
    preset: Annotated[
        str, typer.Option(help="flagship (the overhead network that ships), unifygeo, gengeo or geolink.")
    ] = FLAGSHIP,
    size: Annotated[
        str | None,
        typer.Option(
            help="Flagship: small (the default) or large (it ships, trained on from a small one). Else paper (the "
            "default) or tiny: minutes on a CPU."
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            help="Flagship: the folder with naip/ and namie/. Else KIND:PATH: small:FOLDER, which is made where it is "
            "not there, or a public data set, see training/README.md."
        ),
    ] = "../shared/data",
    out: Annotated[Path, typer.Option(help="Where checkpoint.pt and the logs go; continued if there.")] = Path(
        "runs/train"
    ),
    seed: int = 1,
    batch: Annotated[int | None, typer.Option(help="Pairs in a step; else the preset's.", min=2)] = None,
    steps: Annotated[
        int | None, typer.Option(help="Flagship: in all. Else: stop there for now; the same command goes on.", min=1)
    ] = None,
    rendered: Annotated[str, typer.Option(help="Flagship: folder of rendered pairs; empty: none.")] = "",
    start: Annotated[
        str,
        typer.Option(
            help="Flagship: train on from this checkpoint, of this size or smaller. Of a model file: export checkpoint."
        ),
    ] = "",
    epochs: Annotated[int | None, typer.Option(help="Else the preset's.", min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Else the preset's.", min=1e-9)] = None,
    weights: Annotated[
        str, typer.Option(help="Start the encoder from this folder or hub id, as `transformers` saves it.")
    ] = "",
    protocol: Annotated[str | None, typer.Option(help="Of a public data set; else its first.")] = None,
    clouds: Annotated[
        Path | None, typer.Option(help="Geolink on a public data set: the folder that `train clouds` made.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="32-true, bf16-mixed, or auto: bfloat16 where that is faster.")
    ] = "auto",
    workers: Annotated[int, typer.Option(help="Processes that draw pairs ahead.", min=0)] = 0,
    save_every_s: Annotated[float, typer.Option(help="Seconds between checkpoints.", min=0.0)] = 120.0,
) -> None:
    """Train a network; the same command continues after an interruption."""
    if context.invoked_subcommand is not None:
        return
    if preset == FLAGSHIP:
        _flagship(data, out, rendered, size or "small", start, steps, batch, seed)
        return
    from training.presets import find_preset, with_weights

    chosen = find_preset(preset, size or "paper")
    wanted = {"batch": batch, "epochs": epochs, "learning_rate": learning_rate}
    changed: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    chosen = dataclasses.replace(chosen, schedule=dataclasses.replace(chosen.schedule, **changed))
    if weights:
        chosen = with_weights(chosen, weights)
    if precision not in ("auto", "32-true", "bf16-mixed"):
        raise ConfigError("precision", precision, "auto, 32-true or bf16-mixed")
    from training.fit import Run, fit
    from training.fitting.sources import open_training

    source, heldout = open_training(data, chosen, protocol, clouds)
    run = Run(out, seed, cast(Any, precision), workers=workers, save_every_s=save_every_s, stop_after=steps or 0)
    fit(chosen, source, run, heldout)


def _flagship(
    data: str, out: Path, rendered: str, size: str, start: str, steps: int | None, batch: int | None, seed: int
) -> None:
    from training.model import SIZES
    from training.schedule import FURTHER, STAGES, resized
    from training.train import TrainConfig
    from training.train import train as run

    if size not in SIZES:
        raise ConfigError("size of the flagship", size, " or ".join(SIZES))
    config = TrainConfig(
        data=data,
        out=str(out),
        rendered=rendered,
        size=size,
        start=start,
        stages=resized(FURTHER if start else STAGES, steps, batch),
        seed=seed,
    )
    print(f"checkpoint: {run(config)}")


if __name__ == "__main__":  # for torchrun
    from onboard.cli import main

    sys.argv.insert(1, "train")
    main()
