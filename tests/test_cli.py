"""The program from outside: whole runs by its commands, and bad input as one line, status 2, nothing half-written."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import toy_world
import yaml
from PIL import Image
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from onboard.records import Reason

COMMANDS = (
    *("bench", "calibrate", "compare", "doctor", "evaluate", "export", "flight", "fly", "link", "listen"),
    *("map", "render", "replay", "train", "trial"),
)


def pilotage(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "import sys; sys.argv[0] = 'pilotage'; from onboard.cli import main; main()"]
    return subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True, timeout=300, cwd=cwd)


def done(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    ran = pilotage(*arguments)
    assert ran.returncode == 0, ran.stderr
    return ran


def refused(*arguments: str | Path, words: tuple[str, ...], unmade: Path) -> None:
    """One line on stderr that holds `words`, status 2, and nothing at or beside `unmade`."""
    beside = sorted(unmade.parent.iterdir())
    ran = pilotage(*arguments)
    lines = [line for line in ran.stderr.splitlines() if line.strip()]
    assert ran.returncode == 2, ran.stderr
    assert "Traceback" not in ran.stderr + ran.stdout
    assert len(lines) == 1, ran.stderr
    assert lines[0].startswith("pilotage: ")
    for word in words:
        assert word in lines[0], lines[0]
    assert sorted(unmade.parent.iterdir()) == beside


# ---- a small place, a flight over it and its map, all made by the commands


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 m of ground."""
    out = tmp_path_factory.mktemp("cli") / "place"
    done("render", "place", "--out", out, "--seed", "5", "--size-m", "600", "--metres-per-pixel", "1")
    return out


@pytest.fixture(scope="module")
def bag(place: Path) -> Path:
    """Four seconds over it."""
    out = place.parent / "bag"
    low = ("--low-m", "60", "--high-m", "80")
    done("render", "flight", place, "--out", out, "--seed", "5", "--seconds", "4", "--processes", "1", *low)
    return out


@pytest.fixture(scope="module")
def region(place: Path) -> Path:
    out = place.parent / "map"
    done("map", "build", place / "orthophoto.tif", "--out", out)
    return out


@pytest.fixture
def folder(place: Path, tmp_path: Path) -> Path:
    """A flight folder of three frames in the middle of that place; their pictures are of elsewhere."""
    flight, camera, world = tmp_path / "flight", toy_world.toy_camera(), toy_world.make_world(size_px=500)
    flight.mkdir()
    camera.to_yaml(flight / "camera.yaml")
    with (flight / "frames.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "captured_at_ns", "roll_deg", "pitch_deg", "yaw_deg", "height_above_ground_m"))
        for k in range(3):
            image = toy_world.look(world, camera, (5.0 * k, 0.0), 80.0)
            Image.fromarray(np.ascontiguousarray(image[..., ::-1])).save(flight / f"{k}.png")
            table.writerow((f"{k}.png", toy_world.BEGAN_NS + k * toy_world.STEP_NS, 0, 0, 0, 80))
    return flight


def without(bag: Path, out: Path, *kinds: str) -> Path:
    """A copy of a bag that lacks the messages of some types."""
    store = get_typestore(Stores.ROS2_JAZZY)
    with Reader(bag) as reader, Writer(out, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        kept = [c for c in reader.connections if c.msgtype.split("/")[-1] not in kinds]
        assert len(kept) < len(list(reader.connections))
        copies = {c.id: writer.add_connection(c.topic, c.msgtype, typestore=store) for c in kept}
        for connection, at_ns, raw in reader.messages(kept):
            writer.write(copies[connection.id], at_ns, raw)
    return out


def pictures_in(bag: Path) -> int:
    with Reader(bag) as reader:
        return sum(c.msgcount for c in reader.connections if c.msgtype.endswith("/CompressedImage"))


def rejections(out: Path) -> dict[str, int]:
    counted: dict[str, int] = json.loads((out / "summary.json").read_text())["rejected"]
    return counted


# ---- the program as such


def test_help_names_every_command_and_comes_fast() -> None:
    began_s = time.monotonic()
    ran = done("--help")
    took_s = time.monotonic() - began_s
    for command in COMMANDS:
        assert command in ran.stdout
    assert took_s < 20  # generous: a busy machine; torch alone would take most of it


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    assert f"pilotage {command}" in done(command, "--help").stdout


def test_no_help_waits_for_torch() -> None:
    program = "import sys; from onboard.cli import build_app; build_app(['--help']); print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ran.stdout.strip() == "False", ran.stderr


def test_a_command_whose_library_is_missing_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['rasterio'] = None; sys.argv = ['pilotage', 'map', 'build', 'a.tif', '--out', 'm'];"
        "from onboard.cli import main; main()"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1, ran.stderr
    assert "pilotage[desktop]" in ran.stderr


def test_a_rendered_flight_is_replayed_and_told_over_mavlink(bag: Path, region: Path, tmp_path: Path) -> None:
    link = ("--mavlink", "udpin:127.0.0.1:0", "--listener")  # port 0: any free one
    ran = done("replay", bag, "--map", region, "--out", tmp_path / "out", *link)
    assert ran.stdout.splitlines()[-1] == f"Report: {tmp_path / 'out' / 'report.html'}"
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    with (tmp_path / "out/fixes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == summary["frames"] == pictures_in(bag) > 0
    assert sum(row["published"] == "1" for row in rows) == summary["fixes"]
    assert summary["fixes"] + sum(summary["rejected"].values()) == len(rows)
    assert summary["mavlink"]["received"] == summary["mavlink"]["sent"] > 0
    assert summary["false_fixes"] == 0


def test_a_calibration_is_the_same_however_many_flights_are_searched_at_a_time(
    bag: Path, region: Path, tmp_path: Path
) -> None:
    made = []
    for processes in ("1", "2"):
        out = tmp_path / f"{processes}.confidence.json"
        ran = done("calibrate", "confidence", *2 * [f"{bag}={region}"], "--out", out, "--processes", processes)
        assert "whole-map examples" in ran.stdout
        made.append(json.loads(out.read_text()))
    assert made[0] == made[1]
    assert max(made[0]["local"]["weights"].values()) > 0
    refused(
        "calibrate",
        "confidence",
        bag,
        "--out",
        tmp_path / "no.json",
        words=("FLIGHT=MAP",),
        unmade=tmp_path / "no.json",
    )


def test_the_same_replay_gives_the_same_bytes(bag: Path, region: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        done("replay", bag, "--map", region, "--out", tmp_path / name, "--independent")
    first, second = ((tmp_path / name / "fixes.csv").read_bytes() for name in ("one", "two"))
    assert first == second


def test_many_flights_are_replayed_and_the_broken_one_is_named(
    bag: Path, folder: Path, region: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(next(bag.glob("*.mcap")).read_bytes()[:5000])
    ran = pilotage("replay", bag, cut, folder, "--map", region, "--out", tmp_path / "runs")
    assert ran.returncode == 2
    assert ran.stdout.splitlines()[-1] == f"Overview: {tmp_path / 'runs' / 'index.html'}"
    assert [line for line in ran.stderr.splitlines() if line.startswith("pilotage: 1 of 3 flights")] != []
    told = json.loads((tmp_path / "runs/summary.json").read_text())
    assert told["flights"][0]["name"] == "cut"
    assert told["totals"]["frames"] > pictures_in(bag)
    done("replay", bag, "--map", region, "--out", tmp_path / "alone")
    assert (tmp_path / "alone/fixes.csv").read_bytes() == (tmp_path / "runs" / bag.name / "fixes.csv").read_bytes()


# ---- bad input


def test_no_map(folder: Path, tmp_path: Path) -> None:
    nowhere, out = tmp_path / "nowhere", tmp_path / "out"
    refused("replay", folder, "--map", nowhere, "--out", out, words=("no region map", str(nowhere)), unmade=out)


def test_a_map_of_another_model(folder: Path, region: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(region, tmp_path / "map"))
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["model_sha256"] = "0123456789ab" + manifest["model_sha256"][12:]
    (other / "manifest.json").write_text(json.dumps(manifest))
    words = ("another model", "0123456789ab", "pilotage map build")
    refused("replay", folder, "--map", other, "--out", tmp_path / "out", words=words, unmade=tmp_path / "out")


def test_a_map_with_a_broken_part(folder: Path, region: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(region, tmp_path / "map"))
    largest = max((p for p in broken.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-100])
    words = (largest.name, "pilotage map build")
    refused("replay", folder, "--map", broken, "--out", tmp_path / "out", words=words, unmade=tmp_path / "out")


def test_a_geotiff_without_georeference(tmp_path: Path) -> None:
    picture = tmp_path / "plain.tif"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (300, 300, 3), dtype=np.uint8)).save(picture)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(picture) as file:
        assert file.crs is None
    refused("map", "build", picture, "--out", tmp_path / "map", words=("plain.tif",), unmade=tmp_path / "map")


def test_a_truncated_mcap(bag: Path, region: Path, tmp_path: Path) -> None:
    whole = next(bag.glob("*.mcap")).read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    out = tmp_path / "out"
    refused("replay", cut, "--map", region, "--out", out, words=("cut.mcap", "mcap recover"), unmade=out)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (("CameraInfo",), ("no camera info", "sensor_msgs/msg/CameraInfo")),
        (("Imu",), ("no attitude", "record it with the flight")),
        (("CompressedImage",), ("no image",)),
        (("Range", "Float64", "Float32"), ("no height",)),
    ],
)
def test_a_bag_that_lacks_something(
    bag: Path, region: Path, tmp_path: Path, kinds: tuple[str, ...], words: tuple[str, ...]
) -> None:
    poor, out = without(bag, tmp_path / "poor", *kinds), tmp_path / "out"
    refused("replay", poor, "--map", region, "--out", out, words=words, unmade=out)


def test_a_flight_folder_without_attitude(folder: Path, region: Path, tmp_path: Path) -> None:
    table = folder / "frames.csv"
    lines = [line.split(",") for line in table.read_text().splitlines()]
    table.write_text("".join(",".join(line[:2] + line[5:]) + "\n" for line in lines))
    words = ("frames.csv", "roll_deg")
    refused("replay", folder, "--map", region, "--out", tmp_path / "out", words=words, unmade=tmp_path / "out")


def test_a_flight_folder_without_camera(folder: Path, region: Path, tmp_path: Path) -> None:
    (folder / "camera.yaml").unlink()
    words = ("camera.yaml",)
    refused("replay", folder, "--map", region, "--out", tmp_path / "out", words=words, unmade=tmp_path / "out")


def test_a_photo_without_gps(tmp_path: Path) -> None:
    photo, out = tmp_path / "photos" / "plain.jpg", tmp_path / "flight"
    photo.parent.mkdir()
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(photo)
    refused("flight", "from-photos", photo.parent, "--out", out, words=("plain.jpg",), unmade=out)


def _unknown_key(folder: Path) -> Path:
    (folder / "config.yaml").write_text(yaml.safe_dump({"track": {"gate_chi": 3.0}}))
    return folder / "config.yaml"


def _unknown_section(folder: Path) -> Path:
    (folder / "config.yaml").write_text(yaml.safe_dump({"tracker": {"gate_chi2": 3.0}}))
    return folder / "config.yaml"


def _wrong_type(folder: Path) -> Path:
    (folder / "config.yaml").write_text(yaml.safe_dump({"track": {"gate_chi2": "three"}}))
    return folder / "config.yaml"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_unknown_key, ("track.gate_chi", "gate_chi2")),
        (_unknown_section, ("tracker", "track")),
        (_wrong_type, ("track.gate_chi2", "three", "float")),
    ],
)
def test_a_config_that_is_none(
    folder: Path, region: Path, tmp_path: Path, make: Callable[[Path], Path], words: tuple[str, ...]
) -> None:
    config, out = make(tmp_path), tmp_path / "out"
    refused("replay", folder, "--map", region, "--out", out, "--config", config, words=words, unmade=out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--start", "north"), ("--start", "LAT,LON")),
        (("--start", "80.0,10.0"), ("--start", "outside the map")),
        (("--mavlink", "carrier-pigeon:7"), ("carrier-pigeon:7", "udpout:HOST:PORT")),
        (("--listener",), ("--listener", "--mavlink")),
        (("--model", "no-such-model.onnx"), ("no-such-model.onnx",)),
    ],
)
def test_an_option_that_makes_no_sense(
    folder: Path, region: Path, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    refused("replay", folder, "--map", region, "--out", out, *arguments, words=words, unmade=out)


def test_a_nan_attitude_is_a_counted_rejection(folder: Path, region: Path, tmp_path: Path) -> None:
    table = folder / "frames.csv"
    rows = [line.split(",") for line in table.read_text().splitlines()]
    rows[2][2] = "nan"
    table.write_text("".join(",".join(row) + "\n" for row in rows))
    done("replay", folder, "--map", region, "--out", tmp_path / "out", "--independent")
    assert rejections(tmp_path / "out")[Reason.BAD_TELEMETRY.value] == 1


def test_an_image_that_cannot_be_read_is_a_counted_rejection(folder: Path, region: Path, tmp_path: Path) -> None:
    (folder / "1.png").write_bytes(b"no picture")
    done("replay", folder, "--map", region, "--out", tmp_path / "out", "--independent")
    assert rejections(tmp_path / "out")[Reason.NO_IMAGE.value] == 1


def test_pictures_of_another_place_are_refused(folder: Path, region: Path, tmp_path: Path) -> None:
    done("replay", folder, "--map", region, "--out", tmp_path / "out", "--independent")
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["fixes"] == 0
    assert sum(rejections(tmp_path / "out").values()) == summary["frames"] == 3
