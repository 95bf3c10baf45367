"""`pilotage calibrate`: numbers that tie the software to the world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onboard.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Calibrate what flies on recorded flights.")


@app.callback()
def _root() -> None:
    """Keeps `confidence` a sub-command while it is alone."""


@app.command("confidence")
def confidence(
    pairs: Annotated[list[str], typer.Argument(metavar="FLIGHT=MAP...", help="Flights with truth, and their maps.")],
    out: Annotated[Path, typer.Option(help="NAME.confidence.json, to lie beside NAME.*.onnx.")],
    model: Annotated[Path | None, typer.Option(help="Model file; else the shipped one.")] = None,
    tilt_sigma_deg: Annotated[float, typer.Option(help="1 sigma of the attitude's roll and pitch.")] = 1.0,
    source: Annotated[str, typer.Option(help="What to say of the flights used.")] = "",
    processes: Annotated[int, typer.Option(help="Flights searched at a time.", min=1)] = 2,
) -> None:
    """Fit the chance of being right and the covariance to flights that the model never saw."""
    from calibration.confidence import fit, observe_all, write

    split = [pair.rpartition("=") for pair in pairs]
    for flight, separator, region in split:
        if not (separator and flight and region):
            raise ConfigError("flight and map", flight + separator + region, "FLIGHT=MAP")
    seen = observe_all([(Path(flight), Path(region)) for flight, _, region in split], model, processes)
    fitted = fit(seen, tilt_sigma_deg, source or ", ".join(Path(flight).name for flight, _, _ in split))
    write(fitted, out)
    right = sum(label for _, label in seen.whole)
    print(f"{len(seen.whole)} whole-map examples ({right} right), {len(seen.local)} local ones: {out}")
    print(f"whole: {fitted.whole}\nlocal: {fitted.local}")
    print(f"covariance_scale {fitted.covariance_scale:g}, floor {fitted.floor_m:g} m, unlike {fitted.unlike_m:g} m")
