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
