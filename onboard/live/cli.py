"""`pilotage fly`: find the aircraft by its camera and tell its flight controller, live and without ROS."""

from __future__ import annotations

import dataclasses
import math
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onboard import __version__
from onboard.config import Config, load_config, merge
from onboard.errors import ConfigError

GIMBAL = "gimbal"  # of --mount

if TYPE_CHECKING:
    import numpy as np

    from onboard.camera import CameraModel
    from onboard.engine import Engine
    from onboard.live.recorder import Recorder
    from onboard.region import RegionMap


def fly(
    camera: Annotated[
        str, typer.Option(help="/dev/videoN, gstreamer:PIPELINE, rtsp://..., or file:PATH on the bench.")
    ],
    camera_model: Annotated[Path, typer.Option(help="The calibrated camera.yaml.")],
    map_path: Annotated[Path, typer.Option("--map", help="A region map made by `pilotage map build`.")],
    mavlink: Annotated[str, typer.Option(help="The flight controller, e.g. /dev/ttyTHS1:921600, udpin:0.0.0.0:14550.")],
    mount: Annotated[
        str,
        typer.Option(
            help="down, or ROLL,PITCH,YAW in degrees from there: pitch 30 looks 30 degrees ahead. gimbal: on one that "
            "tells its attitude by MAVLink, looking where it points."
        ),
    ] = "down",
    start: Annotated[
        str | None, typer.Option(help="LAT,LON in degrees, where the flight begins; the home of a vehicle without one.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of the settings to change.")] = None,
    model: Annotated[Path | None, typer.Option(help="Model file instead of the shipped one.")] = None,
    profile: Annotated[str | None, typer.Option(help="Messages to send; auto asks the vehicle what it is.")] = None,
    signing_key: Annotated[Path | None, typer.Option(help="Key file of MAVLink 2 signing.")] = None,
    camera_rate_hz: Annotated[float, typer.Option(help="Images a second to take at most.")] = 10.0,
    camera_delay_ms: Annotated[
        float, typer.Option(help="Exposure to arrival, for cameras whose driver tells no time.")
    ] = 0.0,
    record: Annotated[Path | None, typer.Option(help="New folder for a log that `pilotage replay` reads.")] = None,
    record_every: Annotated[int, typer.Option(help="Record each N-th frame only.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON a second instead of the table.")] = False,
) -> None:
    """Fly: fixes from a camera and a region map go to the flight controller, until Ctrl-C or SIGTERM."""
    from onboard.camera import CameraModel
    from onboard.engine import open_engine
    from onboard.live.camera import Camera
    from onboard.live.clock import SteadyClock
    from onboard.live.fly import Flyer
    from onboard.live.sources import CameraOptions
    from onboard.live.summary import in_words
    from onboard.live.supervise import StopOnSignal
    from onboard.localizer import Localizer
    from onboard.match.evidence import read_confidence
    from onboard.mavlink.companion import Companion
    from onboard.region import RegionMap
    from onboard.replay.start import parse_start, start_on_map
    from onboard.track.velocity import when_live

    settings = on_mount(when_live(with_link(load_config(config), profile, signing_key)), mount)
    lens, body_from_camera = CameraModel.from_yaml(camera_model), parse_mount(mount)
    _check(camera_rate_hz, camera_delay_ms, record_every)
    start_deg = parse_start(start)
    clock = SteadyClock()
    with ExitStack() as stack:
        stop = stack.enter_context(StopOnSignal()).event
        engine = open_engine(model, settings.engine)
        stack.callback(engine.close)
        region = RegionMap.open(map_path, engine.facts)
        confidence = read_confidence(_model_path(model))
        start_enu_m = start_on_map(start_deg, region)
        localizer = Localizer(engine, region, lens, body_from_camera, confidence, settings, start_enu_m)
        companion = Companion(stack.enter_context(open_connection(mavlink, settings)), settings, region.frame)
        recorder = None
        if record is not None:
            facts = _facts(engine, region, camera, start)
            recorder = stack.enter_context(
                _recorder(record, lens, body_from_camera, region, settings, facts, record_every)
            )
        flyer = Flyer(localizer.step, companion, region.frame, clock, settings, recorder)
        eye = Camera(CameraOptions(camera, camera_rate_hz, camera_delay_ms), lens, flyer.take_frame, clock)
        with _view(json) as view:
            status = flyer.run(eye, stop, view.show)
    words = in_words(status)
    if recorder is not None:
        words.append(recorder.in_words())
    for line in words:
        print(line, file=sys.stderr if json else sys.stdout)


def with_link(settings: Config, profile: str | None, signing_key: Path | None) -> Config:
    """The settings with what the command line says of the link."""
    told: dict[str, Any] = {}
    if profile is not None:
        told["profile"] = profile
    if signing_key is not None:
        told["signing_key_file"] = str(signing_key)
    return merge(settings, {"link": told})


def on_mount(settings: Config, mount: str) -> Config:
    """The settings with what --mount says of a gimbal. ConfigError where the file has one and --mount has none."""
    if settings.rectify.on_gimbal and mount != GIMBAL:
        raise ConfigError("--mount", repr(mount), f"{GIMBAL}, as the config's rectify.on_gimbal says")
    return merge(settings, {"rectify": {"on_gimbal": mount == GIMBAL}})


def parse_mount(text: str) -> np.ndarray:
    """body_from_camera (3, 3) of "down" or of "ROLL,PITCH,YAW", degrees that turn the camera from there; of "gimbal"
    gimbal_from_camera.

    The turns are about the body's own axes (forward, right, down), yaw last: pitch 30 looks 30 degrees ahead of
    straight down, yaw 90 has the top of the image to the right. ConfigError for anything else.
    """
    from onboard.frames import BODY_FROM_CAMERA_DOWN, GIMBAL_FROM_CAMERA, rotation_from_euler

    if text == "down":
        return BODY_FROM_CAMERA_DOWN
    if text == GIMBAL:
        return GIMBAL_FROM_CAMERA
    try:
        roll, pitch, yaw = (math.radians(float(part)) for part in text.split(","))
    except ValueError as error:
        raise ConfigError("--mount", repr(text), "down, gimbal, or ROLL,PITCH,YAW in degrees") from error
    if not math.isfinite(roll + pitch + yaw):
        raise ConfigError("--mount", repr(text), "finite degrees")
    return rotation_from_euler(roll, pitch, yaw) @ BODY_FROM_CAMERA_DOWN


def open_connection(address: str, settings: Config) -> Any:
    """The two-way connection to the vehicle that the settings name."""
    from onboard.mavlink.wire.connection import Connection
    from onboard.mavlink.wire.signing import SigningKey

    key = SigningKey.load(settings.link.signing_key_file) if settings.link.signing_key_file else None
    return Connection.open(address, vehicle_system=settings.link.system_id, signing=key)


def _check(camera_rate_hz: float, camera_delay_ms: float, record_every: int) -> None:
    for name, value, least, most in (
        ("--camera-rate-hz", camera_rate_hz, 0.1, 1000.0),
        ("--camera-delay-ms", camera_delay_ms, 0.0, 10_000.0),
        ("--record-every", record_every, 1, 1_000_000),
    ):
        if not least <= value <= most:
            raise ConfigError(name, value, f"{least:g} to {most:g}")


def _model_path(model: Path | None) -> Path:
    from onboard.engine import SHIPPED_MODEL

    return SHIPPED_MODEL if model is None else model


def _facts(engine: Engine, region: RegionMap, camera: str, start: str | None) -> dict[str, Any]:
    """What a replay of the recording must be given, and what flew."""
    return {
        "pilotage": __version__,
        "model": {"name": engine.facts.name, "sha256": engine.facts.sha256},
        "engine": engine.backend,
        "map": {"name": region.name, "sha256": region.sha256},
        "camera": camera.split(":")[0],  # an address may hold a password
        "start": start,
        "replay": "pilotage replay DIR --map MAP --config DIR/config.yaml --out OUT"
        + ("" if start is None else f" --start {start}"),
    }


def _recorder(
    folder: Path,
    lens: CameraModel,
    body_from_camera: np.ndarray,
    region: RegionMap,
    settings: Config,
    facts: dict[str, Any],
    every: int,
) -> Recorder:
    from onboard.live.recorder import Recorder

    # The key file is this aircraft's secret place and nothing to a replay.
    told = dataclasses.replace(settings, link=dataclasses.replace(settings.link, signing_key_file=""))
    return Recorder(folder, lens, body_from_camera, region.frame, config=told, facts=facts, every=every)


def _view(json: bool) -> Any:
    from rich.console import Console

    from onboard.live.display import JsonLines, Screen

    return JsonLines(sys.stdout) if json else Screen(Console())
