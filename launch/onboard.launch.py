"""On the aircraft: a camera, the node, and the way to the flight controller.

    ros2 launch pilotage_bringup onboard.launch.py map:=/var/lib/pilotage/map camera:=gscam autopilot:=ardupilot

`--show-args` describes every argument.
"""

import math
import os
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, SetLaunchConfiguration
from launch.launch_description_sources import AnyLaunchDescriptionSource, PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

CAMERAS = ("none", "v4l2", "gscam", "realsense")
# Argus gives NV12 in the camera's own memory; appsink wants it outside and as RGB. The newest image wins here already.
ARGUS = (
    "nvarguscamerasrc sensor-id={sensor_id} ! video/x-raw(memory:NVMM),width={width},height={height},"
    "framerate={rate_hz}/1 ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=RGB"
)
MAVROS_LAUNCH = {"ardupilot": "apm.launch", "auto": "apm.launch", "px4": "px4.launch"}

ARGUMENTS = (
    DeclareLaunchArgument("map", description="Folder of the region map (`pilotage map build`)."),
    DeclareLaunchArgument(
        "camera",
        default_value="none",
        choices=CAMERAS,
        description="Driver to start: v4l2 (v4l2_camera, USB), gscam (GStreamer; CSI by Argus), realsense, or none:"
        " another program publishes the images.",
    ),
    DeclareLaunchArgument("device", default_value="/dev/video0", description="Of the camera, with camera:=v4l2."),
    DeclareLaunchArgument("sensor_id", default_value="0", description="CSI port, with camera:=gscam."),
    DeclareLaunchArgument(
        "pipeline", default_value="", description="GStreamer source of your own, with camera:=gscam; empty: Argus."
    ),
    DeclareLaunchArgument("width", default_value="1280", description="Of the image in pixels, as calibrated."),
    DeclareLaunchArgument("height", default_value="720", description="Of the image in pixels, as calibrated."),
    DeclareLaunchArgument("rate_hz", default_value="10", description="Images a second, with gscam or realsense."),
    DeclareLaunchArgument(
        "camera_info_url", default_value="", description="Calibration for the driver: file:///etc/pilotage/camera.yaml."
    ),
    DeclareLaunchArgument(
        "mount",
        default_value="",
        description="How the camera is mounted: down, or ROLL,PITCH,YAW in degrees from there (pitch 30 looks 30"
        " degrees ahead), as a static transform; gimbal: on one that tells its attitude by MAVLink (link:=direct);"
        " empty: somebody else publishes it, else down is assumed.",
    ),
    DeclareLaunchArgument(
        "watchdog",
        default_value="auto",
        choices=("auto", "true", "false"),
        description="Tell systemd that the node is active; auto: where systemd asks for it.",
    ),
)  # fmt: skip


def camera_frame(camera: str) -> str:
    """What a mount is told of: the optical frame; of a RealSense, whose driver tells the rest, its link."""
    return "camera_link" if camera == "realsense" else "camera_optical"


def mount_quaternion(text: str, camera: str) -> tuple[float, float, float, float]:
    """x, y, z, w: base_link (forward, left, up) from the camera's frame, for the words of `pilotage fly --mount`."""
    try:
        roll, pitch, yaw = (
            (0.0, 0.0, 0.0) if text == "down" else (math.radians(float(part)) for part in text.split(","))
        )
    except ValueError:
        raise RuntimeError(f"mount: {text}; expected down, gimbal, or ROLL,PITCH,YAW in degrees") from None
    turned = _multiply(_multiply(_about(2, yaw), _about(1, pitch)), _about(0, roll))  # of forward, right, down
    flu_from_frd = (1.0, 0.0, 0.0, 0.0)  # half a turn about x
    half = math.sqrt(0.5)
    frd_from_optical = (0.0, 0.0, half, half)  # the image's right is the vehicle's right, its top forward
    optical_from_link = (0.5, -0.5, 0.5, 0.5)  # x ahead, y left, z up of a link that looks along its x
    whole = _multiply(_multiply(flu_from_frd, turned), frd_from_optical)
    return _multiply(whole, optical_from_link) if camera == "realsense" else whole


def _about(axis: int, angle: float) -> tuple[float, ...]:
    return (*(math.sin(angle / 2) if i == axis else 0.0 for i in range(3)), math.cos(angle / 2))


def _multiply(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, float, float, float]:
    (ax, ay, az, aw), (bx, by, bz, bw) = a, b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def needs(package: str, argument: str) -> Path:
    """The share folder of a package that is looked for only when it is asked for. RuntimeError with the remedy."""
    try:
        return Path(get_package_share_directory(package))
    except PackageNotFoundError:
        apt = f"ros-{os.environ.get('ROS_DISTRO', 'DISTRO')}-{package.replace('_', '-')}"
        raise RuntimeError(f"{argument} needs the package {package}; sudo apt install {apt}") from None


def make_camera(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    told = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in ARGUMENTS}
    camera, url = told["camera"], told["camera_info_url"]
    calibration = {"camera_info_url": url} if url else {}
    size = [int(told["width"]), int(told["height"])]
    if camera == "v4l2":
        needs("v4l2_camera", "camera:=v4l2")
        parameters = {"video_device": told["device"], "image_size": size, "camera_frame_id": camera_frame(camera)}
        driver = _driver(context, "v4l2_camera", "v4l2_camera_node", parameters | calibration, {})
    elif camera == "gscam":
        needs("gscam", "camera:=gscam")
        parameters = {
            "gscam_config": told["pipeline"] or ARGUS.format(**told),
            "camera_name": "camera",
            "frame_id": camera_frame(camera),
            "image_encoding": "rgb8",
            "use_gst_timestamps": True,  # of capture; else the stamp is of arrival
            "sync_sink": False,
        }
        topics = {"camera/image_raw": "image_raw", "camera/camera_info": "camera_info"}
        driver = _driver(context, "gscam", "gscam_node", parameters | calibration, topics)
    elif camera == "realsense":
        needs("realsense2_camera", "camera:=realsense")
        profile = f"{size[0]},{size[1]},{told['rate_hz']}"
        parameters = {"enable_depth": False, "rgb_camera.color_profile": profile}
        topics = {"~/color/image_raw": "image_raw", "~/color/camera_info": "camera_info"}
        driver = _driver(context, "realsense2_camera", "realsense2_camera_node", parameters, topics)
    else:
        return _mount(told["mount"], camera)
    named = context.launch_configurations.get("image_topic", "")
    return [driver, SetLaunchConfiguration("image_topic", named or "image_raw"), *_mount(told["mount"], camera)]


def _driver(
    context: LaunchContext, package: str, executable: str, parameters: dict[str, object], topics: dict[str, str]
) -> Node:
    return Node(
        package=package,
        executable=executable,
        name="camera",
        namespace=context.launch_configurations.get("namespace", ""),
        parameters=[parameters],
        remappings=list(topics.items()),
        respawn=True,
        respawn_delay=2.0,
        output="screen",
    )


def _mount(text: str, camera: str) -> list[LaunchDescriptionEntity]:
    if text in ("", "gimbal"):
        return []
    needs("tf2_ros", f"mount:={text}")
    x, y, z, w = (f"{value:.9f}" for value in mount_quaternion(text, camera))
    frames = ["--frame-id", "base_link", "--child-frame-id", camera_frame(camera)]
    arguments = ["--qx", x, "--qy", y, "--qz", z, "--qw", w, *frames]
    return [Node(package="tf2_ros", executable="static_transform_publisher", name="mount", arguments=arguments)]


def make_mavros(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Before the node: what is missing is said before anything has started."""
    told = context.launch_configurations
    if told.get("link") != "mavros":
        return []
    file = MAVROS_LAUNCH[told.get("autopilot", "auto")]
    source = AnyLaunchDescriptionSource(str(needs("mavros", "link:=mavros") / "launch" / file))
    address = {"fcu_url": told["address"]}.items() if "address" in told else ()  # else MAVROS's own default
    return [IncludeLaunchDescription(source, launch_arguments=address)]


def make_watchdog(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    wanted = LaunchConfiguration("watchdog").perform(context)
    if wanted == "false" or (wanted == "auto" and "NOTIFY_SOCKET" not in os.environ):
        return []
    return [Node(package="pilotage_bringup", executable="watchdog", output="screen", respawn=True, respawn_delay=1.0)]


def generate_launch_description() -> LaunchDescription:
    node = PythonLaunchDescriptionSource(str(Path(__file__).parent / "node.launch.py"))
    return LaunchDescription(
        [
            *ARGUMENTS,
            OpaqueFunction(function=make_camera),
            OpaqueFunction(function=make_mavros),
            IncludeLaunchDescription(node, launch_arguments={"map": LaunchConfiguration("map")}.items()),
            OpaqueFunction(function=make_watchdog),
        ]
    )
