"""The gate of a method: FP16 and INT8 against float32 on pictures it did not learn from, by the project's own
evaluation. What flies is INT8 where it passes, else FP16, else float32."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from export.check import WIDTH, Tolerances
from export.methods.files import FP16, FP32, INT8, Feed, ProfileFiles, Session
from export.methods.profiles import LOCATE, PICTURE, QUERY, REFERENCE
from training.benchmarks.base import Benchmark
from training.evaluation.checkpoint import scaled
from training.evaluation.describer import Match, Seen
from training.evaluation.run import evaluate

KEPT_BYTES = 1 << 30  # of pictures' descriptions: 160 references of UnifyGeo in the paper's size
_MEDIAN, _P95 = "median m", "95 % m"


@dataclass(frozen=True, slots=True)
class Row:
    """One precision. `cosine` of the worst output of the worst profile, to float32; `ms` a query and a reference."""

    precision: str
    recall_at_1: float
    recall_at_5: float
    median_m: float  # in the right reference; nan where the method does not localize
    p95_m: float
    cosine: float
    ms: float
    bytes: int
    failures: tuple[str, ...]


class OnnxMethod:
    """A method's files of one precision as the evaluation's `Describer`."""

    def __init__(self, files: Sequence[ProfileFiles], precision: str, threads: int = 2) -> None:
        self._sessions = {one.profile: Session(one.files[precision], threads) for one in files}
        self.name = precision
        self.facts: Mapping[str, str] = {"precision": precision}
        self._kept: OrderedDict[tuple[str, bytes], list[np.ndarray]] = OrderedDict()
        self._kept_bytes = 0

    def describe_queries(self, pictures: Sequence[Seen]) -> np.ndarray:
        """See `Describer.describe_queries`."""
        return np.concatenate([parts[0] for parts in self._described(QUERY, pictures)])

    def describe_references(self, pictures: Sequence[Seen]) -> np.ndarray:
        """See `Describer.describe_references`."""
        return np.concatenate([parts[0] for parts in self._described(REFERENCE, pictures)])

    def can_match(self, benchmark: Benchmark) -> bool:
        """Whether the method localizes."""
        return LOCATE in self._sessions

    def match(self, queries: Sequence[Seen], references: Sequence[Seen]) -> Match:
        """See `Describer.match`."""
        places, scores = [], []
        for asked, seen in zip(self._described(QUERY, queries), self._described(REFERENCE, references), strict=True):
            names = self._sessions[LOCATE].inputs
            chance, score = self._sessions[LOCATE].run(dict(zip(names, (*asked[1:], *seen[1:]), strict=True)))
            row, col = np.unravel_index(int(chance[0].argmax()), chance[0].shape)
            places.append([(row + 0.5) / chance.shape[1], (col + 0.5) / chance.shape[2]])
            scores.append(float(score[0]))
        return Match(np.array(places), np.array(scores, dtype=np.float32))

    def _described(self, side: str, pictures: Sequence[Seen]) -> list[list[np.ndarray]]:
        name = side if side in self._sessions else PICTURE
        return [self._of(name, scaled(rgb, mask, picture_px(self._sessions[name]))) for rgb, mask in pictures]

    def _of(self, name: str, planes: np.ndarray) -> list[np.ndarray]:
        """What a profile says of a picture; asked again (matching does), it is not computed again."""
        key = name, hashlib.sha256(planes.tobytes()).digest()
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        found = self._sessions[name].run(picture_feed(self._sessions[name], planes))
        self._kept[key] = found
        self._kept_bytes += sum(part.nbytes for part in found)
        while self._kept_bytes > KEPT_BYTES and self._kept:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= sum(part.nbytes for part in oldest)
        return found


def picture_px(session: Session) -> tuple[int, int]:
    """Height and width of the pictures that a profile takes."""
    _, rows, cols, _ = session.sizes["image"]
    return int(rows), int(cols)


def picture_feed(session: Session, planes: np.ndarray) -> Feed:
    """Of a picture uint8 (3, H, W) RGB."""
    return {session.inputs[0]: np.ascontiguousarray(planes.transpose(1, 2, 0))[None]}


def check(
    files: Sequence[ProfileFiles],
    feeds: Mapping[str, Sequence[Feed]],
    benchmark: Benchmark,
    tolerances: Tolerances = Tolerances(),
    threads: int = 2,
) -> list[Row]:
    """FP32, FP16 and INT8 on `benchmark`, cosines and times over `feeds` by profile. Failures of FP32: none."""
    rows: list[Row] = []
    localizes = any(one.profile == LOCATE for one in files) and _MEDIAN in benchmark.metrics
    asked = dataclasses.replace(benchmark, metrics=("R@1", "R@5", *((_MEDIAN, _P95) if localizes else ())))
    for precision in (FP32, FP16, INT8):
        (result,) = evaluate(asked, OnnxMethod(files, precision, threads))
        metrics = {name: float("nan") if value is None else value for name, value in result.metrics.items()}
        cosines, ms = [], 0.0
        for one in files:
            cosine, spent = _compared(one, precision, feeds[one.profile], threads)
            cosines.append(cosine)
            ms += spent
        size = sum(one.files[precision].stat().st_size for one in files)
        row = Row(
            precision,
            metrics["R@1"],
            metrics["R@5"],
            metrics.get(_MEDIAN, float("nan")),
            metrics.get(_P95, float("nan")),
            min(cosines),
            ms,
            size,
            (),
        )
        failures = tuple(_failures(rows[0], row, tolerances)) if rows else ()
        rows.append(Row(*(getattr(row, name) for name in Row.__slots__[:-1]), failures))
    return rows


def chosen(rows: Sequence[Row]) -> str:
    """The smallest precision that passed."""
    return next((row.precision for row in reversed(rows) if not row.failures), FP32)


def _compared(one: ProfileFiles, precision: str, feeds: Sequence[Feed], threads: int) -> tuple[float, float]:
    """Cosine of the worst output to float32, each output of a feed as one vector, and milliseconds a run."""
    whole, other = Session(one.files[FP32], threads), Session(one.files[precision], threads)
    cosines, times = [], []
    for feed in feeds:
        wanted = whole.run(feed)
        began = time.perf_counter()
        found = other.run(feed)
        times.append(1e3 * (time.perf_counter() - began))
        cosines.append([_cosine(a, b) for a, b in zip(wanted, found, strict=True)])
    return float(np.mean(cosines, axis=0).min()), float(np.median(times))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype(float), b.ravel().astype(float)
    if a.size == 1:  # a score: how near, not which direction
        return 1.0 - abs(float(a[0] - b[0]))
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def _failures(parent: Row, row: Row, t: Tolerances) -> list[str]:
    """A line for each figure beyond its tolerance; what has no value for the float model is not asked."""
    asked = [
        ("R@1", row.recall_at_1, parent.recall_at_1 - t.recall_at_1_loss, True),
        ("R@5", row.recall_at_5, parent.recall_at_5 - t.recall_at_5_loss, True),
        (_MEDIAN, row.median_m, parent.median_m * (1 + t.median_growth), False),
        (_P95, row.p95_m, parent.p95_m * (1 + t.p95_growth), False),
        ("cosine of the worst output", row.cosine, t.least_cosine, True),
        (
            "share of the float files",
            row.bytes / parent.bytes,
            t.int8_size if row.precision == INT8 else t.fp16_size,
            False,
        ),
    ]
    lines = []
    for what, value, limit, at_least in asked:
        if limit != limit:
            continue
        if not (value >= limit - 1e-9 if at_least else value <= limit + 1e-9):  # nan fails
            sign = ">=" if at_least else "<="
            lines.append(f"{row.precision}: {what} {value:.4g}, expected {sign} {limit:.4g}")
    return lines


def print_rows(rows: Sequence[Row], benchmark: Benchmark) -> None:
    table = Table("precision", "R@1", "R@5", "median m", "95 % m", "cosine", "ms", "kB", "of FP32")
    for row in rows:
        table.add_row(
            row.precision,
            f"{100 * row.recall_at_1:.1f} %",
            f"{100 * row.recall_at_5:.1f} %",
            _metres(row.median_m),
            _metres(row.p95_m),
            f"{row.cosine:.4f}",
            f"{row.ms:.1f}",
            f"{row.bytes / 1e3:.0f}",
            f"{100 * row.bytes / rows[0].bytes:.1f} %",
        )
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
    console.print(f"{benchmark.name} {benchmark.protocol} {benchmark.split}: {len(benchmark.queries)} queries")
    console.print(table)
    for line in [line for row in rows for line in row.failures] or ["within all tolerances"]:
        console.print(line)


def _metres(value: float) -> str:
    """A method that does not localize has none."""
    return "-" if value != value else f"{value:.2f}"
