"""MAVLink packets out of bytes: what is whole and has the right checksum, nothing else.

A start byte in noise claims up to 280 bytes as its packet. Where the checksum says that it was none, one byte is
passed over, not the packet: what follows the noise is not lost with it.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from pymavlink.dialects.v20 import ardupilotmega as mav

_V1, _V2 = mav.PROTOCOL_MARKER_V1, mav.PROTOCOL_MARKER_V2
_START = re.compile(rb"[\xfd\xfe]")
_SIGNED = mav.MAVLINK_IFLAG_SIGNED
_HEADER_BYTES = {_V1: mav.HEADER_LEN_V1, _V2: mav.HEADER_LEN_V2}
_CHECKSUM_BYTES = 2
_CRC_EXTRA = {number: bytes([kind.crc_extra]) for number, kind in mav.mavlink_map.items()}
_PAYLOAD_BYTES = {number: kind.unpacker.size for number, kind in mav.mavlink_map.items()}
LONGEST_PACKET_BYTES = mav.HEADER_LEN_V2 + 255 + _CHECKSUM_BYTES + mav.MAVLINK_SIGNATURE_BLOCK_LEN


class Refused(str, Enum):
    """Why something that came was not accepted."""

    GARBAGE = "garbage"  # a run of bytes that is no packet, counted once a run
    UNKNOWN_MESSAGE = "unknown_message"  # a packet of a message that the dialect lacks
    FOREIGN_SYSTEM = "foreign_system"  # not the vehicle; or no vehicle is known yet, and this does not show one
    ECHO = "echo"  # our own, come back
    UNSIGNED = "unsigned"
    BAD_SIGNATURE = "bad_signature"  # signed with another key, or changed on the way
    REPLAYED = "replayed"  # signed, but not newer than what came before


class Packet(NamedTuple):
    """One packet as it came, start byte to signature. `known`: the dialect has the message, the checksum is right."""

    data: bytes
    system: int
    component: int
    sequence: int
    message_id: int
    signed: bool
    known: bool


class Framer:
    """Finds the packets in what one sender said, however it was cut. Holds back less than one packet.

    `garbage` counts the runs of bytes that were none.
    """

    def __init__(self) -> None:
        self.garbage = 0
        self._rest = b""
        self._in_garbage = False

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that `data` completes."""
        data = self._rest + data
        packets: list[Packet] = []
        at = 0
        while found := _START.search(data, at):
            if found.start() > at:
                self._pass_over()
            at = found.start()
            taken = _packet_at(data, at)
            if taken is None:  # cut: the rest is still to come
                break
            if isinstance(taken, Packet):
                packets.append(taken)
                self._in_garbage = False
                at += len(taken.data)
            else:
                self._pass_over()
                at += 1
        else:
            if at < len(data):
                self._pass_over()
            at = len(data)
        self._rest = data[at:]
        return packets

    def _pass_over(self) -> None:
        self.garbage += not self._in_garbage
        self._in_garbage = True


class Numbering:
    """The numbers of one sender, 0 to 255 and round again."""

    def __init__(self) -> None:
        self._next: int | None = None
        self._behind: int | None = None

    def heard(self, number: int) -> int:
        """How many were passed over. Repeated and overtaken ones are no gap, nor is a sender that began anew."""
        ahead = 0 if self._next is None else (number - self._next) % 256
        began_anew = self._behind is not None and number == (self._behind + 1) % 256
        if ahead >= 128 and not began_anew:  # from behind; the one after it will tell why
            self._behind = number
            return 0
        self._next, self._behind = (number + 1) % 256, None
        return 0 if ahead >= 128 else ahead


def _packet_at(data: bytes, at: int) -> Packet | bool | None:
    """The packet that starts at `at`; None where its end has not come yet; False where there is none."""
    marker = data[at]
    if len(data) - at < _HEADER_BYTES[marker]:
        return None
    length = data[at + 1]
    if marker == _V2:
        flags, sequence, system, component = data[at + 2], data[at + 4], data[at + 5], data[at + 6]
        message_id = int.from_bytes(data[at + 7 : at + 10], "little")
        if flags & ~_SIGNED:  # of a format that nobody knows yet: the standard has such packets dropped
            return False
    else:
        flags = 0
        sequence, system, component, message_id = data[at + 2 : at + 6]
        if length > _PAYLOAD_BYTES.get(message_id, -1):  # version 1 knows no extensions, and has no new messages
            return False
    checked = at + _HEADER_BYTES[marker] + length
    end = checked + _CHECKSUM_BYTES + (mav.MAVLINK_SIGNATURE_BLOCK_LEN if flags else 0)
    if end > len(data):
        return None
    known = message_id in _CRC_EXTRA
    if known:
        right = mav.x25crc(data[at + 1 : checked] + _CRC_EXTRA[message_id]).crc
        whole = right == int.from_bytes(data[checked : checked + _CHECKSUM_BYTES], "little")
    else:  # its checksum cannot be told; what follows shows whether it ends there
        whole = end == len(data) or data[end] in _HEADER_BYTES
    if not whole:
        return False
    return Packet(data[at:end], system, component, sequence, message_id, bool(flags), known)
