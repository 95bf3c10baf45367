"""The doctor at a scripted vehicle: each planted fault is found, named and mended, and nothing else is touched."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_vehicle import ARDUPILOT, PX4
from toy_doctor import ALONE, AS_GPS, BESIDE_GPS, EXTERNAL, GLOBAL, MUST, SHOULD, Bench, sources, the

from onboard.config import LinkConfig
from onboard.mavlink.doctor.advice import examine, names_for
from onboard.mavlink.doctor.rules import Case, Severity
from onboard.mavlink.tell.profile import PROFILES

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


@pytest.mark.parametrize("values", [ALONE, AS_GPS], ids=["odometry", "GPS_INPUT"])
@pytest.mark.parametrize(
    ("vehicle_hz", "ours_hz", "should_be"),
    [(80, 20.0, "80"), (20, 80.0, "20"), (0, 20.0, "10000"), (17, 20.0, "17")],
    ids=["a faster filter", "a slower one", "none", "a little slower"],
)
def test_a_gyroscope_filter_other_than_we_take_it_for_is_ours_to_mend(
    values: dict[str, float], vehicle_hz: float, ours_hz: float, should_be: str
) -> None:
    profile = "ardupilot-gps-input" if values is AS_GPS else "auto"
    bench = Bench(values | {"INS_GYRO_FILTER": vehicle_hz}, {"gyro_filter_hz": ours_hz, "profile": profile})
    [found] = bench.visit(fix=True).findings
    assert (found.severity, found.parameter, found.value) == (SHOULD, "link.gyro_filter_hz", ours_hz)
    assert (found.should_be, found.set_to) == (should_be, None)
    assert f"INS_GYRO_FILTER is {vehicle_hz}" in found.why
    assert bench.store.written == []  # the vehicle's own filter is its tuning
    ours = {"gyro_filter_hz": float(should_be), "profile": profile}
    assert Bench(values | {"INS_GYRO_FILTER": vehicle_hz}, ours).visit().findings == ()


def test_a_gyroscope_filter_within_a_millisecond_of_ours_or_unknown_is_not_spoken_of() -> None:
    for hz in (18.5, 21.9):
        assert Bench(ALONE | {"INS_GYRO_FILTER": hz}).visit().findings == ()
    unknown = {name: value for name, value in ALONE.items() if name != "INS_GYRO_FILTER"}
    assert Bench(unknown, {"gyro_filter_hz": 80.0}).visit().findings == ()


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


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_finding_of_an_empty_vehicle_says_what_and_why(profile: Any) -> None:
    findings = examine(profile, Case({}, LinkConfig(rate_hz=30.0)))
    assert findings
    assert all(one.why and one.should_be and one.set_to is None for one in findings)
    assert {one.parameter for one in findings} <= set(names_for(profile)) | {"firmware", "MAV_n_MODE"}


def test_a_servo_mount_is_noted_since_it_tells_of_its_servos() -> None:
    diagnosis = Bench(ALONE | {"MNT1_TYPE": 1}).visit()
    found = the(diagnosis.findings, "MNT1_TYPE")
    assert (found.severity, found.set_to, diagnosis.ready) == (Severity.NOTE, None, True)
    assert Bench(ALONE | {"MNT1_TYPE": 7}).visit().findings == ()
