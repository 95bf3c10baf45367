"""The dry-run fix: taken or not, never without consent, and over when the vehicle is armed."""

from __future__ import annotations

import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav
from scripted_vehicle import PX4, Gps
from toy_doctor import ALONE, BESIDE_GPS, GLOBAL, MUST, Bench, the

from onboard.mavlink.doctor.report import flag_names
from onboard.mavlink.doctor.trial import TrialVerdict


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
