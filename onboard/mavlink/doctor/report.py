"""What the doctor found: data with stable keys for a program, and tables for a person."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.mavlink.doctor.parameters import Parameter
from onboard.mavlink.doctor.probe import LinkMeasure
from onboard.mavlink.doctor.rules import Finding, Severity
from onboard.mavlink.doctor.trial import DryRun
from onboard.mavlink.vehicle.state import Vehicle

if TYPE_CHECKING:
    from rich.console import Console

FORMAT = 1  # of the JSON: keys are only ever added under one number
_FLAGS = (
    "ATTITUDE",
    "VELOCITY_HORIZ",
    "VELOCITY_VERT",
    "POS_HORIZ_REL",
    "POS_HORIZ_ABS",
    "POS_VERT_ABS",
    "POS_VERT_AGL",
    "CONST_POS_MODE",
    "PRED_POS_HORIZ_REL",
    "PRED_POS_HORIZ_ABS",
)
_STYLES = {Severity.MUST: "bold red", Severity.SHOULD: "yellow", Severity.NOTE: "dim"}


@dataclass(frozen=True, slots=True)
class Change:
    """A parameter that was set, as it was and as it was read back; `reboot`: it counts after a restart only."""

    before: Parameter
    after: Parameter
    reboot: bool


@dataclass(frozen=True, slots=True)
class VehicleState:
    """What its estimator and its GPS say now. `estimator` are the flags that are set, None where it is silent."""

    estimator: tuple[str, ...] | None
    pos_horiz_ratio: float | None
    origin: tuple[float, float] | None  # degrees
    gps_fix_type: int | None

    @classmethod
    def of(cls, vehicle: Vehicle, now_ns: int) -> VehicleState:
        estimator, origin, gps = vehicle.estimator, vehicle.origin, vehicle.gps
        return cls(
            None if estimator is None else flag_names(estimator.flags),
            None if estimator is None else estimator.pos_horiz_ratio,
            None if origin is None else origin.degrees,
            None if gps is None else gps.fix_type,
        )


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All of one visit. `parameters` are the values after it, `findings` what is wrong with them, worst first."""

    address: str
    system: int
    kind: str
    autopilot: str
    firmware: str
    armed: bool
    mode: str
    signed: bool
    profile: str
    state: VehicleState
    parameters: Mapping[str, float]
    findings: tuple[Finding, ...]
    link: LinkMeasure
    dry_run: DryRun | None
    changes: tuple[Change, ...]

    @property
    def ready(self) -> bool:
        return not self._count(Severity.MUST)

    @property
    def restart_needed(self) -> bool:
        """Something that was set counts only after a restart of the vehicle."""
        return any(change.reboot for change in self.changes)

    @property
    def verdict(self) -> str:
        """One line."""
        must, should = self._count(Severity.MUST), self._count(Severity.SHOULD)
        advised = f", {should} advised" if should else ""
        if must:
            return f"not ready: {must} {'thing' if must == 1 else 'things'} to put right{advised}"
        after = " once the vehicle has been restarted" if self.restart_needed else ""
        return f"ready to fly on Pilotage{after}{advised}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes null."""
        told = dataclasses.asdict(self) | {
            "format": FORMAT,
            "ready": self.ready,
            "restart_needed": self.restart_needed,
            "verdict": self.verdict,
        }
        told["link"]["loss"] = self.link.loss
        return _plain(told)

    def _count(self, severity: Severity) -> int:
        return sum(one.severity is severity for one in self.findings)


def flag_names(flags: int) -> tuple[str, ...]:
    """The estimator flags that are set, in words; ArduPilot's and PX4's mean the same in these bits."""
    names = [name for bit, name in enumerate(_FLAGS) if flags >> bit & 1]
    return (*names, "UNINITIALIZED") if flags & mav.EKF_UNINITIALIZED else tuple(names)


def show(diagnosis: Diagnosis, console: Console) -> None:
    """For a person; nothing is cut off where the output is no terminal."""
    say = _printer(console)
    armed = "armed" if diagnosis.armed else "disarmed"
    say(f"{diagnosis.kind}, {diagnosis.firmware}, system {diagnosis.system}, {diagnosis.mode}, {armed}")
    say(f"profile {diagnosis.profile}, {'signed' if diagnosis.signed else 'unsigned'}, {diagnosis.address}")
    for line in (*_state_lines(diagnosis.state), *_link_lines(diagnosis.link), *_dry_run_lines(diagnosis.dry_run)):
        say(line)
    for change in diagnosis.changes:
        after = "; counts after a restart" if change.reboot else ""
        say(f"set {change.after.name}: {change.before.value:g} -> {change.after.value:g}{after}")
    for one in diagnosis.findings:
        value = "" if one.value is None else f" is {one.value:g}"
        should_be = f", should be {one.should_be}" if one.should_be else ""
        reboot = " (then restart)" if one.reboot else ""
        style = _STYLES[one.severity]
        console.print(f"[{style}]{one.severity.value:6}[/] {one.parameter}{value}{should_be}{reboot}", soft_wrap=True)
        say(f"       {one.why}")
    console.print(diagnosis.verdict, style="bold green" if diagnosis.ready else "bold red", soft_wrap=True)


def _printer(console: Console) -> Any:
    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False, highlight=False)

    return say


def _state_lines(state: VehicleState) -> list[str]:
    flags = "silent" if state.estimator is None else ", ".join(state.estimator).lower() or "nothing known"
    origin = "none" if state.origin is None else f"{state.origin[0]:.7f}, {state.origin[1]:.7f}"
    fix = "none" if state.gps_fix_type is None else f"fix type {state.gps_fix_type}"
    return [f"estimator: {flags}", f"origin: {origin}; GPS: {fix}"]


def _link_lines(link: LinkMeasure) -> list[str]:
    rates = ", ".join(f"{one.name} {one.heard_hz:.1f}/{one.asked_hz:g}" for one in link.streams)
    capacity = "" if link.capacity_bytes_per_s is None else f" of {link.capacity_bytes_per_s:.0f}"
    time = f"time: synchronized {100 * link.synced:.0f} %"
    if link.synced:
        time += f", skew {link.skew_ppm:+.1f} ppm, jitter {link.offset_jitter_ms:.2f} ms"
    return [
        f"link: {link.received} messages in {link.seconds:.1f} s, {link.lost} lost,"
        f" {link.bytes_per_s:.0f}{capacity} bytes/s",
        f"round trip: median {link.round_trip_ms:.1f} ms, 95 % within {link.round_trip_p95_ms:.1f} ms; {time}",
        f"Hz heard/asked: {rates}",
    ]


def _dry_run_lines(dry_run: DryRun | None) -> list[str]:
    if dry_run is None:
        return []
    remedy = f"; {dry_run.remedy}" if dry_run.remedy else ""
    sent = f", {dry_run.sent} messages sent" if dry_run.sent else ""
    return [f"dry-run fix: {dry_run.verdict.value}: {dry_run.sentence}{remedy}{sent}"]


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
