"""What a flight leaves behind: tables of truth, of the vehicle's belief, of what was told and of each frame's step."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ground import Believed, Truth
from tap import Told

from onboard.records import Step

_ON_GROUND_M = 0.3


@dataclass(frozen=True)
class Flown:
    """One flight. `phases` are (boot ms, name); `offset_ns` leads from the boot clock to ours.

    `ended` is empty, or says why the course was broken off.
    """

    truth: list[Truth]
    believed: list[Believed]
    told: list[Told]
    steps: list[Step]
    phases: list[tuple[int, str]]
    texts: list[tuple[int, str]]
    offset_ns: int
    ended: str
    target_enu_m: np.ndarray
    frames: int

    def boot_s(self, ours_ns: int) -> float:
        """Seconds of the vehicle's clock."""
        return (ours_ns - self.offset_ns) * 1e-9

    def truth_at(self, boot_s: np.ndarray) -> np.ndarray:
        """True (N, 3) positions at instants (N,) of the vehicle's clock, between samples on straight lines."""
        at_s = np.array([t.boot_ms for t in self.truth]) * 1e-3
        positions = np.array([t.position_enu_m for t in self.truth])
        return np.column_stack([np.interp(boot_s, at_s, positions[:, axis]) for axis in range(3)])

    def begin_s(self, phase: str) -> float | None:
        """When a phase began, by the vehicle's clock."""
        return next((boot_ms * 1e-3 for boot_ms, name in self.phases if name == phase), None)

    def touchdown_s(self) -> float:
        """When the vehicle reached the ground for good, or the end of the record."""
        low_m = self.truth[0].position_enu_m[2] + _ON_GROUND_M
        flying_ms = [t.boot_ms for t in self.truth if t.position_enu_m[2] > low_m]
        return (flying_ms or [self.truth[-1].boot_ms])[-1] * 1e-3

    def dark_s(self) -> tuple[float, float] | None:
        """From when to when the camera was dark."""
        began = [k for k, (_, name) in enumerate(self.phases) if name.endswith(" dark")]
        if not began:
            return None
        last_ms = self.phases[began[-1] + 1][0] if began[-1] + 1 < len(self.phases) else self.truth[-1].boot_ms
        return self.phases[began[0]][0] * 1e-3, last_ms * 1e-3


def write_tables(flown: Flown, folder: Path) -> None:
    """truth.csv, believed.csv, told.csv, steps.csv, phases.csv and texts.csv; times in s of the vehicle's clock."""
    _write(
        folder / "truth.csv",
        ("boot_s", "east_m", "north_m", "up_m", "v_east_mps", "v_north_mps", "v_up_mps"),
        ((t.boot_ms / 1e3, *t.position_enu_m, *t.velocity_enu_mps) for t in flown.truth),
    )
    _write(
        folder / "believed.csv",
        ("boot_s", "east_m", "north_m", "height_m"),
        ((b.boot_ms / 1e3, *b.position_enu_m, b.height_m) for b in flown.believed),
    )
    _write(
        folder / "told.csv",
        ("boot_s", "east_m", "north_m", "quality", "reset_counter"),
        ((t.boot_s, *t.position_enu_m, t.quality, t.reset_counter) for t in flown.told),
    )
    _write(
        folder / "steps.csv",
        (
            "boot_s",
            "state",
            "reason",
            "fix_east_m",
            "fix_north_m",
            "right",
            "estimate_east_m",
            "estimate_north_m",
            "ms",
        ),
        (_step_row(flown, step) for step in flown.steps),
    )
    _write(folder / "phases.csv", ("boot_s", "phase"), ((ms / 1e3, name) for ms, name in flown.phases))
    _write(folder / "texts.csv", ("boot_s", "text"), ((flown.boot_s(ns), text) for ns, text in flown.texts))


def _step_row(flown: Flown, step: Step) -> tuple[object, ...]:
    fix = ("", "", "") if step.fix is None else (*step.fix.position_enu_m, step.fix.probability_right)
    estimate = ("", "") if step.estimate is None else tuple(step.estimate.position_enu_m)
    reason = "" if step.reason is None else step.reason.value
    return (flown.boot_s(step.captured_at_ns), step.state.value, reason, *fix, *estimate, sum(step.stage_ms.values()))


def _write(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    partial = path.with_name(path.name + ".part")
    with partial.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([f"{v:.4f}" if isinstance(v, float | np.floating) else v for v in row])
    partial.replace(path)
