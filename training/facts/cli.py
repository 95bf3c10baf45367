"""`pilotage train facts`: the papers' directional facts over several seeds, reported whatever comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onboard.errors import ConfigError


def facts(
    out: Annotated[Path, typer.Option(help="Where cells/, facts.json go; continued if there.")] = Path("runs/facts"),
    data: Annotated[
        Path | None, typer.Option(help="Small places; made where they are not there. Else OUT/smallplaces.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many.", min=1)] = 3,
    epochs: Annotated[int, typer.Option(help="Of each training; 0: few, half an hour in all.", min=0)] = 0,
    queries: Annotated[int, typer.Option(help="Held-out views of each domain; 0: all.", min=0)] = 216,
    only: Annotated[list[str] | None, typer.Option(help="Only this method; may be given again.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: as torch chooses.", min=0)] = 1,
) -> None:
    """Train each variant of the three methods with each seed, and say whether the papers' directions hold.

    Re-ranking and joint training (UnifyGeo), dustbin and shared clusters (GenGeo), each loss (GeoLink), on small places
    of two domains: trained on the one, held against both.
    """
    from training.data.smallplaces import MANIFEST, make
    from training.facts.ablations import VARIANTS
    from training.facts.run import Study, run_study
    from training.facts.table import findings, print_findings, write_findings

    methods = {method for method, _ in VARIANTS.values()}
    unknown = [name for name in only or () if name not in methods]
    if unknown:
        raise ConfigError("method", unknown[0], " or ".join(sorted(methods)))
    if threads:
        import torch

        torch.set_num_threads(threads)
    folder = data or out / "smallplaces"
    if not (folder / MANIFEST).is_file():
        make(folder)
    study = Study(out, folder, tuple(range(1, seeds + 1)), epochs, queries, tuple(only or ()))
    cells = run_study(study)
    found = findings(cells, study.seeds)
    print_findings(found)
    print(f"numbers: {write_findings(out / 'facts.json', found, cells)}")
