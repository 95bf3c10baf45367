"""The vehicle's parameters by name: read with retries, and written one at a time with the answer compared.

A value travels as a float. ArduPilot casts integers into it. PX4 copies their bytes (PARAM_ENCODE_BYTEWISE), so 1
looks like 1.4e-45: https://mavlink.io/en/services/parameter.html. A name that does not exist is mostly not answered.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.errors import LinkError
from onboard.mavlink.doctor.session import Session
from onboard.mavlink.tell.commands import AUTOPILOT
from onboard.mavlink.vehicle.autopilot import Autopilot
from onboard.mavlink.vehicle.state import Vehicle

_AT_ONCE = 8  # ArduPilot queues twenty requests and drops what is more
_ROUND_S = 1.0  # for the answers of one round
_ROUNDS = 3
_NAME_BYTES = 16
_FORMATS = {
    mav.MAV_PARAM_TYPE_UINT8: "<B3x",
    mav.MAV_PARAM_TYPE_INT8: "<b3x",
    mav.MAV_PARAM_TYPE_UINT16: "<H2x",
    mav.MAV_PARAM_TYPE_INT16: "<h2x",
    mav.MAV_PARAM_TYPE_UINT32: "<I",
    mav.MAV_PARAM_TYPE_INT32: "<i",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """`value` as a person means it; `kind` is MAV_PARAM_TYPE."""

    name: str
    value: float
    kind: int


def is_bytewise(vehicle: Vehicle) -> bool:
    """Whether integers travel as their bytes: as the vehicle says, else as its firmware is known to."""
    if vehicle.capabilities & mav.MAV_PROTOCOL_CAPABILITY_PARAM_ENCODE_BYTEWISE:
        return True
    casts = vehicle.capabilities & mav.MAV_PROTOCOL_CAPABILITY_PARAM_ENCODE_C_CAST
    return vehicle.autopilot is Autopilot.PX4 and not casts


def decoded(raw: float, kind: int, bytewise: bool) -> float:
    """The value of PARAM_VALUE's float; NaN where its bytes cannot be one."""
    if not bytewise or kind not in _FORMATS:
        return raw
    return float(struct.unpack(_FORMATS[kind], struct.pack("<f", raw))[0])


def encoded(value: float, kind: int, bytewise: bool) -> float:
    """The float of PARAM_SET for a value. LinkError for one that the type cannot hold."""
    if not bytewise or kind not in _FORMATS:
        return value
    try:
        return float(struct.unpack("<f", struct.pack(_FORMATS[kind], round(value)))[0])
    except struct.error as error:
        raise LinkError("parameter value", value, f"within MAV_PARAM_TYPE {kind}") from error


def same(a: float, b: float) -> bool:
    """Equal as far as a float32 tells."""
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6)


class ParameterClient:
    """Reads and writes over a session. It writes nothing but what `write` names, and nothing to an armed vehicle."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._heard: dict[str, Parameter] = {}
        self._absent: set[str] = set()
        session.listeners.append(self._hear)

    def read(self, names: Iterable[str]) -> dict[str, Parameter]:
        """Those of `names` that the vehicle has, each asked for up to three times."""
        wanted = list(dict.fromkeys(names))
        for name in wanted:
            self._heard.pop(name, None)
        for _ in range(_ROUNDS):
            missing = self._missing(wanted)
            for start in range(0, len(missing), _AT_ONCE):
                some = missing[start : start + _AT_ONCE]
                for name in some:
                    self._request(name)
                self._session.run(_ROUND_S, lambda some=some: not self._missing(some))  # type: ignore[misc]
            if not self._missing(wanted):
                break
        return {name: self._heard[name] for name in wanted if name in self._heard}

    def write(self, parameter: Parameter, value: float) -> Parameter:
        """Set one that was read, and read it back. LinkError where the vehicle is armed or ends with another value."""
        session, vehicle = self._session, self._session.vehicle
        wire = encoded(value, parameter.kind, is_bytewise(vehicle))
        for _ in range(_ROUNDS):
            if vehicle.armed or not vehicle.alive(session.clock()):
                state = "armed" if vehicle.armed else "silent"
                raise LinkError(f"{parameter.name} is not set: the vehicle is", state, "disarmed and heard")
            message = mav.MAVLink_param_set_message(
                vehicle.target_system, AUTOPILOT, parameter.name.encode(), wire, parameter.kind
            )
            session.connection.send(message)
            back = self.read([parameter.name]).get(parameter.name)
            if back is not None and same(back.value, value):
                return back
        found = "no answer" if back is None else f"{back.value:g}"
        raise LinkError(f"{parameter.name} was set, but the vehicle says", found, f"{value:g}", "set it by hand")

    def _missing(self, names: list[str]) -> list[str]:
        return [name for name in names if name not in self._heard and name not in self._absent]

    def _request(self, name: str) -> None:
        vehicle = self._session.vehicle
        message = mav.MAVLink_param_request_read_message(vehicle.target_system, AUTOPILOT, name.encode(), -1)
        self._session.connection.send(message)

    def _hear(self, message: mav.MAVLink_message, now_ns: int) -> None:
        if message.get_srcComponent() != AUTOPILOT:
            return
        if message.get_type() == "PARAM_VALUE":
            name = message.param_id[:_NAME_BYTES].rstrip("\0")
            value = decoded(message.param_value, message.param_type, is_bytewise(self._session.vehicle))
            self._heard[name] = Parameter(name, value, message.param_type)
        elif message.get_type() == "PARAM_ERROR" and message.error == mav.MAV_PARAM_ERROR_DOES_NOT_EXIST:
            self._absent.add(message.param_id[:_NAME_BYTES].rstrip("\0"))
