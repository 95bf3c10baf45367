"""A radio link in memory: bytes that are lost, doubled, overtaken, delayed and mixed with noise, in the test's time."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

from onboard.mavlink.wire.transport import Address


@dataclass
class Clock:
    """The test's time, in ns of Unix time; it moves only when the test moves it."""

    now_ns: int = 1_700_000_000_000_000_000

    def advance(self, seconds: float) -> int:
        self.now_ns += round(seconds * 1e9)
        return self.now_ns


@dataclass(frozen=True)
class Weather:
    """What happens to each packet of a direction. Delays are drawn evenly; the unequal ones overtake each other."""

    drop: float = 0.0
    double: float = 0.0
    garbage: float = 0.0  # the chance of noise bytes after a packet
    delay_ms: tuple[float, float] = (0.0, 0.0)


class Air:
    """One direction."""

    def __init__(self, weather: Weather, seed: int) -> None:
        self.weather = weather
        self._random = random.Random(seed)
        self._under_way: list[tuple[int, int, bytes]] = []
        self._count = 0

    def put(self, packet: bytes, now_ns: int) -> None:
        weather, chance = self.weather, self._random.random
        if chance() < weather.drop:
            return
        self._fly(packet, now_ns)
        if chance() < weather.double:
            self._fly(packet, now_ns)
        if chance() < weather.garbage:
            self._fly(self._random.randbytes(self._random.randint(1, 40)), now_ns)

    def due(self, now_ns: int) -> list[bytes]:
        """What has arrived by now, as it arrived."""
        arrived = []
        while self._under_way and self._under_way[0][0] <= now_ns:
            arrived.append(heapq.heappop(self._under_way)[2])
        return arrived

    def _fly(self, packet: bytes, now_ns: int) -> None:
        self._count += 1
        delay_ns = round(self._random.uniform(*self.weather.delay_ms) * 1e6)
        heapq.heappush(self._under_way, (now_ns + delay_ns, self._count, packet))


class AirTransport:
    """Our end of the link, as a `Transport`; `written` keeps (time, packet) of all that left while it is a list."""

    def __init__(self, clock: Clock, up: Air, down: Air) -> None:
        self.address = Address("udpout", "memory", 1)
        self.clock, self.up, self.down = clock, up, down
        self.written: list[tuple[int, bytes]] = []
        self.full = False  # the line takes nothing

    def write(self, packet: bytes) -> bool:
        if self.full:
            return False
        self.written.append((self.clock.now_ns, bytes(packet)))
        self.up.put(bytes(packet), self.clock.now_ns)
        return True

    def read(self, timeout_s: float) -> bytes:
        return b"".join(self.down.due(self.clock.now_ns))

    def close(self) -> None:
        pass
