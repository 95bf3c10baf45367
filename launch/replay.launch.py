"""At the desk: a bag is played to the node, by the bag's own clock, and looked at in RViz or Foxglove.

    ros2 launch pilotage_bringup replay.launch.py bag:=flight/ map:=region/ view:=rviz

For figures use `pilotage replay BAG --map MAP`: it is faster, and needs no ROS. `--show-args` describes every argument.
"""

import os
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetLaunchConfiguration,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.event_handlers import OnStateTransition

SHARE = next(path for path in (Path(__file__).parent, Path(__file__).parents[1]) if (path / "rviz").is_dir())
LAST_FRAMES_S = 3.0  # what the node is given when the bag has ended

ARGUMENTS = (
    DeclareLaunchArgument("map", description="Folder of the region map (`pilotage map build`)."),
    DeclareLaunchArgument("bag", description="A rosbag2 folder, an MCAP or a db3 file."),
    DeclareLaunchArgument("rate", default_value="1.0", description="How fast the bag is played."),
    DeclareLaunchArgument(
        "start_offset_s",
        default_value="0.0",
        description="Seconds of the bag to leave out, static transforms in them included.",
    ),
    DeclareLaunchArgument(
        "loop", default_value="false", choices=("true", "false"), description="Again from the start."
    ),
    DeclareLaunchArgument(
        "view",
        default_value="none",
        choices=("none", "rviz", "foxglove"),
        description="Look at it in RViz, or by the Foxglove bridge at ws://localhost:8765 with foxglove/pilotage.json.",
    ),
    DeclareLaunchArgument(
        "stay", default_value="false", choices=("true", "false"), description="Go on when the bag has ended."
    ),
)


def needs(package: str, argument: str) -> str:
    """Looked for only when it is asked for. RuntimeError with the remedy."""
    try:
        get_package_share_directory(package)
    except PackageNotFoundError:
        apt = f"ros-{os.environ.get('ROS_DISTRO', 'DISTRO')}-{package.replace('_', '-')}"
        raise RuntimeError(f"{argument} needs the package {package}; sudo apt install {apt}") from None
    return package


def make_player(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """`ros2 bag play`, begun when the node is active: what is played before would be lost."""
    told = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in ARGUMENTS}
    needs("ros2bag", "replay")
    bag = Path(told["bag"]).expanduser()
    if not bag.exists():
        raise RuntimeError(f"bag: {bag}; expected a rosbag2 folder, an MCAP or a db3 file")
    command = ["ros2", "bag", "play", str(bag), "--clock", "100", "--rate", told["rate"], "--disable-keyboard-controls"]
    command += ["--qos-profile-overrides-path", str(SHARE / "config" / "playback_qos.yaml")]
    command += ["--start-offset", told["start_offset_s"]] if float(told["start_offset_s"]) > 0 else []
    command += ["--loop"] if told["loop"] == "true" else []
    player = ExecuteProcess(cmd=command, name="player", output="screen")
    begun = False

    def begin(_: LaunchContext) -> list[LaunchDescriptionEntity]:
        nonlocal begun  # a node that was started again becomes active once more; the bag goes on meanwhile
        first, begun = not begun, True
        return [player] if first else []

    end = [TimerAction(period=LAST_FRAMES_S, actions=[EmitEvent(event=Shutdown(reason="the bag has ended"))])]
    active = OnStateTransition(goal_state="active", entities=[OpaqueFunction(function=begin)])
    handlers = [RegisterEventHandler(active)]
    for start, goal in (("configuring", "unconfigured"), ("activating", "inactive")):  # it has said why
        failed = EmitEvent(event=Shutdown(reason=f"the node stays {goal}: there is nothing to play the bag to"))
        handlers.append(RegisterEventHandler(OnStateTransition(start_state=start, goal_state=goal, entities=[failed])))
    if told["stay"] == "false":
        handlers.append(RegisterEventHandler(OnProcessExit(target_action=player, on_exit=end)))
    return handlers


def make_view(context: LaunchContext) -> list[Node]:
    view = LaunchConfiguration("view").perform(context)
    clock = {"use_sim_time": True}
    if view == "rviz":
        arguments = ["-d", str(SHARE / "rviz" / "pilotage.rviz")]
        return [Node(package=needs("rviz2", "view:=rviz"), executable="rviz2", arguments=arguments, parameters=[clock])]
    if view == "foxglove":
        return [
            Node(package=needs("foxglove_bridge", "view:=foxglove"), executable="foxglove_bridge", parameters=[clock])
        ]
    return []


def generate_launch_description() -> LaunchDescription:
    node = PythonLaunchDescriptionSource(str(Path(__file__).parent / "node.launch.py"))
    fixed = {"replay": "true", "link": "none", "telemetry": "topics", "respawn": "false"}
    return LaunchDescription(
        [
            *ARGUMENTS,
            OpaqueFunction(function=make_player),
            OpaqueFunction(function=make_view),
            *(SetLaunchConfiguration(name, value) for name, value in fixed.items()),
            IncludeLaunchDescription(node, launch_arguments={"map": LaunchConfiguration("map")}.items()),
        ]
    )
