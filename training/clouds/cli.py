"""`pilotage train clouds`: point clouds of places, which GeoLink's losses need (its inference does not)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np

app = typer.Typer(no_args_is_help=True, help="Make point clouds of places for GeoLink: a PLACE.npy each.")

Out = Annotated[Path, typer.Option(help="Folder of the clouds; what is there is kept.")]
Images = Annotated[Path, typer.Argument(metavar="IMAGES", help="Folders of overlapping pictures, one a place.")]


@app.command("surface")
def surface(
    model: Annotated[Path, typer.Argument(metavar="DSM", help="GeoTIFF of heights in metres, with a CRS.")],
    places: Annotated[Path, typer.Argument(metavar="PLACES", help="CSV: place, latitude_deg, longitude_deg.")],
    out: Out,
    side_m: Annotated[float, typer.Option(help="Side of the square of ground about each place.", min=1.0)] = 128.0,
) -> None:
    """From a surface model."""
    from training.clouds.surface import cloud_of_geotiff, read_places

    rows = read_places(places)
    _make(out, rows, lambda name: cloud_of_geotiff(model, *rows[name], side_m, seed=_seed(name)))


@app.command("colmap")
def colmap(
    images: Images,
    out: Out,
    limit_s: Annotated[float, typer.Option(help="Seconds that one place may take.", min=1.0)] = 1800.0,
) -> None:
    """From pictures, by COLMAP on the CPU."""
    from training.clouds.colmap import cloud_of_pictures, require
    from training.clouds.pictures import places_of

    require()
    pictures = places_of(images)
    _make(out, pictures, lambda name: cloud_of_pictures(pictures[name], _seed(name), limit_s=limit_s))


@app.command("vggt")
def vggt(
    images: Images,
    out: Out,
    weights: Annotated[Path, typer.Option(help="Folder with VGGT-1B's model.safetensors or model.pt.")],
) -> None:
    """From pictures, by VGGT, whose package and weights must lie on this machine."""
    from training.clouds.pictures import places_of
    from training.clouds.vggt import Vggt

    pictures, network = places_of(images), Vggt(weights)
    _make(out, pictures, lambda name: network.cloud_of_pictures(pictures[name], _seed(name)))


def _make(out: Path, places: Iterable[str], cloud_of: Callable[[str], np.ndarray]) -> None:
    """All places that are not there yet. One that cannot be made is said and left out; none made at all is an error."""
    from rich.console import Console
    from rich.progress import track

    from training.clouds.points import CloudError, write_cloud

    console = Console(stderr=True)
    names = list(places)
    failed: list[str] = []
    for name in track(names, "clouds", console=console):
        if (out / f"{name}.npy").is_file():
            continue
        try:
            write_cloud(out, name, cloud_of(name))
        except CloudError as error:
            failed.append(name)
            console.print(f"{name}: {error}", markup=False, highlight=False)
    if len(failed) == len(names):
        raise CloudError("clouds", f"none of {len(names)} places", "at least one", "see the lines above")
    print(f"{out}: clouds of {len(names) - len(failed)} of {len(names)} places")


def _seed(place: str) -> int:
    """The same points for a place each time, whatever the other places."""
    import zlib

    return zlib.crc32(place.encode())
