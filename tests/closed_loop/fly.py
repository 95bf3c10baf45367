"""The closed loop: a real autopilot in simulation flies on what Pilotage tells it.

    python tests/closed_loop/fly.py --binary PATH/TO/arducopter --place runs/demo/place --map runs/demo/map --out DIR

Everything but the world is real: ArduCopter's firmware, Pilotage's localizer, its link. The renderer plays the world,
from the simulator's true pose. The vehicle takes off with GPS, loses it, is switched to Pilotage by Pilotage, flies a
square with the camera dark for a while, and lands where it began. ArduPilot's documentation tells how its simulator is
built (`./waf configure --board sitl && ./waf copter`); without --binary, start it by the command that is shown. Results
go to --out: result.json, plot.png, and the tables that they were made of.

Exit status: 0 when every criterion held, 1 when one did not, 2 for bad input.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from aboard import Aboard
from camera import RenderedCamera
from clock import START_NS, SimulatedClock
from course import Course
from ground import Ground
from record import Flown, write_tables
from score import judge, write_plot
from simulator import VISION_SOURCES, Simulator, command_line, parameters, write_parameters
from world import World

from onboard.config import Config, load_config, merge
from onboard.errors import PilotageError
from onboard.mavlink.tell.place import Home
from onboard.track.velocity import when_live

if TYPE_CHECKING:
    from training.renderer.place import Place


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # in order: the simulator ends with us
    try:
        flown = fly(options)
    except PilotageError as error:
        print(f"closed loop: {error}", file=sys.stderr)
        return 2
    write_tables(flown, options.out)
    result = judge(flown, options.out / "result.json", vars(options))
    write_plot(flown, options.out / "plot.png")
    for line in result.lines:
        print(line)
    return 0 if result.passed else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", type=Path, required=True, help="folder of `pilotage render place`")
    parser.add_argument("--map", type=Path, required=True, help="its region map, of `pilotage map build`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--binary", type=Path, help="ArduPilot's SITL arducopter; without it one must be running")
    parser.add_argument("--defaults", type=Path, help="copter.parm of ArduPilot's Tools/autotest/default_params")
    parser.add_argument("--instance", type=int, default=0, help="of the simulator: its ports are 10 higher for each")
    parser.add_argument("--simulator", help="its first port, the ground's; default tcp:127.0.0.1:5760")
    parser.add_argument("--pilotage", help="its second port, Pilotage's; default tcp:127.0.0.1:5762")
    parser.add_argument("--speed", type=float, default=8.0, help="m/s")
    parser.add_argument("--side", type=float, default=500.0, help="of the square, m")
    parser.add_argument(
        "--centre", type=float, nargs=2, default=(0.0, 0.0), help="of it: east, north of the place's, m"
    )
    parser.add_argument("--height", type=float, default=100.0, help="above home, m")
    parser.add_argument("--blackout", type=float, default=20.0, help="s; 0: none")
    parser.add_argument("--delay-ms", type=float, help="VISO_DELAY_MS, if not what the link holds to")
    parser.add_argument("--season", default="autumn", help="the map's is summer")
    parser.add_argument(
        "--sun", type=float, nargs=2, default=(180.0, 38.0), help="azimuth, elevation of the day; the map's is 152, 50"
    )
    parser.add_argument(
        "--set",
        nargs="*",
        type=_parameter,
        default=[],
        metavar="NAME=VALUE",
        help="parameters of the vehicle to change",
    )
    parser.add_argument("--gimbal", action="store_true", help="the camera hangs on one; else it is fixed to the body")
    parser.add_argument("--fps", type=float, default=2.0, help="pictures per second of simulated time")
    parser.add_argument("--speedup", type=float, default=1.0, help="of the simulation")
    parser.add_argument("--config", type=Path, help="YAML of the settings to change")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), help="pixels of the camera")
    options = parser.parse_args()
    options.simulator = options.simulator or f"tcp:127.0.0.1:{5760 + 10 * options.instance}"
    options.pilotage = options.pilotage or f"tcp:127.0.0.1:{5762 + 10 * options.instance}"
    return options


def _parameter(text: str) -> tuple[str, float]:
    name, value = text.split("=")
    return name, float(value)


def settings(path: Path | None, on_gimbal: bool = False) -> Config:
    """The user's config, or the trial's.

    Motion alone may carry the estimate through a dark camera, small views count on the way down, and the latency is
    the longest that the vehicle can nearly be told: one computer plays the whole world.
    """
    ours = {
        "track": {"coast_s": 25.0},
        "link": {"silent_after_s": 25.0, "switch_source_set": VISION_SOURCES, "latency_ms": 240.0},
        "rectify": {"min_height_m": 6.0, "min_footprint_m": 12.0},
    }
    config = load_config(path) if path is not None else merge(Config(), ours)
    return when_live(merge(config, {"rectify": {"on_gimbal": on_gimbal}}))


def fly(options: argparse.Namespace) -> Flown:
    """One flight, from power-on to the ground."""
    from training.renderer.files import read_place

    config = settings(options.config, options.gimbal)
    options.out.mkdir(parents=True, exist_ok=True)
    place = read_place(options.place)
    start = np.array(options.centre) - options.side / 2
    with ExitStack() as stack:
        camera = stack.enter_context(
            RenderedCamera(options.place, options.season, tuple(options.sun), tuple(options.size), options.gimbal)
        )
        print("painting the ground for the camera", flush=True)
        while camera.busy:
            camera.poll(1.0)
        clock = SimulatedClock(options.speedup)
        aboard = Aboard(options.map, camera.model, camera.mount, config, options.pilotage, clock)
        command = _simulator(options, place, start, config.link.latency_ms)
        print(shlex.join(command), flush=True)
        if options.binary is not None:
            stack.enter_context(Simulator(command, options.out / "simulator"))
        ground = stack.enter_context(Ground(options.simulator, place.frame, clock))
        stack.enter_context(aboard)
        course = Course(
            start, options.side, options.height, options.speed, lambda: aboard.knows, blackout_s=options.blackout
        )
        world = World(place, ground, camera, course, aboard, clock, options.fps)
        ended = world.run()
        for line in aboard.words():
            print(f"           {line}")
        told = aboard.told(place.frame)
    return Flown(
        ground.truth,
        ground.believed,
        told,
        aboard.steps,
        world.phases,
        ground.texts,
        START_NS,
        ended,
        start,
        world.frames,
    )


def _simulator(options: argparse.Namespace, place: Place, start_enu_m: np.ndarray, latency_ms: float) -> list[str]:
    """The command that starts the simulator on the ground at the start; its parameters are written for it."""
    latitude, longitude = place.frame.geodetic_from_enu(start_enu_m)
    home = Home.at(latitude, longitude, float(place.terrain_height_m(start_enu_m[None])[0]))
    delay_ms = latency_ms if options.delay_ms is None else options.delay_ms
    values = parameters(options.speed, delay_ms, options.gimbal)
    own = options.out / "trial.parm"
    write_parameters(own, values | dict(options.set))
    files = [path.resolve() for path in (options.defaults, own) if path is not None]
    return command_line(options.binary or Path("arducopter"), files, home, options.speedup, options.instance)


if __name__ == "__main__":
    sys.exit(main())
