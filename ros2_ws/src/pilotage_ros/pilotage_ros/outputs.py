"""The publishers: one step of the localizer becomes messages, stamped with the capture of its frame."""

from __future__ import annotations

from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
from nav_msgs.msg import Odometry
from rclpy.lifecycle import LifecycleNode
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, NavSatFix
from tf2_ros import Buffer, TransformBroadcaster, TransformException, TransformListener
from visualization_msgs.msg import Marker

from onboard.camera import CameraModel
from onboard.frames import MapFrame
from onboard.match.heatmap import Heatmap
from onboard.records import Estimate, Frame, Reason, Step, Telemetry
from onboard.region import RegionMap
from pilotage_ros import messages
from pilotage_ros.diagnostics import Status, write_status
from pilotage_ros.parameters import NEVER, REQUIRED
from pilotage_ros.troubles import Trouble, Troubles


class Outputs:
    """Publishers under the node's own name: fix, pose, odometry, ellipse, debug_image. For the localizer's thread."""

    def __init__(self, node: LifecycleNode, troubles: Troubles) -> None:
        self._node, self._troubles = node, troubles
        self._map_frame = node.get_parameter("map_frame").value
        self._body_frame = node.get_parameter("body_frame").value
        self._fix = node.create_lifecycle_publisher(NavSatFix, "~/fix", 10)
        self._pose = node.create_lifecycle_publisher(PoseWithCovarianceStamped, "~/pose", 10)
        self._odometry = node.create_lifecycle_publisher(Odometry, "~/odometry", 10)
        self._ellipse = node.create_lifecycle_publisher(Marker, "~/ellipse", 10)
        self._picture = node.create_lifecycle_publisher(CompressedImage, "~/debug_image", 1)
        self._drawing: Any = None
        self._drawing_of: tuple[object, object] = (None, None)  # camera and map that it was made for

    def publish(self, step: Step, frame: MapFrame) -> None:
        if step.estimate is not None:
            degrees = frame.geodetic_from_enu(step.estimate.position_enu_m)
            self._fix.publish(messages.write_fix(NavSatFix(), step.estimate, degrees, self._body_frame))
            self._pose.publish(messages.write_pose(PoseWithCovarianceStamped(), step.estimate, self._map_frame))
            self._odometry.publish(
                messages.write_odometry(Odometry(), step.estimate, self._map_frame, self._body_frame)
            )
        self._ellipse.publish(messages.write_ellipse(Marker(), step, self._map_frame))

    def picture(
        self,
        step: Step,
        frame: Frame | None,
        telemetry: Telemetry | Reason,
        heatmap: Heatmap | None,
        camera: CameraModel,
        body_from_camera: Any,
        region: RegionMap,
    ) -> None:
        """View, map and heatmap side by side, if anybody looks."""
        if self._picture.get_subscription_count() == 0:
            return
        try:
            if self._drawing is None or self._drawing_of[0] is not camera or self._drawing_of[1] is not region:
                from onboard.replay.pictures import DebugImage

                self._drawing, self._drawing_of = DebugImage(camera, body_from_camera, region), (camera, region)
            picture = self._drawing.draw(frame, telemetry, step, heatmap)
        except Exception as error:  # a picture for the curious must not end a flight
            self._troubles.set(Trouble.NO_DEBUG_IMAGE, True, f"{type(error).__name__}: {error}")
            return
        if picture is not None:
            encoded = cv2.imencode(".jpg", picture[..., ::-1])[1]
            message = CompressedImage(format="jpeg", data=encoded.tobytes())
            messages.set_header(message.header, step.captured_at_ns, self._map_frame)
            self._picture.publish(message)

    def destroy(self) -> None:
        for publisher in (self._fix, self._pose, self._odometry, self._ellipse, self._picture):
            self._node.destroy_lifecycle_publisher(publisher)


class Transforms:
    """map -> odom (REP 105), where somebody says odom -> base_link. Between fixes the last correction stays."""

    def __init__(self, node: LifecycleNode, troubles: Troubles) -> None:
        self._node, self._troubles = node, troubles
        self._wish = node.get_parameter("publish_tf").value
        self._map, self._odom, self._body = (
            node.get_parameter(name).value for name in ("map_frame", "odom_frame", "body_frame")
        )
        self._listener = None
        if self._wish != NEVER:
            self._buffer = Buffer()
            self._listener = TransformListener(self._buffer, node)
            self._broadcaster = TransformBroadcaster(node)

    def publish(self, step: Step) -> None:
        """After a frame whose fix was accepted."""
        if self._listener is None or step.estimate is None or step.reason is not None:
            return
        found = self._correction(step.estimate)
        if found is not None:
            at_ns = step.estimate.valid_at_ns
            self._broadcaster.sendTransform(
                messages.write_transform(TransformStamped(), at_ns, found, self._map, self._odom)
            )

    def close(self) -> None:
        if self._listener is not None:
            self._listener.unregister()
            self._node.destroy_publisher(self._broadcaster.pub_tf)

    def _correction(self, estimate: Estimate) -> tuple[float, float, float] | None:
        try:
            odom_from_body = self._buffer.lookup_transform(
                self._odom, self._body, Time(nanoseconds=estimate.valid_at_ns)
            )
        except TransformException as error:
            self._troubles.set(Trouble.NO_ODOMETRY_TF, self._wish == REQUIRED, str(error))
            return None
        self._troubles.set(Trouble.NO_ODOMETRY_TF, False)
        return messages.map_from_odom(estimate, odom_from_body.transform)


def diagnostic_array(statuses: list[Status], now_ns: int) -> DiagnosticArray:
    message = DiagnosticArray()
    messages.set_header(message.header, now_ns, "")
    message.status = [
        write_status(DiagnosticStatus(), status, lambda key, value: KeyValue(key=key, value=value))
        for status in statuses
    ]
    return message
