"""ArduCopter's own simulator: what it must be told, the command that starts it, and a process of it."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from types import TracebackType

from onboard.errors import LinkError
from onboard.mavlink.tell.place import Home

GPS_SOURCES, VISION_SOURCES = 1, 2  # EKF source sets

# The vehicle of the trial. The second source set is Pilotage's; the first, with which it takes off, is GPS.
PARAMETERS: dict[str, float] = {
    "VISO_TYPE": 1,
    "VISO_POS_M_NSE": 0.5,
    "VISO_VEL_M_NSE": 0.3,
    "ARMING_CHECK": 0xFFFFE - (1 << 18),  # all but VISION: on the ground there is none
    "EK3_SRC2_POSXY": 6,
    "EK3_SRC2_VELXY": 0,  # ours comes of its own: fused, it makes the loop unstable
    "EK3_SRC2_POSZ": 1,
    "EK3_SRC2_VELZ": 0,
    "EK3_SRC2_YAW": 1,
    "RNGFND1_TYPE": 10,  # a laser that speaks MAVLink: this program
    "RNGFND1_MIN": 0.5,
    "RNGFND1_MAX": 300,
    "RNGFND1_ORIENT": 25,
    "WPNAV_SPEED_UP": 500,
    "WPNAV_SPEED_DN": 300,
    "LAND_SPEED": 100,
    "LAND_ALT_LOW": 500,
    "SIM_WIND_SPD": 3,
    "SIM_WIND_DIR": 240,
    "SIM_GPS1_ENABLE": 1,
}


# A gimbal that levels itself (brushless, by PWM) and looks straight down; the vehicle tells of it in its own words.
GIMBAL: dict[str, float] = {
    "MNT1_TYPE": 7,
    "MNT1_DEFLT_MODE": 1,  # neutral
    "MNT1_NEUTRAL_Y": -90,
    "SERVO9_FUNCTION": 7,  # mount tilt
    "SERVO10_FUNCTION": 8,  # mount roll
}


def parameters(speed_mps: float, delay_ms: float, on_gimbal: bool = False) -> dict[str, float]:
    """`PARAMETERS` with the speed flown, and the delay that the vehicle is told of the positions sent to it."""
    gimbal = GIMBAL if on_gimbal else {}
    return {**PARAMETERS, **gimbal, "WPNAV_SPEED": 100 * speed_mps, "VISO_DELAY_MS": delay_ms}


def command_line(binary: Path, defaults: list[Path], home: Home, speedup: float, instance: int) -> list[str]:
    """The command that puts a simulated copter at `home`, from scratch, looking north."""
    where = f"{home.latitude_deg:.7f},{home.longitude_deg:.7f},{home.altitude_m:.2f},0"
    files = ",".join(str(path) for path in defaults)
    command = [str(binary), "--wipe", "--model", "quad", "--instance", str(instance), "--speedup", f"{speedup:g}"]
    return [*command, "--home", where, "--defaults", files]


def write_parameters(path: Path, values: dict[str, float]) -> None:
    """A parameter file as ArduPilot's tools read it."""
    path.write_text("".join(f"{name} {value:g}\n" for name, value in values.items()))


class Simulator:
    """The process, with its files under `folder`; ended with the block that holds it."""

    def __init__(self, command: list[str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = (folder / "simulator.log").open("wb")
        try:
            self._process = subprocess.Popen(command, cwd=folder, stdout=self._log, stderr=subprocess.STDOUT)
        except OSError as error:
            self._log.close()
            raise LinkError("the simulator does not start", shlex.join(command), "an arducopter of SITL") from error

    def __enter__(self) -> Simulator:
        """Raises LinkError where it ends at once: its ports are taken, a file is not to its liking."""
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return self
        self._log.close()
        said = Path(self._log.name).read_text(errors="replace").strip().splitlines()
        last = said[-1] if said else "without a word"
        raise LinkError("the simulator ended at once", f"exit status {code}: {last}", "free ports, good parameters")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
