"""Export of the papers' methods: the files say what torch says, TensorRT's builder takes them, the gate falls back."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("transformers")

from export.check import Tolerances  # noqa: E402
from export.lint import lint  # noqa: E402
from export.methods import check as gate  # noqa: E402
from export.methods.files import FP16, FP32, INT8, PRECISIONS, Session, make_files, write_card  # noqa: E402
from export.methods.onnx import export_profile  # noqa: E402
from export.methods.profiles import Profile  # noqa: E402
from export.methods.run import export_profiles, feeds_of  # noqa: E402
from onboard.errors import EngineError  # noqa: E402
from training.methods import build_method  # noqa: E402
from training.presets import PRESETS  # noqa: E402

PROFILES = {"unifygeo": ("query", "reference", "locate"), "gengeo": ("picture",), "geolink": ("picture",)}
COUNT = 16  # pairs


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Pairs:
    """Pictures of noise as a `PairSource`: a query is its reference in another light."""

    name = "noise"

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __len__(self) -> int:
        return COUNT

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        coarse = np.random.default_rng(index).integers(0, 256, (3, 12, 12), dtype=np.uint8)
        rows, cols = (np.arange(side) * 12 // side for side in self.size)
        reference = coarse[:, rows][:, :, cols]
        return {"query": (0.8 * reference).astype(np.uint8), "reference": reference}


def small(name: str) -> Any:
    """The tiny preset's method made smaller still: three stages at 64 pixels, a transformer of two blocks."""
    config = PRESETS[name]["tiny"].method
    if name == "unifygeo":
        encoder = dataclasses.replace(config.encoder, widths=(16, 24, 32), depths=(1, 1, 1))
        return dataclasses.replace(config, encoder=encoder, query_px=(64, 64), reference_px=(64, 64))
    return dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, depths=(2,), position_px=70))


@pytest.fixture(scope="module", params=list(PROFILES))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Path]]:
    """A method of random weights, its float files by profile. Writing them holds each against torch."""
    torch.manual_seed(0)
    method = build_method(small(request.param))
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, export_profiles(method, folder, {"name": request.param, "training_data": "noise"})


@pytest.fixture(scope="module")
def made(exported: tuple[str, dict[str, Path]]) -> tuple[str, dict[str, Any], dict[str, list]]:
    name, wholes = exported
    config = small(name)
    feeds = feeds_of(wholes, Pairs(config.query_px), COUNT, seed=1)
    return name, {profile: make_files(whole, feeds[profile]) for profile, whole in wholes.items()}, feeds


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_a_method_becomes_its_profiles_with_fixed_shapes_and_bytes_in(exported: tuple[str, dict[str, Path]]) -> None:
    name, wholes = exported
    assert tuple(wholes) == PROFILES[name]
    for profile, path in wholes.items():
        session = Session(path)
        assert session.facts["profile"] == profile
        assert session.facts["training_data"] == "noise"
        assert all(isinstance(side, int) for shape in session.sizes.values() for side in shape)
        if profile != "locate":
            assert session.inputs == ("image",)
            assert session.sizes["image"] == (1, *small(name).query_px, 3)


def test_norms_are_one_node_and_nothing_is_resized_when_it_runs(exported: tuple[str, dict[str, Path]]) -> None:
    name, wholes = exported
    found = operators(next(iter(wholes.values())))
    assert found["LayerNormalization"] >= 4
    if name != "unifygeo":  # the position embedding is baked, attention is plain products
        assert found["Resize"] == 0
        assert found["Softmax"] == 2
    assert all(lint(onnx.load(path)) == [] for path in wholes.values())


def test_every_precision_keeps_what_the_float_file_says(made: tuple[str, dict[str, Any], dict[str, list]]) -> None:
    name, files, feeds = made
    for profile, one in files.items():
        assert tuple(one.files) == PRECISIONS
        wanted = Session(one.files[FP32]).run(feeds[profile][0])[0].ravel()
        for precision, least in ((FP16, 0.999), (INT8, 0.9), ("int8-tensorrt", 0.9)):
            session = Session(one.files[precision])
            found = session.run(feeds[profile][0])[0].ravel()
            cosine = float(wanted @ found / np.linalg.norm(wanted) / np.linalg.norm(found))
            assert cosine > least, (name, profile, precision)
            assert session.facts["float_parent_sha256"]
            assert session.facts["precision"].startswith({"fp16": "float16"}.get(precision, "int8"))


def test_what_tensorrt_is_given_passes_the_lint(made: tuple[str, dict[str, Any], dict[str, list]]) -> None:
    _, files, _ = made
    for one in files.values():
        for precision in (FP16, "int8-tensorrt"):
            assert lint(onnx.load(one.files[precision])) == [], (one.profile, precision)
        assert operators(one.files["int8-tensorrt"])["QuantizeLinear"] > 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nvidias_builder_builds_every_profile(made: tuple[str, dict[str, Any], dict[str, list]]) -> None:
    rtx = pytest.importorskip("tensorrt_rtx_bindings", reason="needs the extra tensorrt-check")
    from export.engine import BuildOptions, build

    _, files, _ = made
    for one in files.values():
        for precision in (FP32, FP16, "int8-tensorrt"):
            content = one.files[precision].read_bytes()
            built = build(rtx, content, BuildOptions(batches=(1,)), lambda phase, share: None)
            assert len(built.engine) > 10_000, (one.profile, precision)


def test_too_few_pictures_to_calibrate_with_are_refused_in_one_line(exported: tuple[str, dict[str, Path]]) -> None:
    _, wholes = exported
    whole = next(iter(wholes.values()))
    before = sorted(whole.parent.iterdir())
    with pytest.raises(EngineError, match="calibration pictures: 3") as error:
        make_files(whole, [{}] * 3)
    assert "\n" not in str(error.value)
    assert sorted(whole.parent.iterdir()) == before


def test_a_profile_that_differs_from_torch_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from export.methods import onnx as exporter

    profile = Profile("toy", torch.nn.Linear(3, 2), ("x",), ("y",), (torch.ones(1, 3),))
    monkeypatch.setattr(exporter, "difference", lambda profile, proto: float("nan"))
    with pytest.raises(EngineError, match="ONNX differs from torch"):
        export_profile(profile, tmp_path / "out.onnx", {})
    assert list(tmp_path.iterdir()) == []


def row(precision: str, recall: float = 0.8, cosine: float = 0.999, size: int = 1000) -> gate.Row:
    return gate.Row(precision, recall, 0.9, float("nan"), cosine, 1.0, size, ())


@pytest.mark.parametrize(
    ("half", "bytes_", "flies"),
    [
        (row(FP16, size=500), row(INT8, size=260), INT8),
        (row(FP16, size=500), row(INT8, size=260, recall=0.7), FP16),
        (row(FP16, size=500), row(INT8, size=260, cosine=float("nan")), FP16),
        (row(FP16, size=500, recall=0.1), row(INT8, size=260, cosine=0.5), FP32),
    ],
)
def test_int8_that_fails_the_gate_falls_back_to_half_and_half_to_float(
    half: gate.Row, bytes_: gate.Row, flies: str
) -> None:
    whole = row(FP32)
    judged = [whole] + [
        dataclasses.replace(one, failures=tuple(gate._failures(whole, one, Tolerances()))) for one in (half, bytes_)
    ]
    assert gate.chosen(judged) == flies
    assert all("expected" in line for one in judged for line in one.failures)


def test_the_card_names_every_file_and_what_flies(
    made: tuple[str, dict[str, Any], dict[str, list]], tmp_path: Path
) -> None:
    name, files, _ = made
    card = json.loads(write_card(tmp_path, {"name": name}, list(files.values()), FP16).read_text())
    assert card["flies"] == FP16
    assert tuple(card["profiles"]) == PROFILES[name]
    for profile, one in files.items():
        for precision, path in one.files.items():
            listed = card["profiles"][profile][precision]
            assert (listed["file"], listed["bytes"]) == (path.name, path.stat().st_size)
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]
