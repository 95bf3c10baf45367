"""Every setting of what flies, with working defaults and a unit in each name.

A file names only what it changes; an unknown key is an error that names the key. The resolved copy is
written beside every result. Facts of a model (sizes, normalisation, outputs) are not settings: they
ride in the model file.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from onboard.errors import ConfigError


@dataclass(frozen=True)
class RectifyConfig:
    """When a frame can be laid on the ground."""

    min_height_m: float = 15.0
    max_height_m: float = 1500.0
    max_tilt_deg: float = 40.0
    max_off_nadir_deg: float = 55.0  # ground seen more obliquely than this is left out
    min_footprint_m: float = 30.0  # side of a square as large as the ground seen
    max_telemetry_age_ms: float = 250.0
    on_gimbal: bool = False  # the camera hangs on a gimbal that tells its own attitude; the mount is then on that
    gimbal_sigma_deg: float = 0.3  # 1 sigma of roll and pitch as the gimbal tells them, instead of the vehicle's
    height_from_map: bool = True  # heights above home become heights above ground by the map's, where it has any


@dataclass(frozen=True)
class SearchConfig:
    """Which hypotheses of heading, height and place are tried."""

    heading_error_deg: float = 6.0  # how far a compass heading may be off (1.5 sigma or so)
    height_error: float = 0.10  # how far the told height may be off, as a share
    heading_step_deg: float = 5.0
    height_step: float = 0.08
    unknown_heading_step_deg: float = 10.0
    max_blocks: int = 256  # blocks of the detail raster that one frame may look at when lost
    spectra_cache_mb: float = 32.0  # memory for what the search of the whole map would compute again each time
    candidates: int = 20  # of a search round a prediction
    compared_candidates: int = 192  # of other searches: gradients are compared there, of large views at fewer
    gradient_weight: float = 0.5  # of their correlation beside the network's, where candidates are put in order
    start_radius_m: float = 150.0  # round a given start position; grows with the time since
    tracking_radius_sigma: float = 4.0
    tracking_radius_min_m: float = 25.0


@dataclass(frozen=True)
class FixConfig:
    """What makes a match a fix."""

    min_probability_right: float = 0.99
    min_probability_alone: float = 0.997  # of one frame over the whole map, with nothing else to bear it out
    max_rival_probability_alone: float = 0.05  # the chances of other places in sum, beside such a frame
    second_mode_distance_m: float = 25.0
    unmapped_height_m: float = 5.0  # 1 sigma of what stands on the ground that the map's heights do not know of


@dataclass(frozen=True)
class TrackConfig:
    """The gate, the filter and its states."""

    acceleration_noise_mps2: float = 1.0
    velocity_use: str = "auto"  # of telemetry; auto: measured in a replay, inertial live (`onboard.track.velocity`)
    velocity_noise_mps: float = 0.6  # of the velocity that telemetry gives, per axis
    increment_noise_mps2: float = 0.2  # of its changes, where no fix comes: their error grows as this times root time
    inertial_noise_mps2: float = 0.03  # of the IMU's accelerations: error of velocity grows as this times root time
    lean_noise_deg: float = 0.01  # of what its gyroscopes say, degrees per root second
    lean_turn_noise: float = 0.002  # and in manoeuvres, as a share of the angle turned
    gyro_bias_sigma_dps: float = 0.02  # what the vehicle's estimator leaves of it
    lean_sigma_deg: float = 1.0  # of the vehicle's attitude when nothing is known of its error yet
    fix_bias_m: float = 1.5  # of fixes on one kind of ground together (shadows, relief), where the lean is estimated
    fix_bias_length_m: float = 30.0  # flown, after which it is another one
    odometry_scale_sigma: float = 0.05  # by what share visual odometry is too long, as the height told is too large
    odometry_heading_sigma_deg: float = 2.0  # by what it is turned, as the heading told
    max_speed_mps: float = 40.0  # where no velocity is known
    gate_chi2: float = 13.8  # 99.9 % of two dimensions
    acquire_fixes: int = 3  # fixes that must agree before the first is published
    acquire_window_s: float = 10.0
    coast_s: float = 10.0  # the longest that an estimate may live on motion alone
    hold_s: float = 60.0  # and, before that, on visual odometry without a fix
    max_position_sigma_m: float = 30.0


@dataclass(frozen=True)
class OdometryConfig:
    """How frames are compared with each other, where the vehicle has no velocity that may be believed."""

    enabled: bool = True
    min_height_m: float = 2.0
    max_gap_s: float = 2.0  # between two frames that are compared
    picture_sigma_px: float = (
        0.1  # of a shift between two views, in pixels of a view that is as wide as the ground seen
    )
    attitude_sigma_deg: float = 0.12  # by which the attitudes of two frames err differently
    gimbal_sigma_deg: float = 0.03  # the same of a gimbal that the camera hangs on
    timing_sigma_ms: float = 10.0  # by which frames and attitudes do not belong together, where the vehicle leans over


@dataclass(frozen=True)
class EngineConfig:
    """What runs the model."""

    backend: str = "auto"  # tensorrt, onnxruntime (on the CPU), or auto: TensorRT where an engine was built for it
    threads: int = 2  # of ONNX Runtime on the CPU
    folder: str = ""  # of TensorRT engines; empty: beside the model
    build_missing: bool = False  # build an engine that is missing or does not fit: takes minutes, before the flight
    dla_core: int = -1  # deep learning accelerator of an Orin; -1: GPU alone


@dataclass(frozen=True)
class LinkConfig:
    """What the flight controller is told, and whom it is believed from."""

    profile: str = "auto"  # by what the vehicle says it is; or a name of `onboard.mavlink.tell.profile.PROFILES`
    system_id: int = 1  # the vehicle's; 0: of the first autopilot that is heard
    rate_hz: float = 10.0  # of the messages; below 4 Hz ArduPilot calls the source unhealthy
    latency_ms: float = 150.0  # every message tells of a moment so long ago: what VISO_DELAY_MS is set to
    silent_after_s: float = 5.0  # since a fix or visual odometry last held the position; nothing is told then
    correlation_s: float = 2.0  # errors of fixes last so long: the vehicle must not average messages that share them
    gimbal_correlation_s: float = 0.3  # instead, where the camera hangs on a gimbal: no loop leads through its attitude
    gyro_filter_hz: float = 20.0  # the vehicle's low-pass (INS_GYRO_FILTER): by its delay the rates told are too old
    signing_key_file: str = ""  # empty: unsigned
    set_origin: bool = True  # where the vehicle has none
    switch_source_set: int = 0  # EKF source set (1 to 3) to switch to when GPS is lost or lies; 0: never
    gps_disagreement_m: float = 30.0  # further apart than this and than both claim: spoofing

    def __post_init__(self) -> None:
        for name, least, most in LINK_LIMITS:
            value = getattr(self, name)
            if not least <= value <= most:  # NaN is refused as well
                raise ConfigError(f"config key link.{name}", value, f"{least:g} to {most:g}")


LINK_LIMITS = (
    ("system_id", 0, 255),
    ("rate_hz", 1, 100),
    ("latency_ms", 0, 1000),
    ("silent_after_s", 0.1, 60),
    ("correlation_s", 0, 60),
    ("gimbal_correlation_s", 0, 60),
    ("gyro_filter_hz", 1, 10_000),
    ("switch_source_set", 0, 3),
    ("gps_disagreement_m", 1, 10_000),
)


@dataclass(frozen=True)
class Config:
    rectify: RectifyConfig = field(default_factory=RectifyConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    fix: FixConfig = field(default_factory=FixConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    odometry: OdometryConfig = field(default_factory=OdometryConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    link: LinkConfig = field(default_factory=LinkConfig)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def load_config(path: Path | str | None) -> Config:
    """Read a YAML of sections over the defaults; None gives the defaults.

    Raises ConfigError for a missing file, an unknown section or key, or a value of another type.
    """
    if path is None:
        return Config()
    path = Path(path)
    if not path.is_file():
        raise ConfigError("no config file", path, "a YAML file", "leave --config out for the defaults")
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError("unreadable config", f"{path} ({error})", "YAML") from error
    return merge(Config(), content)


def merge(config: Config, content: object) -> Config:
    """`config` with the values of a nested mapping put in."""
    if not isinstance(content, dict):
        raise ConfigError("config", type(content).__name__, "a mapping of sections")
    sections = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    changed = {}
    for name, values in content.items():
        if name not in sections:
            raise ConfigError("unknown config section", name, "one of " + ", ".join(sections))
        if not isinstance(values, dict):
            raise ConfigError(f"config section {name}", values, "a mapping of keys")
        known = {f.name: getattr(sections[name], f.name) for f in dataclasses.fields(sections[name])}
        for key, value in values.items():
            if key not in known:
                raise ConfigError("unknown config key", f"{name}.{key}", "one of " + ", ".join(known))
            wanted = type(known[key])
            if wanted is float and isinstance(value, int) and not isinstance(value, bool):
                values[key] = float(value)
            elif type(value) is not wanted:
                raise ConfigError(f"config key {name}.{key}", repr(value), f"a value of type {wanted.__name__}")
        changed[name] = dataclasses.replace(sections[name], **values)
    return dataclasses.replace(config, **changed)
