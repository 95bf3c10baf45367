"""Which topic of a bag plays which part: chosen by type and name, unless told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import takewhile
from typing import Protocol

from onboard.errors import ConfigError, FlightError
from onboard.flight import ros
from onboard.flight.source import Topics


class Connection(Protocol):
    """What is needed of a connection of `rosbags`."""

    @property
    def topic(self) -> str: ...
    @property
    def msgtype(self) -> str: ...
    @property
    def msgcount(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Part:
    """What may play a part: types in order of preference, words that a name should have, must have, must not."""

    kinds: tuple[str, ...]
    likes: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    needs_word: tuple[str, ...] = ()  # types so general that the name must hold one of `likes`


# What the node publishes: recorded with the flight, it is neither truth nor telemetry.
_OUR_OWN = tuple(f"pilotage/{name}" for name in ("fix", "pose", "odometry", "debug_image", "truth"))

PARTS = {
    "image": Part(
        (ros.COMPRESSED_IMAGE, ros.IMAGE),
        ("down", "nadir", "bottom", "image_raw", "image"),
        ("depth", "thermal", *_OUR_OWN),
    ),
    "camera_info": Part((ros.CAMERA_INFO,)),
    "attitude": Part(
        (ros.IMU, ros.QUATERNION, ros.PX4_ATTITUDE, ros.POSE, ros.ODOMETRY),
        ("mavros/imu/data", "imu/data", "attitude", "imu"),
        ("imu/data_raw", "setpoint", "cmd", "goal", "truth", *_OUR_OWN),
    ),
    "height": Part(
        (ros.RANGE, ros.ALTITUDE, ros.PX4_LOCAL, ros.FLOAT64, ros.FLOAT32),
        ("height_above_ground", "height", "agl", "distance", "rangefinder", "rel_alt"),
        needs_word=(ros.FLOAT64, ros.FLOAT32),
    ),
    "velocity": Part(
        (ros.TWIST, ros.ODOMETRY, ros.PX4_LOCAL),
        ("velocity_local", "velocity", "odom"),
        ("body", "setpoint", "cmd", "truth", *_OUR_OWN),
    ),
    "home": Part((ros.HOME,), ("home_position/home", "home"), ("set",)),
    "truth": Part((ros.NAVSAT,), ("truth", "global", "fix"), ("raw", *_OUR_OWN)),
}
NEEDED = ("image", "camera_info", "attitude", "height")


def choose(connections: Sequence[Connection], topics: Topics, bag: object) -> dict[str, Connection]:
    """The connection of each part that the bag has; FlightError where a needed one is missing.

    `bag` is what the error calls the recording.
    """
    connections = [c for c in connections if c.msgcount > 0]
    chosen: dict[str, Connection] = {}
    for field in fields(topics):
        part, told = PARTS[field.name], getattr(topics, field.name)
        near = chosen["image"].topic if field.name == "camera_info" and "image" in chosen else ""
        found = _told(connections, told, part) if told else _best(connections, part, near)
        if found is not None:
            chosen[field.name] = found
        elif told or field.name in NEEDED:
            raise FlightError(
                f"no {field.name.replace('_', ' ')} in {bag}",
                told,
                f"a topic of {' or '.join(part.kinds)}",
                f"record it with the flight; topics found: {_listed(connections)}",
            )
    return chosen


def parse_topics(told: Iterable[str]) -> Topics:
    """Topics of texts like `image=/cam/image`; ConfigError for another part, or one told twice."""
    parts: dict[str, str] = {}
    for text in told:
        part, _, name = text.partition("=")
        if part not in PARTS or not name or part in parts:
            raise ConfigError(
                "--topic", repr(text), f"PART=NAME, each part once, of {', '.join(PARTS)}", "e.g. image=/cam/image"
            )
        parts[part] = name
    return Topics(**parts)


def _told(connections: Iterable[Connection], topic: str, part: Part) -> Connection | None:
    return next((c for c in connections if c.topic == topic and c.msgtype in part.kinds), None)


def _best(connections: Iterable[Connection], part: Part, near: str) -> Connection | None:
    """The best of the connections that fit; equal ones by name, so that the choice is always the same."""

    def rank(connection: Connection) -> tuple[int, int, int, str]:
        pairs = zip(connection.topic.split("/"), near.split("/"), strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))  # names of one camera begin alike
        return -shared, _word(connection.topic, part), part.kinds.index(connection.msgtype), connection.topic

    fitting = [c for c in connections if c.msgtype in part.kinds and not any(word in c.topic for word in part.never)]
    fitting = [c for c in fitting if c.msgtype not in part.needs_word or _word(c.topic, part) < len(part.likes)]
    return min(fitting, key=rank, default=None)


def _word(topic: str, part: Part) -> int:
    """The place of the first liked word that a topic's name holds; their number where it holds none."""
    return next((i for i, word in enumerate(part.likes) if word in topic), len(part.likes))


def _listed(connections: Iterable[Connection]) -> str:
    return ", ".join(sorted(f"{c.topic} ({c.msgtype.split('/')[-1]})" for c in connections)) or "none"
