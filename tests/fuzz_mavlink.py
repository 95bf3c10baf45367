"""Bytes that nobody meant, against the receiving end: `python tests/fuzz_mavlink.py --packets 1000000 --seed 1`.

Two connections hear the same storm: one unsigned, one that wants signatures. Each believes system 1 alone. In the storm
are real packets of the vehicle with a mark that none other carries, so that what is accepted can be told from what
should be.

Held: no exception; all that is accepted comes from the vehicle's system; the signing connection accepts exactly the
signed marks, each once, in their order; the unsigned one accepts nothing that was cut or changed but what has the right
checksum by chance (one in 65536); memory stays what it was.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.mavlink.wire.connection import Connection
from onboard.mavlink.wire.framing import LONGEST_PACKET_BYTES
from onboard.mavlink.wire.signing import SigningKey
from onboard.mavlink.wire.transport import Address

VEHICLE, STRANGER = 1, 9
KEY, OTHER_KEY = bytes(range(1, 33)), bytes(range(2, 34))
NOW_NS = 1_760_000_000 * 1_000_000_000
MARK = "REAL"  # the name of the NAMED_VALUE_INT that only the vehicle's intact packets carry
_GIANT_BYTES = 100_000


class Storm:
    """A transport that is fed by hand; `sender` is whose datagram the next one is."""

    def __init__(self) -> None:
        self.address = Address("udpin", "127.0.0.1", 1)
        self.source: object = None
        self._waiting: list[bytes] = []

    def feed(self, data: bytes, source: object = None) -> None:
        self._waiting.append(data)
        self.source = source

    def write(self, packet: bytes) -> bool:
        return True

    def read(self, timeout_s: float) -> bytes:
        return self._waiting.pop() if self._waiting else b""

    def close(self) -> None:
        pass


@dataclass
class Result:
    """What came of it. `accepted` by message name; `wrong`: what was accepted and should not have been."""

    packets: int = 0
    seconds: float = 0.0
    bytes: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    accepted_signed: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    refused_signed: Counter[str] = field(default_factory=Counter)
    marks_sent: int = 0
    wrong: list[str] = field(default_factory=list)
    held_bytes: int = 0  # most that the two connections held back
    grown_blocks: int = 0  # of the memory that Python has given out, second half of the run
    by_chance: int = 0  # changed packets whose checksum is right, taken by the unsigned connection


class Talker:
    """Packs messages as one system; signed where it has a key."""

    def __init__(self, system: int, secret: bytes | None = None) -> None:
        self._mav = mav.MAVLink(None, system, 1)
        self._stamp = (NOW_NS - 1_420_070_400 * 1_000_000_000) // 10_000
        if secret is not None:
            self._mav.signing.secret_key, self._mav.signing.sign_outgoing = secret, True

    def pack(self, message: mav.MAVLink_message, version_1: bool = False) -> bytes:
        self._stamp += 1
        self._mav.signing.timestamp = self._stamp
        packet = message.pack(self._mav, force_mavlink1=version_1)
        self._mav.seq = (self._mav.seq + 1) % 256
        return packet


def messages() -> list[mav.MAVLink_message]:
    """Some of every length that a vehicle really sends."""
    covariance = [float(one) for one in range(21)]
    return [
        mav.MAVLink_heartbeat_message(2, 3, 81, 4, 4, 3),
        mav.MAVLink_attitude_message(1000, 0.1, 0.2, 0.3, 0.0, 0.0, 0.0),
        mav.MAVLink_global_position_int_message(1000, 470_000_000, 80_000_000, 500_000, 80_000, 1, 2, 3, 9000),
        mav.MAVLink_timesync_message(0, 123_456_789),
        mav.MAVLink_statustext_message(6, b"EKF3 IMU0 is using external nav data"),
        mav.MAVLink_odometry_message(1, 20, 12, 1, 2, 3, [1, 0, 0, 0], 0, 0, 0, 0, 0, 0, covariance, covariance),
        mav.MAVLink_param_value_message(b"VISO_TYPE", 1.0, 9, 1000, 7),
        mav.MAVLink_gps_raw_int_message(1, 3, 470_000_000, 80_000_000, 500_000, 80, 90, 0, 0, 12),
    ]


class Fuzzer:
    """Makes the storm and judges what two connections took from it."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._texts = messages()
        self._vehicle, self._signing_vehicle = Talker(VEHICLE), Talker(VEHICLE, KEY)
        self._stranger, self._signing_stranger = Talker(STRANGER), Talker(STRANGER, KEY)
        self._forger = Talker(VEHICLE, OTHER_KEY)
        self._old = self._signing_vehicle.pack(self._texts[1])
        self._stranger_packets = [self._stranger.pack(one) for one in self._texts]
        self._vehicle_packets = [self._vehicle.pack(one) for one in self._texts]
        self._signed_packets = [self._forger.pack(one) for one in self._texts]
        self._old_packets = [self._vehicle.pack(one, version_1=True) for one in self._texts[:5]]
        whole = [self._old, *self._vehicle_packets, *self._signed_packets, *self._old_packets]
        self._intact = {_without_signature(one) for one in whole}
        self.storms = Storm(), Storm()
        key = SigningKey(KEY, clock_ns=lambda: NOW_NS)
        self.plain = Connection(self.storms[0], vehicle_system=VEHICLE)
        self.signed = Connection(self.storms[1], vehicle_system=VEHICLE, signing=key)
        self.result = Result()
        self._next_mark = self._marks_plain = self._marks_signed = 0
        self._kinds: list[Callable[[], bytes]] = [
            self.noise,
            self.noise_with_starts,
            self.truncated,
            self.flipped,
            self.spliced,
            self.foreign,
            self.foreign_signed,
            self.unsigned,
            self.forged,
            self.replayed,
            self.wrong_length,
            self.version_1,
            self.unknown_message,
            self.bad_flags,
        ]

    def noise(self) -> bytes:
        return self._random.randbytes(self._random.randrange(1, 300))

    def noise_with_starts(self) -> bytes:
        """Every third byte begins a packet that claims as much as it may."""
        return bytes(self._random.choice((0xFD, 0xFE, 0xFF, 0, 1)) for _ in range(self._random.randrange(1, 60)))

    def truncated(self) -> bytes:
        packet = self._any()
        return packet[: self._random.randrange(1, len(packet))]

    def flipped(self) -> bytes:
        packet = bytearray(self._any())
        for _ in range(self._random.randrange(1, 4)):
            packet[self._random.randrange(len(packet))] ^= 1 << self._random.randrange(8)
        return bytes(packet)

    def spliced(self) -> bytes:
        first, second = self._any(), self._any()
        return first[: self._random.randrange(len(first))] + second[self._random.randrange(len(second)) :]

    def foreign(self) -> bytes:
        return self._random.choice(self._stranger_packets)

    def foreign_signed(self) -> bytes:
        return self._signing_stranger.pack(self._random.choice(self._texts))

    def unsigned(self) -> bytes:
        """What the unsigned connection must take."""
        return self._random.choice(self._vehicle_packets)

    def forged(self) -> bytes:
        return self._random.choice(self._signed_packets)

    def replayed(self) -> bytes:
        return self._old

    def wrong_length(self) -> bytes:
        packet = bytearray(self._any())
        packet[1] = self._random.randrange(256)
        return bytes(packet)

    def version_1(self) -> bytes:
        return self._random.choice(self._old_packets)

    def unknown_message(self) -> bytes:
        packet = bytearray(self._any())
        packet[7:10] = self._random.randbytes(3)
        return bytes(packet)

    def bad_flags(self) -> bytes:
        packet = bytearray(self._any())
        packet[2] |= self._random.randrange(2, 256)
        return bytes(packet)

    def _any(self) -> bytes:
        packets = (self._stranger_packets, self._vehicle_packets, self._signed_packets)
        return self._random.choice(self._random.choice(packets))

    def run(self, packets: int) -> Result:
        self._hear(self._old, None)  # what is replayed later
        began_s = time.perf_counter()
        for number in range(packets):
            if number == packets // 2:
                halfway = sys.getallocatedblocks()
            if number % 64 == 63:
                self._mark()
            else:
                make = self._random.choice(self._kinds)
                self.result.kinds[make.__name__] += 1
                # Most come as datagrams of one or another sender, some as one stream where all is mixed.
                self._hear(make(), self._random.randrange(12) or None)
        for _ in range(10):
            self._hear(b"\x00" * _GIANT_BYTES, "giant")
        self.result.grown_blocks = sys.getallocatedblocks() - halfway
        self.result.packets, self.result.seconds = packets, time.perf_counter() - began_s
        self.result.refused.update({why.value: count for why, count in self.plain.refused.items()})
        self.result.refused_signed.update({why.value: count for why, count in self.signed.refused.items()})
        self._sum_up()
        return self.result

    def _mark(self) -> None:
        """A packet that must come through, from a sender whose line is its own."""
        self._next_mark += 1
        message = mav.MAVLink_named_value_int_message(0, MARK.encode(), self._next_mark)
        self._hear(self._signing_vehicle.pack(message), "vehicle")
        self.result.marks_sent += 1

    def _hear(self, data: bytes, source: object) -> None:
        self.result.bytes += len(data)
        for storm, connection, accepted in (
            (self.storms[0], self.plain, self.result.accepted),
            (self.storms[1], self.signed, self.result.accepted_signed),
        ):
            storm.feed(data, source)
            for message in connection.receive():
                accepted[message.get_type()] += 1
                self._judge(message, connection)
        held = sum(len(one._rest) for both in (self.plain, self.signed) for one in both._framers.values())
        self.result.held_bytes = max(self.result.held_bytes, held)

    def _judge(self, message: mav.MAVLink_message, connection: Connection) -> None:
        if message.get_srcSystem() != VEHICLE:
            self.result.wrong.append(f"foreign: {message}")
        is_mark = message.get_type() == "NAMED_VALUE_INT" and message.name == MARK
        if connection is self.plain:
            self._marks_plain += is_mark
            self.result.by_chance += not is_mark and _without_signature(message.get_msgbuf()) not in self._intact
        elif is_mark and message.value == self._marks_signed + 1 and message.get_signed():
            self._marks_signed += 1
        elif bytes(message.get_msgbuf()) != self._old or self.result.accepted_signed[message.get_type()] > 1:
            self.result.wrong.append(f"not a signed mark: {message}")

    def _sum_up(self) -> None:
        if (self._marks_plain, self._marks_signed) != (self._next_mark, self._next_mark):
            came = f"{self._marks_plain} and {self._marks_signed}"
            self.result.wrong.append(f"{came} of {self._next_mark} marks came through")
        most_held = 2 * 8 * LONGEST_PACKET_BYTES
        if self.result.held_bytes > most_held:
            self.result.wrong.append(f"{self.result.held_bytes} bytes held back, at most {most_held} expected")
        if self.result.grown_blocks > 5_000:
            self.result.wrong.append(f"memory grew by {self.result.grown_blocks} blocks in the second half")
        if self.result.by_chance > 3 + self.result.packets / 65536:
            self.result.wrong.append(f"{self.result.by_chance} changed packets were taken: more than by chance")


def _without_signature(packet: bytes | bytearray) -> bytes:
    """What the checksum covers, and the checksum."""
    signed = packet[0] == mav.PROTOCOL_MARKER_V2 and packet[2] & mav.MAVLINK_IFLAG_SIGNED
    return bytes(packet[: -mav.MAVLINK_SIGNATURE_BLOCK_LEN] if signed else packet)


def main() -> int:
    parser = argparse.ArgumentParser(description="Random and mutated packets against the receiving end.")
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    result = Fuzzer(arguments.seed).run(arguments.packets)
    rate = result.packets / result.seconds
    print(
        f"{result.packets} packets, {result.bytes} bytes, to two connections in {result.seconds:.0f} s ({rate:.0f}/s)"
    )
    print(f"made              {dict(result.kinds)}, marks {result.marks_sent}")
    print(f"unsigned accepted {dict(result.accepted)}")
    print(f"         refused  {dict(result.refused)}")
    print(f"signed   accepted {dict(result.accepted_signed)}")
    print(f"         refused  {dict(result.refused_signed)}")
    print(
        f"held back at most {result.held_bytes} bytes; {result.grown_blocks} memory blocks more in the second half;"
        f" {result.by_chance} changed packets with the right checksum by chance"
    )
    for wrong in result.wrong[:20]:
        print(f"WRONG: {wrong}")
    print("failed" if result.wrong else "passed")
    return 1 if result.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
