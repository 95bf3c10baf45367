"""`pilotage export`: a checkpoint becomes model files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="A checkpoint becomes what flies: ONNX, INT8.")

ATTRIBUTION = (
    "NAIP aerial chips (Ventura et al. 2024, urban-tree-detection-data, CC BY 4.0; source USDA NAIP, public domain): "
    "riverside, long_beach, chico; Namie Town orthophoto 2017 (c) Namie Town, supported by CrisisMappers "
    "Japan/DRONEBIRD, CC BY 4.0; procedural places of the project's own renderer"
)


@app.command("onnx")
def onnx(
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint.pt of `pilotage train`.")],
    out: Annotated[Path, typer.Option(help="The ONNX file.")],
    name: str = "overhead",
    training_data: Annotated[str, typer.Option(help="What it learned from, and under which licence.")] = ATTRIBUTION,
) -> None:
    """Write the float32 ONNX file, its facts in its metadata, held against torch."""
    from export.onnx import export_onnx

    print(f"model: {export_onnx(checkpoint, out, name, training_data)}")


@app.command("quantize")
def quantize(
    model: Annotated[Path, typer.Argument(help="A float32 model of `pilotage export onnx`.")],
    out: Annotated[Path, typer.Option(help="The INT8 file.")],
    data: Annotated[Path, typer.Option(help="Folder with naip/, see training/README.md.")] = Path("../shared/data"),
    frames: Annotated[int, typer.Option(help="Calibration views and tiles.")] = 96,
    seed: int = 5,
) -> None:
    """Write the INT8 (QDQ) file for ONNX Runtime, calibrated on views of training ground."""
    from export.quantize import quantize as run
    from export.quantize import training_frames

    print(f"model: {run(model, out, training_frames(data, frames, seed))}")


@app.command("engine")
def engine(
    model: Annotated[Path | None, typer.Argument(help="An ONNX file; the shipped one if left out.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the engine; else the model's.")] = None,
    workspace_mb: Annotated[int, typer.Option(help="Scratch memory that a kernel may want.")] = 1024,
    batches: Annotated[str, typer.Option(help="Pictures at once in each profile.")] = "1,2,4,9,16",
    dla_core: Annotated[int, typer.Option(help="Deep learning accelerator of an Orin; -1: GPU alone.")] = -1,
) -> None:
    """Build the TensorRT engine of a model, on the machine that will fly it."""
    from export.engine import BuildOptions, export_engine, parse_batches
    from export.progress import build_progress
    from onboard.engine import SHIPPED_MODEL

    source = SHIPPED_MODEL if model is None else model
    options = BuildOptions(workspace_mb, parse_batches(batches), dla_core)
    with build_progress() as on_progress:
        path = export_engine(source, source.parent if out is None else out, options, on_progress)
    print(f"engine: {path} ({path.stat().st_size / 1e6:.1f} MB)")
