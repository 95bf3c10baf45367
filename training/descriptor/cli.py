"""`pilotage train descriptor`: a new descriptor for a model whose other features stay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def descriptor(
    model: Annotated[Path, typer.Option(help="INT8 model whose encoder is kept.")] = Path(
        "onboard/models/overhead.int8.onnx"
    ),
    data: Annotated[Path, typer.Option(help="The folder with naip/ and namie/.")] = Path("../shared/data"),
    out: Annotated[Path, typer.Option(help="Where head.pt, features and the log go; continued if there.")] = Path(
        "runs/descriptor"
    ),
    layouts: Annotated[int, typer.Option(help="Tiles that are drawn, each with two views: 0.3 MB.", min=64)] = 6000,
    steps: Annotated[int, typer.Option(help="Of learning.", min=1)] = 460,
    batch: Annotated[int, typer.Option(help="Places in a step.", min=2)] = 256,
    seed: int = 1,
    judge: Annotated[bool, typer.Option(help="Look at the places held back as it goes.")] = True,
) -> None:
    """Train a new descriptor head on the frozen encoder of a model; the same command goes on after an interruption."""
    from rich.progress import Progress

    from onboard.errors import ConfigError
    from training.descriptor.grounds import learnt
    from training.descriptor.head import HeadConfig
    from training.descriptor.heldback import make_gallery
    from training.descriptor.learn import LearnConfig, learn
    from training.descriptor.store import fill, sha256_of
    from training.descriptor.trunk import FrozenTrunk

    if not model.is_file():
        raise ConfigError("no model", model, "an INT8 file of `pilotage export quantize`")
    trunk, grounds, sha256 = FrozenTrunk(model), learnt(data), sha256_of(model)
    with Progress() as progress:
        drawn = progress.add_task("drawing", total=layouts)
        store = fill(out / "features", trunk, sha256, grounds, layouts, seed, lambda n: progress.advance(drawn, n))
    gallery = make_gallery(data, trunk) if judge else None
    config = LearnConfig(steps=steps, batch=batch, seed=seed)
    facts: dict[str, object] = {"model_sha256": sha256, "learnt_from": places_of([ground.name for ground in grounds])}
    print(f"head: {learn(store, HeadConfig(trunk.channels), config, out, facts, gallery)}")


def places_of(names: list[str]) -> str:
    """What a head learnt from, in words: cities and how many pieces of each."""
    cities = [name.split("/")[0] for name in names]
    return ", ".join(f"{city} ({cities.count(city)} pieces)" for city in dict.fromkeys(cities))
