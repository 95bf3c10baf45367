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
from export.methods import run  # noqa: E402
from export.methods.files import (  # noqa: E402
    FP16,
    FP32,
    INT8,
    PRECISIONS,
    Session,
    make_files,
    unquantized,
    write_card,
)
from export.methods.onnx import export_profile  # noqa: E402
from export.methods.profiles import Profile  # noqa: E402
from export.methods.run import export_profiles, feeds_of  # noqa: E402
from export.quantize import CalibrationMethod, Target, write_int8  # noqa: E402
from onboard.errors import EngineError  # noqa: E402
from training.benchmarks.base import Benchmark, Query, Reference  # noqa: E402
from training.benchmarks.places import ArrayPicture  # noqa: E402
from training.fitting.checkpoint import save  # noqa: E402
from training.methods import build_method  # noqa: E402
from training.presets import PRESETS, method_to_dict  # noqa: E402

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


def test_half_precision_leaves_no_layer_with_whole_weights(made: tuple[str, dict[str, Any], dict[str, list]]) -> None:
    _, files, _ = made
    for one in files.values():
        graph = onnx.load(one.files[FP16]).graph
        whole = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
        layers = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm")]
        assert layers
        assert [node.name for node in layers if whole & set(node.input)] == []


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


def test_one_calibration_serves_both_runtimes(
    made: tuple[str, dict[str, Any], dict[str, list]], tmp_path: Path
) -> None:
    _, files, feeds = made
    profile = next(iter(files))
    whole = files[profile].files[FP32]
    alone = write_int8(
        whole,
        tmp_path / "alone.onnx",
        feeds[profile],
        Target.TENSORRT,
        ("Conv", "MatMul", "Gemm"),
        unquantized(onnx.load(whole)),
        {},
        CalibrationMethod.MinMax,
    )
    assert onnx.load(alone).graph == onnx.load(files[profile].files["int8-tensorrt"]).graph


def benchmark_of(size: tuple[int, int]) -> Benchmark:
    """Eight places of noise, sought each in another light."""
    pairs = [Pairs(size).draw(index, np.random.default_rng(0)) for index in range(8)]
    seen = np.ones(size, dtype=bool)
    pictures = [
        [ArrayPicture(f"{side} {k}", pair[side].transpose(1, 2, 0), seen) for side in pair]
        for k, pair in enumerate(pairs)
    ]
    centres = [(500.0 * k, 0.0) for k in range(8)]
    queries = [Query(q, str(k), (k,), position_enu_m=centres[k]) for k, (q, _) in enumerate(pictures)]
    references = [Reference(r, str(k), "", centres[k], (100.0, 100.0)) for k, (_, r) in enumerate(pictures)]
    return Benchmark("noise", "light", "test", tuple(queries), tuple(references), ("R@1", "R@5", "mean m", "median m"))


LOOSE = Tolerances(recall_at_1_loss=1, recall_at_5_loss=1, least_cosine=0.5, int8_size=1, fp16_size=1)


@pytest.mark.parametrize(
    ("name", "tolerances", "flies"),
    [
        ("gengeo", LOOSE, INT8),
        ("gengeo", dataclasses.replace(LOOSE, least_cosine=0.99999), FP16),
        ("geolink", dataclasses.replace(LOOSE, least_cosine=0.99999), FP16),
    ],
)
def test_a_checkpoint_becomes_what_flies_and_a_tight_tolerance_makes_that_half_precision(
    name: str,
    tolerances: Tolerances,
    flies: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = small(name)
    torch.manual_seed(0)
    state = build_method(config).state_dict()
    content = {"preset": name, "size": "tiny", "method_config": method_to_dict(config), "data": "noise", "step": 0}
    save(tmp_path / "checkpoint.pt", {**content, "method": state})
    size = config.query_px
    monkeypatch.setattr(run, "open_training", lambda data, preset: (Pairs(size), (benchmark_of(size),)))
    card = run.export_method(tmp_path / "checkpoint.pt", tmp_path / "out", "", name, COUNT, 8, tolerances=tolerances)
    assert json.loads(card.read_text())["flies"] == flies
    said = capsys.readouterr().out
    assert ("int8: cosine of the worst output" in said) == (flies == FP16)
    assert "median m" in said


def test_what_does_not_localize_has_no_metres_and_what_does_has_both(
    made: tuple[str, dict[str, Any], dict[str, list]],
) -> None:
    name, files, feeds = made
    rows = gate.check(list(files.values()), feeds, benchmark_of(small(name).query_px), LOOSE, threads=1)
    assert [one.precision for one in rows] == [FP32, FP16, INT8]
    assert rows[0].failures == ()
    for one in rows:
        assert np.isfinite([one.median_m, one.p95_m]).all() == (name == "unifygeo")
        assert name != "unifygeo" or one.p95_m >= one.median_m


def test_a_picture_is_described_once_unless_memory_is_short(
    made: tuple[str, dict[str, Any], dict[str, list]], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, files, _ = made
    method = gate.OnnxMethod(list(files.values()), FP32, threads=1)
    pictures = [query.picture.read() for query in benchmark_of(small(name).query_px).queries]
    runs: list[Session] = []
    run_once = Session.run

    def counted(session: Session, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        runs.append(session)
        return run_once(session, feed)

    monkeypatch.setattr(Session, "run", counted)
    first, again = method.describe_queries(pictures), method.describe_queries(pictures)
    assert len(runs) == len(pictures)
    np.testing.assert_array_equal(first, again)
    monkeypatch.setattr(gate, "KEPT_BYTES", 0)
    short = gate.OnnxMethod(list(files.values()), FP32, threads=1)
    for _ in range(2):
        np.testing.assert_array_equal(first, short.describe_queries(pictures))
    assert len(runs) == 3 * len(pictures)


def row(
    precision: str, recall: float = 0.8, cosine: float = 0.999, size: int = 1000, p95_m: float = float("nan")
) -> gate.Row:
    return gate.Row(precision, recall, 0.9, float("nan"), p95_m, cosine, 1.0, size, ())


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


def test_far_misses_that_grow_fail_the_gate() -> None:
    whole = row(FP32, p95_m=10.0)
    assert gate._failures(whole, row(INT8, size=260, p95_m=12.0), Tolerances()) == []
    assert gate._failures(whole, row(INT8, size=260, p95_m=13.0), Tolerances()) == ["int8: 95 % m 13, expected <= 12.5"]


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
