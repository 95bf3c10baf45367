"""From what a match looks like to the chance that it is right, and to a covariance that holds.

Both are calibrated on ground that the network never saw (`pilotage calibrate`) and ride beside the model file as
NAME.confidence.json. The chance is a logistic function of a handful of figures; there is one for a search of the
whole map, where rivals speak, and one for a search round a prediction.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onboard.errors import EngineError

WHOLE = ("coarse", "margin", "z", "agree", "votes", "fine", "fine_margin", "gradient", "grey", "seen")
LOCAL = ("coarse", "agree", "votes", "fine", "gradient", "grey", "seen")


@dataclass(frozen=True)
class Logistic:
    """p = 1 / (1 + exp(-(bias + sum weight * figure)))."""

    bias: float
    weights: Mapping[str, float]

    def logit(self, evidence: Mapping[str, float]) -> float:
        return self.bias + sum(weight * evidence[name] for name, weight in self.weights.items())

    def probability(self, evidence: Mapping[str, float]) -> float:
        return 1.0 / (1.0 + math.exp(-max(-40.0, min(40.0, self.logit(evidence)))))


@dataclass(frozen=True)
class Confidence:
    """`whole` and `local` give the chance of being right. `covariance_scale` multiplies the alignment's own
    covariance, `floor_m` (1 sigma) is added for what it cannot see: the map's own error, relief. `unlike_m` (1 sigma)
    comes on top where view and map have no gradients in common, and less the more alike they are: crowns of trees,
    shadows and snow match, but not where they are.
    `tilt_sigma_deg` is the attitude error that moves the point below the vehicle by height times it."""

    whole: Logistic
    local: Logistic
    covariance_scale: float
    floor_m: float
    tilt_sigma_deg: float
    source: str
    unlike_m: float = 0.0

    def covariance(self, alignment_m2: np.ndarray, height_m: float, gradient: float) -> np.ndarray:
        """(2, 2) in m2 of the vehicle's position, east and north; `gradient` is that evidence, -1 to 1."""
        tilt = height_m * math.radians(self.tilt_sigma_deg)
        unlike = self.unlike_m * (1.0 - gradient)
        return alignment_m2 * self.covariance_scale + np.eye(2) * (self.floor_m**2 + tilt**2 + unlike**2)


def read_confidence(model: Path) -> Confidence:
    """The calibration beside a model file. Raises EngineError where there is none, or a broken one."""
    path = confidence_path(model)
    remedy = "make it with: pilotage calibrate confidence"
    if not path.is_file():
        raise EngineError("no calibration beside the model", path, "NAME.confidence.json", remedy)
    try:
        text = json.loads(path.read_text())
        logistics = {
            name: Logistic(float(text[name]["bias"]), {k: float(v) for k, v in text[name]["weights"].items()})
            for name in ("whole", "local")
        }
        if not set(logistics["whole"].weights) <= set(WHOLE) or not set(logistics["local"].weights) <= set(LOCAL):
            raise ValueError("figures unknown to this version")
        numbers = {k: float(text[k]) for k in ("covariance_scale", "floor_m", "tilt_sigma_deg")}
        unlike_m = float(text.get("unlike_m", 0.0))  # calibrations of before knew none
        return Confidence(
            logistics["whole"], logistics["local"], **numbers, source=str(text["source"]), unlike_m=unlike_m
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError("unreadable calibration", f"{path} ({error!r})", "its JSON", remedy) from error


def confidence_path(model: Path) -> Path:
    """overhead.int8.onnx and overhead.onnx share overhead.confidence.json."""
    return model.with_name(model.name.split(".")[0] + ".confidence.json")
