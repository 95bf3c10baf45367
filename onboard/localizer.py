"""`Localizer.step`: one frame and its telemetry in, one `Step` out. The node, the replay and the tests call it.

frame, telemetry -> ground views -> embeddings -> candidates -> heatmap -> fix -> gate -> estimate
"""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np

from onboard.camera import CameraModel
from onboard.config import Config
from onboard.engine import Engine
from onboard.height import HeightByMap
from onboard.match.evidence import Confidence
from onboard.match.heatmap import Heatmap
from onboard.match.locate import Located, Locator, Search
from onboard.match.ranking import SAME_PLACE_M, apart
from onboard.records import GUESSES, Estimate, Fix, Frame, HeightReference, Reason, Rejected, State, Step, Telemetry
from onboard.rectify import Rectifier
from onboard.region import RegionMap
from onboard.stopwatch import Stopwatch
from onboard.track.odometry import Moved, VisualOdometry
from onboard.track.tracker import Tracker


class Localizer:
    """The pure brain: no file, no socket, no clock but the frames' own (stage times are measured, never used).

    `independent`: every frame alone over the whole map, published or refused on its own evidence.
    `start_enu_m`: where the vehicle roughly is at the first frame; the search begins round it.
    """

    def __init__(
        self,
        engine: Engine,
        region: RegionMap,
        camera: CameraModel,
        body_from_camera: np.ndarray,
        confidence: Confidence,
        config: Config = Config(),
        start_enu_m: np.ndarray | None = None,
        independent: bool = False,
    ) -> None:
        if config.rectify.on_gimbal:
            confidence = dataclasses.replace(confidence, tilt_sigma_deg=config.rectify.gimbal_sigma_deg)
        self.region, self.config, self.confidence = region, config, confidence
        self.rectifier = Rectifier(camera, body_from_camera, engine.facts.view_px, config.rectify)
        self.locator = Locator(region, engine, self.rectifier, confidence, config)
        self.tracker = Tracker(config, confidence.tilt_sigma_deg)
        self.heights = HeightByMap(region, config, start_enu_m)
        self.odometry = VisualOdometry(self.rectifier, config.odometry)
        self.independent, self._start_enu_m = independent, start_enu_m
        self._began_ns: int | None = None
        self._last_ns: int | None = None
        self._last_thumbnail: bytes | None = None
        self.heatmap: Heatmap | None = None  # of the last step, for pictures only

    def step(self, frame: Frame | None, telemetry: Telemetry | Reason, captured_at_ns: int, source: str = "") -> Step:
        """Localize one frame. `telemetry` is a reason where there is none for this instant."""
        watch = Stopwatch()
        began = time.perf_counter()
        self.heatmap = None
        told = telemetry
        telemetry, height_error = self._above_ground(told, captured_at_ns)
        said = telemetry if isinstance(telemetry, Telemetry) else None
        velocity = _velocity(said)
        reason = self._check(frame, telemetry, captured_at_ns)
        if reason is Reason.STALE_FRAME:  # its time is not to be trusted: nothing moves
            return self._step(captured_at_ns, source, None, reason, None, watch, began)
        if not self.independent:
            moved = self._moved(frame, said, velocity, reason, watch)
            if velocity is None and moved is not None:
                velocity = self.tracker.true_motion(moved).enu_mps
            self.tracker.predict(captured_at_ns, velocity, said)
            if moved is not None:
                self.tracker.moved(moved)
        if reason is not None:
            self._no_fix(reason)
            self._mark(captured_at_ns)
            return self._step(captured_at_ns, source, self._estimate(told, None), reason, None, watch, began)
        assert frame is not None
        assert isinstance(told, Telemetry)
        assert isinstance(telemetry, Telemetry)

        self._began_ns = captured_at_ns if self._began_ns is None else self._began_ns
        found = self.locator.locate(frame, telemetry, self._search(telemetry, captured_at_ns, height_error), watch)
        if height_error is not None and isinstance(found, Located):
            found = self._agreeing(found, told, telemetry)
        self.heatmap = found.heatmap if isinstance(found, Located) else None
        if self.independent:
            estimate, reason = self._alone(found, told)
        else:
            estimate, reason = self._follow(found, told, telemetry, velocity)
            self._mark(captured_at_ns)
        return self._step(captured_at_ns, source, estimate, reason, found, watch, began)

    def _above_ground(self, told: Telemetry | Reason, at_ns: int) -> tuple[Telemetry | Reason, float | None]:
        """Telemetry with the height above ground where the vehicle should be by now (see `onboard.height`).

        Where it may be anywhere: also the share by which that height may be off, None where the config's holds.
        """
        if isinstance(told, Reason):
            return told, None
        belief = None if self.independent else self.tracker.filter
        if belief is None:
            return self.heights.somewhere(told, *self._area(at_ns))
        ahead_s = (at_ns - belief.valid_at_ns) * 1e-9
        return self.heights.here(told, belief.state[:2] + belief.state[2:4] * ahead_s), None

    def _agreeing(self, found: Located, told: Telemetry, searched: Telemetry) -> Located | Rejected:
        fixes = self.heights.agreeing(found.fixes, told, searched)
        if not fixes:
            return Rejected(searched.captured_at_ns, Reason.NO_CANDIDATE, detail="none at the height of its ground")
        return dataclasses.replace(found, fixes=fixes)

    def _moved(
        self,
        frame: Frame | None,
        telemetry: Telemetry | None,
        velocity: np.ndarray | None,
        reason: Reason | None,
        watch: Stopwatch,
    ) -> Moved | None:
        """What the picture says of the way since the last one, where that is worth its time. Pictures from too low for
        the map will do; a camera that is frozen stands still for ever."""
        if not self.config.odometry.enabled or not self.tracker.wants_odometry(velocity is not None):
            return None
        if reason not in (None, Reason.HEIGHT_OUT_OF_RANGE):
            return None
        watch.start()
        moved = self.odometry.step(frame, telemetry)
        watch.lap("odometry")
        return moved

    def _mark(self, at_ns: int) -> None:
        if self.odometry.last_ns == at_ns:
            self.tracker.mark()

    def _check(self, frame: Frame | None, telemetry: Telemetry | Reason, captured_at_ns: int) -> Reason | None:
        if not self.independent:
            if self._last_ns is not None and captured_at_ns <= self._last_ns:
                return Reason.STALE_FRAME
            self._last_ns = captured_at_ns
        if frame is None:
            return Reason.NO_IMAGE
        if not self.independent:
            thumbnail, before = frame.image_bgr[::16, ::16].tobytes(), self._last_thumbnail
            self._last_thumbnail = thumbnail
            if thumbnail == before:
                return Reason.FROZEN_FRAME
        if isinstance(telemetry, Reason):
            return telemetry
        return self.rectifier.check(frame, telemetry)

    def _search(self, telemetry: Telemetry, at_ns: int, height_error: float | None = None) -> Search:
        """Where and under which headings and heights to look."""
        tracker, settings = self.tracker, self.config.search
        if tracker.filter is not None and not self.independent:
            position = tracker.filter.state[:2].copy()
            radius = max(
                settings.tracking_radius_min_m, settings.tracking_radius_sigma * tracker.filter.position_sigma_m
            )
            return Search(self._near_hypotheses(telemetry), position, radius, refined=2, local=True)
        return Search(self.hypotheses(telemetry, height_error), *self._area(at_ns))

    def _area(self, at_ns: int) -> tuple[np.ndarray | None, float]:
        """Where a vehicle that is lost may be: a centre (2,) and a radius in metres; everywhere without a centre."""
        if self._start_enu_m is None or self.independent:
            return None, math.inf
        elapsed = (at_ns - (self._began_ns or at_ns)) * 1e-9
        return self._start_enu_m, self.config.search.start_radius_m + self.config.track.max_speed_mps * elapsed

    def hypotheses(self, telemetry: Telemetry, height_error: float | None = None) -> list[tuple[float, float]]:
        """A grid over what heading and height may be wrong by; all headings where none is known.

        `height_error` is the share by which the height may be off, if it is not the config's.
        """
        s = self.config.search
        height_error = s.height_error if height_error is None else height_error
        if telemetry.heading_known:
            turns = _grid(math.radians(s.heading_error_deg), math.radians(s.heading_step_deg))
            scales = [1 + v for v in _grid(height_error, s.height_step)]
        else:
            count = round(360 / s.unknown_heading_step_deg)
            turns = [2 * math.pi * k / count for k in range(count)]
            pairs = max(1, math.ceil(height_error / s.height_error - 1e-9)) if s.height_error > 0 else 1
            scales = [1 + (k + 0.5) * s.height_error for k in range(-pairs, pairs)]
        return [(turn, scale) for turn in turns for scale in scales]

    def _near_hypotheses(self, telemetry: Telemetry) -> list[tuple[float, float]]:
        """What telemetry was last found to err by, and its neighbours when that stops working."""
        errors, s = self.tracker.told, self.config.search
        step = math.radians(s.heading_step_deg)
        turns, scales = [0.0], [1.0]
        if self.tracker.widen:
            turns, scales = [-step, 0.0, step], [1 - s.height_step, 1.0, 1 + s.height_step]
        if not telemetry.heading_known:
            turns = [step * k for k in range(-4, 5)]  # it may have turned since the last frame
        return [(errors.heading_offset_rad + t, errors.height_scale * k) for t in turns for k in scales]

    def _alone(self, found: Located | Rejected, told: Telemetry) -> tuple[Estimate | None, Reason | None]:
        if isinstance(found, Rejected):
            return None, found.reason
        best = found.fixes[0]
        reason = self._doubt(best, whole=True)
        if reason is not None:
            return None, reason
        covariance = np.full((4, 4), np.nan)
        covariance[:2, :2] = best.covariance_enu_m2
        return (
            Estimate(
                best.captured_at_ns,
                best.position_enu_m,
                np.full(2, np.nan),
                covariance,
                best.heading_rad,
                self.heights.here(told, best.position_enu_m).height_above_ground_m,
                best.probability_right,
                _above_home_m(told),
            ),
            None,
        )

    def _follow(
        self, found: Located | Rejected, told: Telemetry, telemetry: Telemetry, velocity: np.ndarray | None
    ) -> tuple[Estimate | None, Reason | None]:
        tracker = self.tracker
        fixes = () if isinstance(found, Rejected) else found.fixes
        best = fixes[0] if fixes else None
        if tracker.filter is None:
            at_ns = found.captured_at_ns if isinstance(found, Rejected) else found.fixes[0].captured_at_ns
            reason = tracker.acquire(at_ns, fixes, velocity, self.rectifier.ground_side_m(telemetry))
            if isinstance(found, Rejected) and reason is Reason.NO_CANDIDATE:
                reason = found.reason
        else:
            why = found.reason if isinstance(found, Rejected) else self._doubt(fixes[0], whole=False)
            reason = tracker.update(best, why, self.rectifier.ground_side_m(telemetry))
        return self._estimate(told, best if reason is None else None), reason

    def _doubt(self, fix: Fix, whole: bool) -> Reason | None:
        """Why a fix is not to be believed on its own evidence."""
        settings = self.config.fix
        if whole and fix.evidence["rivals"] > settings.max_rival_probability_alone:
            return Reason.AMBIGUOUS
        if fix.probability_right >= (settings.min_probability_alone if whole else settings.min_probability_right):
            return None
        if whole and fix.evidence["margin"] < 0.05:
            return Reason.AMBIGUOUS
        return Reason.INCONSISTENT if fix.evidence["agree"] < 0.5 else Reason.WEAK_MATCH

    def _no_fix(self, reason: Reason) -> None:
        if not self.independent and self.tracker.filter is not None:
            self.tracker.update(None, reason)

    def _estimate(self, told: Telemetry | Reason, fix: Fix | None) -> Estimate | None:
        """The tracker's, if any and if the height that goes with it is known."""
        if (
            self.independent
            or self.tracker.filter is None
            or not isinstance(told, Telemetry)
            or not math.isfinite(told.height_above_ground_m)
        ):
            return None
        telemetry = self.heights.here(told, self.tracker.filter.state[:2])
        tilt_m = telemetry.height_above_ground_m * math.radians(self.confidence.tilt_sigma_deg)
        estimate = self.tracker.estimate(telemetry, fix, self.confidence.floor_m, tilt_m)
        return None if estimate is None else dataclasses.replace(estimate, height_above_home_m=_above_home_m(told))

    def _step(
        self,
        at_ns: int,
        source: str,
        estimate: Estimate | None,
        reason: Reason | None,
        found: Located | Rejected | None,
        watch: Stopwatch,
        began: float,
    ) -> Step:
        fix = found.fixes[0] if isinstance(found, Located) else None
        state = self.tracker.state
        if self.independent:
            state = State.LOST if estimate is None else State.TRACKING
        accounted = sum(watch.ms.values())
        watch.ms["track"] = max(0.0, 1e3 * (time.perf_counter() - began) - accounted)
        detail = found.detail if isinstance(found, Rejected) else ""
        best = None if fix is None else fix.position_enu_m
        places = apart(found.fixes, SAME_PLACE_M) if isinstance(found, Located) else []
        others = places[1:GUESSES]
        rivals = tuple(other.position_enu_m for other in others)
        return Step(at_ns, source, state, estimate, reason, best, fix, watch.ms, detail, self.tracker.held, rivals)


def _velocity(telemetry: Telemetry | None) -> np.ndarray | None:
    """The vehicle's own (2,), east and north; None where it tells none."""
    if telemetry is None or telemetry.velocity_ned_mps is None:
        return None
    velocity = np.array([telemetry.velocity_ned_mps[1], telemetry.velocity_ned_mps[0]])
    return velocity if np.isfinite(velocity).all() else None


def _above_home_m(told: Telemetry) -> float | None:
    return told.height_above_ground_m if told.height_reference is HeightReference.HOME else None


def _grid(reach: float, step: float) -> list[float]:
    """Zero-centred values whose neighbourhoods of half a step cover -reach..reach."""
    count = max(0, math.ceil((reach - step / 2) / step - 1e-9))
    return [step * k for k in range(-count, count + 1)]
