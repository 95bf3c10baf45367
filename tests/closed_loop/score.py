"""What a flight is worth: errors after GPS was gone, against the criteria, and a picture of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from record import Flown

EKF_RMS_M, EKF_MAX_M, LANDING_M = 1.5, 5.0, 5.0
CHI2_95 = 5.991  # of two dimensions
RECOVERY_S = 10.0  # after the camera was dark: its time counts as dark


@dataclass(frozen=True, slots=True)
class Result:
    """Whether every criterion held, and the result in words."""

    passed: bool
    lines: tuple[str, ...]


def judge(flown: Flown, path: Path, options: Mapping[str, Any]) -> Result:
    """Score a flight, from GPS off to the ground, and write the JSON.

    While the camera is dark, and RECOVERY_S after, the estimator's error is told but not judged: what it may be then
    is the vehicle's own affair. That it holds its course through it is judged.
    """
    figures = measure(flown)
    within = {name: value if value is not None else np.inf for name, value in figures.items()}
    checks = {
        "the course was flown to its end": not flown.ended,
        f"EKF error RMS at most {EKF_RMS_M} m while there is light": within["ekf_rms_lit_m"] <= EKF_RMS_M,
        f"EKF error at most {EKF_MAX_M} m while there is light": within["ekf_max_lit_m"] <= EKF_MAX_M,
        f"landed within {LANDING_M} m": figures["landing_m"] <= LANDING_M,
    }
    options_written = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    content = {"passed": all(checks.values()), "checks": checks, **figures, "options": options_written}
    path.write_text(json.dumps(content, indent=2) + "\n")
    lines = [f"{'yes' if held else 'NO ':3}  {what}" for what, held in checks.items()]
    for name, value in figures.items():
        lines.append(f"     {name}: {value:.2f}" if isinstance(value, float) else f"     {name}: {value}")
    return Result(all(checks.values()), tuple(lines))


def measure(flown: Flown) -> dict[str, Any]:
    """The figures of a flight; None where there is nothing to measure."""
    begin_s, end_s = flown.begin_s("gps off"), flown.touchdown_s()
    from_s, dark = np.inf if begin_s is None else begin_s, flown.dark_s() or (np.inf, np.inf)
    at_s, errors = _believed_errors(flown)
    errors, at_s = errors[(at_s >= from_s) & (at_s <= end_s)], at_s[(at_s >= from_s) & (at_s <= end_s)]
    in_dark = (at_s >= dark[0]) & (at_s <= dark[1] + RECOVERY_S)
    told_s, told = _told_errors(flown)
    told = told[(told_s >= from_s) & (told_s <= end_s)]
    step_s, nees, slips = _step_errors(flown)
    judged = (step_s >= from_s) & (step_s <= end_s)
    return {
        "ended": flown.ended,
        "ekf_rms_m": _rms(errors),
        "ekf_max_m": _largest(errors),
        "ekf_rms_lit_m": _rms(errors[~in_dark]),
        "ekf_max_lit_m": _largest(errors[~in_dark]),
        "ekf_max_dark_m": _largest(errors[in_dark]),
        "landing_m": float(np.linalg.norm(flown.truth[-1].position_enu_m[:2] - flown.target_enu_m)),
        "told": len(told),
        "told_rms_m": _rms(told),
        "told_max_m": _largest(told),
        "fix_rms_m": _fix_rms(flown, from_s),
        "estimate_velocity_rms_mps": _rms(slips[judged]),
        "estimate_nees_mean": float(nees[judged].mean()) if judged.any() else None,
        "estimate_nees_within_95": float((nees[judged] < CHI2_95).mean()) if judged.any() else None,
        "frames": flown.frames,
        "steps": dict(Counter("fix" if s.reason is None else s.reason.value for s in flown.steps)),
        "states": dict(Counter(s.state.value for s in flown.steps)),
        "step_ms_median": float(np.median([sum(s.stage_ms.values()) for s in flown.steps])) if flown.steps else None,
        "seconds_without_gps": None if begin_s is None else end_s - begin_s,
    }


def _largest(errors: np.ndarray) -> float | None:
    return float(errors.max()) if len(errors) else None


def _rms(errors: np.ndarray) -> float | None:
    return float(np.sqrt(np.mean(np.square(errors)))) if len(errors) else None


def _believed_errors(flown: Flown) -> tuple[np.ndarray, np.ndarray]:
    """When (N,), and the estimator's horizontal error (N,) in metres."""
    at_s = np.array([b.boot_ms for b in flown.believed]) * 1e-3
    positions = np.array([b.position_enu_m for b in flown.believed])
    return at_s, np.linalg.norm(positions - flown.truth_at(at_s)[:, :2], axis=1)


def _told_errors(flown: Flown) -> tuple[np.ndarray, np.ndarray]:
    """Of what was told: when (N,), and the error (N,) in metres."""
    if not flown.told:
        return np.zeros(0), np.zeros(0)
    at_s = np.array([t.boot_s for t in flown.told])
    positions = np.array([t.position_enu_m for t in flown.told])
    return at_s, np.linalg.norm(positions - flown.truth_at(at_s)[:, :2], axis=1)


def _step_errors(flown: Flown) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the localizer's estimates: when (N,), NEES of the position, error of the velocity in m/s."""
    estimates = [s.estimate for s in flown.steps if s.estimate is not None]
    if not estimates:
        return (np.zeros(0),) * 3
    at_s = np.array([flown.boot_s(e.valid_at_ns) for e in estimates])
    misses = np.array([e.position_enu_m for e in estimates]) - flown.truth_at(at_s)[:, :2]
    spread = np.array([e.covariance[:2, :2] for e in estimates])
    nees = np.einsum("ni,ni->n", misses, np.linalg.solve(spread, misses[..., None])[..., 0])
    truth_s = np.array([t.boot_ms for t in flown.truth]) * 1e-3
    true_velocity = np.array([t.velocity_enu_mps for t in flown.truth])
    velocity = np.column_stack([np.interp(at_s, truth_s, true_velocity[:, axis]) for axis in (0, 1)])
    slips = np.array([e.velocity_enu_mps for e in estimates]) - velocity
    return at_s, nees, np.linalg.norm(slips, axis=1)


def _fix_rms(flown: Flown, from_s: float) -> float | None:
    fixes = [s.fix for s in flown.steps if s.fix is not None and s.reason is None]
    if not fixes:
        return None
    at_s = np.array([flown.boot_s(f.captured_at_ns) for f in fixes])
    misses = np.array([f.position_enu_m for f in fixes]) - flown.truth_at(at_s)[:, :2]
    return _rms(np.linalg.norm(misses[at_s >= from_s], axis=1))


def write_plot(flown: Flown, path: Path) -> None:
    """Left the tracks; right, over time, errors and the NEES of what was told."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (track, errors, nees) = plt.subplots(1, 3, figsize=(19, 6))
    truth = np.array([t.position_enu_m for t in flown.truth])
    believed = np.array([b.position_enu_m for b in flown.believed])
    fixes = np.array([s.fix.position_enu_m for s in flown.steps if s.fix is not None and s.reason is None])
    track.plot(*truth[:, :2].T, "k-", lw=2, label="truth")
    track.plot(*believed[np.linalg.norm(believed, axis=1) < 1e5].T, "C0-", lw=1, label="EKF")  # before it knows, 0, 0
    if len(fixes):
        track.plot(*fixes.T, "C1.", ms=3, label="fixes")
    track.set(aspect="equal", xlabel="east (m)", ylabel="north (m)", title="track")
    track.legend()
    at_s, ekf = _believed_errors(flown)
    told_s, told = _told_errors(flown)
    nees_s, values, _ = _step_errors(flown)
    errors.plot(told_s, told, "C1-", lw=0.8, label="told")
    errors.plot(at_s, ekf, "C0-", lw=1, label="EKF")
    nees.plot(nees_s, values, "C2-", lw=0.8)
    nees.axhline(CHI2_95, color="k", ls=":", lw=1)
    for axes in (errors, nees):
        if (begin_s := flown.begin_s("gps off")) is not None:
            axes.axvline(begin_s, color="r", label="GPS off")
        if dark := flown.dark_s():
            axes.axvspan(*dark, color="0.8", label="camera dark")
        axes.set_xlabel("time since boot (s)")
    errors.axhline(5, color="k", ls=":", lw=1)
    errors.set(ylabel="error (m)", ylim=(0, 8), title="horizontal error")
    errors.legend()
    nees.set(ylim=(0, 20), title="NEES of the estimates (95 %: 5.99)")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)
