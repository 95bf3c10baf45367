"""What flights are replayed with: one model, one map, one set of settings, opened once for all of them."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onboard.config import Config, LinkConfig
from onboard.replay.run import Progress
from onboard.replay.run import replay as run
from onboard.replay.start import start_on_map

if TYPE_CHECKING:
    from onboard.engine import Engine, ModelFacts
    from onboard.flight.source import Flight
    from onboard.match.evidence import Confidence
    from onboard.mavlink.peer.listener_process import ListenerProcess
    from onboard.mavlink.tell.link import MavlinkLink
    from onboard.region import RegionMap


@dataclass(frozen=True)
class Bench:
    """The model, the map and the settings; `start_enu_m` (2,) east, north or None."""

    engine: Engine
    region: RegionMap
    confidence: Confidence
    settings: Config
    start_enu_m: np.ndarray | None
    independent: bool
    mavlink: str | None
    listener: bool

    @classmethod
    def open(
        cls,
        map_path: Path,
        model: Path | None,
        settings: Config,
        start_deg: tuple[float, float] | None,
        independent: bool,
        mavlink: str | None,
        listener: bool,
        stack: ExitStack,
    ) -> Bench:
        """The engine is closed with `stack`."""
        from onboard.engine import SHIPPED_MODEL, open_engine
        from onboard.match.evidence import read_confidence
        from onboard.region import RegionMap

        engine = open_engine(model, settings.engine)
        stack.callback(engine.close)
        region = RegionMap.open(map_path, engine.facts)
        confidence = read_confidence(Path(model) if model else SHIPPED_MODEL)
        start_enu_m = start_on_map(start_deg, region)
        return cls(engine, region, confidence, settings, start_enu_m, independent, mavlink, listener)

    def replay(self, recorded: Flight, out: Path, on_progress: Callable[[Progress], None]) -> dict[str, Any]:
        """One flight, by a localizer and over a link of its own; the summary that was written to `out`."""
        from onboard.localizer import Localizer

        localizer = Localizer(
            self.engine,
            self.region,
            recorded.camera,
            recorded.body_from_camera,
            self.confidence,
            self.settings,
            start_enu_m=self.start_enu_m,
            independent=self.independent,
        )
        with ExitStack() as stack:
            link, peer = _open_link(self.mavlink, self.listener, self.region, self.settings.link, stack)
            return run(
                recorded,
                localizer,
                self.region,
                out,
                config=self.settings,
                model=model_facts(self.engine.facts),
                map_facts=map_facts(self.region),
                independent=self.independent,
                link=link,
                listener=peer,
                on_progress=on_progress,
            )


def model_facts(facts: ModelFacts) -> dict[str, Any]:
    """What the summary says of a model."""
    return {"name": facts.name, "sha256": facts.sha256, "view_px": facts.view_px}


def map_facts(region: RegionMap) -> dict[str, Any]:
    """What the summary says of a region map: its content, not where it lies."""
    manifest = region.manifest
    return {
        "name": manifest.name,
        "sha256": region.sha256,
        "format_version": manifest.format_version,
        "coverage_km2": manifest.coverage_km2,
        "anchor_latitude_deg": manifest.anchor_latitude_deg,
        "anchor_longitude_deg": manifest.anchor_longitude_deg,
        "bounds_enu_m": list(manifest.bounds_enu_m),
        "metres_per_pixel": [level.metres_per_pixel for level in manifest.levels],
        "sources": [
            {key: value for key, value in dataclasses.asdict(source).items() if value is not None and key != "sha256"}
            for source in manifest.sources[:5]
        ],
        "source_count": len(manifest.sources),
        "dates": 1 + len(manifest.other_dates),
    }


def _open_link(
    address: str | None, listen: bool, region: RegionMap, settings: LinkConfig, stack: ExitStack
) -> tuple[MavlinkLink | None, ListenerProcess | None]:
    """The link, its origin at the map's anchor, and the peer at its other end; the listener is ready first.

    A replay speaks and does not listen: under profile "auto" the vehicle is taken for an ArduPilot.
    """
    if address is None:
        return None, None
    from onboard.mavlink.peer.listener_process import ListenerProcess
    from onboard.mavlink.tell.link import MavlinkLink
    from onboard.mavlink.tell.profile import ARDUPILOT_ODOMETRY, AUTO, profile_named

    profile = ARDUPILOT_ODOMETRY if settings.profile == AUTO else profile_named(settings.profile)
    peer = None
    if listen:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pilotage-"))
        peer = stack.enter_context(ListenerProcess(address, Path(folder) / "received.csv"))
        address = peer.peer
    link = stack.enter_context(MavlinkLink.open(address, profile, source_system=settings.system_id or 1))
    link.set_origin(region.frame.anchor_latitude_deg, region.frame.anchor_longitude_deg, 0.0, region.frame)
    return link, peer
