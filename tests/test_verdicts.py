"""What is concluded from the estimator's words and from GPS, and how the pilot is told. No link, no vehicle."""

from __future__ import annotations

import numpy as np
import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.mavlink.tell.latency import LatencyMeter
from onboard.mavlink.tell.profile import PROFILES
from onboard.mavlink.vehicle.autopilot import Autopilot
from onboard.mavlink.watch.announce import MAX_TEXT, Announcer, Severity
from onboard.mavlink.watch.estimator import EstimatorVerdict, EstimatorWatch
from onboard.mavlink.watch.gps import GpsSample, GpsVerdict, GpsWatch, SourceSwitch, Switching

S = 1_000_000_000
START = 1_700_000_000 * S
AIDED = mav.EKF_ATTITUDE | mav.EKF_POS_HORIZ_ABS | mav.EKF_PRED_POS_HORIZ_ABS
NOT_AIDED = mav.EKF_ATTITUDE | mav.EKF_CONST_POS_MODE


def watched(
    seconds: float,
    flags: int = AIDED,
    ratio: float = 0.2,
    sending: bool = True,
    apart_m: float | None = None,
    watch: EstimatorWatch | None = None,
    start_ns: int = START,
) -> tuple[EstimatorWatch, int]:
    """A watch after some seconds at 5 Hz of always the same, and the time then."""
    watch = watch or EstimatorWatch()
    now_ns = start_ns
    for _ in range(round(seconds * 5) + 1):
        watch.heard(flags, ratio, now_ns)
        if sending:
            watch.sent(now_ns)
        if apart_m is not None:
            watch.compared(apart_m, 3.0, now_ns)
        now_ns += S // 5
    return watch, now_ns - S // 5


def test_an_estimator_that_agrees_uses_the_fixes() -> None:
    watch, now_ns = watched(6, apart_m=2.0)
    assert watch.verdict(now_ns) is EstimatorVerdict.USED


def test_nothing_is_said_of_an_estimator_that_was_sent_nothing_or_does_not_speak() -> None:
    watch, now_ns = watched(6, sending=False)
    assert watch.verdict(now_ns) is EstimatorVerdict.UNKNOWN
    watch, now_ns = watched(6)
    assert watch.verdict(now_ns + 4 * S) is EstimatorVerdict.UNKNOWN
    assert EstimatorWatch().verdict(START) is EstimatorVerdict.UNKNOWN


def test_an_estimator_without_a_position_ignores_what_is_sent_and_is_blind_without() -> None:
    watch, now_ns = watched(4.5, NOT_AIDED)
    assert watch.verdict(now_ns) is EstimatorVerdict.UNKNOWN  # it may yet begin
    watch, now_ns = watched(6, NOT_AIDED)
    assert watch.verdict(now_ns) is EstimatorVerdict.IGNORED
    watch, now_ns = watched(2, NOT_AIDED, sending=False, watch=watch, start_ns=now_ns)
    assert watch.verdict(now_ns) is EstimatorVerdict.BLIND


def test_relative_position_alone_is_no_use_of_map_fixes() -> None:
    watch, now_ns = watched(6, mav.EKF_ATTITUDE | mav.EKF_POS_HORIZ_REL)
    assert watch.verdict(now_ns) is EstimatorVerdict.IGNORED


def test_a_vehicle_on_the_ground_that_expects_a_position_is_not_called_blind() -> None:
    watch, now_ns = watched(8, NOT_AIDED | mav.EKF_PRED_POS_HORIZ_ABS, sending=False)
    assert watch.verdict(now_ns) is EstimatorVerdict.UNKNOWN


def test_a_failing_test_ratio_is_a_refusal_only_after_five_seconds() -> None:
    watch, now_ns = watched(4.5, ratio=1.4)
    assert watch.verdict(now_ns) is EstimatorVerdict.USED
    watch, now_ns = watched(5, ratio=1.4)
    assert watch.verdict(now_ns) is EstimatorVerdict.REFUSED
    watch.heard(AIDED, 0.5, now_ns)
    assert watch.verdict(now_ns) is EstimatorVerdict.USED


@pytest.mark.parametrize(("apart_m", "verdict"), [(14.0, EstimatorVerdict.USED), (16.0, EstimatorVerdict.DIVERGED)])
def test_a_vehicle_that_believes_to_be_elsewhere_has_diverged(apart_m: float, verdict: EstimatorVerdict) -> None:
    watch, now_ns = watched(6, apart_m=apart_m)
    assert watch.verdict(now_ns) is verdict


def test_a_distance_within_both_sigmas_is_no_divergence() -> None:
    watch = EstimatorWatch()
    for k in range(40):
        watch.heard(AIDED, 0.2, START + k * S // 5)
        watch.sent(START + k * S // 5)
        watch.compared(30.0, 10.0, START + k * S // 5)
    assert watch.verdict(START + 8 * S) is EstimatorVerdict.USED


def test_distances_before_a_pause_do_not_count_after_it() -> None:
    watch, now_ns = watched(3, apart_m=40.0)
    watch, now_ns = watched(6, watch=watch, start_ns=now_ns)
    assert watch.verdict(now_ns) is EstimatorVerdict.USED
    watch, now_ns = watched(1, apart_m=40.0, watch=watch, start_ns=now_ns)
    assert watch.verdict(now_ns) is EstimatorVerdict.USED


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_ignored_fixes_name_the_parameter_of_the_firmware_in_one_text(name: str) -> None:
    watch, now_ns = watched(6, NOT_AIDED)
    opinion = watch.opinion(now_ns, PROFILES[name].autopilot, name)
    named = {"ardupilot": "EK3_SRC1_POSXY", "px4": "EKF2_"}[name.split("-")[0]]
    assert named in opinion.remedy
    (message,) = Announcer().say(opinion.text, opinion.severity, now_ns)
    assert named in message.text
    assert message.text.endswith(opinion.text)  # nothing was cut off
    assert message.severity == mav.MAV_SEVERITY_ERROR


def test_a_verdict_is_said_once_and_again_every_thirty_seconds_while_it_is_bad() -> None:
    announcer, said = Announcer(), []
    for k in range(700):
        now_ns = START + k * S // 10
        said += [(k, m.severity) for m in announcer.say("fixes ignored", Severity.ERROR, now_ns)]
    assert said == [(0, 3), (300, 3), (600, 3)]
    assert [m.text for m in announcer.say("all is well", Severity.INFO, START + 71 * S)] == ["PLTG: all is well"]
    assert announcer.say("all is well", Severity.INFO, START + 200 * S) == []


def test_every_text_fits_one_message() -> None:
    (message,) = Announcer().say("w" * 80, Severity.INFO, START)
    assert len(message.text) == MAX_TEXT


class Receiver:
    """GPS readings at 5 Hz of a vehicle that flies east at 8 m/s."""

    def __init__(self, disagreement_m: float = 30.0) -> None:
        self.watch, self.now_ns, self.true_m = GpsWatch(disagreement_m), START, np.zeros(2)

    def fly(self, seconds: float, offset_m: float = 0.0, fix_type: int = 3, creep_mps: float = 0.0) -> float:
        """The offset (north) of the receiver grows by `creep_mps`; ours is the truth. The last offset."""
        for _ in range(round(seconds * 5)):
            self.now_ns += S // 5
            self.true_m = self.true_m + np.array([8.0, 0.0]) / 5
            offset_m += creep_mps / 5
            told_m = self.true_m + np.array([0.0, offset_m])
            sample = GpsSample(self.now_ns, fix_type, told_m, np.array([8.0, creep_mps]), 1.5)
            self.watch.heard(sample, self.now_ns)
            self.watch.compared(abs(offset_m), 4.0, self.now_ns)
        return offset_m

    @property
    def verdict(self) -> GpsVerdict:
        return self.watch.verdict(self.now_ns)


def test_a_receiver_that_never_had_a_fix_is_absent_and_not_lost() -> None:
    receiver = Receiver()
    receiver.fly(5, fix_type=1)
    assert receiver.verdict is GpsVerdict.ABSENT
    assert receiver.watch.words(receiver.now_ns)[0] == ""


def test_a_good_receiver_is_good_and_one_that_falls_silent_or_blind_is_lost() -> None:
    receiver = Receiver()
    receiver.fly(5)
    assert receiver.verdict is GpsVerdict.GOOD
    assert receiver.watch.verdict(receiver.now_ns + 3 * S) is GpsVerdict.LOST
    receiver.fly(1, fix_type=2)
    assert receiver.verdict is GpsVerdict.LOST
    receiver.fly(1)
    assert receiver.verdict is GpsVerdict.GOOD


def test_a_jump_that_the_velocity_does_not_explain_is_remembered_for_half_a_minute() -> None:
    receiver = Receiver()
    receiver.fly(5)
    receiver.fly(1, offset_m=25.0)
    assert receiver.verdict is GpsVerdict.JUMPED
    assert receiver.watch.words(receiver.now_ns)[0] == "GPS jumped by 25 m"
    receiver.fly(25, offset_m=25.0)
    assert receiver.verdict is GpsVerdict.JUMPED
    receiver.fly(6, offset_m=25.0)
    assert receiver.verdict is GpsVerdict.GOOD  # within what the two may disagree by


def test_a_gap_in_reception_is_no_jump() -> None:
    receiver = Receiver()
    receiver.fly(5)
    receiver.now_ns += 10 * S
    receiver.true_m = receiver.true_m + np.array([80.0, 0.0])
    receiver.fly(1)
    assert receiver.verdict is GpsVerdict.GOOD


def test_a_receiver_that_is_led_away_slowly_diverges_from_the_map() -> None:
    receiver = Receiver()
    receiver.fly(5)
    offset_m = receiver.fly(14, creep_mps=2.0)  # 28 m
    assert receiver.verdict is GpsVerdict.GOOD
    offset_m = receiver.fly(4, offset_m, creep_mps=2.0)
    assert receiver.verdict is GpsVerdict.GOOD  # not yet for five seconds
    receiver.fly(4, offset_m, creep_mps=2.0)
    assert receiver.verdict is GpsVerdict.DIVERGES
    assert "spoof" not in receiver.watch.words(receiver.now_ns)[0].lower()


def test_a_poor_position_of_our_own_accuses_nobody() -> None:
    receiver = Receiver()
    receiver.fly(5)
    for _ in range(50):
        receiver.fly(0.2)
        receiver.watch.compared(50.0, 25.0, receiver.now_ns)
    assert receiver.verdict is GpsVerdict.GOOD


def test_divergence_is_forgotten_when_we_have_no_position_to_compare() -> None:
    receiver = Receiver()
    receiver.fly(8, offset_m=60.0)
    assert receiver.verdict is GpsVerdict.DIVERGES
    receiver.watch.not_compared(receiver.now_ns)
    assert receiver.verdict is GpsVerdict.GOOD
    assert receiver.watch.distance_m is None


def ack(result: int, command: int = mav.MAV_CMD_SET_EKF_SOURCE_SET) -> mav.MAVLink_command_ack_message:
    return mav.MAVLink_command_ack_message(command, result)


def test_the_source_set_is_switched_once_and_the_answer_believed() -> None:
    switch = SourceSwitch(2)
    assert switch.due(False, START) is None
    command = switch.due(True, START)
    assert command is not None
    assert (command.command, command.param1, command.confirmation) == (42007, 2, 0)
    switch.heard(ack(mav.MAV_RESULT_ACCEPTED, mav.MAV_CMD_SET_MESSAGE_INTERVAL))
    assert switch.state is Switching.ASKED
    switch.heard(ack(mav.MAV_RESULT_ACCEPTED))
    assert switch.state is Switching.DONE
    assert switch.due(True, START + 10 * S) is None
    assert switch.words()[0] == "switched to EKF source set 2"


def test_a_switch_without_an_answer_is_tried_four_times_and_then_said_to_have_failed() -> None:
    switch, sent = SourceSwitch(3), []
    for k in range(100):
        command = switch.due(k < 3, START + k * S // 10)  # GPS came back meanwhile: what was asked stays asked
        sent += [(k, command.confirmation)] if command else []
    assert sent == [(0, 0), (10, 1), (20, 2), (30, 3)]
    assert switch.state is Switching.FAILED
    assert switch.words() == ("EKF source set 3 was not taken", Severity.CRITICAL)


@pytest.mark.parametrize(
    ("result", "state"),
    [
        (mav.MAV_RESULT_DENIED, Switching.FAILED),
        (mav.MAV_RESULT_UNSUPPORTED, Switching.FAILED),
        (mav.MAV_RESULT_TEMPORARILY_REJECTED, Switching.ASKED),
        (mav.MAV_RESULT_IN_PROGRESS, Switching.ASKED),
    ],
)
def test_a_refused_switch_is_final_and_a_postponed_one_is_not(result: int, state: Switching) -> None:
    switch = SourceSwitch(2)
    switch.due(True, START)
    switch.heard(ack(result))
    assert switch.state is state


def test_without_a_configured_set_nothing_is_ever_switched() -> None:
    assert SourceSwitch(0).due(True, START) is None


def test_the_recommended_latency_covers_nineteen_fixes_in_twenty() -> None:
    meter = LatencyMeter(150.0)
    for k in range(100):
        captured_ns = START + k * S // 2
        meter.fix(captured_ns, captured_ns + (100 + k) * 1_000_000)
    figures = meter.figures(START + 50 * S)
    assert (figures.fixes, figures.late, figures.too_short) == (100, 49, True)
    assert figures.median_ms == pytest.approx(150)
    assert figures.p95_ms == pytest.approx(194)
    assert figures.recommended_ms == 220
    assert meter.figures(START + 500 * S).fixes == 0


def test_an_unknown_autopilot_is_told_no_parameter() -> None:
    watch, now_ns = watched(6, NOT_AIDED)
    assert "EK" not in watch.opinion(now_ns, Autopilot.OTHER, "").text
