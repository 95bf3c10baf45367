"""A conversation with a vehicle on the ground: it is heard, kept in time and asked for streams while one waits."""

from __future__ import annotations

from collections.abc import Callable

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.errors import LinkError
from onboard.mavlink.tell import commands
from onboard.mavlink.vehicle.state import Vehicle
from onboard.mavlink.wire.connection import Connection, Refused

_MAX_TELEMETRY_AGE_NS = 250_000_000
_HEARTBEAT_NS = 1_000_000_000
_AGAIN_S = 2.0  # two heartbeats
_LOOK_S = 0.02  # between two looks at a quiet line
_STREAMS_SHARE = 0.5  # of a serial line's bytes that the vehicle is asked to fill

Listener = Callable[[mav.MAVLink_message, int], None]


class Session:
    """`clock` is ours, in ns. Time passes only in `run`; `listeners` get each message and its time."""

    def __init__(self, connection: Connection, clock: Callable[[], int]) -> None:
        self.connection, self.clock = connection, clock
        address = connection.address
        self.bytes_per_s = address.port / 10 if address.kind == "serial" else None  # ten bits a byte
        budget = None if self.bytes_per_s is None else self.bytes_per_s * _STREAMS_SHARE
        self.vehicle = Vehicle(_MAX_TELEMETRY_AGE_NS, budget_bytes_per_s=budget)
        self.listeners: list[Listener] = []
        self._heartbeat_ns: int | None = None

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass, at most so long; true as soon as `until` is."""
        end_ns = self.clock() + round(seconds * 1e9)
        while not until():
            if self.clock() >= end_ns:
                return False
            self._step()
        return True

    def meet(self, patience_s: float) -> None:
        """Wait for the vehicle, and for its name. LinkError where none is heard, with what to look at."""
        if not self.run(patience_s, lambda: self.vehicle.alive(self.clock())):
            self._nobody(patience_s)
        self.run(3.0, lambda: bool(self.vehicle.version))

    def meet_again(self) -> None:
        """After a pause, such as a question: hear what came meanwhile. LinkError where it is not there, or armed."""
        self.run(_AGAIN_S)
        if not self.vehicle.alive(self.clock()):
            raise LinkError("the vehicle is", "silent", "heard", "nothing was changed")
        if self.vehicle.armed:
            raise LinkError("the vehicle is", "armed", "disarmed", "an armed vehicle is only looked at")

    def _step(self) -> None:
        self.connection.wait(_LOOK_S)
        now_ns = self.clock()
        for message in self.connection.receive(now_ns):
            self.vehicle.heard(message, now_ns)
            reply = self.vehicle.sync.answer(message, now_ns)
            if reply is not None:
                self.connection.send(reply)
            for listener in self.listeners:
                listener(message, now_ns)
        for request in self.vehicle.requests(now_ns):
            self.connection.send(request)
        due = self._heartbeat_ns is None or now_ns - self._heartbeat_ns >= _HEARTBEAT_NS
        if due and self.connection.send(commands.heartbeat()):
            self._heartbeat_ns = now_ns

    def _nobody(self, patience_s: float) -> None:
        refused, address = self.connection.refused, self.connection.address
        what, found = "no vehicle heard", f"{address} in {patience_s:g} s"
        if refused[Refused.FOREIGN_SYSTEM]:
            expected = f"heartbeats of system {self.connection.target_system}"
            raise LinkError(what, f"{found}, but another system", expected, "set link.system_id, or to 0 for any")
        if refused[Refused.UNSIGNED] or refused[Refused.BAD_SIGNATURE]:
            why = "unsigned" if refused[Refused.UNSIGNED] else "signed with another key"
            raise LinkError(what, f"{found}, but messages {why}", "signed", "give it the key: pilotage link teach")
        if refused[Refused.GARBAGE]:
            remedy = "set SERIALn_BAUD and the address to one baud rate, and SERIALn_PROTOCOL to 2"
            raise LinkError(what, f"{found}, but bytes that are no MAVLink", "MAVLink 2", remedy)
        serial = "look at RX, TX and ground, SERIALn_PROTOCOL 2 (PX4: MAV_n_CONFIG), SERIALn_BAUD"
        remedy = serial if address.kind == "serial" else "look at the address, the port, and whether the vehicle sends"
        raise LinkError(what, found, "heartbeats", remedy)
