"""A recorded flight, replayed as if live: step by step through the localizer, told as it goes, scored at the end.

Nothing that is scored is known before the last step: `flight.truth()` is called after the loop.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from onboard.camera import CameraModel
from onboard.config import Config
from onboard.flight.source import Flight
from onboard.frames import MapFrame
from onboard.records import Estimate, Frame, Reason, State, Step, Telemetry
from onboard.replay import outputs
from onboard.replay.fixes import FixesWriter, FixRow, read_fixes, row_of
from onboard.replay.gallery import Gallery
from onboard.replay.mapview import Region, tracks_of
from onboard.replay.mcap import ResultsBag
from onboard.replay.pictures import DebugImage, Pictures
from onboard.replay.report import write_report
from onboard.replay.score import Score, score
from onboard.replay.summary import About, Timings, summarize, write_summary
from onboard.replay.tracks import write_kml, write_tum

if TYPE_CHECKING:
    from onboard.match.heatmap import Heatmap
    from onboard.mavlink.peer.received import Received


class Localizer(Protocol):
    @property
    def heatmap(self) -> Heatmap | None: ...
    def step(self, frame: Frame | None, telemetry: Telemetry | Reason, captured_at_ns: int, source: str) -> Step: ...


class Link(Protocol):
    """Where published estimates go: `onboard.mavlink.tell.link.MavlinkLink`, its origin set."""

    @property
    def address(self) -> str: ...
    @property
    def sent(self) -> Mapping[str, int]: ...
    @property
    def withheld(self) -> Mapping[Any, int]: ...
    def send(self, estimate: Estimate, telemetry: Telemetry | None) -> bool: ...
    def lose(self) -> None: ...
    def heartbeat(self, now_ns: int) -> bool: ...


class Listener(Protocol):
    """The peer at the other end, if it is ours: `onboard.mavlink.peer.listener_process.ListenerProcess`."""

    def stop(self, expected: int | None = None) -> Received: ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is; `total` is the flight's frame count."""

    done: int
    total: int
    fixes: int
    state: State


def replay(
    flight: Flight,
    localizer: Localizer,
    region: Region,
    out_dir: Path | str,
    *,
    config: Config = Config(),
    model: Mapping[str, Any] | None = None,
    map_facts: Mapping[str, Any] | None = None,
    independent: bool = False,
    link: Link | None = None,
    listener: Listener | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Replay, score, tell; returns the summary that was written to `out_dir`.

    `model` and `map_facts` are put into the summary as they are. `listener` is stopped after the last message
    and each fix that it received is held against fixes.csv. Raises PilotageError (a flight that breaks off, a
    folder that cannot be written) and leaves an earlier result as it was.
    """
    with outputs.staged(out_dir) as stage:
        timings, gallery = Stopwatch(), Gallery(flight.camera, flight.body_from_camera, region, config.rectify)
        drawing = DebugImage(flight.camera, flight.body_from_camera, region, config.rectify)
        pictures, bag = Pictures(drawing, flight.frame_count), ResultsBag(region.frame)
        fixes = done = 0
        with FixesWriter(stage / outputs.FIXES) as writer:
            for item in flight.items():
                start_ns = time.perf_counter_ns()
                step = localizer.step(item.frame, item.telemetry, item.captured_at_ns, item.source)
                if item.frame is not None and isinstance(item.telemetry, Telemetry):
                    timings.add(step, (time.perf_counter_ns() - start_ns) / 1e6)
                if link is not None:
                    link.heartbeat(item.captured_at_ns)
                    if not independent and step.state in (State.LOST, State.ACQUIRING):
                        link.lose()
                    if step.estimate is not None:
                        link.send(step.estimate, item.telemetry if isinstance(item.telemetry, Telemetry) else None)
                writer.write(row_of(step, region.frame))
                gallery.offer(item.frame, item.telemetry, step)
                pictures.offer(item.frame, item.telemetry, step, localizer.heatmap)
                bag.add(step)
                done, fixes = done + 1, fixes + step.published
                if on_progress is not None:
                    on_progress(Progress(done, flight.frame_count, fixes, step.state))
        mavlink = _told(link, listener, stage)

        rows = read_fixes(stage / outputs.FIXES)
        scored = score(rows, flight.truth(), region.frame, region.levels[0])
        about = About(
            {"name": flight.name, "camera": _camera_words(flight.camera), "independent": independent, **flight.facts},
            model or {},
            map_facts or {},
            config.to_dict(),
        )
        summary = summarize(rows, scored, timings.timings(), mavlink, about)
        write_report(stage / outputs.REPORT, summary, rows, scored, region, gallery.samples())
        _write_tracks(stage, flight.name, rows, scored, region.frame)
        _write_bag(stage, bag, pictures, rows, scored)
        (stage / outputs.CONFIG).write_text(yaml.safe_dump(config.to_dict(), sort_keys=False), encoding="utf-8")
        write_summary(summary, stage / outputs.SUMMARY)
    return summary


class Stopwatch:
    """Gathers the times of the frames that could be worked on: a frame without an image costs nothing."""

    def __init__(self) -> None:
        self._stage_ms: dict[str, list[float]] = {}
        self._frame_ms: list[float] = []

    def add(self, step: Step, frame_ms: float) -> None:
        for stage, milliseconds in step.stage_ms.items():
            self._stage_ms.setdefault(stage, []).append(milliseconds)
        self._frame_ms.append(frame_ms)

    def timings(self) -> Timings:
        return Timings(self._stage_ms, self._frame_ms)


def _write_tracks(stage: Path, name: str, rows: list[FixRow], scored: Score, frame: MapFrame) -> None:
    """For evo and Google Earth; without truth there is no file of it."""
    tracks = tracks_of(rows, scored, frame)
    write_tum(stage / outputs.ESTIMATE_TUM, rows, tracks.published_enu_m, with_heading=True)
    if scored.has_truth:
        write_tum(stage / outputs.TRUTH_TUM, rows, tracks.true_enu_m, with_heading=False)
    write_kml(stage / outputs.KML, name, tracks, frame)


def _write_bag(stage: Path, bag: ResultsBag, pictures: Pictures, rows: list[FixRow], scored: Score) -> None:
    for captured_at_ns, jpeg in pictures.jpegs:
        bag.add_picture(captured_at_ns, jpeg)
    bag.add_truth([row.captured_at_ns for row in rows], scored)
    bag.write(stage / outputs.MCAP)


def _told(link: Link | None, listener: Listener | None, stage: Path) -> dict[str, Any]:
    """The `mavlink` part of the summary; the received table goes to the stage."""
    if link is None:
        return {"sent": None, "received": None}
    told: dict[str, Any] = {
        "sent": sum(link.sent.values()),
        "received": None,
        "address": link.address,
        "sent_by_message": dict(link.sent),
        "withheld": {getattr(why, "value", str(why)): n for why, n in link.withheld.items()},
    }
    if listener is None:
        return told
    from onboard.mavlink.peer.verify import verify

    received = listener.stop(told["sent"])
    told |= {"received": received.total, "received_by_message": dict(received.by_name), "lost": received.lost}
    if received.csv_path is not None:
        shutil.copyfile(received.csv_path, stage / outputs.RECEIVED)
        check = verify(stage / outputs.RECEIVED, stage / outputs.FIXES)
        told["verified"] = {
            "matched": check.matched,
            "missing": check.missing,
            "unexpected": check.unexpected,
            "differing": check.differing,
            "worst_m": check.worst_m,
        }
    return told


def _camera_words(camera: CameraModel) -> str:
    return f"{camera.width} x {camera.height} px, {camera.distortion_model}, f = {camera.focal_px:.0f} px"
