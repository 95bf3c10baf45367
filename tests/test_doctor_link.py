"""The link as the doctor measures it: nobody there, losses, clocks, thin lines."""

from __future__ import annotations

import math

import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav
from toy_doctor import ALONE, MUST, SHOULD, Bench, S, the

from onboard.errors import LinkError
from onboard.mavlink.wire.transport import Address


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
