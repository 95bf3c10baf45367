"""The node `pilotage` alone: parameters by board and autopilot, active by itself, started again when it ends.

Included by onboard.launch.py and replay.launch.py. Nothing of Pilotage is imported here: `ros2 launch` runs in the
system's Python, the node in that of its environment.
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

# Beside this file in the source, one folder up where it is installed.
CONFIG = next(
    path for path in (Path(__file__).parent / "config", Path(__file__).parents[1] / "config") if path.is_dir()
)
BOARDS = ("auto", "orin_nano", "orin_nx", "orin_agx", "other")
AUTOPILOTS = ("auto", "ardupilot", "px4")
LINKS = ("direct", "mavros", "none")
SWITCH = ("true", "false")
BOARD_MODEL = Path("/proc/device-tree/model")
# What the node subscribes to under its own, relative names.
TOPICS = ("image", "camera_info", "attitude", "height", "velocity", "gps")
# What MAVROS says of the vehicle, where `link:=mavros` and the topic was not named otherwise.
MAVROS_TOPICS = {
    "attitude": "mavros/imu/data",
    "height": "mavros/altitude",
    "velocity": "mavros/local_position/velocity_local",
    "gps": "mavros/global_position/global",
}

ARGUMENTS = (
    DeclareLaunchArgument("map", description="Folder of the region map (`pilotage map build`)."),
    DeclareLaunchArgument("model", default_value="", description="Model file; empty: the shipped one."),
    DeclareLaunchArgument(
        "start", default_value="", description="LAT,LON in degrees, roughly where the flight begins; empty: anywhere."
    ),
    DeclareLaunchArgument(
        "camera_info_file",
        default_value="",
        description="Calibration YAML of camera_calibration; empty: topic camera_info is waited for.",
    ),
    DeclareLaunchArgument(
        "board", default_value="auto", choices=BOARDS, description="Whose parameters; auto: what the device tree says."
    ),
    DeclareLaunchArgument(
        "autopilot",
        default_value="auto",
        choices=AUTOPILOTS,
        description="Whose parameters; auto: none, the direct link asks the vehicle what it is.",
    ),
    DeclareLaunchArgument(
        "link",
        default_value="direct",
        choices=LINKS,
        description="How the flight controller is told: direct (MAVLink of our own), mavros, or none.",
    ),
    DeclareLaunchArgument(
        "address",
        default_value="/dev/ttyTHS1:921600",
        description="Of the flight controller: /dev/ttyX:BAUD, udpin:HOST:PORT, udpout:..., tcp:...; a MAVROS URL with"
        " link:=mavros.",
    ),
    DeclareLaunchArgument(
        "telemetry",
        default_value="auto",
        choices=("auto", "mavlink", "topics"),
        description="Where attitude, height and velocity come from; auto: the direct link if any, else topics.",
    ),
    DeclareLaunchArgument(
        "simulation",
        default_value="false",
        choices=SWITCH,
        description="A simulator's clock (topic /clock) and config/simulation.yaml.",
    ),
    DeclareLaunchArgument(
        "replay",
        default_value="false",
        choices=SWITCH,
        description="A bag's clock (topic /clock) and config/replay.yaml.",
    ),
    DeclareLaunchArgument(
        "every_frame", default_value="false", choices=SWITCH, description="Every frame, not only the newest, as replay."
    ),
    DeclareLaunchArgument(
        "params_file", default_value="", description="Your own ROS parameter YAML, over those of board and autopilot."
    ),
    DeclareLaunchArgument(
        "autostart", default_value="true", choices=SWITCH, description="Configure and activate the node when it starts."
    ),
    DeclareLaunchArgument(
        "respawn", default_value="true", choices=SWITCH, description="Start the node again two seconds after it ended."
    ),
    DeclareLaunchArgument("namespace", default_value="", description="Of the node and of its relative topics."),
    DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn or error."),
    *(
        DeclareLaunchArgument(f"{topic}_topic", default_value="", description=f"Topic of part {topic}; empty: {topic}"
                              + (f", or {MAVROS_TOPICS[topic]} with link:=mavros." if topic in MAVROS_TOPICS else "."))
        for topic in TOPICS
    ),
)  # fmt: skip


def board_of(model: str) -> str:
    """The name among BOARDS of what the device tree calls the machine, for instance "NVIDIA Jetson Orin Nano ..."."""
    words = model.lower()
    if "orin" not in words:
        return "other"
    return next((f"orin_{kind}" for kind in ("nano", "nx", "agx") if kind in words.split()), "other")


def parameter_files(board: str, autopilot: str, simulation: bool, replay: bool, own: str) -> list[Path]:
    """Later ones win."""
    if board == "auto":
        board = board_of(BOARD_MODEL.read_text(errors="replace").strip("\0")) if BOARD_MODEL.is_file() else "other"
    files = [CONFIG / "board" / f"{board}.yaml", CONFIG / "autopilot" / f"{autopilot}.yaml"]
    files = [path for path in files if path.stem not in ("other", "auto")]
    files += [CONFIG / f"{name}.yaml" for name, wanted in (("simulation", simulation), ("replay", replay)) if wanted]
    if own:
        if not Path(own).is_file():
            raise RuntimeError(f"params_file: {own}; expected a ROS parameter YAML; leave it out for the defaults")
        files.append(Path(own))
    return files


def parameters_of(told: dict[str, str]) -> dict[str, object]:
    """The parameters that arguments stand for, by the values of the launch configurations."""
    link, telemetry = told["link"], told["telemetry"]
    if telemetry == "auto":
        telemetry = "mavlink" if link == "direct" else "topics"
    if telemetry == "mavlink" and link != "direct":
        raise RuntimeError(f"telemetry:=mavlink with link:={link}; expected link:=direct, or telemetry:=topics")
    parameters: dict[str, object] = {
        "map": str(Path(told["map"]).expanduser()),
        "autostart": told["autostart"] == "true",
        "every_frame": told["every_frame"] == "true",
        "telemetry": telemetry,
        "mavlink": told["address"] if link == "direct" else "",
        "mavros": link == "mavros",
    }
    if told.get("mount") == "gimbal":  # of onboard.launch.py
        parameters["rectify.on_gimbal"] = True
    return parameters | {name: told[name] for name in ("model", "start", "camera_info_file") if told[name]}


def remappings_of(told: dict[str, str]) -> list[tuple[str, str]]:
    by_default = MAVROS_TOPICS if told["link"] == "mavros" else {}
    named = {topic: told[f"{topic}_topic"] or by_default.get(topic, "") for topic in TOPICS}
    return [(topic, name) for topic, name in named.items() if name]


def make_node(context: LaunchContext) -> list[LifecycleNode]:
    """The node configures and activates itself (its parameter autostart).

    Not by change_state calls from here: after a crash the dead node's service is still seen for seconds, a call to it
    is never answered, and the node that was started again would stay unconfigured.
    """
    told = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in ARGUMENTS}
    told["mount"] = context.launch_configurations.get("mount", "")
    switches = (told["simulation"] == "true", told["replay"] == "true")
    files = parameter_files(told["board"], told["autopilot"], *switches, told["params_file"])
    # A text stays one: launch would take a map named 2024 for a number.
    values = {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in parameters_of(told).items()
    }
    node = LifecycleNode(
        package="pilotage_ros",
        executable="pilotage",
        name="pilotage",
        namespace=told["namespace"],
        parameters=[*map(str, files), values],
        remappings=remappings_of(told),
        arguments=["--ros-args", "--log-level", f"pilotage:={told['log_level']}"],
        respawn=told["respawn"] == "true",
        respawn_delay=2.0,
        output="screen",
    )
    return [node]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=make_node)])
