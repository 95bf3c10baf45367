"""The node's parameters: its own few, and every setting of `onboard.config` under the same words (`track.coast_s`).

A setting's description is the comment that stands beside it in the config's source, its unit the end of its name.
Here is no ROS but in `declare`, which imports it.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from onboard.config import LINK_LIMITS, Config, merge
from onboard.errors import ConfigError
from onboard.mavlink.tell.profile import AUTO as PROFILE_AUTO
from onboard.mavlink.tell.profile import PROFILES
from onboard.track.velocity import AUTO as VELOCITY_AUTO
from onboard.track.velocity import VelocityUse, when_live
from pilotage_ros.readings import KINDS

Value = bool | int | float | str
AUTO = "auto"
TOPICS, MAVLINK = "topics", "mavlink"
REQUIRED, NEVER = "required", "never"


class Changeable(str, Enum):
    """When a parameter may be changed. The words end its description."""

    UNCONFIGURED = "takes effect at the next configure; refused while active"
    NOT_ACTIVE = "takes effect at the next activate; refused while active"
    ALWAYS = "may be changed at any time"


@dataclass(frozen=True, slots=True)
class Spec:
    """One parameter. `low` and `high` are set for numbers, `choices` for texts of a few."""

    name: str
    default: Value
    description: str
    changeable: Changeable = Changeable.NOT_ACTIVE
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


def _type_of(part: str) -> Spec:
    words = f"message type of topic {part}; auto: the type that is published there"
    return Spec(f"{part}_type", AUTO, words, choices=(AUTO, *KINDS[part]))


OWN = (
    Spec("map", "", "folder of the region map", Changeable.UNCONFIGURED),
    Spec("model", "", "model file; empty: the shipped one", Changeable.UNCONFIGURED),
    Spec("start", "", "LAT,LON in degrees, roughly where the vehicle is; setting it begins anew there; empty: anywhere",
         Changeable.ALWAYS),
    Spec("autostart", False, "configure and activate without being told", Changeable.UNCONFIGURED),
    Spec("camera_info_file", "", "ROS calibration YAML; empty: topic camera_info is waited for"),
    Spec("every_frame", False, "work on every frame instead of the newest, as replay does; subscriptions are reliable"),
    *(_type_of(part) for part in KINDS),
    Spec("telemetry", TOPICS, "where attitude, height and velocity come from", choices=(TOPICS, MAVLINK)),
    Spec("mavlink", "", "address of the flight controller, for instance /dev/ttyTHS1:921600 or udpin:0.0.0.0:14550;"
         " empty: no direct link"),
    Spec("mavros", False, "publish estimates on mavros/vision_pose/pose_cov and mavros/odometry/out"),
    Spec("map_frame", "map", "frame of the map: ENU about its anchor"),
    Spec("odom_frame", "odom", "frame of the vehicle's own odometry"),
    Spec("body_frame", "base_link", "frame of the vehicle: x forward, y left, z up"),
    Spec("publish_tf", AUTO, "broadcast map_frame to odom_frame (REP 105); auto: where odom_frame to body_frame is"
         " known; required: and complain where it is not", choices=(AUTO, REQUIRED, NEVER)),
)  # fmt: skip

# By unit, the end of a setting's name: lowest and highest value that a tool should offer.
_UNITS = {
    "mps2": ("m/s^2", 0.0, 100.0),
    "mps": ("m/s", 0.0, 1000.0),
    "deg": ("degrees", 0.0, 180.0),
    "ms": ("milliseconds", 0.0, 60_000.0),
    "hz": ("Hz", 0.0, 1000.0),
    "mb": ("MB", 0.0, 1e6),
    "sigma": ("standard deviations", 0.0, 100.0),
    "chi2": ("chi squared", 0.0, 1000.0),
    "m": ("metres", 0.0, 1e5),
    "s": ("seconds", 0.0, 3600.0),
}
_SHARES = ("probability", "_error", "height_step", "share")
# Where a unit's range is not the setting's.
_RANGES = {
    "search.heading_step_deg": (0.1, 180.0),
    "search.unknown_heading_step_deg": (1.0, 180.0),
    "search.height_step": (0.01, 1.0),
    "engine.dla_core": (-1, 1),  # -1: none
    **{f"link.{name}": (least, most) for name, least, most in LINK_LIMITS},
}
_CHOICES = {
    "track.velocity_use": (VELOCITY_AUTO, *(use.value for use in VelocityUse)),
    "link.profile": (PROFILE_AUTO, *PROFILES),
}
_COUNT = (1, 100_000)


def config_specs(config: Config = Config()) -> tuple[Spec, ...]:
    """A spec of each setting, `section.key`."""
    specs = []
    for section in dataclasses.fields(config):
        values = getattr(config, section.name)
        comments = _comments_of(type(values))
        for key in dataclasses.fields(values):
            name, value = f"{section.name}.{key.name}", getattr(values, key.name)
            unit, low, high = _unit_of(name, value)
            words = comments.get(key.name) or key.name.replace("_", " ")
            changeable = Changeable.UNCONFIGURED if section.name == "engine" else Changeable.NOT_ACTIVE
            words += f" [{unit}]" if unit else ""
            specs.append(Spec(name, value, words, changeable, low, high, _CHOICES.get(name, ())))
    return tuple(specs)


def all_specs() -> tuple[Spec, ...]:
    return (*OWN, *config_specs())


def config_of(values: Mapping[str, Value]) -> Config:
    """The config of parameters by full name; those without a section are not its. ConfigError as for a file.

    Where the vehicle is told, by MAVLink or MAVROS, it flies on our fixes: `when_live`.
    """
    sections: dict[str, dict[str, Value]] = {}
    for name, value in values.items():
        section, dot, key = name.partition(".")
        if dot:
            sections.setdefault(section, {})[key] = value
    config = merge(Config(), sections)
    if config.rectify.on_gimbal and values.get("telemetry", MAVLINK) != MAVLINK:
        raise ConfigError("rectify.on_gimbal with telemetry", values["telemetry"], f"{MAVLINK}: no topic tells of one")
    return when_live(config) if values.get("mavlink") or values.get("mavros") else config


def why_not(specs: Iterable[Spec], present: Mapping[str, Value], changes: Mapping[str, Value], active: bool) -> str:
    """Why these changes cannot be made: one line; empty where they can."""
    by_name = {spec.name: spec for spec in specs}
    for name, value in changes.items():
        spec = by_name.get(name)
        if spec is None:  # use_sim_time and the like
            continue
        if active and spec.changeable is not Changeable.ALWAYS and value != present[name]:
            return f"{name} cannot be changed while the node is active: deactivate it first"
        if spec.choices and value not in spec.choices:
            return f"{name}: {value}; expected one of {', '.join(spec.choices)}"
    try:
        config_of({name: value for name, value in {**present, **changes}.items() if name in by_name})
    except ConfigError as error:
        return str(error)
    return ""


def declare(node: Any, specs: Iterable[Spec]) -> None:
    """Declare them on an rclpy node, with description, range and unit."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    for spec in specs:
        described = ParameterDescriptor(description=f"{spec.description} ({spec.changeable.value})")
        if spec.choices:
            described.additional_constraints = "one of " + ", ".join(spec.choices)
        if spec.low is not None and spec.high is not None:
            if isinstance(spec.default, int):
                described.integer_range = [IntegerRange(from_value=int(spec.low), to_value=int(spec.high), step=0)]
            else:
                described.floating_point_range = [
                    FloatingPointRange(from_value=float(spec.low), to_value=float(spec.high), step=0.0)
                ]
        node.declare_parameter(spec.name, spec.default, described)


def _comments_of(section: type) -> dict[str, str]:
    """key -> the comment on its line in the source; nothing where the source is not at hand."""
    try:
        source = inspect.getsource(section)
    except OSError:
        return {}
    return dict(re.findall(r"^    (\w+): .*?  # (.+)$", source, flags=re.MULTILINE))


def _unit_of(name: str, value: Value) -> tuple[str, float | None, float | None]:
    """(unit, lowest, highest) of a setting; no range for texts and switches."""
    if isinstance(value, (bool, str)):
        return "", None, None
    unit, low, high = _UNITS.get(name.rsplit("_", 1)[-1], ("", 0.0, 1e6))
    if any(word in name for word in _SHARES) and not unit:
        unit, low, high = "share", 0.0, 1.0
    if isinstance(value, int):
        low, high = _COUNT
    low, high = _RANGES.get(name, (low, high))
    return unit, low, high
