"""What the node says of itself once a second: records for `diagnostic_msgs`, made without ROS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from onboard.engine import ModelFacts
from onboard.live.worker import WorkerStatus
from onboard.region import RegionMap
from pilotage_ros.intake import Intake
from pilotage_ros.troubles import Trouble

_ERRORS = {Trouble.NO_IMAGE, Trouble.NO_CAMERA_INFO, Trouble.BAD_CAMERA_INFO, Trouble.NO_ATTITUDE, Trouble.NO_HEIGHT}


class Level(IntEnum):
    """Of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True, slots=True)
class Status:
    """One line of diagnostics. `name` is what it is about."""

    name: str
    level: Level
    message: str
    values: Mapping[str, str] = field(default_factory=dict)


def lifecycle_status(state: str, problem: str) -> Status:
    """Before there is anything else to say. `problem` is why the last transition failed."""
    level = Level.ERROR if problem else Level.OK if state == "active" else Level.STALE
    return Status("node", level, problem or state, {"lifecycle": state})


def input_status(intake: Intake, troubles: Mapping[Trouble, str]) -> Status:
    """What comes in, how often, and what is wrong with it."""
    values = {f"{part} rate [Hz]": _number(rate.hz) for part, rate in intake.rates.items()}
    values |= {f"{part} messages": str(rate.count) for part, rate in intake.rates.items()}
    values |= {f"refused: {trouble.value}": str(count) for trouble, count in intake.refused.items()}
    if intake.camera is not None:
        values["camera"] = f"{intake.camera.width}x{intake.camera.height} {intake.camera.distortion_model}"
        values["mount"] = intake.mount_words or "not settled"
    values |= {trouble.value: detail or "yes" for trouble, detail in troubles.items()}
    level = Level.ERROR if _ERRORS & troubles.keys() else Level.WARN if troubles else Level.OK
    words = "; ".join(trouble.value + (f": {detail}" if detail else "") for trouble, detail in troubles.items())
    return Status("input", level, words or "all parts arrive", values)


def localizer_status(worker: WorkerStatus, reasons: Mapping[str, int], fix_age_s: float | None) -> Status:
    """State, rates and latencies of the localizer; `reasons` counts the frames without a fix."""
    last = worker.last
    if worker.failed:
        return Status("localizer", Level.ERROR, worker.failed)
    values = {
        "frames offered": str(worker.offered),
        "frames worked on": str(worker.done),
        "frames dropped": str(worker.dropped),
        "rate [Hz]": _number(worker.rate_hz),
        "busy share": _number(worker.busy_share),
        "latency, median [ms]": _number(worker.latency_ms and worker.latency_ms[0]),
        "latency, 95 % [ms]": _number(worker.latency_ms and worker.latency_ms[1]),
        "step, median [ms]": _number(worker.step_ms and worker.step_ms[0]),
        "step, 95 % [ms]": _number(worker.step_ms and worker.step_ms[1]),
        "last estimate, age [s]": _number(fix_age_s),
    }
    values |= {f"no fix: {reason}": str(count) for reason, count in reasons.items()}
    if last is None:
        return Status("localizer", Level.WARN, "no frame yet", values)
    reason = f": {last.reason.value}" if last.reason is not None else ""
    detail = f" ({last.detail})" if last.detail else ""
    values |= {"state": last.state.value, "reason": reason[2:]}
    values |= {f"{stage} [ms]": f"{milliseconds:.1f}" for stage, milliseconds in last.stage_ms.items()}
    if last.fix is not None:
        values["probability right"] = f"{last.fix.probability_right:.6f}"
        values |= {key: f"{value:.4f}" for key, value in last.fix.evidence.items()}
    return Status("localizer", Level.OK if last.published else Level.WARN, last.state.value + reason + detail, values)


def map_status(region: RegionMap) -> Status:
    values = {
        "path": str(region.path),
        "sha256": region.sha256,
        "area [km2]": f"{region.coverage_km2:.3f}",
        "anchor [deg]": f"{region.frame.anchor_latitude_deg:.7f}, {region.frame.anchor_longitude_deg:.7f}",
    }
    return Status("map", Level.OK, region.name, values)


def model_status(facts: ModelFacts) -> Status:
    return Status("model", Level.OK, facts.name, {"sha256": facts.sha256, "view [px]": str(facts.view_px)})


def gps_status(distance_m: float, sigma_m: float) -> Status:
    """How far GPS is from the map's answer at the same moment: for comparison, used for nothing."""
    words = f"{distance_m:.1f} m from the map's answer"
    return Status("gps", Level.OK, words, {"distance [m]": f"{distance_m:.2f}", "our sigma [m]": f"{sigma_m:.2f}"})


def link_status(told: Mapping[str, Any], problem: str) -> Status:
    """The companion's own status record, flattened."""
    values = {key: str(value) for key, value in _flat("", told)}
    words = problem or ", ".join(f"{key} {values[key]}" for key in ("firmware", "profile", "synced") if values.get(key))
    return Status("link", Level.WARN if problem else Level.OK, words or "speaking", values)


def write_status(message: Any, status: Status, key_value: Any) -> Any:
    """Fill a DiagnosticStatus; `key_value` makes a KeyValue of a key and a value."""
    message.level = bytes([status.level])  # `byte` is one byte of bytes in rclpy
    message.name, message.message, message.hardware_id = f"pilotage: {status.name}", status.message, "pilotage"
    message.values = [key_value(key, value) for key, value in status.values.items() if value]
    return message


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _flat(prefix: str, told: Mapping[str, Any]) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in told.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            pairs += _flat(f"{name}.", value)
        elif value is not None:
            pairs.append((name, value))
    return pairs
