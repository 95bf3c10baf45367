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
) -> None:
    """Fit the chance of being right and the covariance to flights that the model never saw."""
    from calibration.confidence import Observations, fit, observe, write

    seen = Observations()
    for index, pair in enumerate(pairs):
        flight, separator, region = pair.rpartition("=")
        if not separator:
            raise ConfigError("flight and map", pair, "FLIGHT=MAP")
        observe(Path(flight), Path(region), model, seen, seed=index)
    fitted = fit(seen, tilt_sigma_deg, source or ", ".join(Path(p.rpartition("=")[0]).name for p in pairs))
    write(fitted, out)
    right = sum(label for _, label in seen.whole)
    print(f"{len(seen.whole)} whole-map examples ({right} right), {len(seen.local)} local ones: {out}")
    print(f"whole: {fitted.whole}\nlocal: {fitted.local}")
    print(f"covariance_scale {fitted.covariance_scale:g}, floor {fitted.floor_m:g} m")
