"""The lifecycle node `pilotage`: configure opens model and map, activate subscribes and works.

It contains no algorithm: messages are converted, `onboard` is called, what comes of it is published.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import InvalidParameterException, InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from onboard.errors import PilotageError
from pilotage_ros import diagnostics, parameters
from pilotage_ros.brain import Brain, start_on_map
from pilotage_ros.outputs import Outputs, diagnostic_array
from pilotage_ros.session import Session
from pilotage_ros.troubles import Troubles

_PERIOD_S = 1.0


class PilotageNode(LifecycleNode):
    """Unconfigured: nothing is open. Inactive: model and map are open. Active: frames are worked on."""

    def __init__(self) -> None:
        super().__init__("pilotage")
        self._specs = parameters.all_specs()
        parameters.declare(self, self._specs)
        self._brain: Brain | None = None
        self._outputs: Outputs | None = None
        self._session: Session | None = None
        self._troubles = Troubles()
        self._problem = ""  # why the last transition failed, or what ended the last session
        self._state = "unconfigured"
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.add_on_set_parameters_callback(self._on_set)
        self.create_service(Trigger, "~/reset", self._reset)
        self.create_service(Trigger, "~/load_map", self._load_map)
        self.create_timer(_PERIOD_S, self._say)

    # ---- transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._brain = Brain.open(
                self._value("map"), self._value("model"), parameters.config_of(self._settings()), self._value("start")
            )
        except PilotageError as error:
            return self._failed("configure", error)
        self._outputs = Outputs(self, self._troubles)
        region, facts = self._brain.region, self._brain.engine.facts
        self.get_logger().info(f"map {region.name}, {region.coverage_km2:.1f} km2; model {facts.name}")
        return self._reached("inactive")

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._brain is not None
        assert self._outputs is not None
        try:
            self._brain.config = parameters.config_of(self._settings())
            self._brain.reset()
            self._session = Session(self, self._brain, self._outputs, self._troubles)
        except (PilotageError, ImportError) as error:
            return self._failed("activate", error)
        super().on_activate(state)
        return self._reached("active")

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        super().on_deactivate(state)
        self._close_session()
        self._state = "inactive"  # a problem that ended the session stays told
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._close()
        return self._reached("unconfigured")

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._close()
        return self._reached("finalized")

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to the beginning, whatever went wrong."""
        self._close()
        self._state = "unconfigured"
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """At the end of the process, whatever the state."""
        self._close()

    # ---- requests

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._brain is not None
        if self._brain is None:
            response.message = "not configured: there is no track"
            return response
        self._brain.reset()
        response.message = "the track is forgotten"
        self.get_logger().info("reset: the track is forgotten")
        return response

    def _load_map(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Open the map that parameter `map` names now; the old one stays where that fails."""
        if self._brain is None:
            response.success, response.message = False, "not configured: configure opens the map"
            return response
        try:
            self._brain.load_map(self._value("map"))
        except PilotageError as error:
            response.success, response.message = False, str(error)
            self.get_logger().error(f"load_map: {error}")
            return response
        response.success, response.message = (
            True,
            f"{self._brain.region.name}, {self._brain.region.coverage_km2:.1f} km2",
        )
        self.get_logger().info(f"map {response.message}")
        return response

    def _on_set(self, changed: Sequence[Parameter]) -> SetParametersResult:
        present = {spec.name: self._value(spec.name) for spec in self._specs}
        changes = {parameter.name: parameter.value for parameter in changed}
        why = parameters.why_not(self._specs, present, changes, active=self._session is not None)
        if not why and self._brain is not None and "start" in changes:
            try:
                self._brain.start_at(start_on_map(changes["start"], self._brain.region))
            except PilotageError as error:
                why = str(error)
        return SetParametersResult(successful=not why, reason=why)

    # ---- once a second

    def _say(self) -> None:
        statuses = [diagnostics.lifecycle_status(self._state, self._problem)]
        if self._brain is not None:
            statuses += [diagnostics.map_status(self._brain.region), diagnostics.model_status(self._brain.engine.facts)]
        if self._session is not None:
            try:
                self._session.check()
                statuses += self._session.statuses()
            except Exception as error:  # of another thread: the session is over
                self._failed("active", error)
                self.trigger_deactivate()
                return
        for change in self._troubles.changes():
            if change.began:  # rclpy knows a call by its line, and wants one severity of each
                self.get_logger().warning(change.line)
            else:
                self.get_logger().info(change.line)
        self._diagnostics.publish(diagnostic_array(statuses, self.get_clock().now().nanoseconds))

    # ---- helpers

    def _close_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                session.close()
            except Exception as error:  # what ended it was told already; the rest is closed all the same
                self._failed("deactivate", error)
        self._troubles.clear()

    def _close(self) -> None:
        self._close_session()
        if self._outputs is not None:
            self._outputs.destroy()
        if self._brain is not None:
            self._brain.close()
        self._outputs = self._brain = None

    def _reached(self, state: str) -> TransitionCallbackReturn:
        self._state, self._problem = state, ""
        return TransitionCallbackReturn.SUCCESS

    def _failed(self, doing: str, error: BaseException) -> TransitionCallbackReturn:
        words = str(error) if isinstance(error, PilotageError) else f"{type(error).__name__}: {error}"
        if words != self._problem:
            self.get_logger().error(f"{doing}: {words}")
        self._problem = words
        return TransitionCallbackReturn.FAILURE

    def _settings(self) -> dict[str, Any]:
        return {spec.name: self._value(spec.name) for spec in self._specs}

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value


def main(arguments: Sequence[str] | None = None) -> None:
    """Spin the node until it is told to stop. Exit status 2 with one line where a parameter is of the wrong kind."""
    logging.basicConfig(format="%(name)s: %(message)s")
    # ROS's own handler would take the publishers away before the step in hand is told and all is closed.
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        node = PilotageNode()
    except (InvalidParameterTypeException, InvalidParameterValueException, InvalidParameterException) as error:
        print(f"pilotage: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        sys.exit(2)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if node.get_parameter("autostart").value and node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            node.trigger_activate()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
