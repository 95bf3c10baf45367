"""The localizer flown over the toy world, and what is asked of its steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import toy_world
from toy_world import Moment

from onboard.config import Config, SearchConfig
from onboard.engine import Engine
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.localizer import Localizer
from onboard.match.evidence import Confidence
from onboard.records import Reason, Step, Telemetry
from onboard.region import RegionMap

# Toy telemetry errs by 1 degree and 2 %: one hypothesis will do where the search itself is not what is tested.
QUICK = Config(search=SearchConfig(heading_error_deg=2.0, height_error=0.03))


def fly(
    engine: Engine,
    region: RegionMap,
    moments: Sequence[Moment],
    confidence: Confidence = toy_world.HAND_CONFIDENCE,
    config: Config = QUICK,
    start_enu_m: np.ndarray | None = None,
    independent: bool = False,
) -> list[Step]:
    localizer = Localizer(
        engine, region, toy_world.toy_camera(), BODY_FROM_CAMERA_DOWN, confidence, config, start_enu_m, independent
    )
    return [localizer.step(m.frame, m.telemetry, m.frame.captured_at_ns, m.frame.source) for m in moments]


def errors_m(steps: Sequence[Step], moments: Sequence[Moment]) -> np.ndarray:
    """Errors of what was published."""
    return np.array(
        [
            np.linalg.norm(s.estimate.position_enu_m - m.position_enu_m)
            for s, m in zip(steps, moments, strict=True)
            if s.estimate is not None
        ]
    )


def reasons(steps: Sequence[Step]) -> list[Reason | None]:
    return [step.reason for step in steps]


def retold(moments: Sequence[Moment], change: Callable[[Telemetry], Telemetry]) -> list[Moment]:
    return [dataclasses.replace(m, telemetry=change(m.telemetry)) for m in moments]


def with_image(moment: Moment, image_bgr: np.ndarray) -> Moment:
    return dataclasses.replace(moment, frame=dataclasses.replace(moment.frame, image_bgr=image_bgr))


def dark(seed: int) -> np.ndarray:
    """What a sensor sees of nothing."""
    return np.random.default_rng(seed).integers(0, 3, (360, 480, 3), dtype=np.uint8)
