"""The parameters of a scripted vehicle: read and set as its firmware does, with the faults that a test plants."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from pymavlink.dialects.v20 import ardupilotmega as mav

INT8, INT32, REAL32 = mav.MAV_PARAM_TYPE_INT8, mav.MAV_PARAM_TYPE_INT32, mav.MAV_PARAM_TYPE_REAL32
_BYTES = {INT8: "<b3x", INT32: "<i", REAL32: "<f"}


@dataclass
class ParameterStore:
    """`values` by name; whole numbers are integers. `bytewise`: their bytes travel, as PX4 does it.

    `silent` names are never answered, `stuck` ones never take a new value, and the first `deaf_to` requests are lost.
    """

    values: dict[str, float]
    bytewise: bool = False
    silent: frozenset[str] = frozenset()
    stuck: frozenset[str] = frozenset()
    deaf_to: int = 0
    written: list[tuple[str, float]] = field(default_factory=list)

    def heard(self, message: mav.MAVLink_message) -> list[mav.MAVLink_message]:
        """The answer to PARAM_REQUEST_READ or PARAM_SET, if there is one."""
        if self.deaf_to > 0:
            self.deaf_to -= 1
            return []
        name = message.param_id
        if name not in self.values or name in self.silent:
            return []
        if message.get_type() == "PARAM_SET":
            value = self._decoded(message.param_value, message.param_type)
            self.written.append((name, value))
            if name not in self.stuck:
                self.values[name] = value
        return [self._value(name)]

    def kind(self, name: str) -> int:
        if not float(self.values[name]).is_integer() or name.endswith(("_NSE", "_NOISE", "_DELAY", "_SCALE")):
            return REAL32
        return INT32 if self.bytewise or abs(self.values[name]) > 127 else INT8

    def _value(self, name: str) -> mav.MAVLink_message:
        value, kind = self.values[name], self.kind(name)
        if self.bytewise and kind != REAL32:
            value = struct.unpack("<f", struct.pack(_BYTES[kind], int(value)))[0]
        return mav.MAVLink_param_value_message(name.encode(), value, kind, len(self.values), 65535)

    def _decoded(self, raw: float, kind: int) -> float:
        if not self.bytewise or kind == REAL32:
            return raw
        return float(struct.unpack(_BYTES[kind], struct.pack("<f", raw))[0])
