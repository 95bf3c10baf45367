"""`pilotage evaluate`: a model on a benchmark, in the table that its papers print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    data: Annotated[
        list[str],
        typer.Option(
            help="KIND:PATH: university1652, sues200, denseuav, vigor, cvusa, cvact, uavvisloc, small, or places "
            "(FLIGHT@MAP, a folder of PLACE_DATE.tif, or of rendered pairs). May be given again."
        ),
    ],
    checkpoint: Annotated[
        Path | None, typer.Option(help="ONNX, or a method's checkpoint.pt; else the shipped one.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="As the data set names it; else its first.")] = None,
    weather: Annotated[
        list[str] | None, typer.Option(help="fog, rain, snow, fog-rain, ... beside normal; `all` for the ten.")
    ] = None,
    rerank: Annotated[int, typer.Option(help="Re-rank that many by matching; UnifyGeo takes 5.", min=0)] = 0,
    limit: Annotated[int, typer.Option(help="At most that many queries, a trial; 0: all.", min=0)] = 0,
    batch: Annotated[int, typer.Option(help="Pictures at once.", min=1)] = 32,
    out: Annotated[Path | None, typer.Option(help="Write the numbers here too, as JSON.")] = None,
) -> None:
    """Retrieve, locate, and print the numbers of the data set's papers."""
    from onboard.engine import SHIPPED_MODEL
    from onboard.errors import ConfigError
    from training.benchmarks.opening import open_benchmark
    from training.data.weather import STYLES
    from training.evaluation.describer import open_describer
    from training.evaluation.run import Options, take
    from training.evaluation.run import evaluate as run
    from training.evaluation.table import print_results, write_json

    wanted = weather or []
    unknown = [style for style in wanted if style not in (*STYLES, "all")]
    if unknown:
        raise ConfigError("weather", unknown[0], "all, " + ", ".join(STYLES))
    styles = STYLES if "all" in wanted else tuple(dict.fromkeys(("normal", *wanted)))
    describer = open_describer(checkpoint or SHIPPED_MODEL)
    benchmarks = [take(benchmark, limit) for entry in data for benchmark in open_benchmark(entry, protocol)]
    options = Options(styles, rerank, batch, progress=True)
    results = [result for benchmark in benchmarks for result in run(benchmark, describer, options)]
    print_results(results)
    if out is not None:
        asked = {"data": data, "protocol": protocol, "weather": list(styles), "rerank": rerank, "limit": limit}
        print(f"numbers: {write_json(out, results, describer.facts, asked)}")
