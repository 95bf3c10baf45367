"""A flight over a place: a smooth path with bank, wind and wobble, and what the instruments make of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onboard.camera import CameraModel
from onboard.frames import BODY_FROM_CAMERA_DOWN, rotation_from_euler
from training.renderer.errors import RenderError
from training.renderer.noise import line
from training.renderer.place import Place

_RATE_HZ = 100  # of the simulated motion; telemetry and frames are taken from its samples
_TELEMETRY_EVERY = 2
_START_NS = 1_760_000_000_000_000_000
_GRAVITY_MPS2 = 9.81
_MAX_BANK_RAD = math.radians(19)


@dataclass(frozen=True, slots=True)
class FlightSettings:
    """How a flight is flown and how well it is measured (all deviations are one sigma)."""

    seconds: float = 200.0
    frames_per_second: float = 2.0
    low_m: float = 62.0
    high_m: float = 145.0
    slow_mps: float = 8.0
    fast_mps: float = 14.5
    wind_mps: float = 3.0
    wobble_deg: float = 2.3
    attitude_noise_deg: float = 0.5
    heading_bias_deg: float = 2.0
    height_noise: float = 0.012
    height_bias: float = 0.02
    velocity_noise_mps: float = 0.3


@dataclass(frozen=True, slots=True)
class Motion:
    """Where a vehicle truly was, or what it told: arrays over N instants.

    `at_ns` (N,) int64; `position_enu_m` (N, 3), height on the place's datum; `ned_from_body` (N, 3, 3);
    `velocity_enu_mps` (N, 3); `height_above_ground_m` (N,), over the bare ground right below.
    """

    at_ns: np.ndarray
    position_enu_m: np.ndarray
    ned_from_body: np.ndarray
    velocity_enu_mps: np.ndarray
    height_above_ground_m: np.ndarray


@dataclass(frozen=True, slots=True)
class Flight:
    """A flight to be filmed: truth at the frames, and telemetry (with its errors, without position) at 50 Hz."""

    camera: CameraModel
    body_from_camera: np.ndarray
    frames: Motion
    telemetry: Motion


def default_camera(width: int = 640, height: int = 480, hfov_deg: float = 70.0) -> CameraModel:
    """A common wide lens with barrel distortion; `hfov_deg` is that of the distorted image, about."""
    k1, k2 = -0.21, 0.05
    edge = math.tan(math.radians(hfov_deg) / 2)
    focal = width / 2 / (edge * (1 + k1 * edge**2 + k2 * edge**4))
    matrix = np.array([[focal, 0, width / 2 - 0.5 + 3.2], [0, focal, height / 2 - 0.5 - 2.1], [0, 0, 1]])
    return CameraModel(width, height, matrix, (k1, k2, 0.0008, -0.0006, 0.0))


def default_mount() -> np.ndarray:
    """body_from_camera (3, 3): straight down but for the degree or two of a real bracket."""
    return rotation_from_euler(math.radians(0.8), math.radians(1.5), math.radians(-0.7)) @ BODY_FROM_CAMERA_DOWN


def plan_flight(place: Place, seed: int, settings: FlightSettings = FlightSettings()) -> Flight:
    """A flight that stays over the place with all it sees. Raises RenderError when the place is too small."""
    rng = np.random.default_rng([seed, 21])
    margin = 1.35 * settings.high_m + 40
    half = np.array(place.size_m) / 2 - margin
    if half.min() < 60:
        found = f"{min(place.size_m):.0f} m"
        raise RenderError(
            "place for a flight", found, f"{2 * (margin + 60):.0f} m or more", "lower high_m or grow the place"
        )
    count = int(settings.seconds * _RATE_HZ) + 1
    path, course, speed, turn_rate = _fly(rng, half, count, settings)
    truth = _attitudes(rng, place, path, course, speed, turn_rate, settings)
    told = _told(rng, _pick(truth, np.arange(0, count, _TELEMETRY_EVERY)), settings)
    step = round(_RATE_HZ / settings.frames_per_second)
    # Cameras do not fire on the autopilot's tick: frames lie between two telemetry samples.
    frames = _pick(truth, np.arange(step // 2 * 2 + 1, count - 2, step))
    return Flight(default_camera(), default_mount(), frames, told)


def _fly(
    rng: np.random.Generator, half_m: np.ndarray, count: int, settings: FlightSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Path (N, 2), course, ground speed, turn rate (N,): from waypoint to waypoint, turning with inertia."""
    dt = 1 / _RATE_HZ
    middle, swing = (settings.fast_mps + settings.slow_mps) / 2, (settings.fast_mps - settings.slow_mps) / 2
    speed = middle + swing * np.tanh(line(rng, count, 22 * _RATE_HZ))
    position = rng.uniform(-0.8, 0.8, 2) * half_m
    target = _waypoint(rng, position, half_m)
    heading = math.atan2(*(target - position))
    rate = 0.0
    path, course, rates = np.zeros((count, 2)), np.zeros(count), np.zeros(count)
    for i in range(count):
        to = target - position
        if math.hypot(*to) < 45:
            target = _waypoint(rng, position, half_m)
            to = target - position
        error = (math.atan2(to[0], to[1]) - heading + math.pi) % (2 * math.pi) - math.pi
        limit = _GRAVITY_MPS2 * math.tan(_MAX_BANK_RAD * 0.8) / speed[i]
        wanted = max(-limit, min(limit, 0.7 * error))
        rate += (wanted - rate) * dt / 0.9
        heading += rate * dt
        position = position + speed[i] * dt * np.array([math.sin(heading), math.cos(heading)])
        path[i], course[i], rates[i] = position, heading, rate
    return path, course, speed, rates


def _waypoint(rng: np.random.Generator, position: np.ndarray, half_m: np.ndarray) -> np.ndarray:
    """A point within the box, far enough for a straight leg."""
    leg = 0.55 * float(half_m.min())
    while True:
        point = rng.uniform(-1, 1, 2) * half_m
        if np.hypot(*(point - position)) > leg:
            return point


def _attitudes(
    rng: np.random.Generator,
    place: Place,
    path: np.ndarray,
    course: np.ndarray,
    speed: np.ndarray,
    turn_rate: np.ndarray,
    settings: FlightSettings,
) -> Motion:
    """Heights over the terrain, bank in turns, crab in the wind, and the wobble of gusts."""
    count, second = len(path), _RATE_HZ
    terrain = place.terrain_height_m(path)
    climbs = line(rng, count, 85 * second)
    climbs = (climbs - climbs.mean()) / climbs.std()  # every flight goes low and high, however short
    share = 0.5 + 0.5 * np.tanh(climbs)
    wanted = _smooth(terrain, 20 * second) + settings.low_m + (settings.high_m - settings.low_m) * share
    height = np.clip(_smooth(wanted, 4 * second), terrain + settings.low_m * 0.97, terrain + settings.high_m * 1.03)
    height = _smooth(height, 4 * second)
    velocity = np.column_stack([speed * np.sin(course), speed * np.cos(course), np.gradient(height) * second])
    wind_to = rng.uniform(0, 2 * math.pi)
    gust = settings.wind_mps * (1 + 0.15 * line(rng, count, 15 * second))
    air = velocity[:, :2] - gust[:, None] * np.array([math.sin(wind_to), math.cos(wind_to)])
    wobble = np.radians(settings.wobble_deg)
    roll = np.arctan(speed * turn_rate / _GRAVITY_MPS2) + wobble * line(rng, count, 2.2 * second)
    pitch = -np.gradient(speed) * second / _GRAVITY_MPS2 - np.radians(1.0) + wobble * line(rng, count, 2.6 * second)
    yaw = np.arctan2(air[:, 0], air[:, 1]) + 0.5 * wobble * line(rng, count, 3 * second)
    rotations = np.array([rotation_from_euler(*angles) for angles in zip(roll, pitch, yaw, strict=True)])
    at_ns = _START_NS + np.arange(count, dtype=np.int64) * (1_000_000_000 // second)
    return Motion(at_ns, np.column_stack([path, height]), rotations, velocity, height - terrain)


def _told(rng: np.random.Generator, truth: Motion, settings: FlightSettings) -> Motion:
    """Telemetry of a truth: attitude with noise and a drifting heading, height and velocity with noise and bias."""
    count, second = len(truth.at_ns), _RATE_HZ // _TELEMETRY_EVERY
    noise = np.radians(settings.attitude_noise_deg)
    tilts = [0.8 * noise * line(rng, count, 6 * second) + 0.6 * noise * rng.standard_normal(count) for _ in range(2)]
    drift = np.radians(settings.heading_bias_deg) * line(rng, count, 60 * second).clip(-1.5, 1.5)
    turned = drift + 0.5 * noise * rng.standard_normal(count)
    errors = np.array([rotation_from_euler(r, p, 0.0) for r, p in zip(*tilts, strict=True)])
    turns = np.array([rotation_from_euler(0.0, 0.0, y) for y in turned])
    bias = 1 + settings.height_bias * rng.uniform(-1, 1)
    factor = bias + settings.height_noise * (0.8 * line(rng, count, 5 * second) + 0.6 * rng.standard_normal(count))
    sway = np.column_stack([0.8 * line(rng, count, 8 * second) + 0.6 * rng.standard_normal(count) for _ in range(3)])
    return Motion(
        truth.at_ns,
        np.full_like(truth.position_enu_m, np.nan),  # no position is ever told
        turns @ truth.ned_from_body @ errors,
        truth.velocity_enu_mps + settings.velocity_noise_mps * sway,
        truth.height_above_ground_m * factor,
    )


def _pick(motion: Motion, index: np.ndarray) -> Motion:
    return Motion(
        motion.at_ns[index],
        motion.position_enu_m[index],
        motion.ned_from_body[index],
        motion.velocity_enu_mps[index],
        motion.height_above_ground_m[index],
    )


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Gaussian mean over about `window` samples; the ends are held."""
    sigma = window / 2.5
    reach = int(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.convolve(np.pad(values, reach, mode="edge"), kernel / kernel.sum(), "valid")
