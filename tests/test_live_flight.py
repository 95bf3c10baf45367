"""One flight over the toy world, recorded: what it finds, what it says, and what its recording replays to."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import toy_world
from rich.console import Console
from toy_live import LINK, MS, Bench, ToyCompanion, a_bench, a_localizer, wait_until

from onboard.errors import FlightError
from onboard.flight import open_flight
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.live.camera import Camera
from onboard.live.clock import SteadyClock
from onboard.live.display import JsonLines, table
from onboard.live.recorder import Recorder
from onboard.live.sources import CameraOptions
from onboard.live.status import FlyStatus
from onboard.live.summary import in_words
from onboard.mavlink.status import LinkStatus
from onboard.records import Inertia, Reason
from onboard.region import RegionMap
from onboard.replay.fixes import FixesWriter, row_of


class ToyFlight:
    """A camera that shows the next moment when the last one has been worked off, however slow this machine is."""

    def __init__(self, moments: Sequence[toy_world.Moment], companion: ToyCompanion) -> None:
        self._moments, self._companion, self._shown = moments, companion, 0

    def grab(self) -> int | None:
        wait_until(lambda: len(self._companion.steps) == self._shown)
        if self._shown == len(self._moments):
            return None
        moment = self._moments[self._shown]
        self._shown += 1
        at_ns = moment.frame.captured_at_ns
        self._companion.told[at_ns] = moment.telemetry if self._shown != 8 else Reason.NO_HEIGHT
        return at_ns

    def image(self) -> np.ndarray | None:
        return self._moments[self._shown - 1].frame.image_bgr

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture(scope="module")
def moments(world: toy_world.World) -> list[toy_world.Moment]:
    """The IMU is heard from the third frame on; its sums are made up, only to be carried."""
    flight = toy_world.make_flight(world)
    return [
        dataclasses.replace(
            m, telemetry=dataclasses.replace(m.telemetry, inertia=Inertia(3, (k / 3, -k / 7), (1e-3 / 3, 0.0)))
        )
        if k > 2
        else m
        for k, m in enumerate(flight)
    ]


@pytest.fixture(scope="module")
def recorded(
    moments: Sequence[toy_world.Moment],
    hand_engine: toy_world.HandEngine,
    hand_map: RegionMap,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Bench, FlyStatus]:
    """One flight, recorded."""
    folder = tmp_path_factory.mktemp("flights") / "one"
    with Recorder(folder, toy_world.toy_camera(), BODY_FROM_CAMERA_DOWN, hand_map.frame) as recorder:
        bench = a_bench(a_localizer(hand_engine, hand_map).step, recorder)
        source = ToyFlight(moments, bench.companion)
        options, clock = CameraOptions("file:toy"), SteadyClock()
        bench.camera = Camera(options, toy_world.toy_camera(), bench.flyer.take_frame, clock, open_it=lambda: source)
        status = bench.run()
    return folder, bench, dataclasses.replace(status, recorder=recorder.status())


def test_a_flight_is_found_on_the_map_live(
    recorded: tuple[Path, Bench, FlyStatus], moments: Sequence[toy_world.Moment]
) -> None:
    _, bench, status = recorded
    true = {moment.frame.captured_at_ns: moment.position_enu_m for moment in moments}
    fixes = [step for step in bench.companion.steps if step.estimate is not None and step.reason is None]
    errors_m = [np.linalg.norm(s.estimate.position_enu_m - true[s.captured_at_ns]) for s in fixes if s.estimate]
    assert len(errors_m) == status.fixes >= 8
    assert max(errors_m) < 5.0
    assert status.state == "tracking"
    assert (status.worker.done, status.worker.dropped, status.overrun) == (len(moments), 0, 0)
    assert status.reasons == {"acquiring": len(moments) - status.fixes - 1, "no_height": 1}
    assert bench.companion.ticks > len(moments)


def test_a_recording_replays_to_the_same_fixes(
    recorded: tuple[Path, Bench, FlyStatus], tmp_path: Path, hand_engine: toy_world.HandEngine, hand_map: RegionMap
) -> None:
    """What the localizer is given is the same to the bit, and so is what it makes of it."""
    folder, bench, status = recorded
    assert status.recorder is not None
    assert status.recorder.dropped == 0
    items = list(open_flight(folder).items())
    assert len(items) == len(bench.given) == status.worker.done
    for item, (frame, telemetry) in zip(items, bench.given, strict=True):
        assert item.frame is not None
        assert frame is not None
        assert item.frame.captured_at_ns == frame.captured_at_ns
        assert item.frame.image_bgr.tobytes() == frame.image_bgr.tobytes()
        assert item.telemetry == telemetry
    localizer = a_localizer(hand_engine, hand_map)
    with FixesWriter(tmp_path / "again.csv") as writer:
        for item in items:
            step = localizer.step(item.frame, item.telemetry, item.captured_at_ns, item.source)
            writer.write(row_of(step, hand_map.frame))
    assert (tmp_path / "again.csv").read_bytes() == (folder / "fixes.csv").read_bytes()


def test_what_a_flight_says_is_json_and_fits_a_screen(recorded: tuple[Path, Bench, FlyStatus]) -> None:
    _, _, status = recorded
    out = io.StringIO()
    lines = JsonLines(out)
    for k in range(25):  # as it is shown, four times a second
        lines.show(dataclasses.replace(status, at_ns=status.at_ns + k * 250 * MS))
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["at_ns"] - status.at_ns for line in told] == [k * 1000 * MS for k in range(7)]
    assert told[0]["link"] == LINK.as_dict()
    assert (told[0]["fixes"], told[0]["worker"]["done"]) == (status.fixes, status.worker.done)
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(table(status))
    text = console.export_text()
    for word in (
        "tracking",
        "95 % within",
        "no_height",
        "median",
        "12 frames",
        "ToyCopter, GUIDED, disarmed",
        "round trip 4.0 ms",
    ):
        assert word in text


def test_the_end_names_the_delay_to_set(recorded: tuple[Path, Bench, FlyStatus]) -> None:
    _, _, status = recorded

    def words(link: LinkStatus) -> str:
        return " ".join(in_words(dataclasses.replace(status, link=link)))

    assert "set VISO_DELAY_MS to 152." in words(LINK)  # 150 ms and half of the round trip
    assert "link.latency_ms" not in words(LINK)
    late = dataclasses.replace(LINK.latency, p95_ms=180.0, recommended_ms=200.0)
    assert "link.latency_ms 200 would fit" in words(dataclasses.replace(LINK, latency=late))
    soon = dataclasses.replace(LINK.latency, p95_ms=50.0, recommended_ms=70.0)
    assert "link.latency_ms 70 would do" in words(dataclasses.replace(LINK, latency=soon))
    long = dataclasses.replace(LINK.latency, set_ms=260.0)
    assert "250 ms at most" in words(dataclasses.replace(LINK, latency=long))
    assert "cannot be named" in words(dataclasses.replace(LINK, parameter=None))


@pytest.mark.parametrize(
    "text", ["body_from_camera: [[1, 0, 0], [0, 2, 0], [0, 0, 1]]", "body_from_camera: down", "[", ""]
)
def test_a_recorded_mount_that_is_no_rotation_is_told(
    recorded: tuple[Path, Bench, FlyStatus], tmp_path: Path, text: str
) -> None:
    shutil.copytree(recorded[0], tmp_path / "log")
    (tmp_path / "log" / "mount.yaml").write_text(text)
    with pytest.raises(FlightError, match=r"mount.*mount\.yaml.*body_from_camera"):
        open_flight(tmp_path / "log")


def test_the_watchdog_is_fed_only_while_every_part_gets_on(recorded: tuple[Path, Bench, FlyStatus]) -> None:
    at_ns = recorded[2].at_ns
    camera = dataclasses.replace(recorded[2].camera, ended=False, alive_at_ns=at_ns)
    good = dataclasses.replace(recorded[2], ticked_at_ns=at_ns, camera=camera)
    assert good.going
    hung_link = dataclasses.replace(good, ticked_at_ns=good.at_ns - 3 * 10**9)
    hung_step = dataclasses.replace(
        good, worker=dataclasses.replace(good.worker, busy_since_ns=good.at_ns - 40 * 10**9)
    )
    hung_camera = dataclasses.replace(
        good, camera=dataclasses.replace(good.camera, alive_at_ns=good.at_ns - 30 * 10**9)
    )
    assert not any(status.going for status in (hung_link, hung_step, hung_camera))
