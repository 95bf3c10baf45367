"""Both ways over one line: what leaves is numbered and signed as it leaves, what comes is believed only if it may be.

Nothing here raises for any bytes that come, keeps more than it says, or waits longer than it is told. One thread uses
a connection.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.errors import LinkError
from onboard.mavlink.wire.framing import Framer, Numbering, Packet, Refused
from onboard.mavlink.wire.reconnect import Reconnecting
from onboard.mavlink.wire.signing import SigningKey
from onboard.mavlink.wire.transport import Address, Transport, parse_address

__all__ = ["Connection", "Refused"]

_TAKE_AT_ONCE_BYTES = 65536  # so that a flood cannot hold the caller: some 0.1 s of work at the very worst
_SENDERS = 8  # whose unfinished packets are kept, on a line where many can speak
_STALE_S = 1.0  # what could not leave for so long is of no use to anybody


class Connection:
    """A companion's place on one line to a vehicle. Messages that are accepted come out; all others are counted.

    `vehicle_system`: the only system that is believed; 0 locks on to the first autopilot that is heard. We speak as
    `source_component` of `source_system` (by default the vehicle's own). With `signing` all that leaves is signed and
    nothing unsigned is accepted. `outbox`: how many messages may wait where the line is full.

    `sent` and `received` count messages by name, `refused` what was not accepted by reason, `losses` the gaps in the
    numbering by (system, component), `dropped` messages that were taken and never left. `heard_at_ns` is the
    `now_ns` of the last accepted message. LinkError for ids out of range.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        vehicle_system: int = 1,
        source_system: int | None = None,
        source_component: int = 197,
        signing: SigningKey | None = None,
        outbox: int = 256,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        source_known = source_system is None or 1 <= source_system <= 255
        if not (0 <= vehicle_system <= 255 and 1 <= source_component <= 255 and source_known):
            found = f"vehicle {vehicle_system}, source {source_system}, component {source_component}"
            raise LinkError("MAVLink ids", found, "1 to 255, or 0 for the first vehicle heard")
        self.sent: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.refused: Counter[Refused] = Counter()
        self.losses: Counter[tuple[int, int]] = Counter()
        self.dropped = 0
        self.heard_at_ns: int | None = None
        self.target_system = vehicle_system  # 0 until a vehicle is known
        self._transport, self._signing, self._clock_s = transport, signing, clock_s
        self._source_follows = source_system is None
        self._packer = mav.MAVLink(None, source_system or vehicle_system or 1, source_component)
        if signing is not None:
            self._packer.signing.secret_key = signing.secret
            self._packer.signing.link_id = signing.link_id
            self._packer.signing.sign_outgoing = True
        self._decoder = mav.MAVLink(None)
        self._early = b""  # what `wait` has read
        self._outbox: deque[tuple[float, mav.MAVLink_message]] = deque()
        self._outbox_size = max(1, outbox)
        self._framers: OrderedDict[Hashable, Framer] = OrderedDict()
        self._numbering: dict[tuple[int, int], Numbering] = {}

    @classmethod
    def open(
        cls,
        address: str,
        *,
        vehicle_system: int = 1,
        source_system: int | None = None,
        source_component: int = 197,
        signing: SigningKey | None = None,
        outbox: int = 256,
        wait: bool = False,
    ) -> Connection:
        """Open an address (see `transport`) that is opened anew, with growing pauses, whenever it is lost.

        LinkError where it cannot be opened now; with `wait` only where it never can be.
        """
        transport = Reconnecting(parse_address(address), wait=wait)
        try:
            return cls(
                transport,
                vehicle_system=vehicle_system,
                source_system=source_system,
                source_component=source_component,
                signing=signing,
                outbox=outbox,
            )
        except LinkError:
            transport.close()
            raise

    @property
    def address(self) -> Address:
        return self._transport.address

    @property
    def connected(self) -> bool:
        """The line is open. Whether anybody is there only `heard_at_ns` tells."""
        return bool(getattr(self._transport, "connected", True))  # a bare transport is always open

    @property
    def reconnects(self) -> int:
        return int(getattr(self._transport, "reconnects", 0))

    @property
    def lost(self) -> int:
        """Messages that never came, by the gaps in their numbering."""
        return self.losses.total()

    @property
    def source(self) -> tuple[int, int]:
        """System and component that we speak as."""
        return self._packer.srcSystem, self._packer.srcComponent

    @property
    def waiting(self) -> int:
        """How many messages wait for room on the line: what is sent now leaves after them."""
        return len(self._outbox)

    def send(self, message: mav.MAVLink_message) -> bool:
        """Send one message, or let it wait for room; false where there is nobody to send it to.

        It must not be changed afterwards. A full outbox drops its oldest; what waits too long is dropped as well.
        """
        packet = self._pack(message)  # also where it must wait: a message that cannot be packed is the caller's fault
        if not self._reachable():
            self._drop_all()
            return False
        self._push()
        if not self._outbox and self._write(message, packet):
            return True
        self._outbox.append((self._clock_s(), message))
        if len(self._outbox) > self._outbox_size:
            self._outbox.popleft()
            self.dropped += 1
        return True

    def wait(self, timeout_s: float) -> None:
        """Until something comes, at most `timeout_s`: in place of sleeping between two looks.

        So that `now_ns`, taken next, is when it came.
        """
        if not self._early:
            self._early = self._transport.read(timeout_s)

    def receive(self, now_ns: int | None = None, timeout_s: float = 0.0) -> list[mav.MAVLink_message]:
        """The accepted messages that have come, after waiting for bytes at most `timeout_s`; also pushes the outbox."""
        self._push()
        messages: list[mav.MAVLink_message] = []
        taken = 0
        data = self._early or self._transport.read(timeout_s)
        self._early = b""
        while data:
            messages += self._take(data)
            taken += len(data)
            data = self._transport.read(0.0) if taken < _TAKE_AT_ONCE_BYTES else b""
        if messages and now_ns is not None:
            self.heard_at_ns = now_ns
        self._push()
        return messages

    def close(self) -> None:
        self._drop_all()
        self._transport.close()
        if self._signing is not None:
            self._signing.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reachable(self) -> bool:
        """The line is open and has a peer. What waited for another line would come as old news."""
        return bool(getattr(self._transport, "ready", True))

    def _push(self) -> None:
        """Send what waits, as far as the line takes it; what has waited too long is dropped."""
        if not self._outbox:
            return
        if not self._reachable():
            self._drop_all()
            return
        oldest_s = self._clock_s() - _STALE_S
        while self._outbox:
            since_s, message = self._outbox[0]
            if since_s < oldest_s:
                self.dropped += 1
            elif not self._write(message, self._pack(message)):
                return
            self._outbox.popleft()

    def _pack(self, message: mav.MAVLink_message) -> bytes:
        if self._signing is not None:
            self._packer.signing.timestamp = self._signing.next_stamp()
        return message.pack(self._packer)

    def _write(self, message: mav.MAVLink_message, packet: bytes) -> bool:
        """Numbers run without gaps over what left: a gap at the other end is a loss on the way."""
        if not self._transport.write(packet):
            return False
        self._packer.seq = (self._packer.seq + 1) % 256
        self.sent[message.get_type()] += 1
        return True

    def _drop_all(self) -> None:
        self.dropped += len(self._outbox)
        self._outbox.clear()

    def _take(self, data: bytes) -> list[mav.MAVLink_message]:
        framer = self._framer_of(getattr(self._transport, "source", None))
        garbage_before = framer.garbage
        messages = []
        for packet in framer.feed(data):
            taken = self._judge(packet)
            if isinstance(taken, Refused):
                self.refused[taken] += 1
            else:
                messages.append(taken)
                self.received[taken.get_type()] += 1
        if framer.garbage > garbage_before:
            self.refused[Refused.GARBAGE] += framer.garbage - garbage_before
        if messages and (answer := getattr(self._transport, "answer", None)):
            answer()  # only who is believed is spoken to
        return messages

    def _framer_of(self, source: Hashable) -> Framer:
        """Every sender's pieces are put together apart: nobody can spoil another one's packets."""
        framer = self._framers[source] = self._framers.get(source) or Framer()
        self._framers.move_to_end(source)
        if len(self._framers) > _SENDERS:
            self._framers.popitem(last=False)
        return framer

    def _judge(self, packet: Packet) -> mav.MAVLink_message | Refused:
        sender = (packet.system, packet.component)
        if sender == self.source:
            return Refused.ECHO
        if self.target_system not in (0, packet.system):
            return Refused.FOREIGN_SYSTEM
        if self._signing is not None:
            refused = self._signing.refuses(packet.data) if packet.signed else Refused.UNSIGNED
            if refused is not None:
                return refused
        if not self.target_system and not _is_autopilot(packet):
            return Refused.FOREIGN_SYSTEM
        if sender not in self._numbering:
            self._numbering[sender] = Numbering()
        self.losses[sender] += self._numbering[sender].heard(packet.sequence)
        if not packet.known:
            return Refused.UNKNOWN_MESSAGE
        try:
            message = self._decoder.decode(bytearray(packet.data))
        except mav.MAVError:
            return Refused.GARBAGE
        message._signed = self._signing is not None  # what pymavlink says of those it checked itself
        if not self.target_system:
            self._lock(packet.system)
        return message

    def _lock(self, system: int) -> None:
        self.target_system = system
        if self._source_follows:
            self._packer.srcSystem = system


def _is_autopilot(packet: Packet) -> bool:
    """A heartbeat of something that flies, by the raw bytes: payload custom_mode (4), type (1), autopilot (1), ..."""
    if packet.message_id != mav.MAVLINK_MSG_ID_HEARTBEAT or not packet.known:
        return False
    header = mav.HEADER_LEN_V2 if packet.data[0] == mav.PROTOCOL_MARKER_V2 else mav.HEADER_LEN_V1
    length = packet.data[1]
    return length < 6 or packet.data[header + 5] != mav.MAV_AUTOPILOT_INVALID
