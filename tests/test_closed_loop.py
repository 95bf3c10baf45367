"""The closed-loop trial: its own parts always, the flight itself where there is a simulator to fly.

PILOTAGE_SITL names ArduPilot's arducopter, built for SITL; PILOTAGE_SITL_DEFAULTS its copter.parm.
"""

# ruff: noqa: E402

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav

TRIAL = Path(__file__).parent / "closed_loop"
sys.path.insert(0, str(TRIAL))  # a program of its own, no package

from clock import START_NS, SimulatedClock
from course import Course, CourseError
from ground import GUIDED, LAND, Believed, Truth
from record import Flown
from score import judge
from simulator import command_line, parameters
from tap import newest_stamp_ms

from onboard.errors import PilotageError
from onboard.mavlink.tell.place import Home
from onboard.records import Step

NO_STEPS: list[Step] = []


def test_the_newest_stamp_is_read_off_packets_that_nobody_has_parsed() -> None:
    packer = mav.MAVLink(None, srcSystem=1, srcComponent=1)
    beat = mav.MAVLink_heartbeat_message(2, 3, 0, 0, 0, 3).pack(packer)
    first, second = (
        mav.MAVLink_attitude_quaternion_message(ms, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0).pack(packer)
        for ms in (70_001, 70_021)
    )
    assert newest_stamp_ms(first + beat + second + beat) == 70_021
    assert newest_stamp_ms(beat) is None
    assert newest_stamp_ms(b"") is None
    assert newest_stamp_ms(first + second[:7]) == 70_001  # the rest of it is still under way
    assert newest_stamp_ms(second[5:] + first) is None  # begins within a packet


class PatientGround:
    """A vehicle that is at once where it is told to be, until it is told to land."""

    def __init__(self) -> None:
        self.believed = [Believed(0, np.zeros(2), 0.0)]
        self.flags, self.armed, self.mode = 1 << 4, False, GUIDED
        self.orders: list[object] = []

    def command(self, command: int, *values: float) -> None:
        self.orders.append(command)
        self.armed = self.armed or command == 400
        if command == 22:
            self.believed.append(Believed(0, np.zeros(2), values[-1]))
        if command == 176 and values[1] == LAND:
            self.armed = False

    def go_to(self, position_enu_m: np.ndarray, height_m: float) -> None:
        self.orders.append(tuple(position_enu_m))
        self.believed.append(Believed(0, position_enu_m, height_m))

    def set_parameter(self, name: str, value: float) -> None:
        self.orders.append((name, value))


def phases_of(course: Course, ground: object) -> Iterator[str]:
    before = ""
    for phase in course.fly(ground):  # type: ignore[arg-type]
        if phase != before:
            before = phase
            yield phase


def test_the_course_goes_round_the_square_without_gps_and_ends_where_it_began() -> None:
    ground = PatientGround()
    course = Course(np.array([5.0, 7.0]), 40.0, 100.0, 8.0, known=lambda: True)
    list(phases_of(course, ground))
    places = [order for order in ground.orders if isinstance(order, tuple) and not isinstance(order[0], str)]
    assert places == [(5.0, 47.0), (45.0, 47.0), (45.0, 7.0), (5.0, 7.0), (5.0, 7.0)]
    assert ground.orders.index(("SIM_GPS1_ENABLE", 0)) < ground.orders.index((5.0, 47.0))
    assert not ground.armed


def test_a_vehicle_that_leaves_guided_on_a_leg_ends_the_trial() -> None:
    ground = PatientGround()
    course = Course(np.zeros(2), 40.0, 100.0, 8.0, known=lambda: True)
    ground.go_to = lambda *_: setattr(ground, "mode", LAND)  # type: ignore[method-assign]
    with pytest.raises(CourseError, match="leg 1: the vehicle left GUIDED"):
        list(phases_of(course, ground))


def test_the_clock_stands_still_with_the_simulator_and_never_goes_back() -> None:
    wall = [0]
    clock = SimulatedClock(0.5, lambda: wall[0])
    clock.heard(1000)
    wall[0] = 40_000_000
    assert clock() == START_NS + 1_020_000_000  # half as fast
    wall[0] = 3_000_000_000
    assert clock() == START_NS + 1_200_000_000  # no stamp for seconds: it has stopped
    clock.heard(1040)
    assert clock() == START_NS + 1_200_000_000


def a_flight(offset_m: float, landed_m: float = 0.0, ended: str = "") -> Flown:
    """A minute to the north at 8 m/s, believed to be `offset_m` farther east from the tenth second on."""
    times_ms = range(0, 60_000, 100)
    places = [np.array([0.0, 8e-3 * t, 100.0]) for t in times_ms]
    truth = [Truth(t, p, (1.0, 0.0, 0.0, 0.0), np.zeros(3)) for t, p in zip(times_ms, places, strict=True)]
    aside, missed = np.array([offset_m, 0.0]), np.array([landed_m, 0.0])
    believed = [Believed(t.boot_ms, t.position_enu_m[:2] + aside * (t.boot_ms >= 10_000), 100.0) for t in truth]
    target = truth[-1].position_enu_m[:2] + missed
    return Flown(truth, believed, [], NO_STEPS, [(10_000, "gps off")], [], 0, ended, target, 0)


@pytest.mark.parametrize(
    ("flown", "passed"),
    [
        (a_flight(1.2), True),
        (a_flight(1.8), False),
        (a_flight(1.2, landed_m=6.0), False),
        (a_flight(1.2, ended="leg 2: the vehicle left GUIDED"), False),
    ],
    ids=["a good one", "too far off", "landed elsewhere", "broken off"],
)
def test_a_flight_passes_only_when_every_criterion_holds(flown: Flown, passed: bool, tmp_path: Path) -> None:
    result = judge(flown, tmp_path / "result.json", {})
    written = json.loads((tmp_path / "result.json").read_text())
    assert result.passed is written["passed"] is passed


def test_the_command_puts_the_vehicle_on_the_ground_of_the_place() -> None:
    command = command_line(Path("arducopter"), [Path("a.parm")], Home.at(46.96, 2.61, 7.25), 0.5, 2)
    assert command[command.index("--home") + 1] == "46.9600000,2.6100000,7.25,0"
    assert command[command.index("--speedup") + 1] == "0.5"
    assert command[command.index("--instance") + 1] == "2"


def test_the_vehicle_is_told_the_delay_that_the_link_holds_to() -> None:
    values = parameters(speed_mps=8.0, delay_ms=150.0)
    assert (values["VISO_DELAY_MS"], values["WPNAV_SPEED"]) == (150.0, 800.0)


def test_a_simulator_that_cannot_be_started_is_one_line(tmp_path: Path) -> None:
    from simulator import Simulator

    with pytest.raises(PilotageError, match="the simulator does not start"):
        Simulator([str(tmp_path / "nothing")], tmp_path / "simulator")


def test_a_simulator_that_ends_at_once_says_its_last_word(tmp_path: Path) -> None:
    from simulator import Simulator

    dies = Simulator(["sh", "-c", "echo SERIAL0; echo bind failed on port 5760; exit 1"], tmp_path / "simulator")
    with pytest.raises(PilotageError, match="exit status 1: bind failed on port 5760"), dies:
        pass


@pytest.mark.skipif("PILOTAGE_SITL" not in os.environ, reason="PILOTAGE_SITL does not name ArduPilot's arducopter")
def test_arducopter_flies_a_square_on_pilotage_alone(tmp_path: Path) -> None:
    place, region, out = tmp_path / "place", tmp_path / "map", tmp_path / "flight"
    pilotage = [sys.executable, "-c", "from onboard.cli import main; main()"]
    subprocess.run([*pilotage, "render", "place", "--out", place, "--size-m", "700", "--seed", "7"], check=True)
    subprocess.run([*pilotage, "map", "build", place / "orthophoto.tif", "--out", region], check=True)
    defaults = os.environ.get("PILOTAGE_SITL_DEFAULTS")
    trial = [sys.executable, TRIAL / "fly.py", "--binary", os.environ["PILOTAGE_SITL"], "--place", place]
    trial += ["--map", region, "--out", out, "--side", "150", *(["--defaults", defaults] if defaults else [])]
    flown = subprocess.run(trial, capture_output=True, text=True, timeout=1200)
    assert flown.returncode == 0, flown.stdout + flown.stderr
