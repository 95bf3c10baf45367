"""Two replays of one flight: what was changed, and what changed by it."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onboard.errors import PilotageError
from onboard.replay import outputs
from onboard.replay.fixes import COLUMNS, FixRow, format_row
from onboard.replay.runs import Run
from onboard.replay.summary import plain

GREW_M = 5.0
_SETTINGS = ("config", "model", "map", "versions", "flight")
# (name, unit, path in summary.json); those of time change from run to run and are no difference.
_METRICS = (
    ("fixes", "", ("fixes",)),
    ("availability", "", ("availability",)),
    ("availability after 15 s", "", ("availability_after_15s",)),
    ("time to first fix", "s", ("time_to_first_fix_s",)),
    ("false fixes", "", ("false_fixes",)),
    ("found within 8 m", "", ("found_within_8_m",)),
    ("error, median", "m", ("error_m", "median")),
    ("error, 95 %", "m", ("error_m", "p95")),
    ("error, worst", "m", ("error_m", "max")),
    ("error, RMS", "m", ("ate_rmse_m",)),
    ("inside stated 95 %", "", ("coverage_95",)),
    ("NEES, mean", "", ("nees_mean",)),
    ("frame to answer, median", "ms", ("frame_ms", "median")),
    ("frame to answer, 95 %", "ms", ("frame_ms", "p95")),
)
_OF_TIME = "ms"
_FIX = "fix"


class CompareError(PilotageError):
    """Two runs that cannot be compared."""


@dataclass(frozen=True, slots=True)
class Change:
    """A setting, fact or figure that differs; None where one of the runs has none."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of both runs, the same or not, and its unit."""

    name: str
    unit: str
    before: float | None
    after: float | None


@dataclass(frozen=True, slots=True)
class FrameChange:
    """A frame that came out otherwise. `before`, `after`: `fix` or the reason; errors in metres, nan where unknown."""

    index: int
    captured_at_ns: int
    before: str
    after: str
    error_before_m: float
    error_after_m: float

    @property
    def grown_m(self) -> float:
        return self.error_after_m - self.error_before_m


@dataclass(frozen=True)
class Comparison:
    """All that differs.

    `same_bytes` speaks of fixes.csv: settings and times may differ all the same. `outcomes` counts (before, after)
    of changed frames. `first_difference` is the index of the first frame that differs, and in which columns.
    """

    same_bytes: bool
    settings: list[Change]
    metrics: list[Metric]
    outcomes: dict[tuple[str, str], int]
    changed: list[FrameChange]
    grown: list[FrameChange]
    first_difference: tuple[int, tuple[str, ...]] | None
    only_before: int
    only_after: int


def compare(before: Run, after: Run, grew_m: float = GREW_M) -> Comparison:
    """Frame by frame; an error that grew by more than `grew_m` is told. Raises CompareError for two flights."""
    earlier, later = _indices(before.rows), _indices(after.rows)
    common = [(i, later[key]) for key, i in earlier.items() if key in later]
    _check_same_flight(before, after, len(common))
    changed, grown, first = [], [], None
    for i, j in common:
        a, b = before.rows[i], after.rows[j]
        cells = tuple(n for n, x, y in zip(COLUMNS, format_row(a), format_row(b), strict=True) if x != y)
        if not cells:
            continue
        first = first or (i, cells)
        change = FrameChange(
            i, a.captured_at_ns, outcome(a), outcome(b), float(before.error_m[i]), float(after.error_m[j])
        )
        if change.before != change.after:
            changed.append(change)
        if change.grown_m > grew_m:
            grown.append(change)
    return Comparison(
        same_bytes=_bytes(before) == _bytes(after),
        settings=list(_differences(before.summary, after.summary)),
        metrics=[Metric(n, unit, _at(before.summary, path), _at(after.summary, path)) for n, unit, path in _METRICS],
        outcomes=dict(Counter((c.before, c.after) for c in changed).most_common()),
        changed=changed,
        grown=sorted(grown, key=lambda c: -c.grown_m),
        first_difference=first,
        only_before=len(before.rows) - len(common),
        only_after=len(after.rows) - len(common),
    )


def outcome(row: FixRow) -> str:
    """`fix` of a published frame, the reason of a refused one."""
    return _FIX if row.published else row.reason or "unknown"


def to_dict(found: Comparison) -> dict[str, Any]:
    """The comparison as plain Python values, for JSON."""
    told = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    told["outcomes"] = [{"before": a, "after": b, "frames": n} for (a, b), n in found.outcomes.items()]
    for name in ("settings", "metrics", "changed", "grown"):
        told[name] = [dataclasses.asdict(entry) for entry in told[name]]
    if found.first_difference is not None:
        told["first_difference"] = {"index": found.first_difference[0], "columns": found.first_difference[1]}
    return plain(told, None)


def in_words(found: Comparison, most_frames: int = 10) -> list[str]:
    """The comparison line by line, in plain words."""
    if found.same_bytes:
        lines = ["The fixes are the same, byte for byte."]
    else:
        lines = [f"Changed: the outcome of {len(found.changed)} frames; the error of {len(found.grown)} grew."]
    lines += ["Settings: the same." if not found.settings else "Settings:"]
    lines += [f"  {change.key}: {_text(change.before)} -> {_text(change.after)}" for change in found.settings]
    lines += _metric_words(found)
    if found.only_before or found.only_after:
        lines.append(f"Frames in the first run only: {found.only_before}; in the second only: {found.only_after}.")
    if found.first_difference is not None:
        index, cells = found.first_difference
        lines.append(f"First frame that differs: {index}, in {', '.join(cells)}.")
    if found.outcomes:
        lines.append("Outcomes: " + ", ".join(f"{a} -> {b} {n}" for (a, b), n in found.outcomes.items()) + ".")
    lines += _frame_words("Frames with another outcome:", found.changed, most_frames)
    lines += _frame_words("Frames whose error grew most:", found.grown, most_frames)
    return lines


def _check_same_flight(before: Run, after: Run, common: int) -> None:
    if before.rows and after.rows and common * 2 < min(len(before.rows), len(after.rows)):
        names = [str(run.summary["flight"].get("name", run.path)) for run in (before, after)]
        raise CompareError(
            "two different flights",
            f"{names[0]} and {names[1]} share {common} of {len(before.rows)} and {len(after.rows)} capture times",
            "two replays of one flight",
        )


def _indices(rows: Sequence[FixRow]) -> dict[tuple[int, int], int]:
    """The index of each row by its capture time, and by which of that time it is: stale frames repeat one."""
    seen: Counter[int] = Counter()
    indices = {}
    for i, row in enumerate(rows):
        indices[row.captured_at_ns, seen[row.captured_at_ns]] = i
        seen[row.captured_at_ns] += 1
    return indices


def _bytes(run: Run) -> bytes:
    return (run.path / outputs.FIXES).read_bytes()


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for part in _SETTINGS:
        a, b = dict(_flat(before.get(part, {}), part)), dict(_flat(after.get(part, {}), part))
        for key in [*a, *(key for key in b if key not in a)]:
            if a.get(key) != b.get(key):
                yield Change(key, a.get(key), b.get(key))


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}")
    else:
        yield prefix, value


def _at(summary: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    value: Any = summary
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return None if value is None else float(value)


def _metric_words(found: Comparison) -> list[str]:
    """A table of all figures where one differs besides the times."""
    if not any(m.before != m.after for m in found.metrics if m.unit != _OF_TIME):
        lines = ["Figures: the same."]
    else:
        lines = ["Figures:"]
    for m in found.metrics:
        if m.before == m.after:
            continue
        difference = "" if m.before is None or m.after is None else f" ({m.after - m.before:+.4g})"
        unit = f" {m.unit}" if m.unit else ""
        lines.append(f"  {m.name}: {_text(m.before)} -> {_text(m.after)}{unit}{difference}")
    return lines


def _frame_words(title: str, frames: list[FrameChange], most: int) -> list[str]:
    if not frames or most <= 0:
        return []
    lines = [title]
    for change in frames[:most]:
        words = f"  {change.index}: {change.before} -> {change.after}"
        known = [f"{e:.1f} m" if math.isfinite(e) else "-" for e in (change.error_before_m, change.error_after_m)]
        if known != ["-", "-"]:
            words += f", {known[0]} -> {known[1]}"
        lines.append(words)
    if len(frames) > most:
        lines.append(f"  and {len(frames) - most} more")
    return lines


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
