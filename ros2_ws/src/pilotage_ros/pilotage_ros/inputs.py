"""The subscriptions of one activation: topics by name, types by what is published there, QoS as sensors have it."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, NavSatFix
from tf2_msgs.msg import TFMessage

from onboard.flight import ros
from pilotage_ros.intake import Intake
from pilotage_ros.parameters import AUTO
from pilotage_ros.readings import KINDS
from pilotage_ros.troubles import Trouble, Troubles

_HOME_TOPIC = "mavros/home_position/home"
_STATIC = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_DEPTHS = {"image": 2}  # newest wins; telemetry is small and none of it may be lost while the executor is busy
_TELEMETRY_DEPTH = 100
_AT_ONCE = 50  # messages of one topic before another topic's turn


class Inputs:
    """Feeds an `Intake`. `kinds` says the type of each part, or auto: then `discover` finds it.

    `on_arrival` is called after each message that may complete a frame, `on_start` and `on_gps` with theirs.
    """

    def __init__(
        self,
        node: LifecycleNode,
        intake: Intake,
        troubles: Troubles,
        kinds: Mapping[str, str],
        every_frame: bool,
        on_arrival: Callable[[], None],
        on_start: Callable[[Any], None],
        on_gps: Callable[[Any], None],
    ) -> None:
        self._node, self._intake, self._troubles = node, intake, troubles
        self._every_frame, self._on_arrival = every_frame, on_arrival
        self._wanted = dict(kinds)
        self._subscriptions = [
            node.create_subscription(CameraInfo, "camera_info", self._camera_info, self._qos("camera_info")),
            node.create_subscription(TFMessage, "/tf_static", intake.tf_static, _STATIC),
            node.create_subscription(PoseWithCovarianceStamped, "initialpose", on_start, 1),
            node.create_subscription(NavSatFix, "gps", on_gps, self._qos("gps")),
        ]
        self._subscribe_home()
        self.discover()

    def discover(self) -> None:
        """Subscribe to the parts whose type is known by now."""
        for part in list(self._wanted):
            found = self._published(part)
            kind = self._wanted[part]
            if kind == AUTO and not found:
                continue
            base = self._node.resolve_topic_name(part)
            topic, kind = found if found else (base, kind)
            self._subscribe(part, topic, kind)
            if found:
                self._intake.expect(part)
            del self._wanted[part]

    def close(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _published(self, part: str) -> tuple[str, str] | None:
        """(topic, type) of what is published for a part, the preferred type first; None where nothing is.

        Images may be remapped by the name of the raw topic: its compressed brother beside it is found as well.
        """
        base = self._node.resolve_topic_name(part)
        wanted = KINDS[part] if self._wanted[part] == AUTO else (self._wanted[part],)
        for topic in (base, f"{base}/compressed") if part == "image" else (base,):
            types = {info.topic_type for info in self._node.get_publishers_info_by_topic(topic)}
            if len(types) > 1:
                self._troubles.set(Trouble.TWO_TYPES, True, f"on {topic}: {', '.join(sorted(types))}")
            kind = next((kind for kind in wanted if kind in types), None)
            if kind is not None:
                return topic, kind
        return None

    def _subscribe_home(self) -> None:
        """Heights above home need its place; without MAVROS's messages nobody here tells it."""
        with suppress(ImportError, AttributeError):
            kind = message_class(ros.HOME)
            self._subscriptions.append(self._node.create_subscription(kind, _HOME_TOPIC, self._home, _STATIC))

    def _subscribe(self, part: str, topic: str, kind: str) -> None:
        """Images stay serialized: most are dropped, and those are not worth the work."""
        if part == "image":
            self._intake.image_topic = topic
            callback = partial(self._image, kind)
        else:
            callback = partial(self._telemetry, part, kind)
        if part == "height":
            self._intake.height_topic = topic
        subscription: Subscription = self._node.create_subscription(
            message_class(kind),
            topic,
            lambda message: callback(_all_of(subscription, message)),
            self._qos(part),
            raw=part == "image",
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=partial(self._unmatched, topic)),
        )
        self._subscriptions.append(subscription)
        self._node.get_logger().info(f"{part}: {topic} ({kind})")

    def _qos(self, part: str) -> QoSProfile:
        """As sensors publish: best effort. Where every frame counts, reliable, and all is kept until its turn comes."""
        if self._every_frame:
            return QoSProfile(history=HistoryPolicy.KEEP_ALL)
        depth = _DEPTHS.get(part, _TELEMETRY_DEPTH)
        return QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)

    def _image(self, kind: str, waiting: list[bytes]) -> None:
        for raw in waiting:
            self._intake.image(raw, kind, time.monotonic_ns(), self._now_ns())
        self._on_arrival()

    def _telemetry(self, part: str, kind: str, waiting: list[Any]) -> None:
        for message in waiting:
            self._intake.telemetry(part, message, kind, self._now_ns())
        self._on_arrival()

    def _camera_info(self, message: CameraInfo) -> None:
        self._intake.camera_info(message, time.monotonic_ns(), self._now_ns())

    def _home(self, message: Any) -> None:
        self._intake.home(message, self._now_ns())

    def _unmatched(self, topic: str, event: Any) -> None:
        detail = f"on {topic}: {event.last_policy_kind!s}; see the parameters qos_overrides.{topic}"
        self._troubles.set(Trouble.UNMATCHED_QOS, True, detail)

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)


def _all_of(subscription: Subscription, message: Any) -> list[Any]:
    """A message and those that wait behind it.

    The executor takes one message of a topic a round, and a round costs a millisecond and more: an IMU of 200 Hz would
    be told ever later. Taken at once, the rest costs a few microseconds each.
    """
    waiting = [message]
    while len(waiting) < _AT_ONCE:
        taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
        if taken is None:
            break
        waiting.append(taken[0])
    return waiting


def message_class(kind: str) -> Any:
    """The class of `package/msg/Name`. ImportError where the package is not installed."""
    package, _, name = kind.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), name)
