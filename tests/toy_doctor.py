"""Vehicles that are set up well, and a bench on which the doctor visits them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from scripted_air import Clock
from scripted_parameters import ParameterStore
from scripted_vehicle import PX4, Circle, ScriptedVehicle

from onboard.config import LinkConfig
from onboard.mavlink.doctor.report import Diagnosis
from onboard.mavlink.doctor.rules import Finding, Severity
from onboard.mavlink.doctor.session import Session
from onboard.mavlink.doctor.visit import Wishes, visit
from onboard.mavlink.wire.connection import Connection
from onboard.mavlink.wire.transport import Address

S = 1_000_000_000
MUST, SHOULD = Severity.MUST, Severity.SHOULD
FIRST_LOOK_NS = 5_000_000


def sources(number: int, position: int) -> dict[str, float]:
    values = {"POSXY": position, "VELXY": 0, "POSZ": 1, "VELZ": 0, "YAW": 1}
    return {f"EK3_SRC{number}_{what}": value for what, value in values.items()}


ANY_ARDUPILOT: dict[str, float] = {
    "EK3_ENABLE": 1,
    "AHRS_EKF_TYPE": 3,
    "EK3_SRC_OPTIONS": 0,
    "COMPASS_ENABLE": 1,
    "COMPASS_USE": 1,
    "COMPASS_USE2": 1,
    "COMPASS_USE3": 0,
    "FS_EKF_ACTION": 1,
    "FS_EKF_THRESH": 0.8,
    "RNGFND1_TYPE": 10,
    "ARMING_CHECK": 786430,
    "VISO_TYPE": 1,
    "VISO_DELAY_MS": 150,
    "VISO_POS_M_NSE": 1,
    "VISO_SCALE": 1,
    "VISO_QUAL_MIN": 0,
    "INS_GYRO_FILTER": 20,
}
ALONE = ANY_ARDUPILOT | {"GPS1_TYPE": 0} | sources(1, 6) | sources(2, 0) | sources(3, 0)
BESIDE_GPS = ANY_ARDUPILOT | {"GPS1_TYPE": 1} | sources(1, 3) | sources(2, 6) | sources(3, 0)
AS_GPS = ANY_ARDUPILOT | {"GPS1_TYPE": 14, "GPS1_DELAY_MS": 150} | sources(1, 3) | sources(2, 0) | sources(3, 0)
ANY_PX4: dict[str, float] = {
    "EKF2_EN": 1,
    "EKF2_DELAY_MAX": 200,
    "EKF2_HGT_REF": 0,
    "EKF2_MAG_TYPE": 0,
    "EKF2_GPS_CTRL": 0,
    "SYS_HAS_GPS": 0,
    "COM_ARM_WO_GPS": 1,
}
GLOBAL = ANY_PX4 | {"EKF2_AGP0_ID": 1, "EKF2_AGP0_CTRL": 1, "EKF2_AGP0_DELAY": 0, "EKF2_AGP0_NOISE": 1}
EXTERNAL = ANY_PX4 | {"EKF2_EV_CTRL": 1, "EKF2_EV_DELAY": 0, "EKF2_EV_NOISE_MD": 0, "EKF2_EV_QMIN": 0}
EXTERNAL |= {"EKF2_EVP_NOISE": 1}


@dataclass
class Line:
    """Ours of two ends in one room. Time passes only where somebody waits; a look is answered `FIRST_LOOK_NS` later."""

    clock: Clock
    vehicle: ScriptedVehicle
    address: Address = field(default_factory=lambda: Address("udpout", "memory", 1))
    drop_every: int = 0
    packets: int = 0

    def write(self, packet: bytes) -> bool:
        self.vehicle.hear(bytes(packet), self.clock.now_ns)
        return True

    def read(self, timeout_s: float) -> bytes:
        if timeout_s <= 0:
            return b""
        self.clock.now_ns += min(round(timeout_s * 1e9), FIRST_LOOK_NS)
        return b"".join(packet for packet in self.vehicle.speak(self.clock.now_ns) if self._arrives())

    def _arrives(self) -> bool:
        self.packets += 1
        return not self.drop_every or self.packets % self.drop_every != 0

    def close(self) -> None:
        pass


class Bench:
    """A vehicle on the ground with parameters, and a session with it. `said` and `asked` are the doctor's words."""

    def __init__(
        self, values: dict[str, float], link: dict[str, Any] | None = None, drop_every: int = 0, **vehicle: Any
    ) -> None:
        px4 = vehicle.get("autopilot") == PX4
        self.store = vehicle.pop("store", None) or ParameterStore(dict(values), bytewise=px4)
        self.clock = Clock()
        facts: dict[str, Any] = {"armed": False, "track": Circle(speed_mps=0.0, height_m=0.0), "fastest_hz": 50.0}
        self.vehicle = ScriptedVehicle(self.clock.now_ns, parameters=self.store, **(facts | vehicle))
        self.line = Line(self.clock, self.vehicle, drop_every=drop_every)
        self.settings = LinkConfig(**(link or {}))
        self.said: list[str] = []
        self.asked: list[str] = []
        self.answer = True

    def session(self) -> Session:
        system = self.settings.system_id
        connection = Connection(self.line, vehicle_system=system, clock_s=lambda: self.clock.now_ns / S)
        return Session(connection, lambda: self.clock.now_ns)

    def visit(self, **wishes: Any) -> Diagnosis:
        def ask(question: str) -> bool:
            self.asked.append(question)
            return self.answer

        return visit(self.session(), self.settings, Wishes(ask, self.said.append, measure_s=6.0, **wishes))


def the(findings: tuple[Finding, ...] | list[Finding], parameter: str) -> Finding:
    found = [one for one in findings if one.parameter == parameter]
    assert len(found) == 1, [one.parameter for one in findings]
    return found[0]
