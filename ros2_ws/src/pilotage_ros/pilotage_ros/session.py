"""One activation of the node: inputs, pairing, localizer's thread, outputs, link, wired together.

executor    subscriptions -> intake -> pairing -> the worker's mailbox; timers
localizer   decode -> Localizer.step -> link, publishers
mavlink     the companion's tick, where a direct link is on
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.serialization import deserialize_message

from onboard.camera import CameraModel
from onboard.errors import ConfigError
from onboard.live.status import plain
from onboard.live.worker import FrameItem, Worker
from onboard.mavlink.tell.covariance import largest_sigma
from onboard.records import Frame, State, Step
from pilotage_ros import diagnostics, readings
from pilotage_ros.brain import Brain, on_map
from pilotage_ros.inputs import Inputs, message_class
from pilotage_ros.intake import Intake
from pilotage_ros.mavlink import DirectLink
from pilotage_ros.mavros import Mavros
from pilotage_ros.outputs import Outputs, Transforms
from pilotage_ros.parameters import MAVLINK
from pilotage_ros.readings import KINDS
from pilotage_ros.troubles import Trouble, Troubles

_POLL_S = 0.02  # frames whose wait for telemetry ends while nothing arrives
_SECOND_S = 1.0
_STOP_S = 10.0  # what the step in hand is given at the end
_GPS_NEAR_NS = 500_000_000


class Session:
    """Made by activation, closed by deactivation. PilotageError where link or calibration cannot be used."""

    def __init__(self, node: LifecycleNode, brain: Brain, outputs: Outputs, troubles: Troubles) -> None:
        self._node, self._brain, self._outputs, self._troubles = node, brain, outputs, troubles
        self._log = node.get_logger()
        self._began_ns = time.monotonic_ns()
        self._state = State.LOST
        self._reasons: Counter[str] = Counter()
        self._last_published: Step | None = None
        self._gps: tuple[int, np.ndarray] | None = None
        self._gps_apart: tuple[float, float] | None = None
        with ExitStack() as stack:  # what was begun is ended again, also when the rest fails
            self._begin(stack)
            self._stack = stack.pop_all()

    def _begin(self, stack: ExitStack) -> None:
        node, troubles, config = self._node, self._troubles, self._brain.config
        camera, every_frame = self._camera_of_file(), self._value("every_frame")
        self._link = self._open_link(stack)
        by_mavlink = self._value("telemetry") == MAVLINK
        self.intake = Intake(
            lambda raw, kind: deserialize_message(raw, message_class(kind)),
            troubles,
            config.rectify,
            body_frame=self._value("body_frame"),
            every_frame=every_frame,
            telemetry=self._link if by_mavlink else None,
        )
        if camera is not None:
            self.intake.use_camera(camera, self._began_ns)
        self._transforms = Transforms(node, troubles)
        stack.callback(self._transforms.close)
        self._mavros = None
        if self._value("mavros"):
            self._mavros = Mavros(node, config, self._brain.region.frame, self.intake.telemetry_at)
            stack.callback(self._mavros.close)
        self._worker = Worker(self._brain.step, self._stepped, every_frame, on_item=self._shown, clock_ns=self._now_ns)
        self._worker.start()
        stack.callback(self._worker.stop, timeout_s=_STOP_S)
        kinds = {part: self._value(f"{part}_type") for part in (("image",) if by_mavlink else KINDS)}
        inputs = Inputs(node, self.intake, troubles, kinds, every_frame, self._pair, self._start, self._heard_gps)
        self._inputs = inputs
        stack.callback(inputs.close)
        for period_s, callback in ((_POLL_S, self._poll), (_SECOND_S, self._look)):
            stack.callback(node.destroy_timer, node.create_timer(period_s, callback))

    def close(self) -> None:
        """Stop all that was started, last first; the step in hand is finished. Raises what ended a thread."""
        self._stack.close()

    def check(self) -> None:
        """Raise what ended a thread."""
        self._worker.check()
        if self._link is not None:
            self._link.check()

    def statuses(self) -> list[diagnostics.Status]:
        now_ns, last = self._now_ns(), self._last_published
        age_s = None if last is None else (now_ns - last.captured_at_ns) * 1e-9
        told = [
            diagnostics.localizer_status(self._worker.status(), dict(self._reasons), age_s),
            diagnostics.input_status(self.intake, self._troubles.now()),
        ]
        if self._gps_apart is not None:
            told.append(diagnostics.gps_status(*self._gps_apart))
        if self._link is not None:
            told.append(diagnostics.link_status(plain(self._link.status()), ""))
        return told

    # ---- on the executor

    def _poll(self) -> None:
        self.intake.poll()
        self._pair()

    def _pair(self) -> None:
        now_ns = time.monotonic_ns()
        if self.intake.settle(now_ns):
            assert self.intake.camera is not None
            assert self.intake.body_from_camera is not None
            self._brain.build(self.intake.camera, self.intake.body_from_camera)
            self._log.info(f"camera known, mount: {self.intake.mount_words}")
        for item in self.intake.ready(now_ns, self._now_ns):
            with suppress(Exception):  # what a step has raised: `check` raises it again, outside of this callback
                self._worker.offer(item)

    def _look(self) -> None:
        self._inputs.discover()
        self.intake.look(time.monotonic_ns() - self._began_ns, self._now_ns())

    def _start(self, message: Any) -> None:
        """A start position of topic initialpose."""
        position, frame = readings.start_enu_m(message), message.header.frame_id.lstrip("/")
        wanted = self._value("map_frame")
        if frame != wanted or position is None:
            self._troubles.strike(Trouble.FOREIGN_START, self._now_ns(), f"{frame!r}; expected {wanted!r}, finite")
            return
        try:
            self._brain.start_at(on_map(position, self._brain.region))
        except ConfigError as error:
            self._log.warning(f"initialpose refused: {error}")
            return
        self._log.info(f"begins anew at {position[0]:.0f} m east, {position[1]:.0f} m north")

    def _heard_gps(self, message: Any) -> None:
        degrees = readings.gps_degrees(message)
        if degrees is None:
            return
        at_ns = readings.ros.stamp_ns(message, self._now_ns())
        self._gps = at_ns, self._brain.region.frame.enu_from_geodetic(*degrees)
        last = self._last_published
        if last is not None and last.estimate is not None and abs(at_ns - last.captured_at_ns) < _GPS_NEAR_NS:
            distance = float(np.hypot(*(self._gps[1] - last.estimate.position_enu_m)))
            self._gps_apart = distance, largest_sigma(last.estimate.covariance[:2, :2])

    # ---- on the localizer's thread

    def _stepped(self, step: Step) -> None:
        """The flight controller is told first."""
        if self._link is not None:
            self._link.take(step)
        if self._mavros is not None:
            self._mavros.take(step)
        self._outputs.publish(step, self._brain.region.frame)
        self._transforms.publish(step)
        if step.published:
            self._last_published = step
        if step.reason is not None:
            self._reasons[step.reason.value] += 1
        if step.state is not self._state:
            why = f" ({step.reason.value})" if step.reason is not None else ""
            self._log.info(f"{self._state.value} -> {step.state.value}{why}")
            self._state = step.state

    def _shown(self, item: FrameItem, frame: Frame | None, step: Step) -> None:
        intake = self.intake
        self._outputs.picture(
            step, frame, item.telemetry, self._brain.heatmap, intake.camera, intake.body_from_camera, self._brain.region
        )

    # ---- set-up

    def _camera_of_file(self) -> CameraModel | None:
        path = self._value("camera_info_file")
        return CameraModel.from_yaml(Path(path)) if path else None

    def _open_link(self, stack: ExitStack) -> DirectLink | None:
        address = self._value("mavlink")
        if not address:
            if self._value("telemetry") == MAVLINK:
                raise ConfigError("parameter telemetry", MAVLINK, "an address in parameter mavlink")
            return None
        link = DirectLink(address, self._brain.config, self._brain.region.frame)
        stack.callback(link.close)
        return link

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _value(self, name: str) -> Any:
        return self._node.get_parameter(name).value
