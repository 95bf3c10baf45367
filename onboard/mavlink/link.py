"""The link to the flight controller: estimates go out, each once, by the profile of the firmware.

Nothing here waits for the other end. A message that cannot leave at once is withheld and counted; the flight
controller does better with the next estimate than with a late one. A sender that runs faster than real time (a
replay) must not flood the receiver's socket buffer, where messages would vanish unseen: after a burst of
`BURST` messages, `send` takes at most `MAX_RATE_HZ`, which costs the caller half a millisecond a message.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from enum import Enum

import numpy as np
from pymavlink.dialects.v20 import common as mav

from onboard.errors import LinkError
from onboard.frames import MapFrame
from onboard.mavlink import messages
from onboard.mavlink.place import Home, Reference
from onboard.mavlink.profile import ARDUPILOT_ODOMETRY, Outgoing, Profile
from onboard.mavlink.transport import Transport, open_transport, parse_address
from onboard.records import Estimate, Telemetry

BURST = 200
MAX_RATE_HZ = 2000.0
_HEARTBEAT_NS = 1_000_000_000
_log = logging.getLogger(__name__)


class Withheld(str, Enum):
    """Why an estimate was not sent."""

    STALE = "stale"  # not newer than the last one
    NOT_FINITE = "not_finite"  # the firmware drops a NaN position or height without a word
    NO_UNIX_TIME = "no_unix_time"  # the profile's message needs a calendar
    NO_ROOM = "no_room"  # the line is full, or nobody is there


class MavlinkLink:
    """An open link. `sent` counts messages by name, `withheld` estimates by reason."""

    def __init__(
        self,
        transport: Transport,
        profile: Profile = ARDUPILOT_ODOMETRY,
        source_system: int = 1,
        source_component: int = messages.COMPONENT,
    ) -> None:
        self.profile = profile
        self.sent: Counter[str] = Counter()
        self.withheld: Counter[Withheld] = Counter()
        self._transport = transport
        self._packer = mav.MAVLink(None, srcSystem=source_system, srcComponent=source_component)
        self._reference: Reference | None = None
        self._reset_counter = 0
        self._last_valid_ns: int | None = None
        self._last_heartbeat_ns: int | None = None
        self._pace = _Pace(BURST, MAX_RATE_HZ)

    @classmethod
    def open(
        cls,
        address: str,
        profile: Profile = ARDUPILOT_ODOMETRY,
        source_system: int = 1,
        source_component: int = messages.COMPONENT,
    ) -> MavlinkLink:
        """Open an address (see `transport`). LinkError for a bad or an unusable one."""
        if not (1 <= source_system <= 255 and 1 <= source_component <= 255):
            raise LinkError("MAVLink source", f"{source_system}, {source_component}", "ids from 1 to 255")
        return cls(open_transport(parse_address(address)), profile, source_system, source_component)

    @property
    def address(self) -> str:
        return str(self._transport.address)

    @property
    def origin(self) -> Home | None:
        return None if self._reference is None else self._reference.home

    def set_origin(
        self, latitude_deg: float, longitude_deg: float, altitude_m: float = 0.0, map_frame: MapFrame | None = None
    ) -> bool:
        """Tell the vehicle its origin, and count positions from it. True if the message left.

        `map_frame` is the frame that estimates are told in; by default the one anchored at this very place.
        """
        home = Home.at(latitude_deg, longitude_deg, altitude_m)
        self._reference = Reference(home, map_frame or MapFrame(latitude_deg, longitude_deg))
        return self._write(messages.set_gps_global_origin(home))

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

        `reset` says that the position jumped on purpose: the firmware then takes the new place at once, past its
        own gate. A jump whose message was withheld is told by the next one. `sent_at_ns` is now, by the clock of
        `valid_at_ns` (default: the estimate is new). LinkError when the origin was never set.
        """
        if self._reference is None:
            raise LinkError("no origin was set on this link", None, "set_origin before send")
        if reset:
            self._reset_counter = (self._reset_counter + 1) % 256
        height = estimate.height_above_ground_m if height_above_home_m is None else height_above_home_m
        if self._last_valid_ns is not None and estimate.valid_at_ns <= self._last_valid_ns:
            return self._withhold(Withheld.STALE)
        if not (np.isfinite(estimate.position_enu_m).all() and math.isfinite(height)):
            return self._withhold(Withheld.NOT_FINITE)
        if self.profile.needs_unix_time and estimate.valid_at_ns < messages.GPS_EPOCH_NS:
            return self._withhold(Withheld.NO_UNIX_TIME)
        out = Outgoing(
            estimate,
            telemetry,
            self._reference,
            self._reset_counter,
            estimate.valid_at_ns if sent_at_ns is None else sent_at_ns,
            height_above_home_m,
        )
        for carry in self.profile.carriers.values():
            if not self._write(carry(out)):
                return self._withhold(Withheld.NO_ROOM)
        self._last_valid_ns = estimate.valid_at_ns
        return True

    def heartbeat(self, now_ns: int) -> bool:
        """Say that we are here, once a second by the caller's clock; true if a message left."""
        last = self._last_heartbeat_ns
        if last is not None and 0 <= now_ns - last < _HEARTBEAT_NS:
            return False
        if not self._write(messages.heartbeat()):
            return False
        self._last_heartbeat_ns = now_ns
        return True

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> MavlinkLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _withhold(self, why: Withheld) -> bool:
        if why not in self.withheld:  # once a reason; the count tells the rest
            _log.warning("MAVLink: an estimate was withheld: %s", why.value)
        self.withheld[why] += 1
        return False

    def _write(self, message: mav.MAVLink_message) -> bool:
        """Numbers run without gaps over what left: a gap at the other end is a loss on the way."""
        self._pace.wait()
        if not self._transport.write(message.pack(self._packer)):
            return False
        self._packer.seq = (self._packer.seq + 1) % 256
        self.sent[message.get_type()] += 1
        return True


class _Pace:
    """A bucket of `burst` messages that fills at `rate_hz`."""

    def __init__(self, burst: int, rate_hz: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._rate_hz, self._clock = burst, rate_hz, clock
        self._left, self._at_s = float(burst), clock()

    def wait(self) -> None:
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at_s) * self._rate_hz)
        self._at_s = now
        if self._left < 1:
            time.sleep((1 - self._left) / self._rate_hz)
        self._left -= 1
