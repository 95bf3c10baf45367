"""The doctor at a scripted vehicle: each planted fault is found, named and mended, and nothing else is touched."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import typer
from pymavlink.dialects.v20 import ardupilotmega as mav
from rich.console import Console
from scripted_air import Clock
from scripted_parameters import INT8, INT32, REAL32, ParameterStore
from scripted_vehicle import ARDUPILOT, PX4, Circle, Gps, ScriptedVehicle
from typer.testing import CliRunner

from onboard.config import LinkConfig
from onboard.errors import LinkError
from onboard.mavlink.doctor import cli
from onboard.mavlink.doctor.advice import examine, names_for
from onboard.mavlink.doctor.parameters import ParameterClient, decoded, encoded
from onboard.mavlink.doctor.report import Diagnosis, flag_names, show
from onboard.mavlink.doctor.rules import Case, Finding, Severity
from onboard.mavlink.doctor.session import Session
from onboard.mavlink.doctor.trial import TrialVerdict
from onboard.mavlink.doctor.visit import Wishes, visit
from onboard.mavlink.tell.profile import PROFILES
from onboard.mavlink.wire.connection import Connection
from onboard.mavlink.wire.transport import Address

S = 1_000_000_000
MUST, SHOULD, NOTE = Severity.MUST, Severity.SHOULD, Severity.NOTE
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


WELL = {
    "odometry alone": (ALONE, {}, ARDUPILOT),
    "odometry beside GPS": (BESIDE_GPS, {"switch_source_set": 2}, ARDUPILOT),
    "GPS_INPUT": (AS_GPS, {"profile": "ardupilot-gps-input"}, ARDUPILOT),
    "PX4 global": (GLOBAL, {}, PX4),
    "PX4 odometry": (EXTERNAL, {"profile": "px4-odometry", "rate_hz": 30.0}, PX4),
}


@pytest.mark.parametrize("name", WELL)
def test_a_vehicle_that_is_set_up_well_is_ready_and_nothing_is_found(name: str) -> None:
    values, link, autopilot = WELL[name]
    bench = Bench(values, link, autopilot=autopilot)
    diagnosis = bench.visit()
    assert [(one.parameter, one.why) for one in diagnosis.findings] == []
    assert diagnosis.verdict == "ready to fly on Pilotage"
    assert (bench.store.written, bench.vehicle.violations, bench.asked) == ([], [], [])


# What is planted in a set-up that is well: the name, the wrong value, the right one, how bad it is.
PLANTED = [
    ("odometry alone", "VISO_TYPE", 0, 1, MUST),
    ("odometry alone", "VISO_DELAY_MS", 10, 150, MUST),
    ("odometry alone", "VISO_POS_M_NSE", 0.1, 1, SHOULD),
    ("odometry alone", "VISO_SCALE", 1.1, 1, MUST),
    ("odometry alone", "VISO_QUAL_MIN", 90, 0, SHOULD),
    ("odometry alone", "EK3_ENABLE", 0, 1, MUST),
    ("odometry alone", "AHRS_EKF_TYPE", 2, 3, MUST),
    ("odometry alone", "EK3_SRC1_POSXY", 3, 6, MUST),
    ("odometry alone", "EK3_SRC1_VELXY", 6, 0, MUST),
    ("odometry alone", "EK3_SRC1_POSZ", 6, 1, MUST),
    ("odometry alone", "EK3_SRC1_POSZ", 2, 1, SHOULD),
    ("odometry alone", "EK3_SRC1_VELZ", 6, 0, MUST),
    ("odometry alone", "EK3_SRC1_VELZ", 3, 0, MUST),  # no GPS: it does not arm
    ("odometry alone", "EK3_SRC1_YAW", 6, 1, MUST),
    ("odometry alone", "EK3_SRC1_YAW", 2, 1, SHOULD),
    ("odometry alone", "EK3_SRC2_POSXY", 3, 0, MUST),  # never used, but it keeps the vehicle from arming
    ("odometry alone", "EK3_SRC_OPTIONS", 8, 0, SHOULD),
    ("odometry alone", "ARMING_CHECK", 1, 786430, MUST),
    ("odometry alone", "ARMING_CHECK", 0, 786430, SHOULD),
    ("odometry alone", "FS_EKF_ACTION", 0, 1, SHOULD),
    ("odometry alone", "FS_EKF_THRESH", 0, 0.8, SHOULD),
    ("odometry alone", "COMPASS_ENABLE", 0, 1, MUST),
    ("odometry beside GPS", "EK3_SRC2_POSXY", 3, 6, MUST),
    ("odometry beside GPS", "EK3_SRC2_YAW", 0, 1, MUST),
    ("odometry beside GPS", "EK3_SRC1_POSXY", 6, 3, SHOULD),
    ("GPS_INPUT", "GPS1_TYPE", 1, 14, MUST),
    ("GPS_INPUT", "GPS1_DELAY_MS", 0, 150, MUST),
    ("GPS_INPUT", "EK3_SRC1_POSXY", 6, 3, MUST),
    ("GPS_INPUT", "EK3_SRC1_VELXY", 3, 0, MUST),
    ("PX4 global", "EKF2_AGP0_ID", 0, 1, MUST),
    ("PX4 global", "EKF2_AGP0_CTRL", 0, 1, MUST),
    ("PX4 global", "EKF2_AGP0_CTRL", 3, 1, SHOULD),
    ("PX4 global", "EKF2_AGP0_DELAY", 150, 0, MUST),
    ("PX4 global", "EKF2_DELAY_MAX", 100, 200, MUST),
    ("PX4 global", "EKF2_HGT_REF", 1, 0, MUST),
    ("PX4 global", "EKF2_MAG_TYPE", 5, 0, MUST),
    ("PX4 global", "COM_ARM_WO_GPS", 0, 1, MUST),
    ("PX4 odometry", "EKF2_EV_CTRL", 15, 1, MUST),
    ("PX4 odometry", "EKF2_EV_CTRL", 5, 1, SHOULD),
    ("PX4 odometry", "EKF2_EV_DELAY", 150, 0, MUST),
    ("PX4 odometry", "EKF2_EV_NOISE_MD", 1, 0, MUST),
]


@pytest.mark.parametrize(("name", "parameter", "wrong", "right", "severity"), PLANTED)
def test_a_planted_fault_is_found_and_mended_and_a_second_visit_finds_nothing(
    name: str, parameter: str, wrong: float, right: float, severity: Severity
) -> None:
    values, link, autopilot = WELL[name]
    bench = Bench(values | {parameter: wrong}, link, autopilot=autopilot)
    first = bench.visit()
    found = the(first.findings, parameter)
    assert len(first.findings) == 1
    assert (found.severity, found.value) == (severity, pytest.approx(wrong))
    assert (found.set_to, found.should_be) == (right, f"{right:g}")
    assert found.why
    assert first.ready is (severity is not MUST)
    assert bench.store.written == []
    bench.visit(fix=True)
    assert bench.store.written == [(parameter, pytest.approx(right))]
    assert parameter in " ".join(bench.said)
    assert bench.visit().findings == ()
    assert bench.vehicle.violations == []


def test_a_gps_that_no_source_set_is_meant_for_is_not_switched_off_without_a_person() -> None:
    bench = Bench(ALONE | {"GPS1_TYPE": 1})
    found = the(bench.visit(fix=True).findings, "GPS1_TYPE")
    assert (found.severity, found.set_to) == (SHOULD, None)
    assert "link.switch_source_set" in found.should_be
    assert bench.store.written == []


def test_a_switch_away_from_a_gps_that_is_not_there_is_named() -> None:
    values = BESIDE_GPS | {"GPS1_TYPE": 0} | sources(1, 0)
    assert the(Bench(values, {"switch_source_set": 2}).visit().findings, "GPS1_TYPE").severity is MUST


def test_a_second_set_made_for_us_is_told_as_the_other_way_out() -> None:
    findings = Bench(BESIDE_GPS).visit().findings
    assert the(findings, "EK3_SRC1_POSXY").should_be == "6"
    assert the(findings, "link.switch_source_set").should_be == "2"


def test_velocities_of_all_sets_are_fused_only_where_a_set_takes_ours() -> None:
    options = {"EK3_SRC_OPTIONS": 1}
    assert Bench(ALONE | options).visit().ready
    taken = Bench(ALONE | options | {"EK3_SRC2_VELXY": 6}).visit()
    assert the(taken.findings, "EK3_SRC_OPTIONS").set_to == 0


def test_a_latency_that_the_vehicle_cannot_be_told_is_ours_to_mend() -> None:
    diagnosis = Bench(ALONE | {"VISO_DELAY_MS": 250}, {"latency_ms": 400.0}).visit()
    assert [one.parameter for one in diagnosis.findings] == ["link.latency_ms"]
    assert diagnosis.findings[0].should_be == "at most 250"


def test_names_of_older_firmware_count_as_well() -> None:
    older = {name.replace("GPS1_", "GPS_"): value for name, value in AS_GPS.items()}
    diagnosis = Bench(older | {"GPS_TYPE": 1}, {"profile": "ardupilot-gps-input"}).visit()
    assert [one.parameter for one in diagnosis.findings] == ["GPS_TYPE"]
    px4 = {name.replace("AGP0_", "AGP_"): value for name, value in GLOBAL.items() if name != "EKF2_AGP0_ID"}
    diagnosis = Bench(px4 | {"EKF2_AGP_CTRL": 0}, autopilot=PX4).visit()
    assert {one.parameter for one in diagnosis.findings} == {"EKF2_AGP_CTRL", "firmware"}


def test_the_newer_list_of_skipped_checks_gets_the_one_that_stands_in_the_way() -> None:
    values = {name: value for name, value in ALONE.items() if name != "ARMING_CHECK"} | {"ARMING_SKIPCHK": 8}
    assert the(Bench(values).visit().findings, "ARMING_SKIPCHK").set_to == 8 + (1 << 18)


def test_a_parameter_that_is_never_answered_is_named_and_not_written() -> None:
    bench = Bench({}, store=ParameterStore(dict(ALONE), silent=frozenset({"VISO_TYPE"})))
    found = the(bench.visit(fix=True).findings, "VISO_TYPE")
    assert (found.severity, found.value, found.should_be, found.set_to) == (MUST, None, "1", None)
    assert "does not answer" in found.why
    assert bench.vehicle.heard["PARAM_REQUEST_READ"] > len(ALONE)  # it was asked for again
    assert bench.store.written == []


def test_requests_that_are_lost_are_sent_again() -> None:
    assert Bench({}, store=ParameterStore(dict(ALONE), deaf_to=11)).visit().ready


def test_a_parameter_that_does_not_take_its_value_ends_the_mending_by_name() -> None:
    bench = Bench({}, store=ParameterStore(ALONE | {"VISO_TYPE": 0}, stuck=frozenset({"VISO_TYPE"})))
    with pytest.raises(LinkError, match="VISO_TYPE was set, but the vehicle says: 0; expected 1"):
        bench.visit(fix=True)


def test_nothing_is_written_where_the_answer_is_no() -> None:
    bench = Bench(ALONE | {"VISO_TYPE": 0, "EK3_SRC1_POSXY": 3})
    bench.answer = False
    assert not bench.visit(fix=True).ready
    assert bench.store.written == []
    assert bench.asked == ["set these 2 parameters?"]


def test_what_counts_after_a_restart_only_is_said() -> None:
    bench = Bench(ALONE | {"VISO_TYPE": 0})
    mended = bench.visit(fix=True, dry_run_fix=True)
    assert mended.restart_needed
    assert mended.verdict == "ready to fly on Pilotage once the vehicle has been restarted"
    assert mended.dry_run is not None
    assert (mended.dry_run.verdict, bench.vehicle.fixes) == (TrialVerdict.NOT_RUN, [])


@pytest.mark.parametrize("wish", ["fix", "dry_run_fix"])
def test_an_armed_vehicle_is_only_looked_at(wish: str) -> None:
    bench = Bench(ALONE | {"VISO_TYPE": 0}, armed=True)
    with pytest.raises(LinkError, match=r"armed.*only looked at"):
        bench.visit(**{wish: True})
    diagnosis = bench.visit()
    assert (diagnosis.armed, diagnosis.ready) == (True, False)
    assert (bench.store.written, bench.vehicle.fixes, bench.vehicle.violations) == ([], [], [])


@pytest.mark.parametrize("wish", ["fix", "dry_run_fix"])
def test_a_vehicle_that_is_armed_while_the_question_stands_is_left_alone(wish: str) -> None:
    bench = Bench(ALONE | {"EK3_SRC1_YAW": 6})

    def think_and_arm(question: str) -> bool:
        bench.clock.advance(60)
        bench.vehicle.armed = True
        return True

    with pytest.raises(LinkError, match="armed"):
        visit(bench.session(), bench.settings, Wishes(think_and_arm, bench.said.append, at=(47.0, 8.0), **{wish: True}))
    assert (bench.store.written, bench.vehicle.fixes, bench.vehicle.origin) == ([], [], None)


def test_an_answer_may_take_its_time() -> None:
    bench = Bench(ALONE | {"EK3_SRC1_YAW": 6})

    def think(question: str) -> bool:
        bench.clock.advance(60)
        return True

    assert visit(bench.session(), bench.settings, Wishes(think, bench.said.append, fix=True)).ready
    wishes = Wishes(think, bench.said.append, dry_run_fix=True, at=(47.0, 8.0))
    dry_run = visit(bench.session(), bench.settings, wishes).dry_run
    assert dry_run is not None
    assert dry_run.verdict is TrialVerdict.TAKEN


def test_a_vehicle_that_is_armed_between_two_writes_is_not_written_to() -> None:
    bench = Bench(ALONE)
    session = bench.session()
    session.meet(5.0)
    client = ParameterClient(session)
    read = client.read(["VISO_TYPE"])
    bench.vehicle.armed = True
    session.run(2.0)
    with pytest.raises(LinkError, match="VISO_TYPE is not set: the vehicle is: armed"):
        client.write(read["VISO_TYPE"], 2)
    assert bench.store.written == []


@pytest.mark.parametrize(("kind", "value"), [(INT8, -3), (INT32, 786430), (INT32, -1), (REAL32, 0.3)])
def test_integers_travel_as_their_bytes_where_the_firmware_wants_it(kind: int, value: float) -> None:
    wire = encoded(value, kind, bytewise=True)
    assert decoded(wire, kind, bytewise=True) == pytest.approx(value)
    assert encoded(value, kind, bytewise=False) == value
    if kind == INT32 and value > 0:
        assert wire == pytest.approx(786430 * 2.0**-149)


def test_a_value_that_its_type_cannot_hold_is_refused() -> None:
    with pytest.raises(LinkError, match="parameter value: 300"):
        encoded(300, INT8, bytewise=True)


def test_no_vehicle_is_one_line_with_what_to_look_at() -> None:
    with pytest.raises(LinkError, match=r"no vehicle heard: udpout:memory:1 in 5 s; expected heartbeats; look at"):
        Bench(ALONE, dumb=True).visit(patience_s=5.0)
    with pytest.raises(LinkError, match=r"another system.*link\.system_id"):
        Bench(ALONE, system=7).visit(patience_s=5.0)


def test_a_serial_line_that_is_silent_is_told_of_wires_and_baud() -> None:
    bench = Bench(ALONE, dumb=True)
    bench.line.address = Address("serial", "/dev/ttyX", 57600)
    with pytest.raises(LinkError, match="SERIALn_PROTOCOL 2"):
        bench.visit(patience_s=5.0)


def test_an_autopilot_that_we_cannot_serve_is_an_error() -> None:
    with pytest.raises(LinkError, match="no MAVLink profile"):
        Bench(ALONE, autopilot=mav.MAV_AUTOPILOT_GENERIC).visit()


def test_the_link_is_measured() -> None:
    link = Bench(ALONE).visit().link
    rates = {one.name: one for one in link.streams}
    assert rates["ATTITUDE_QUATERNION"].asked_hz == 50
    assert rates["ATTITUDE_QUATERNION"].heard_hz == pytest.approx(50, abs=3)
    assert link.seconds == pytest.approx(6.0, abs=0.05)
    assert 0 < link.round_trip_ms <= link.round_trip_p95_ms <= 20
    assert (link.synced, link.lost, link.loss) == (1.0, 0, 0.0)
    assert link.offset_jitter_ms < 2
    assert link.bytes_per_s > 1000


def test_losses_and_slow_attitudes_are_found() -> None:
    bench = Bench(ALONE, drop_every=8)
    bench.vehicle.fastest_hz = 4.0
    diagnosis = bench.visit()
    assert diagnosis.link.loss == pytest.approx(1 / 8, abs=0.03)
    assert the(diagnosis.findings, "loss").severity is SHOULD
    assert the(diagnosis.findings, "ATTITUDE_QUATERNION").severity is MUST
    assert not diagnosis.ready


def test_a_vehicle_that_does_not_answer_timesync_is_not_ready() -> None:
    bench = Bench(ALONE)
    bench.vehicle._handlers["TIMESYNC"] = lambda message, now_ns: None
    diagnosis = bench.visit()
    assert the(diagnosis.findings, "time sync").severity is MUST
    assert math.isnan(diagnosis.link.round_trip_ms)


def test_a_clock_that_jumps_is_found() -> None:
    bench = Bench(ALONE)
    answer = bench.vehicle._handlers["TIMESYNC"]

    def jump_and_answer(message: mav.MAVLink_message, now_ns: int) -> None:
        late = (now_ns - bench.vehicle.started_at_ns) // (2 * S) * S // 20
        bench.vehicle.boot_at_ns = bench.vehicle.started_at_ns + late  # 50 ms every 2 s
        answer(message, now_ns)

    bench.vehicle._handlers["TIMESYNC"] = jump_and_answer
    diagnosis = bench.visit()
    assert 0 < diagnosis.link.synced < 0.95
    found = the(diagnosis.findings, "time sync")
    assert found.value == diagnosis.link.synced
    assert "jumps" in found.why


def test_a_thin_serial_line_is_asked_for_less_and_its_ports_are_looked_at() -> None:
    bench = Bench(ALONE | {"SERIAL2_PROTOCOL": 1})
    bench.line.address = Address("serial", "/dev/ttyX", 19200)
    diagnosis = bench.visit()
    assert diagnosis.link.capacity_bytes_per_s == 1920
    assert sum(one.asked_hz for one in diagnosis.link.streams) < 60  # it was asked for less
    assert the(diagnosis.findings, "SERIAL2_PROTOCOL").set_to == 2


def test_a_fix_on_the_ground_is_taken() -> None:
    bench = Bench(ALONE)
    diagnosis = bench.visit(dry_run_fix=True, at=(47.0, 8.0))
    dry_run = diagnosis.dry_run
    assert dry_run is not None
    assert dry_run.verdict is TrialVerdict.TAKEN
    assert dry_run.apart_m < 1
    assert "POS_HORIZ_ABS" not in flag_names(dry_run.flags_before or 0)
    assert "POS_HORIZ_ABS" in flag_names(dry_run.flags_after or 0)
    assert dry_run.sent == len(bench.vehicle.fixes) > 20
    assert "origin" in bench.asked[0]
    fix = bench.vehicle.fixes[-1]
    assert (fix.message.x, fix.message.y) == pytest.approx((0, 0), abs=0.02)
    assert fix.boot_ns - fix.message.time_usec * 1000 == pytest.approx(150e6, abs=8e6)  # the latency that is set
    assert (diagnosis.ready, bench.vehicle.violations, bench.store.written) == (True, [], [])


def test_a_fix_that_is_ignored_names_what_to_set_and_stands_in_the_way() -> None:
    bench = Bench(ALONE, uses_fixes=False)
    diagnosis = bench.visit(dry_run_fix=True, at=(47.0, 8.0))
    assert diagnosis.dry_run is not None
    assert diagnosis.dry_run.verdict is TrialVerdict.NOT_TAKEN
    assert "EK3_SRC1_POSXY 6" in diagnosis.dry_run.remedy
    assert the(diagnosis.findings, "dry-run fix").severity is MUST
    sent = len(bench.vehicle.fixes)
    bench.session().run(3.0)
    assert len(bench.vehicle.fixes) == sent  # it stops


def test_px4_is_told_by_its_own_message_under_the_id_that_its_slot_listens_to() -> None:
    bench = Bench(GLOBAL, autopilot=PX4)  # whose scripted estimator takes no such message
    dry_run = bench.visit(dry_run_fix=True, at=(47.0, 8.0)).dry_run
    assert dry_run is not None
    assert dry_run.verdict is TrialVerdict.NOT_TAKEN
    assert "EKF2_AGP0_CTRL" in dry_run.remedy
    assert {fix.message.get_type() for fix in bench.vehicle.fixes} == {"GLOBAL_POSITION_SENSOR"}
    assert {fix.message.id for fix in bench.vehicle.fixes} == {bench.store.values["EKF2_AGP0_ID"]}


def test_whom_an_estimator_with_gps_follows_is_not_claimed() -> None:
    diagnosis = Bench(ALONE, gps=Gps(fix_type=3)).visit(dry_run_fix=True)
    assert diagnosis.dry_run is not None
    assert diagnosis.dry_run.verdict is TrialVerdict.UNCLEAR
    assert diagnosis.ready


def test_the_source_set_is_switched_for_the_trial_and_back() -> None:
    bench = Bench(BESIDE_GPS, {"switch_source_set": 2}, gps=Gps(fix_type=3))
    diagnosis = bench.visit(dry_run_fix=True)
    assert diagnosis.dry_run is not None
    assert diagnosis.dry_run.verdict is TrialVerdict.TAKEN
    assert bench.vehicle.source_sets == [2, 1]
    assert "source set 2, and back to 1" in bench.asked[0]


def test_a_vehicle_that_is_armed_during_the_trial_is_told_no_more() -> None:
    bench = Bench(ALONE, uses_fixes=False)
    hear = bench.vehicle._handlers["ODOMETRY"]

    def arm_at_the_tenth(message: mav.MAVLink_message, now_ns: int) -> None:
        hear(message, now_ns)
        bench.vehicle.armed = bench.vehicle.armed or len(bench.vehicle.fixes) >= 10

    bench.vehicle._handlers["ODOMETRY"] = arm_at_the_tenth
    diagnosis = bench.visit(dry_run_fix=True, at=(47.0, 8.0))
    assert diagnosis.dry_run is not None
    assert diagnosis.dry_run.verdict is TrialVerdict.NOT_RUN
    assert len(bench.vehicle.fixes) <= 10 + 11  # until the next heartbeat said so


@pytest.mark.parametrize(("answer", "remedy"), [(False, ""), (True, "--at LAT,LON")])
def test_no_trial_without_consent_or_a_place(answer: bool, remedy: str) -> None:
    bench = Bench(ALONE)
    bench.vehicle._makers.pop(mav.MAVLINK_MSG_ID_HOME_POSITION)
    bench.answer = answer
    diagnosis = bench.visit(dry_run_fix=True)
    assert diagnosis.dry_run is not None
    assert (diagnosis.dry_run.verdict, bench.vehicle.fixes) == (TrialVerdict.NOT_RUN, [])
    assert remedy in diagnosis.dry_run.remedy
    assert diagnosis.ready


def test_a_vehicle_that_takes_no_origin_gets_no_fix() -> None:
    bench = Bench(ALONE, {"set_origin": False})
    dry_run = bench.visit(dry_run_fix=True, at=(47.0, 8.0)).dry_run
    assert dry_run is not None
    assert (dry_run.verdict, bench.vehicle.origin) == (TrialVerdict.NOT_RUN, None)
    assert "link.set_origin" in dry_run.remedy


def test_the_json_keeps_its_keys() -> None:
    bench = Bench(ALONE | {"VISO_TYPE": 0})
    told = json.loads(json.dumps(bench.visit(fix=True, dry_run_fix=True).as_dict(), allow_nan=False))
    assert set(told) == {
        "address", "armed", "autopilot", "changes", "dry_run", "findings", "firmware", "format", "kind", "link",
        "mode", "parameters", "profile", "ready", "restart_needed", "signed", "state", "system", "verdict",
    }  # fmt: skip
    assert told["format"] == 1
    assert set(told["link"]) == {
        "bytes_per_s", "capacity_bytes_per_s", "lost", "loss", "offset_jitter_ms", "received", "round_trip_ms",
        "round_trip_p95_ms", "seconds", "skew_ppm", "streams", "synced",
    }  # fmt: skip
    assert set(told["state"]) == {"estimator", "gps_fix_type", "origin", "pos_horiz_ratio"}
    change = told["changes"][0]
    assert (change["before"]["value"], change["after"]["value"], change["reboot"]) == (0, 1, True)
    assert told["dry_run"]["apart_m"] is None  # NaN is no JSON
    found = Bench(ALONE | {"VISO_TYPE": 0}).visit().as_dict()["findings"][0]
    assert set(found) == {"parameter", "reboot", "set_to", "severity", "should_be", "value", "why"}


def test_the_report_names_parameter_value_and_remedy_worst_first() -> None:
    values = ALONE | {"FS_EKF_ACTION": 0, "EK3_SRC1_YAW": 6, "RNGFND1_TYPE": 0}
    out = io.StringIO()
    show(Bench(values).visit(), Console(file=out, width=60))
    text = out.getvalue()
    places = [text.index(part) for part in ("EK3_SRC1_YAW is 6, should be 1", "FS_EKF_ACTION is 0", "RNGFND1_TYPE")]
    assert places == sorted(places)
    assert "167 m" in text
    assert text.rstrip().endswith("not ready: 1 thing to put right, 1 advised")


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_finding_of_an_empty_vehicle_says_what_and_why(profile: Any) -> None:
    findings = examine(profile, Case({}, LinkConfig(rate_hz=30.0)))
    assert findings
    assert all(one.why and one.should_be and one.set_to is None for one in findings)
    assert {one.parameter for one in findings} <= set(names_for(profile)) | {"firmware", "MAV_n_MODE"}


def run_cli(monkeypatch: pytest.MonkeyPatch, bench: Bench, *arguments: str) -> Any:
    """The command on the bench's line and by the bench's clock."""

    class BenchClock:
        now_ns: Callable[[], int] = staticmethod(lambda: bench.clock.now_ns)

    monkeypatch.setattr("onboard.live.cli.open_connection", lambda address, settings: bench.session().connection)
    monkeypatch.setattr("onboard.live.clock.SteadyClock", BenchClock)
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(cli.doctor)
    return CliRunner().invoke(app, ["--mavlink", "udpout:memory:1", *arguments])


def test_the_exit_status_says_whether_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_cli(monkeypatch, Bench(ALONE)).exit_code == 0
    bench = Bench(ALONE | {"VISO_TYPE": 0})
    assert run_cli(monkeypatch, bench).exit_code == 1
    assert run_cli(monkeypatch, bench, "--fix", "--yes").exit_code == 0
    assert bench.store.values["VISO_TYPE"] == 1
    assert isinstance(run_cli(monkeypatch, Bench(ALONE, dumb=True)).exception, LinkError)  # main makes it 2


def test_json_on_standard_output_is_nothing_but_json(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_cli(monkeypatch, Bench(ALONE), "--json")
    assert json.loads(result.stdout)["ready"] is True
    assert isinstance(run_cli(monkeypatch, Bench(ALONE), "--json", "--fix").exception, LinkError)


@pytest.mark.parametrize("text", ["47", "47,8,1", "north,8", "91,8", "nan,8"])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(LinkError, match="LAT,LON"):
        cli.parse_place(text)
