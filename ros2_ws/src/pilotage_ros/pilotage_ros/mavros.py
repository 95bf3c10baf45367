"""Estimates by way of MAVROS: propagated to a steady rate, as the direct link sends them.

The vehicle counts local positions from its own origin: that must be the map's anchor. Where geographic_msgs is
installed it is sent to MAVROS's set_gp_origin as soon as that listens; else it has to be set by hand.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from rclpy.lifecycle import LifecycleNode

from onboard.config import Config
from onboard.frames import MapFrame
from onboard.mavlink.tell.propagate import Propagator
from onboard.records import Reason, State, Step, Telemetry
from pilotage_ros import messages

POSE, ODOMETRY, ORIGIN = "mavros/vision_pose/pose_cov", "mavros/odometry/out", "mavros/global_position/set_gp_origin"


class Mavros:
    """`take` on the localizer's thread; the rest on the executor's. `telemetry_at` gives the attitude of an instant."""

    def __init__(
        self,
        node: LifecycleNode,
        config: Config,
        frame: MapFrame,
        telemetry_at: Callable[[int], Telemetry | Reason],
    ) -> None:
        self._node, self._config, self._frame, self._telemetry_at = node, config, frame, telemetry_at
        self._map = node.get_parameter("map_frame").value
        self._body = node.get_parameter("body_frame").value
        self._lock = threading.Lock()
        self._propagator = Propagator(config.track, config.link)
        self._fixed_at_ns = 0
        self._pose = node.create_publisher(PoseWithCovarianceStamped, POSE, 10)
        self._odometry = node.create_publisher(Odometry, ODOMETRY, 10)
        self._origin, self._origin_told = self._origin_publisher(), False
        self._timer = node.create_timer(1.0 / config.link.rate_hz, self._tick)

    def take(self, step: Step) -> None:
        with self._lock:
            if step.state is State.LOST:
                self._propagator.clear()
            elif step.estimate is not None:
                if step.reason is None:
                    self._fixed_at_ns = step.captured_at_ns
                if self._fixed_at_ns:
                    self._propagator.take(step.estimate, self._fixed_at_ns)

    def close(self) -> None:
        self._node.destroy_timer(self._timer)
        for publisher in (self._pose, self._odometry, self._origin):
            if publisher is not None:
                self._node.destroy_publisher(publisher)

    def _tick(self) -> None:
        self._tell_origin()
        now_ns = self._node.get_clock().now().nanoseconds
        with self._lock:
            estimate = self._propagator.at(now_ns - round(self._config.link.latency_ms * 1e6))
        if estimate is None:
            return
        telemetry = self._telemetry_at(estimate.valid_at_ns)
        if not isinstance(telemetry, Telemetry):
            return  # without an attitude there is none to send
        attitude = telemetry.attitude_quat_wxyz
        pose = messages.write_mavros_pose(PoseWithCovarianceStamped(), estimate, attitude, self._map)
        self._pose.publish(pose)
        self._odometry.publish(messages.write_mavros_odometry(Odometry(), estimate, attitude, self._map, self._body))

    def _tell_origin(self) -> None:
        if self._origin is None or self._origin_told or self._origin.get_subscription_count() == 0:
            return
        from geographic_msgs.msg import GeoPointStamped

        message = GeoPointStamped()
        message.position.latitude = self._frame.anchor_latitude_deg
        message.position.longitude = self._frame.anchor_longitude_deg
        self._origin.publish(message)
        self._origin_told = True

    def _origin_publisher(self) -> Any:
        try:
            from geographic_msgs.msg import GeoPointStamped
        except ImportError:
            anchor = f"{self._frame.anchor_latitude_deg:.7f}, {self._frame.anchor_longitude_deg:.7f}"
            self._node.get_logger().warning(f"geographic_msgs is not installed: set the vehicle's origin to {anchor}")
            return None
        return self._node.create_publisher(GeoPointStamped, ORIGIN, 1)
