"""What of the vehicle's own velocity the tracker believes.

A velocity that comes from a flight controller is no independent measurement once that controller fuses our fixes: an
error of its estimator comes back to us as a measurement, is averaged with the fixes, and is told to it again. Its
change from frame to frame knows the manoeuvres, which is worth much; but it also holds what gravity does to an
estimator whose attitude is wrong, and the same wrong attitude moves the fix, at 100 m of height by 1.7 m a degree, to
the very side that the estimator drifts to. So changes enter with an acceleration noise large enough that the fixes
decide within a second or two. Only where no fix comes is the vehicle's own motion all there is: its velocity once, then
its changes with the small noise that they have of themselves.

Where the IMU is heard, none of this is needed: its accelerations know nothing of our fixes, and the attitude's error is
estimated with the position (`onboard.track.inertial`).
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from onboard.config import Config
from onboard.errors import ConfigError

AUTO = "auto"


class VelocityUse(str, Enum):
    """`TrackConfig.velocity_use`."""

    MEASURED = "measured"  # the velocity itself, with `velocity_noise_mps`: recorded flights, sensors of their own
    INCREMENT = "increment"  # its change, as an input
    INERTIAL = "inertial"  # what its IMU felt instead, the lean of its attitude found (`inertial`); else its change
    NONE = "none"  # nothing; what the fixes say


def velocity_use(name: str) -> VelocityUse:
    """The use of a name that a user gave, `MEASURED` for "auto". ConfigError with the names that there are."""
    if name == AUTO:
        return VelocityUse.MEASURED
    try:
        return VelocityUse(name)
    except ValueError as error:
        raise ConfigError("track.velocity_use", name, "one of " + ", ".join((AUTO, *VelocityUse))) from error


def when_live(config: Config) -> Config:
    """The config of a program whose vehicle flies on what it is told: "auto" is `INERTIAL` there."""
    if config.track.velocity_use != AUTO:
        return config
    return replace(config, track=replace(config.track, velocity_use=VelocityUse.INERTIAL.value))
