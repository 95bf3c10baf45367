"""The link to the flight controller: estimates go out, each once, by the profile of the firmware.

Nothing here waits for the other end. A message that cannot leave at once is withheld and counted; the flight
controller does better with the next estimate than with a late one.

Stamps come in our clock. With `stamp` (from ours to the vehicle's; None while the two are not synchronized) they
leave in the clock that the profile names, and nothing leaves while there is none.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Callable
from enum import Enum

import numpy as np
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.errors import LinkError
from onboard.frames import MapFrame
from onboard.mavlink.tell import commands, messages
from onboard.mavlink.tell.place import Home, Reference
from onboard.mavlink.tell.profile import ARDUPILOT_ODOMETRY, Clock, Outgoing, Profile
from onboard.mavlink.wire.sender import PacedSender, Sender
from onboard.mavlink.wire.transport import open_transport, parse_address
from onboard.records import Estimate, Telemetry

_HEARTBEAT_NS = 1_000_000_000
_RESTART_NS = 1_000_000_000  # a vehicle's clock that goes back by more has begun anew
_log = logging.getLogger(__name__)

Stamp = Callable[[int], int | None]


class Withheld(str, Enum):
    """Why an estimate was not sent."""

    STALE = "stale"  # not newer than the last one
    NOT_FINITE = "not_finite"  # the firmware drops a NaN position or height, or takes an unknown error for none
    NO_UNIX_TIME = "no_unix_time"  # the profile's message needs a calendar
    NO_SYNC = "no_sync"  # the vehicle's clock is not known
    NO_ROOM = "no_room"  # the line is full, or nobody is there


class MavlinkLink:
    """What is told through `sender`. `sent` counts messages by name, `withheld` estimates by reason.

    `profile` may be set at any time, when the vehicle has said what it is: the origin stays.
    """

    def __init__(
        self,
        sender: Sender,
        profile: Profile = ARDUPILOT_ODOMETRY,
        *,
        target_system: int = 1,
        stamp: Stamp | None = None,
        address: str = "",
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.profile, self.target_system, self.address = profile, target_system, address
        self.sent: Counter[str] = Counter()
        self.withheld: Counter[Withheld] = Counter()
        self.origin: Home | None = None
        self._map_frame: MapFrame | None = None
        self._sender, self._stamp, self._on_close = sender, stamp, on_close
        self._reset_counter = 0
        self._lost = False  # since the last estimate
        self._last_valid_ns: int | None = None
        self._last_stamp_ns: int | None = None
        self._last_heartbeat_ns: int | None = None

    @classmethod
    def open(
        cls,
        address: str,
        profile: Profile = ARDUPILOT_ODOMETRY,
        source_system: int = 1,
        source_component: int = commands.COMPONENT,
    ) -> MavlinkLink:
        """Open an address (see `transport`) to speak only, in our own time. LinkError for a bad or unusable one."""
        if not (1 <= source_system <= 255 and 1 <= source_component <= 255):
            raise LinkError("MAVLink source", f"{source_system}, {source_component}", "ids from 1 to 255")
        transport = open_transport(parse_address(address))
        sender = PacedSender(transport, source_system, source_component)
        return cls(
            sender, profile, target_system=source_system, address=str(transport.address), on_close=transport.close
        )

    def set_origin(
        self, latitude_deg: float, longitude_deg: float, altitude_m: float = 0.0, map_frame: MapFrame | None = None
    ) -> bool:
        """Tell the vehicle its origin, and count positions from it. True if the message left.

        `map_frame` is the frame that estimates are told in; by default the one anchored at this very place.
        """
        home = Home.at(latitude_deg, longitude_deg, altitude_m)
        self.use_origin(home, map_frame or MapFrame(latitude_deg, longitude_deg))
        return self._write(commands.set_gps_global_origin(home, target_system=self.target_system))

    def use_origin(self, home: Home, map_frame: MapFrame) -> None:
        """Count positions from the origin that the vehicle has already."""
        self.origin, self._map_frame = home, map_frame

    def lose(self) -> None:
        """The position was lost: the next estimate that leaves is a new place, and jumps on purpose."""
        self._lost = self._last_valid_ns is not None

    def send(
        self,
        estimate: Estimate,
        telemetry: Telemetry | None,
        *,
        reset: bool = False,
        sent_at_ns: int | None = None,
        height_above_home_m: float | None = None,
    ) -> bool:
        """Send one estimate; true if it left.

        `reset` says that the position jumped on purpose (as the first one after `lose` does): the firmware then
        takes the new place at once, past its own gate. A jump whose message was withheld is told by the next one.
        `sent_at_ns` is now, by the clock of `valid_at_ns` (default: the estimate is new). LinkError when the origin
        was never set.
        """
        reference = self._reference()
        if reset or self._lost:
            self._reset_counter, self._lost = (self._reset_counter + 1) % 256, False
        height = estimate.told_height_m if height_above_home_m is None else height_above_home_m
        if self._last_valid_ns is not None and estimate.valid_at_ns <= self._last_valid_ns:
            return self._withhold(Withheld.STALE)
        if not (_finite(estimate.position_enu_m, estimate.covariance[:2, :2]) and math.isfinite(height)):
            return self._withhold(Withheld.NOT_FINITE)
        sent_at_ns = estimate.valid_at_ns if sent_at_ns is None else sent_at_ns
        stamps = self._stamps(estimate.valid_at_ns, sent_at_ns)
        if isinstance(stamps, Withheld):
            return self._withhold(stamps)
        stamped = dataclasses.replace(estimate, valid_at_ns=stamps[0])
        out = Outgoing(stamped, telemetry, reference, self._reset_counter, stamps[1], height_above_home_m)
        for carry in self.profile.carriers.values():
            if not self._write(carry(out)):
                return self._withhold(Withheld.NO_ROOM)
        self._last_valid_ns, self._last_stamp_ns = estimate.valid_at_ns, stamps[0]
        return True

    def reset(self, estimate: Estimate, sent_at_ns: int) -> bool:
        """Ask ArduPilot to move its position to the estimate's; only where a person ordered it. True if it left.

        MAV_CMD_EXTERNAL_POSITION_ESTIMATE is a reset, not a source: it is refused unless the vehicle aids itself by
        something else (optical flow, airspeed). `sent_at_ns` is now, in our clock; the vehicle's must be known.
        """
        reference = self._reference()
        valid_ns = self._stamp(estimate.valid_at_ns) if self._stamp else None
        sent_ns = self._stamp(sent_at_ns) if self._stamp else None
        if valid_ns is None or sent_ns is None:
            return self._withhold(Withheld.NO_SYNC)
        if not _finite(estimate.position_enu_m, estimate.covariance[:2, :2]):
            return self._withhold(Withheld.NOT_FINITE)
        stamped = dataclasses.replace(estimate, valid_at_ns=valid_ns)
        command = commands.external_position_estimate(stamped, reference, sent_ns, self.target_system)
        return self._write(command) or self._withhold(Withheld.NO_ROOM)

    def heartbeat(self, now_ns: int) -> bool:
        """Say that we are here, once a second by the caller's clock; true if a message left."""
        last = self._last_heartbeat_ns
        if last is not None and 0 <= now_ns - last < _HEARTBEAT_NS:
            return False
        if not self._write(commands.heartbeat()):
            return False
        self._last_heartbeat_ns = now_ns
        return True

    def close(self) -> None:
        """Close what `open` opened; a sender that was given stays as it is."""
        self._on_close()

    def __enter__(self) -> MavlinkLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reference(self) -> Reference:
        if self.origin is None or self._map_frame is None:
            raise LinkError("no origin was set on this link", None, "set_origin before send")
        return Reference(self.origin, self._map_frame, self.profile.globe)

    def _stamps(self, valid_at_ns: int, sent_at_ns: int) -> tuple[int, int] | Withheld:
        """Both times in the profile's clock, the first newer than the last one told.

        Where the two clocks were set anew against each other, the vehicle's may seem to go back a little: such a
        stamp waits until it is newer again. Where it goes back by more than a second the vehicle has started anew.
        """
        if self._stamp is not None:
            valid_ns, sent_ns = self._stamp(valid_at_ns), self._stamp(sent_at_ns)
            if valid_ns is None or sent_ns is None:
                return Withheld.NO_SYNC
            if self.profile.clock is Clock.VEHICLE:
                valid_at_ns, sent_at_ns = valid_ns, sent_ns
        if self.profile.clock is Clock.UNIX and valid_at_ns < messages.GPS_EPOCH_NS:
            return Withheld.NO_UNIX_TIME
        if valid_at_ns < 0:  # before the vehicle was switched on
            return Withheld.STALE
        last = self._last_stamp_ns
        if last is not None and last - _RESTART_NS <= valid_at_ns <= last:
            return Withheld.STALE
        return valid_at_ns, sent_at_ns

    def _withhold(self, why: Withheld) -> bool:
        if why not in self.withheld:  # once a reason; the count tells the rest
            _log.warning("MAVLink: an estimate was withheld: %s", why.value)
        self.withheld[why] += 1
        return False

    def _write(self, message: mav.MAVLink_message) -> bool:
        if not self._sender.send(message):
            return False
        self.sent[message.get_type()] += 1
        return True


def _finite(*arrays: np.ndarray) -> bool:
    return all(bool(np.isfinite(one).all()) for one in arrays)
