"""Photos become a flight folder: attitudes, places, times and lenses out of their tags."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from toy_flight import CAMERA, MS, angles_deg, picture, rows_of, told_in_one_line

from onboard.camera import CameraModel
from onboard.errors import FlightError
from onboard.flight import open_flight
from onboard.flight.exif import attitude_from_gimbal, attitude_from_xmp, parse_xmp, read_photo
from onboard.flight.photos import PhotoOptions, flight_from_photos
from onboard.frames import BODY_FROM_CAMERA_DOWN, rotation_from_euler


def xmp_packet(**tags: object) -> bytes:
    inside = " ".join(f'{name.replace("__", ":").replace("_", "-")}="{value}"' for name, value in tags.items())
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {inside}/></x:xmpmeta>'.encode()


DJI = {
    "drone_dji__GimbalYawDegree": "+42.80",
    "drone_dji__GimbalPitchDegree": "-90.00",
    "drone_dji__GimbalRollDegree": "+0.00",
    "drone_dji__RelativeAltitude": "+80.50",
}


def make_photo(
    path: Path,
    when: str = "2024:05:06 07:08:09",
    place: tuple[float, float] | None = (46.5, -91.25),
    xmp: dict[str, str] = DJI,
    **exif_tags: Any,
) -> Path:
    """A 64 x 48 JPEG with EXIF and XMP; `exif_tags` by number as tag_0x...."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "DJI", "FC0000"
    exif[0x8769] = {0x9003: when, 0xA405: 24, **{int(name[4:], 16): value for name, value in exif_tags.items()}}
    if place is not None:
        parts = [(IFDRational(int(abs(v))), IFDRational(round(abs(v) % 1 * 3600 * 1000), 60_000), 0) for v in place]
        gps = {1: "N" if place[0] >= 0 else "S", 2: parts[0], 3: "E" if place[1] >= 0 else "W", 4: parts[1]}
        exif[0x8825] = {**gps, 5: b"\x00", 6: IFDRational(3000, 10)}
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture()).save(path, exif=exif, quality=90)
    segment = b"http://ns.adobe.com/xap/1.0/\x00" + xmp_packet(**xmp)
    jpeg_bytes = path.read_bytes()
    path.write_bytes(jpeg_bytes[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg_bytes[2:])
    return path


def pilotage(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from onboard.cli import main; sys.argv[0] = 'pilotage'; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("gimbal_yaw_pitch_roll_deg", "expected_roll_pitch_yaw_deg"),
    [
        ((0, -90, 0), (0, 0, 0)),
        ((42.8, -90, 0), (0, 0, 42.8)),
        ((0, -60, 0), (0, 30, 0)),  # the optical axis leans to the top of the image, forward
        ((-100, -60, 0), (0, 30, 260)),
        ((30, -90, 180), (0, 0, 210)),  # a gimbal that tells half a turn as roll
        ((0, -100, 0), (0, -10, 0)),  # past straight down: leans to the bottom of the image
    ],
)
def test_gimbal_angles_golden_vectors(
    gimbal_yaw_pitch_roll_deg: tuple[float, float, float], expected_roll_pitch_yaw_deg: tuple[float, float, float]
) -> None:
    got = attitude_from_gimbal(*gimbal_yaw_pitch_roll_deg)
    assert got.yaw_deg is not None
    expected_roll, expected_pitch, expected_yaw = expected_roll_pitch_yaw_deg
    assert (got.roll_deg, got.pitch_deg) == pytest.approx((expected_roll, expected_pitch), abs=1e-9)
    assert (got.yaw_deg - expected_yaw + 180) % 360 - 180 == pytest.approx(0, abs=1e-9)


def test_a_gimbal_at_minus_60_sees_the_ground_ahead() -> None:
    got = attitude_from_gimbal(90.0, -60.0, 0.0)
    assert got.yaw_deg is not None
    radians = [math.radians(a) for a in (got.roll_deg, got.pitch_deg, got.yaw_deg)]
    optical_ned = rotation_from_euler(*radians) @ BODY_FROM_CAMERA_DOWN @ np.array([0.0, 0.0, 1.0])
    np.testing.assert_allclose(optical_ned, [0, 0.5, math.sqrt(0.75)], atol=1e-9)  # east, 60 degrees below level


def test_xmp_is_read_as_attributes_and_as_elements() -> None:
    raw = b'<a drone-dji:GimbalYawDegree="+10.0"/><drone-dji:GimbalPitchDegree>-80.0</drone-dji:GimbalPitchDegree>'
    attitude = attitude_from_xmp(parse_xmp(raw))
    assert (attitude.pitch_deg, attitude.yaw_deg) == pytest.approx((10.0, 10.0))


def test_without_angles_a_photo_is_level_and_its_heading_unknown() -> None:
    assert attitude_from_xmp({}).yaw_deg is None
    flight_yaw = attitude_from_xmp({"drone-dji:FlightYawDegree": "-90"})
    assert (flight_yaw.roll_deg, flight_yaw.pitch_deg, flight_yaw.yaw_deg) == (0, 0, 270)
    parrot = attitude_from_xmp({"Camera:Yaw": "5", "Camera:Pitch": "2", "Camera:Roll": "-3"})
    assert (parrot.roll_deg, parrot.pitch_deg, parrot.yaw_deg) == (-3, 2, 5)


def test_photos_become_a_flight_folder_that_opens(tmp_path: Path) -> None:
    make_photo(tmp_path / "photos/B.JPG", "2024:05:06 07:08:11", (-46.5, 91.25))
    make_photo(tmp_path / "photos/A.JPG", "2024:05:06 07:08:09")
    ran = pilotage("flight", "from-photos", tmp_path / "photos", "--out", tmp_path / "flight")
    assert ran.returncode == 0, ran.stderr
    assert "2 photos, 80.5 to 80.5 m above ground by DJI RelativeAltitude" in ran.stdout
    flight = open_flight(tmp_path / "flight")
    items = list(flight.items())
    assert [item.source for item in items] == ["photos/A.JPG", "photos/B.JPG"]
    assert items[0].captured_at_ns == 1_714_979_289_000_000_000  # 2024-05-06T07:08:09Z
    assert angles_deg(items[0].telemetry) == pytest.approx((0, 0, 42.8), abs=1e-3)
    truth = flight.truth()
    assert truth is not None
    assert truth.at(items[0].captured_at_ns) == pytest.approx((46.5, -91.25), abs=1e-6)
    assert truth.at(items[1].captured_at_ns) == pytest.approx((-46.5, 91.25), abs=1e-6)
    assert flight.camera.focal_px == pytest.approx(24 / 36 * 64)
    assert (tmp_path / "flight/photos/A.JPG").read_bytes() == (tmp_path / "photos/A.JPG").read_bytes()
    told = pilotage("flight", "info", tmp_path / "flight")
    assert told.returncode == 0, told.stderr
    assert "2 frames in 2.0 s" in told.stdout
    assert "truth: 2 positions" in told.stdout


def test_a_photo_without_gps_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    make_photo(tmp_path / "photos/A.JPG")
    make_photo(tmp_path / "photos/B.JPG", "2024:05:06 07:08:11", place=None)
    ran = pilotage("flight", "from-photos", tmp_path / "photos", "--out", tmp_path / "flight")
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "B.JPG" in ran.stderr
    assert "--skip-without-gps" in ran.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]
    summary = flight_from_photos([tmp_path / "photos"], tmp_path / "flight", PhotoOptions(skip_without_gps=True))
    assert (summary.photos, summary.skipped) == (1, 1)


@pytest.mark.parametrize("place", [(0.0, 0.0), None])
def test_null_island_is_no_place(tmp_path: Path, place: tuple[float, float] | None) -> None:
    assert read_photo(make_photo(tmp_path / "a.jpg", place=place)).latitude_deg is None


def test_heights_come_from_options_before_tags_and_are_never_guessed(tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "a.jpg")
    for i, (options, expected) in enumerate(
        [
            (PhotoOptions(), "80.500"),
            (PhotoOptions(height_above_ground_m=70.0), "70.000"),
            (PhotoOptions(ground_altitude_m=180.0), "120.000"),
        ]
    ):
        flight_from_photos([photo], tmp_path / f"flight{i}", options)
        assert rows_of(tmp_path / f"flight{i}")[0]["height_above_ground_m"] == expected
    bare = make_photo(tmp_path / "bare.jpg", xmp={})
    with pytest.raises(FlightError) as raised:
        flight_from_photos([bare], tmp_path / "none")
    told_in_one_line(raised, "bare.jpg", "--ground-altitude-m", "--height-above-ground-m")
    assert not (tmp_path / "none").exists()


def test_times_are_strictly_rising_and_know_zones_and_subseconds(tmp_path: Path) -> None:
    photos = [make_photo(tmp_path / f"{i}.jpg") for i in range(4)]
    flight_from_photos(photos, tmp_path / "same_second")
    times = [int(row["captured_at_ns"]) for row in rows_of(tmp_path / "same_second")]
    assert [t - times[0] for t in times] == [0, 250 * MS, 500 * MS, 750 * MS]
    zoned = read_photo(make_photo(tmp_path / "zoned.jpg", tag_0x9011="+02:00", tag_0x9291="306746"))
    assert zoned.captured_at_ns == times[0] - 7200 * 10**9 + 306_746_000
    with pytest.raises(FlightError, match=r"time of .*undated"):
        read_photo(make_photo(tmp_path / "undated.jpg", when="0000:00:00 00:00:00"))


def test_cards_that_count_from_the_start_again_keep_all_their_photos(tmp_path: Path) -> None:
    make_photo(tmp_path / "card1/DJI_0001.JPG")
    make_photo(tmp_path / "card2/DJI_0001.JPG", "2024:05:06 07:20:00")
    flight_from_photos([tmp_path / "card1", tmp_path / "card2"], tmp_path / "flight")
    assert [row["file"] for row in rows_of(tmp_path / "flight")] == [
        "photos/DJI_0001.JPG",
        "photos/card2_DJI_0001.JPG",
    ]


def test_the_lens_comes_from_the_best_tags(tmp_path: Path) -> None:
    dewarp = {**DJI, "drone_dji__DewarpData": "2021-01-01;100,102,1,-2,0.1,0.2,0.3,0.4,0.5"}
    shrunk = {"tag_0xa002": 128, "tag_0xa003": 96}  # the tags speak of an original twice as large
    flight_from_photos([make_photo(tmp_path / "a.jpg", xmp=dewarp, **shrunk)], tmp_path / "dewarp")
    camera = CameraModel.from_yaml(tmp_path / "dewarp/camera.yaml")
    assert camera.distortion == (0.1, 0.2, 0.3, 0.4, 0.5)
    np.testing.assert_allclose(camera.matrix, [[50, 0, 32], [0, 51, 22.5], [0, 0, 1]])
    plane = {"tag_0x920a": 4.0, "tag_0xa20e": 11.0, "tag_0xa210": 4}  # 4 mm, 11 px per mm
    flight_from_photos([make_photo(tmp_path / "b.jpg", **plane)], tmp_path / "plane")
    assert CameraModel.from_yaml(tmp_path / "plane/camera.yaml").focal_px == pytest.approx(44.0)
    CAMERA.to_yaml(tmp_path / "mine.yaml")
    flight_from_photos([tmp_path / "a.jpg"], tmp_path / "mine", PhotoOptions(camera_yaml=tmp_path / "mine.yaml"))
    assert CameraModel.from_yaml(tmp_path / "mine/camera.yaml").distortion == CAMERA.distortion
    with pytest.raises(FlightError, match="no focal length"):
        flight_from_photos([make_photo(tmp_path / "c.jpg", tag_0xa405=0)], tmp_path / "none")


def test_photos_of_two_cameras_or_an_existing_folder_are_refused(tmp_path: Path) -> None:
    a = make_photo(tmp_path / "a.jpg")
    b = tmp_path / "b.jpg"
    with Image.open(a) as opened:
        opened.resize((32, 24)).save(b, exif=opened.getexif())
    with pytest.raises(FlightError) as raised:
        flight_from_photos([a, b], tmp_path / "flight", PhotoOptions(height_above_ground_m=50.0))
    told_in_one_line(raised, "another camera", "32x24", "64x48")
    (tmp_path / "flight").mkdir()
    with pytest.raises(FlightError, match="output is there already"):
        flight_from_photos([a], tmp_path / "flight")
    assert list((tmp_path / "flight").iterdir()) == []


def test_what_is_no_photo_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 no more")
    for photos, words in (
        (tmp_path / "a.jpg", "unreadable photo"),
        (tmp_path / "nowhere", "no photos"),
        (tmp_path, "unreadable photo"),
    ):
        ran = pilotage("flight", "from-photos", photos, "--out", tmp_path / "flight")
        assert ran.returncode == 2
        assert words in ran.stderr
        assert "Traceback" not in ran.stderr
    assert not (tmp_path / "flight").exists()
