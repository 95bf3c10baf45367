"""`pilotage trial`: flights made of orthophotos, and the classical baseline beside the network."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from onboard.errors import ConfigError


class Method(str, Enum):
    """What finds a view classically: correlation of gradient magnitudes or of grey levels, or keypoints."""

    GRADIENT = "gradient"
    GREY = "grey"
    SIFT = "sift"


app = typer.Typer(no_args_is_help=True, help="Trials on real ground: make views of orthophotos, run the baseline.")


@app.command("views")
def views(
    chips: Annotated[list[Path], typer.Argument(help="GeoTIFFs, one view of each.")],
    out: Annotated[Path, typer.Option(help="The flight folder.")],
    footprint_m: Annotated[tuple[float, float], typer.Option(help="Ground seen, across and along.")] = (90.0, 70.0),
    heading_error_deg: Annotated[float, typer.Option(help="Told headings are off by up to this.")] = 6.0,
    height_error: Annotated[float, typer.Option(help="Told heights are off by up to this share.")] = 0.10,
    tilt_deg: Annotated[float, typer.Option(help="The camera leans by up to this, to any side.")] = 0.0,
    attitude_error_deg: Annotated[float, typer.Option(help="Told roll and pitch are off by this, 1 sigma.")] = 0.0,
    north_up: Annotated[bool, typer.Option("--north-up", help="All views look north; else any heading.")] = False,
    offset_m: Annotated[float, typer.Option(help="How far from a chip's middle the picture's may be.")] = 18.0,
    mapped: Annotated[
        str,
        typer.Option(help="Date of the map: the truth is told where the ground lies in that chip, by registration."),
    ] = "",
    every: Annotated[int, typer.Option(help="Take each N-th chip only: 7 takes those held back from training.")] = 1,
    seed: int = 0,
) -> None:
    """A flight folder with one view of each chip, level unless told; truth goes with it for the scorer."""
    from calibration.trials.views import ViewConfig, write_views

    config = ViewConfig(
        footprint_m=footprint_m,
        image_px=(640, round(640 * footprint_m[1] / footprint_m[0])),
        heading_error_deg=heading_error_deg,
        height_error=height_error,
        tilt_deg=tilt_deg,
        attitude_error_deg=attitude_error_deg,
        any_heading=not north_up,
        offset_m=offset_m,
        seed=seed,
    )
    taken = sorted(chips)[::every]
    print(f"{len(taken)} views: {write_views(taken, out, config, mapped)}")


@app.command("baseline")
def baseline(
    flight: Annotated[Path, typer.Argument(help="A flight with truth.")],
    map_path: Annotated[Path, typer.Option("--map", help="A region map.")],
    by: Annotated[Method, typer.Option(help="What finds a view.")] = Method.GRADIENT,
    within_m: Annotated[float, typer.Option(help="Found means nearer than this.")] = 8.0,
    every: Annotated[int, typer.Option(help="Take each N-th frame only.", min=1)] = 1,
) -> None:
    """A classical method on the same views at the told heading and height: correlation or SIFT over the whole map."""
    import numpy as np

    from calibration.trials.baseline import finder_of, run

    errors = run(flight, map_path, finder_of(by.value), every)
    if not len(errors):
        raise ConfigError("frames to look for", 0, "a flight whose frames can be laid on the ground")
    shares = ", ".join(f"{100 * float((errors < limit).mean()):.1f} % within {limit:g} m" for limit in (1.0, 10.0))
    found = errors < within_m
    middle = f", median {float(np.median(errors[found])):.2f} m" if found.any() else ""
    print(f"{by.value}: {found.sum()} of {len(errors)} frames found within {within_m:g} m{middle}; {shares}")


@app.command("table")
def table(
    runs: Annotated[list[Path], typer.Argument(help="Output folders of `pilotage replay --independent`.")],
) -> None:
    """Say of each run how many frames were found, refused and wrong, and where the first guesses were."""
    from calibration.trials.table import print_table

    print_table(runs)


@app.command("beside")
def beside(
    imagery: Annotated[Path, typer.Argument(help="A GeoTIFF of anywhere.")],
    reference: Annotated[Path, typer.Argument(help="The small reference map.")],
    out: Annotated[Path, typer.Option(help="The GeoTIFF, in the reference's CRS, east of it.")],
) -> None:
    """Put imagery of elsewhere beside a small reference, so that the search is honest."""
    from calibration.trials.surroundings import place_beside

    print(place_beside(imagery, reference, out))


@app.command("gather")
def gather(
    chips: Annotated[list[Path], typer.Argument(help="GeoTIFFs CITY/PLACE_DATE.tif.")],
    out: Annotated[Path, typer.Option(help="A folder for CITY-PLACE_DATE.tif.")],
) -> None:
    """Lay chips of many cities side by side in one CRS, each place on one spot at every date: one large gallery."""
    from calibration.trials.surroundings import gather as run

    print(f"{len(run(chips, out))} chips: {out}")
