"""`pilotage export`: a checkpoint becomes model files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="A checkpoint becomes what flies: ONNX, FP16, INT8, TensorRT.")

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


@app.command("checkpoint")
def checkpoint(
    model: Annotated[Path, typer.Argument(help="An ONNX file of the overhead network, INT8 or float.")],
    out: Annotated[Path, typer.Option(help="The checkpoint, for `pilotage train --start`.")],
) -> None:
    """Turn a model file back into a checkpoint: to train on from what flies, or to export it otherwise."""
    from export.checkpoint import write_checkpoint

    print(f"checkpoint: {write_checkpoint(model, out)}")


@app.command("dequantize")
def dequantize(
    model: Annotated[Path, typer.Argument(help="An INT8 model whose float parent is not at hand.")],
    out: Annotated[Path, typer.Option(help="The float32 file.")],
) -> None:
    """Write the float32 model inside an INT8 one: the weights that fly, no rounding of activations."""
    from export.dequantize import float_model
    from export.facts import save_model

    print(f"model: {save_model(float_model(model), out)}")


@app.command("quantize")
def quantize(
    model: Annotated[Path, typer.Argument(help="A float32 model of `pilotage export onnx`.")],
    out: Annotated[Path, typer.Option(help="The INT8 file.")],
    data: Annotated[Path, typer.Option(help="Folder with naip/, see training/README.md.")] = Path("../shared/data"),
    frames: Annotated[int, typer.Option(help="Calibration views and tiles.")] = 96,
    target: Annotated[str, typer.Option(help="onnxruntime or tensorrt: each wants its own file.")] = "onnxruntime",
    tolerated: Annotated[
        float, typer.Option(help="Error of an output (1 - mean cosine) beyond which layers stay float.")
    ] = 0.005,
    seed: int = 5,
) -> None:
    """Write the INT8 (QDQ) file for a runtime, calibrated on views of training ground; say which layers stay float."""
    from export.quantize import quantize as run
    from export.quantize import target_of, training_frames
    from export.sensitivity import measure, print_sensitivity

    wanted, views = target_of(target), list(training_frames(data, frames, seed))
    sensitivity = measure(model, views, wanted, tolerated)
    print_sensitivity(sensitivity)
    print(f"model: {run(model, out, views, wanted, sensitivity.nodes)}")


@app.command("descriptor")
def descriptor(
    head: Annotated[Path, typer.Argument(help="head.pt of `pilotage train descriptor`.")],
    onto: Annotated[Path, typer.Option(help="The INT8 model that it was trained on.")],
    out: Annotated[Path, typer.Option(help="The INT8 file with the new head.")],
    data: Annotated[Path, typer.Option(help="Folder with naip/, see training/README.md.")] = Path("../shared/data"),
    share: Annotated[
        float, typer.Option(help="Of the new head in the cosine, beside the old one; 1: the old one is taken out.")
    ] = 0.6,
    frames: Annotated[int, typer.Option(help="Calibration views and tiles.")] = 96,
    seed: int = 5,
) -> None:
    """Put a new descriptor head on a model; its detail and fine features stay as they are, bit for bit."""
    from export.descriptor import with_head
    from export.quantize import training_frames

    print(f"model: {with_head(head, onto, out, training_frames(data, frames, seed), share)}")


@app.command("half")
def half(
    model: Annotated[Path, typer.Argument(help="A float32 model of `pilotage export onnx`.")],
    out: Annotated[Path, typer.Option(help="The FP16 file.")],
) -> None:
    """Write the FP16 file, its casts inside; normalisation, norms and softmax stay float32."""
    from export.half import half_model

    print(f"model: {half_model(model, out)}")


@app.command("model")
def model(
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint.pt of `pilotage train`.")],
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    preset: Annotated[
        str, typer.Option(help="flagship (the overhead network that ships), unifygeo, gengeo or geolink.")
    ] = "flagship",
    name: Annotated[str, typer.Option(help="Of the flagship's files.")] = "overhead",
    data: Annotated[
        str, typer.Option(help="Flagship: the folder with naip/. Else KIND:PATH as `pilotage train` has it.")
    ] = "../shared/data",
    frames: Annotated[int, typer.Option(help="Calibration views and tiles; of a method: pairs.")] = 96,
    queries: Annotated[int, typer.Option(min=1, help="Of a method: held-out pictures that the gate asks for.")] = 100,
    training_data: Annotated[str, typer.Option(help="What it learned from, and under which licence.")] = "",
    tolerances: Annotated[Path | None, typer.Option(help="YAML of what a smaller file may lose.")] = None,
    seed: int = 5,
) -> None:
    """All files of a checkpoint: FP32, FP16, INT8 for each runtime; then the gate.

    A method that fails it in INT8 falls back to FP16: its card.json says what flies.
    """
    from export.check import read_tolerances

    allowed = read_tolerances(tolerances)  # a mistake in it shows before the work
    if preset != "flagship":
        from export.methods.run import export_method

        card = export_method(checkpoint, out, data, preset, frames, queries, training_data, allowed, seed)
        print(f"card: {card}")
        return
    from export.half import half_model
    from export.onnx import export_onnx

    folder = Path(data)
    whole = export_onnx(checkpoint, out / f"{name}.onnx", name, training_data or ATTRIBUTION)
    print(f"model: {whole}\nmodel: {half_model(whole, out / f'{name}.fp16.onnx')}")
    quantize(whole, out / f"{name}.int8.onnx", folder, frames, "onnxruntime", seed=seed)
    quantize(whole, out / f"{name}.int8-tensorrt.onnx", folder, frames, "tensorrt", seed=seed)
    check(out / f"{name}.int8.onnx", whole, folder, tolerances=tolerances)


@app.command("check")
def check(
    model: Annotated[Path, typer.Argument(help="The file that is to fly.")],
    against: Annotated[Path | None, typer.Option(help="Its float parent; else its own weights, dequantized.")] = None,
    data: Annotated[Path, typer.Option(help="Folder with naip/; without it, ground is drawn.")] = Path(
        "../shared/data"
    ),
    views: Annotated[int, typer.Option(min=1, help="Held-out views.")] = 60,
    recall_views: Annotated[int, typer.Option(min=1, help="Of which recall is taken.")] = 400,
    tolerances: Annotated[Path | None, typer.Option(help="YAML of what a smaller file may lose.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime.")] = 2,
) -> None:
    """Hold a model against its float parent in recall, metres, cosine, time and size; exit 1 beyond tolerances."""
    from export.check import check as run
    from export.check import print_report, read_tolerances

    report = run(model, against, data, views, read_tolerances(tolerances), threads, recall_views)
    print_report(report)
    if report.failures:
        raise typer.Exit(1)


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
