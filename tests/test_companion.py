"""The companion against a scripted vehicle on a perfect line: what it says when, and what it concludes."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav
from scripted_air import Air, AirTransport, Clock, Weather
from scripted_vehicle import ARDUPILOT, PX4, Gps, ScriptedVehicle

from onboard.config import Config, LinkConfig
from onboard.errors import LinkError
from onboard.frames import MapFrame
from onboard.mavlink.companion import Companion
from onboard.mavlink.status import LinkStatus, Silence
from onboard.mavlink.watch.estimator import EstimatorVerdict
from onboard.mavlink.watch.gps import GpsVerdict, Switching
from onboard.mavlink.wire.connection import Connection
from onboard.records import Estimate, Reason, State, Step, Telemetry

S = 1_000_000_000
TICK_NS = S // 50


class Bench:
    """A vehicle, a companion, and a localizer that finds the truth twice a second while `sees` is true."""

    def __init__(self, link: dict[str, Any] | None = None, sees: bool = True, **vehicle: Any) -> None:
        self.clock = Clock()
        self.start_ns = self.clock.now_ns
        self.vehicle = ScriptedVehicle(self.start_ns, fastest_hz=20.0, **vehicle)
        self.up, self.down = Air(Weather(delay_ms=(2, 2)), 1), Air(Weather(delay_ms=(2, 2)), 2)
        self.transport = AirTransport(self.clock, self.up, self.down)
        self.map_frame = MapFrame(*self.vehicle.start_degrees)
        self.config = Config(link=LinkConfig(**(link or {})))
        system = self.config.link.system_id
        connection = Connection(self.transport, vehicle_system=system, clock_s=lambda: self.clock.now_ns / S)
        self.companion = Companion(connection, self.config, self.map_frame)
        self.sees, self.error_east_m, self.took_ms = sees, 0.0, 100.0
        self.reason: Reason | None = None
        self.held = False  # by pictures, where the map shows nothing for that reason
        self._captured_ns = self.start_ns

    def run(self, seconds: float) -> LinkStatus:
        for _ in range(round(seconds * S / TICK_NS)):
            now_ns = self.clock.advance(TICK_NS / S)
            for packet in self.up.due(now_ns):
                self.vehicle.hear(packet, now_ns)
            for packet in self.vehicle.speak(now_ns):
                self.down.put(packet, now_ns)
            if now_ns >= self._captured_ns + self.took_ms * 1e6:
                self.companion.take(self.step(self._captured_ns))
                self._captured_ns += S // 2
            self.companion.tick(now_ns)
        return self.companion.status(self.clock.now_ns)

    def step(self, at_ns: int) -> Step:
        if not self.sees:
            return Step(at_ns, "", State.LOST, None, Reason.WEAK_MATCH, None, None, {})
        true = self.map_frame.enu_from_geodetic(*self.vehicle.truth_degrees(at_ns))
        where = true + np.array([self.error_east_m, 0.0])
        north, east = self.vehicle.track.at((at_ns - self.start_ns) / S)[2:]
        covariance = np.diag([4.0, 4.0, 0.2, 0.2])
        estimate = Estimate(at_ns, where, np.array([east, north]), covariance, math.nan, 100.0, 0.99)
        state = State.TRACKING if self.reason is None else State.COASTING
        return Step(at_ns, "", state, estimate, self.reason, None, None, {}, held=self.held)

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.vehicle.texts]

    def told(self, kind: str) -> int:
        return self.vehicle.heard[kind]


@pytest.mark.parametrize(
    ("autopilot", "profile", "kind"),
    [(ARDUPILOT, "ardupilot-odometry", "ODOMETRY"), (PX4, "px4-global-position", "GLOBAL_POSITION_SENSOR")],
)
def test_a_vehicle_is_told_by_the_message_of_its_firmware(autopilot: int, profile: str, kind: str) -> None:
    bench = Bench(autopilot=autopilot)
    status = bench.run(20)
    assert (status.alive, status.profile, status.telling) == (True, profile, True)
    before = bench.told(kind)
    bench.run(10)
    assert bench.told(kind) - before == pytest.approx(100, abs=1)
    assert bench.vehicle.violations == []


def test_a_profile_that_does_not_exist_is_an_error_at_the_start() -> None:
    with pytest.raises(LinkError, match="ardupilot-odometry"):
        Bench({"profile": "betaflight"})


def test_an_autopilot_that_we_cannot_serve_is_told_nothing_and_named_as_the_trouble() -> None:
    bench = Bench(autopilot=mav.MAV_AUTOPILOT_GENERIC)
    status = bench.run(15)
    assert status.silence == Silence.NO_PROFILE.value
    assert "link.profile" in status.trouble
    assert not any(bench.told(kind) for kind in ("ODOMETRY", "GLOBAL_POSITION_SENSOR"))


def test_no_vehicle_is_told_nothing() -> None:
    bench = Bench(dumb=True)
    status = bench.run(10)
    assert (status.alive, status.silence) == (False, Silence.NO_VEHICLE.value)
    assert bench.told("ODOMETRY") == 0
    assert bench.told("HEARTBEAT") == pytest.approx(10, abs=1)  # we are here all the same


def test_the_origin_of_the_vehicle_is_used_where_it_has_one() -> None:
    bench = Bench(origin=(470_010_000, 80_010_000, 400_000))
    bench.run(15)
    assert bench.told("SET_GPS_GLOBAL_ORIGIN") == 0
    fix = bench.vehicle.fixes[-1].message
    valid_ns = bench.vehicle.ours_ns(fix.time_usec * 1000)
    north, east, _, _ = bench.vehicle.track.at((valid_ns - bench.start_ns) / S)
    assert fix.x == pytest.approx(north - 111.32, abs=0.3)
    assert fix.y == pytest.approx(east - 111.32 * math.cos(math.radians(47)), abs=0.3)


def test_a_vehicle_without_an_origin_is_given_the_maps_anchor_at_its_own_height_above_the_sea() -> None:
    bench = Bench()
    bench.run(2.5)
    assert bench.vehicle.origin is None
    bench.run(12)
    assert bench.vehicle.origin == (470_000_000, 80_000_000, 400_000)
    assert bench.told("SET_GPS_GLOBAL_ORIGIN") <= 2
    assert bench.vehicle.fixes[-1].message.z == pytest.approx(-100.0, abs=0.1)


def test_where_the_origin_is_not_ours_to_set_a_vehicle_without_one_is_told_nothing() -> None:
    bench = Bench({"set_origin": False})
    status = bench.run(15)
    assert (bench.told("SET_GPS_GLOBAL_ORIGIN"), bench.told("ODOMETRY")) == (0, 0)
    assert status.silence == Silence.NO_ORIGIN.value


def test_the_vehicles_own_time_requests_are_answered_with_our_clock() -> None:
    bench = Bench()
    bench.run(5)
    replies = [m for m in _written(bench, "TIMESYNC") if m.tc1 != 0]
    assert len(replies) >= 4
    assert all(bench.start_ns < m.tc1 <= bench.clock.now_ns for m in replies)


def test_the_vehicles_telemetry_is_there_for_the_time_of_a_frame() -> None:
    bench = Bench()
    bench.run(15)
    captured_ns = bench.clock.now_ns - 300_000_000
    assert bench.companion.telemetry_passed(captured_ns)
    telemetry = bench.companion.telemetry_at(captured_ns)
    assert isinstance(telemetry, Telemetry)
    assert telemetry.height_above_ground_m == pytest.approx(100, abs=0.1)
    north, east = bench.vehicle.track.at((captured_ns - bench.start_ns) / S)[2:]
    w, _, _, z = telemetry.attitude_quat_wxyz
    assert 2 * math.atan2(z, w) == pytest.approx(math.atan2(east, north), abs=0.01)
    assert not bench.companion.telemetry_passed(bench.clock.now_ns + S)


def test_a_localizer_that_is_lost_ends_the_stream_at_once_and_the_pilot_is_told() -> None:
    bench = Bench()
    bench.run(20)
    bench.sees = False
    bench.run(0.7)
    before = bench.told("ODOMETRY")
    status = bench.run(4)
    assert bench.told("ODOMETRY") == before
    assert status.silence == Silence.LOST.value
    assert "PLTG: no position by the map, silent" in bench.texts
    bench.sees = True
    assert bench.run(3).telling
    assert bench.vehicle.fixes[-1].message.reset_counter == 1


def test_a_localizer_that_says_nothing_more_is_coasted_to_the_limit_and_no_further() -> None:
    bench = Bench()
    bench.run(20)
    bench.took_ms = 1e9
    bench.run(4)
    assert bench.companion.status(bench.clock.now_ns).telling
    status = bench.run(3)
    assert status.silence == Silence.OLD_FIX.value


@pytest.mark.parametrize("held", [False, True])
def test_an_estimate_without_a_fix_is_told_for_as_long_as_pictures_hold_it(held: bool) -> None:
    bench = Bench()
    bench.run(20)
    bench.reason, bench.held = Reason.WEAK_MATCH, held
    status = bench.run(15)  # three times as long as motion alone
    assert status.telling == held
    bench.held = False  # the pictures end too
    bench.run(4)
    assert bench.companion.status(bench.clock.now_ns).telling == held
    assert bench.run(3).silence == Silence.OLD_FIX.value


def test_a_vehicle_that_falls_silent_is_told_nothing_more() -> None:
    bench = Bench()
    bench.run(20)
    bench.vehicle.dumb = True
    status = bench.run(8)
    assert not status.telling
    assert not status.alive


def test_fixes_that_are_used_are_reported_as_used_and_said_once() -> None:
    bench = Bench()
    status = bench.run(70)
    assert status.estimator is EstimatorVerdict.USED
    assert status.apart_m is not None
    assert status.apart_m < 3
    assert bench.texts.count("PLTG: estimator agrees with the fixes") == 1
    assert len(bench.texts) <= 3


def test_ignored_fixes_are_said_again_every_half_minute_with_the_parameter() -> None:
    bench = Bench(uses_fixes=False)
    status = bench.run(80)
    assert status.estimator is EstimatorVerdict.IGNORED
    assert "VISO_TYPE" in status.estimator_remedy
    ignored = [text for text in bench.texts if "EK3_SRC1_POSXY" in text]
    assert len(ignored) in (2, 3)


def test_refused_fixes_are_seen_by_the_estimators_own_ratio() -> None:
    bench = Bench(test_ratio=1.5)
    assert bench.run(30).estimator is EstimatorVerdict.REFUSED


def test_a_vehicle_that_believes_gps_against_the_map_is_seen_to_diverge() -> None:
    bench = Bench(uses_fixes=False, gps=Gps(3), origin=(470_000_000, 80_000_000, 400_000))
    bench.error_east_m = 25.0  # it is the map that is wrong here: nobody can tell which
    status = bench.run(30)
    assert status.estimator is EstimatorVerdict.DIVERGED
    assert status.apart_m == pytest.approx(25, abs=3)
    assert status.gps is GpsVerdict.GOOD  # less than gps_disagreement_m


def test_lost_gps_switches_the_source_set_once() -> None:
    bench = Bench({"switch_source_set": 2}, gps=Gps(3))
    assert bench.run(20).gps is GpsVerdict.GOOD
    assert bench.vehicle.source_sets == []
    bench.vehicle.gps.fix_type = 1
    status = bench.run(10)
    assert (status.gps, status.switching) == (GpsVerdict.LOST, Switching.DONE)
    assert bench.vehicle.source_sets == [2]
    assert {"PLTG: GPS lost", "PLTG: switched to EKF source set 2"} <= set(bench.texts)
    bench.vehicle.gps.fix_type = 3
    bench.run(10)
    bench.vehicle.gps.fix_type = 1
    bench.run(10)
    assert bench.vehicle.source_sets == [2]


def test_a_vehicle_of_another_number_is_found_and_spoken_to_by_it() -> None:
    bench = Bench({"system_id": 0, "switch_source_set": 2}, system=7, gps=Gps(3))
    assert bench.run(20).telling
    assert bench.vehicle.origin is not None
    bench.vehicle.gps.fix_type = 1
    bench.run(5)
    assert bench.vehicle.source_sets == [2]
    assert {m.get_srcSystem() for m in _written(bench, "ODOMETRY")} == {7}


def test_a_vehicle_of_a_number_that_is_not_ours_is_not_believed() -> None:
    bench = Bench({"system_id": 1}, system=7)
    status = bench.run(10)
    assert (status.alive, status.telling) == (False, False)
    assert status.refused["foreign_system"] > 5


def test_gps_that_leads_away_switches_the_source_set() -> None:
    bench = Bench({"switch_source_set": 2}, gps=Gps(3))
    bench.run(20)
    bench.vehicle.gps.offset_north_m = 60.0
    status = bench.run(2)
    assert status.gps is GpsVerdict.JUMPED
    assert bench.vehicle.source_sets == [2]
    status = bench.run(6)
    assert status.gps is GpsVerdict.DIVERGES
    assert status.gps_apart_m == pytest.approx(60, abs=5)


def test_nothing_is_switched_while_we_do_not_know_where_we_are_ourselves() -> None:
    bench = Bench({"switch_source_set": 2}, gps=Gps(3), sees=False)
    bench.run(20)
    bench.vehicle.gps.fix_type = 1
    bench.run(10)
    assert bench.vehicle.source_sets == []


def test_a_vehicle_that_does_not_answer_the_switch_is_asked_four_times_and_the_pilot_told() -> None:
    bench = Bench({"switch_source_set": 2}, gps=Gps(3), source_set_answer=None)
    bench.run(20)
    bench.vehicle.gps.fix_type = 1
    status = bench.run(12)
    assert bench.vehicle.source_sets == [2, 2, 2, 2]
    assert status.switching is Switching.FAILED
    assert "PLTG: EKF source set 2 was not taken" in bench.texts


def test_a_restarted_vehicle_is_told_of_the_source_set_again() -> None:
    bench = Bench({"switch_source_set": 2}, gps=Gps(3))
    bench.run(20)
    bench.vehicle.gps.fix_type = 1
    bench.run(5)
    bench.vehicle.restart(bench.clock.now_ns + 4 * S)
    status = bench.run(25)
    assert status.restarts == 1
    assert bench.vehicle.source_sets == [2, 2]


def test_our_own_gps_input_is_no_witness_of_gps() -> None:
    bench = Bench({"profile": "ardupilot-gps-input"}, gps=Gps(3))
    status = bench.run(20)
    assert bench.told("GPS_INPUT") > 50
    assert status.gps is GpsVerdict.ABSENT


def test_px4_is_never_told_to_switch_source_sets() -> None:
    bench = Bench({"switch_source_set": 2}, autopilot=PX4, gps=Gps(3))
    bench.run(20)
    bench.vehicle.gps.fix_type = 1
    bench.run(10)
    assert bench.vehicle.source_sets == []


def test_fixes_that_come_late_are_counted_and_the_right_latency_recommended() -> None:
    bench = Bench({"latency_ms": 100.0})
    bench.took_ms = 180.0
    status = bench.run(30)
    assert status.telling
    assert status.latency.late == status.latency.fixes > 50
    assert status.latency.too_short
    assert 200 <= status.latency.recommended_ms <= 230
    assert status.parameter == "VISO_DELAY_MS"
    assert any("set link.latency_ms to" in line for line in status.in_words())


def test_a_full_line_withholds_estimates_rather_than_sending_them_late() -> None:
    bench = Bench()
    bench.run(20)
    bench.transport.full = True
    assert bench.run(3).silence == Silence.LINE_FULL.value
    bench.transport.full = False
    status = bench.run(5)
    assert status.telling
    assert status.dropped > 0
    ages_ms = [
        (fix.heard_at_ns - bench.vehicle.ours_ns(fix.message.time_usec * 1000)) / 1e6 for fix in bench.vehicle.fixes
    ]
    assert max(ages_ms) < 200


def test_the_status_is_plain_data_and_plain_words() -> None:
    bench = Bench()
    status = bench.run(20)
    data = json.loads(json.dumps(status.as_dict(), allow_nan=False))
    assert data["estimator"] == "used"
    assert data["profile"] == "ardupilot-odometry"
    assert data["sent"]["ODOMETRY"] > 50
    words = status.in_words()
    assert words[0].startswith("vehicle: quadrotor, ArduCopter 4.7.0")
    assert any(line.startswith("link: telling") for line in words)
    assert all("\n" not in line for line in words)


def _written(bench: Bench, kind: str) -> list[Any]:
    reader = mav.MAVLink(None)
    messages = [m for _, packet in bench.transport.written for m in reader.parse_buffer(packet) or ()]
    return [m for m in messages if m.get_type() == kind]
