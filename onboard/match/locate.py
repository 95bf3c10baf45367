"""One frame's way from views to a fix: embed, retrieve, correlate, re-rank, refine.

Coarse to fine as in UnifyGeo: the descriptor says which tiles, the detail map where in them (the view's own
detail map is the template), the fine map where between the cells. A search is made under several hypotheses of
heading and height at once; all of them compete in one heatmap.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onboard.config import Config
from onboard.engine import Embeddings, Engine
from onboard.match.evidence import Confidence
from onboard.match.fixes import Found, Match, ranked_fixes
from onboard.match.fusion import gradient_scores
from onboard.match.heatmap import Heatmap, Mode
from onboard.match.ranking import exclusive, rerank
from onboard.match.refine import align
from onboard.match.relief import ground_shift, in_cells, laid_on_ground, mean_shift, shift_of_match
from onboard.match.search import LevelSearch
from onboard.match.template import cell_mask, zero_mean
from onboard.match.witness import witnesses
from onboard.records import Fix, Frame, GroundView, Reason, Rejected, Telemetry
from onboard.rectify import Rectifier
from onboard.region import Level, RegionMap
from onboard.stopwatch import Stopwatch

_RETRIEVED = 256  # tiles asked of FAISS
_BATCH = 16  # views embedded at once; of more, fine features are not kept: those of 72 are 38 MB
_LOOK_AGAIN = 3  # best candidates of a search of the whole map that are looked at again
_WINDOWS_HELD = 2  # windows cut before the level's pages are given back: one of 256 pixels keeps 8 MB of them resident


@dataclass(frozen=True, slots=True)
class Search:
    """Where and under which hypotheses a frame is sought. Without a centre: everywhere.

    `hypotheses` are (heading offset in radians, height scale) pairs. `local`: the place is a prediction, so that
    rivals elsewhere say nothing, and the chance of being right is that of a search round a prediction.
    """

    hypotheses: Sequence[tuple[float, float]]
    centre_enu_m: np.ndarray | None = None
    radius_m: float = math.inf
    refined: int = 16  # candidates that are aligned
    local: bool = False


@dataclass(frozen=True, slots=True)
class Located:
    """Fixes of one frame, most probable first (never empty), before anybody decides whether to believe them."""

    fixes: tuple[Fix, ...]
    heatmap: Heatmap


class Locator:
    """Searches one region map with one engine for the frames of one camera.

    A map of several dates is searched at all of them, and each place believed at the one that it looks most like.
    """

    def __init__(
        self, region: RegionMap, engine: Engine, rectifier: Rectifier, confidence: Confidence, config: Config
    ) -> None:
        self.region, self.engine, self.rectifier = region, engine, rectifier
        self.confidence, self.config = confidence, config
        share_mb = config.search.spectra_cache_mb / len(region.levels)
        self._levels = [LevelSearch(region.dates_of(index), share_mb) for index in range(len(region.levels))]
        self._windows_held = 0

    def locate(self, frame: Frame, telemetry: Telemetry, search: Search, watch: Stopwatch) -> Located | Rejected:
        """Search for one frame whose `Rectifier.check` passed."""
        watch.start()
        at = frame.captured_at_ns
        level_index = self.region.level_for(self.rectifier.ground_side_m(telemetry), self.rectifier.view_px)
        level, level_search = self.region.levels[level_index], self._levels[level_index]
        views = [
            self.rectifier.view(frame, telemetry, level.metres_per_pixel, turn, scale)
            for turn, scale in search.hypotheses
        ]
        seen_m = math.sqrt(float(views[0].mask.sum())) * level.metres_per_pixel
        watch.lap("rectify")
        if seen_m < self.config.rectify.min_footprint_m:
            return Rejected(at, Reason.VIEW_TOO_SMALL, detail=f"{seen_m:.0f} m")

        embedded = self._embed(views, with_fine=len(views) <= _BATCH)
        watch.lap("embed")
        if not _finite(embedded):
            return Rejected(at, Reason.ENGINE_FAULT, detail="not a number")

        tiles, similarities = self._retrieve(level_search, embedded.descriptors, search)
        watch.lap("retrieve")
        heatmap = self._correlate(level_search, views, embedded, search, tiles, telemetry)
        watch.lap("correlate")
        if heatmap is None:
            return Rejected(at, Reason.OUTSIDE_MAP)

        modes = self._modes(heatmap, views, search, telemetry)
        if not modes:
            return Rejected(at, Reason.NO_CANDIDATE)
        weight = self.config.search.gradient_weight
        gradients = None if search.local else gradient_scores(views, modes, level_search.dates, weight)
        ranked = rerank(modes, tiles, similarities, gradients)
        watch.lap("rerank")
        fixes = self._refine(frame, telemetry, level_search.dates, views, embedded, heatmap, ranked, search)
        watch.lap("refine")
        if fixes is None:
            return Rejected(at, Reason.ENGINE_FAULT, detail="not a number")
        if not fixes:
            return Rejected(at, Reason.NO_CANDIDATE)
        return Located(tuple(fixes), heatmap)

    def _embed(self, views: Sequence[GroundView], with_fine: bool = True) -> Embeddings:
        return self._embed_pictures([view.image_rgb for view in views], [view.mask for view in views], with_fine)

    def _embed_pictures(self, images: list[np.ndarray], masks: list[np.ndarray], with_fine: bool = True) -> Embeddings:
        """Without `with_fine` the fine features are empty, (0, ...)."""
        parts = []
        for i in range(0, len(images), _BATCH):
            part = self.engine.embed(np.stack(images[i : i + _BATCH]), np.stack(masks[i : i + _BATCH]))
            parts.append(part if with_fine else dataclasses.replace(part, fine=part.fine[:0].copy()))
        if len(parts) == 1:
            return parts[0]
        return Embeddings(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("descriptors", "detail", "fine")))

    def _retrieve(
        self, level_search: LevelSearch, descriptors: np.ndarray, search: Search
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions (n, 2) and similarities (n,) of the retrieved tiles; none where the search is local."""
        if search.centre_enu_m is not None:
            return np.empty((0, 2)), np.empty(0)
        return level_search.retrieve(descriptors, _RETRIEVED)

    def _lever(self, view: GroundView, telemetry: Telemetry, vehicle_enu_m: np.ndarray) -> np.ndarray:
        """From the vehicle to where the map holds what a view's centre shows (2,): relief is in it, on the whole."""
        shift = ground_shift(self.region, view, vehicle_enu_m, telemetry.height_above_ground_m * view.height_scale)
        return np.array(view.centre_from_vehicle_enu_m) + mean_shift(shift, view)

    def _correlate(
        self,
        level_search: LevelSearch,
        views: list[GroundView],
        embedded: Embeddings,
        search: Search,
        tiles: np.ndarray,
        telemetry: Telemetry,
    ) -> Heatmap | None:
        masks = cell_mask(np.stack([view.mask for view in views]), self.engine.facts.detail_stride)
        templates = zero_mean(embedded.detail, masks)
        if search.centre_enu_m is None:
            blocks = level_search.everywhere(templates, masks, tiles, self.config.search.max_blocks)
        else:
            centre = search.centre_enu_m + self._lever(views[0], telemetry, search.centre_enu_m)
            blocks = level_search.around(templates, masks, centre, search.radius_m)
        return Heatmap.of(level_search.dates[0], blocks)

    def _modes(self, heatmap: Heatmap, views: list[GroundView], search: Search, telemetry: Telemetry) -> list[Mode]:
        count = self.config.search.candidates if search.local else self.config.search.compared_candidates
        modes = heatmap.modes(count, self.config.fix.second_mode_distance_m)
        if search.centre_enu_m is None:
            return modes
        reach = search.radius_m + heatmap.level.cell_m
        levers = [self._lever(view, telemetry, search.centre_enu_m) for view in views]
        return [
            mode
            for mode in modes
            if np.linalg.norm(mode.position_enu_m - levers[mode.template] - search.centre_enu_m) <= reach
        ]

    def _refine(
        self,
        frame: Frame,
        telemetry: Telemetry,
        dates: Sequence[Level],
        views: list[GroundView],
        embedded: Embeddings,
        heatmap: Heatmap,
        modes: list[Mode],
        search: Search,
    ) -> list[Fix] | None:
        """Align the best modes; fixes, most probable first. None where the network's numbers are none."""
        chosen = modes[: search.refined]
        sought = [views[mode.template] for mode in chosen]
        if len(embedded.fine):
            fine = [embedded.fine[mode.template] for mode in chosen]
        else:
            anew = self._embed(sought)
            if not _finite(anew):
                return None
            fine = list(anew.fine)
        matches = self._align(dates, chosen, sought, fine, telemetry)
        if matches is None:
            return None
        ranked = self._ranked(dates[0], matches, modes, heatmap, search, telemetry)
        if not search.local and ranked:
            # Look again with the heading and height that the best matches found: what is right becomes clearer.
            again = self._look_again(frame, telemetry, dates, ranked[:_LOOK_AGAIN])
            if again is None:
                return None
            kept = [match for _, match in ranked if match.mode.rank not in {m.mode.rank for m in again}]
            ranked = self._ranked(dates[0], again + kept, modes, heatmap, search, telemetry)
        return exclusive([fix for fix, _ in ranked], self.config.fix.second_mode_distance_m)

    def _ranked(
        self,
        level: Level,
        matches: list[Match],
        modes: list[Mode],
        heatmap: Heatmap,
        search: Search,
        telemetry: Telemetry,
    ) -> list[tuple[Fix, Match]]:
        found = Found(level.metres_per_pixel, telemetry.height_above_ground_m, tuple(modes), heatmap, search.local)
        return ranked_fixes(matches, found, self.confidence)

    def _align(
        self,
        dates: Sequence[Level],
        modes: list[Mode],
        views: list[GroundView],
        fine: list[np.ndarray],
        telemetry: Telemetry,
    ) -> list[Match] | None:
        """Align each view with the map at its mode; modes without enough patches are left out."""
        stride, level = self.engine.facts.fine_stride, dates[0]
        windows = [self._window(dates[mode.date], mode.position_enu_m) for mode in modes]
        tiles = self._embed_pictures([rgb for rgb, _ in windows], [mask for _, mask in windows])
        if not _finite(tiles):
            return None
        tile_cells = cell_mask(np.stack([mask for _, mask in windows]), stride)
        matches = []
        for k, (mode, view) in enumerate(zip(modes, views, strict=True)):
            view_cells = cell_mask(view.mask[None], stride)[0]
            height = telemetry.height_above_ground_m * view.height_scale
            shift = shift_of_match(self.region, view, mode.position_enu_m, height)
            relief = None if shift is None else in_cells(shift, len(view_cells), stride * level.metres_per_pixel)
            east, north = view.centre_from_vehicle_enu_m
            below = np.array([north, -east]) / (stride * level.metres_per_pixel)
            rise = self.config.fix.unmapped_height_m / height
            alignment = align(fine[k], view_cells, tiles.fine[k], tile_cells[k], stride, relief, below, rise)
            if alignment is not None:
                laid = (view.image_rgb, view.mask) if shift is None else laid_on_ground(view, shift)
                grey, gradient = witnesses(*laid, *windows[k], alignment)
                matches.append(Match(mode, view, alignment, grey, gradient))
        return matches

    def _window(self, level: Level, centre_enu_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`Level.window` of a view's size; now and then the level's pages are given back."""
        window = level.window(centre_enu_m, self.rectifier.view_px)
        self._windows_held += 1
        if self._windows_held == _WINDOWS_HELD:
            self._windows_held = 0
            level.release()
        return window

    def _look_again(
        self, frame: Frame, telemetry: Telemetry, dates: Sequence[Level], ranked: list[tuple[Fix, Match]]
    ) -> list[Match] | None:
        """The same places under the heading and height that their alignments found."""
        views, modes = [], []
        for fix, match in ranked:
            turn = match.view.heading_offset_rad + match.alignment.turn_rad
            view = self.rectifier.view(frame, telemetry, dates[0].metres_per_pixel, turn, fix.height_scale)
            centre = fix.position_enu_m + self._lever(view, telemetry, fix.position_enu_m)
            views.append(view)
            modes.append(dataclasses.replace(match.mode, position_enu_m=centre))
        embedded = self._embed(views)
        return self._align(dates, modes, views, list(embedded.fine), telemetry) if _finite(embedded) else None


def _finite(embedded: Embeddings) -> bool:
    """A comparison with nan is false, and a doubt that compares lets it through: so it is asked first."""
    return all(bool(np.isfinite(part).all()) for part in (embedded.descriptors, embedded.detail, embedded.fine))
