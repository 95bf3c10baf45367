"""The flight folder: frames in order of time, truth for the scorer only, and what is broken is refused in one line."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from toy_flight import CAMERA, MS, START_NS, angles_deg, picture, told_in_one_line

from onboard.errors import CameraError, FlightError
from onboard.flight import Topics, Truth, open_flight
from onboard.flight.folder import HOME_COLUMNS
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.records import HeightReference, Reason, Telemetry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three frames, in the table in another order than in time."""
    path = tmp_path / "folder"
    (path / "photos").mkdir(parents=True)
    CAMERA.to_yaml(path / "camera.yaml")
    for i in range(3):
        cv2.imwrite(str(path / f"photos/{i}.png"), picture(i))
    write_table(
        path,
        [
            ["photos/2.png", START_NS + 2000 * MS, 1, 2, "", 62, 10.0002, 20.0002, 4, 5],
            ["photos/0.png", START_NS, 0, 0, 0, 60, 10.0, 20.0, "", ""],
            ["photos/1.png", START_NS + 1000 * MS, -3, 4, 90, 61, 10.0001, 20.0001, 1, 2],
        ],
    )
    return path


HEADER = [
    "file",
    "captured_at_ns",
    "roll_deg",
    "pitch_deg",
    "yaw_deg",
    "height_above_ground_m",
    "latitude_deg",
    "longitude_deg",
    "velocity_north_mps",
    "velocity_east_mps",
]


def write_table(folder: Path, rows: list[list[Any]], header: list[str] = HEADER) -> None:
    with (folder / "frames.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def change(folder: Path, row: int, column: str, value: str) -> None:
    with (folder / "frames.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    rows[row][header.index(column)] = value
    write_table(folder, rows, header)


def test_a_flight_folder_gives_its_frames_in_order_of_time(folder: Path) -> None:
    flight = open_flight(folder)
    items = list(flight.items())
    assert (flight.name, flight.frame_count) == ("folder", 3)
    assert [item.captured_at_ns for item in items] == [START_NS, START_NS + 1000 * MS, START_NS + 2000 * MS]
    np.testing.assert_array_equal(flight.body_from_camera, BODY_FROM_CAMERA_DOWN)
    assert flight.camera.focal_px == 50.0
    for i, item in enumerate(items):
        assert item.frame is not None
        np.testing.assert_array_equal(item.frame.image_bgr, picture(i))
    first, second, third = (item.telemetry for item in items)
    assert angles_deg(second) == pytest.approx((-3, 4, 90))
    assert isinstance(first, Telemetry)
    assert first.attitude_quat_wxyz == pytest.approx((1, 0, 0, 0))  # 0, 0, 0: straight down, top of the image north
    assert first.velocity_ned_mps is None
    assert isinstance(second, Telemetry)
    assert second.heading_known
    assert second.velocity_ned_mps == (1.0, 2.0, 0.0)
    assert isinstance(third, Telemetry)
    assert not third.heading_known  # an empty yaw
    assert third.height_above_ground_m == 62.0


def test_truth_is_told_to_the_scorer_and_not_to_the_frames(folder: Path) -> None:
    flight = open_flight(folder)
    truth = flight.truth()
    assert truth is not None
    assert truth.at(START_NS + 500 * MS) == pytest.approx((10.00005, 20.00005))
    names = {name for item in flight.items() for name in (*dir(item), *dir(item.telemetry), *dir(item.frame))}
    assert not [name for name in names if "latitude" in name or "longitude" in name or "truth" in name]


def test_truth_is_not_extrapolated_nor_drawn_over_gaps() -> None:
    truth = Truth(
        np.array([0, 1000, 9000], dtype=np.int64) * MS, np.array([0.0, 1.0, 2.0]), np.array([179.9, -179.9, 5.0])
    )
    assert truth.at(-1) is None
    assert truth.at(9000 * MS + 1) is None
    assert truth.at(5000 * MS) is None
    assert truth.at(9000 * MS) == (2.0, 5.0)
    assert truth.at(250 * MS) == pytest.approx((0.25, 179.95))  # over the date line


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("roll_deg", "", Reason.BAD_TELEMETRY),
        ("pitch_deg", "nan", Reason.BAD_TELEMETRY),
        ("yaw_deg", "nan", Reason.BAD_TELEMETRY),
        ("roll_deg", "inf", Reason.BAD_TELEMETRY),
        ("height_above_ground_m", "", Reason.NO_HEIGHT),
        ("height_above_ground_m", "nan", Reason.NO_HEIGHT),
    ],
)
def test_what_a_row_does_not_know_is_a_reason_of_that_frame(
    folder: Path, column: str, value: str, reason: Reason
) -> None:
    change(folder, 2, column, value)
    told = [item.telemetry for item in open_flight(folder).items()]
    assert told[1] is reason
    assert isinstance(told[0], Telemetry)
    assert isinstance(told[2], Telemetry)


def test_a_number_that_is_none_names_file_line_and_column(folder: Path) -> None:
    change(folder, 1, "pitch_deg", "level")
    with pytest.raises(FlightError) as raised:
        open_flight(folder)
    told_in_one_line(raised, "frames.csv, line 3, column pitch_deg: 'level'")


def test_a_height_may_be_told_above_home_instead(folder: Path) -> None:
    header = [name for name in HEADER if name != "height_above_ground_m"] + list(HOME_COLUMNS)
    row = [0, 0, 0, 10.0, 20.0, "", ""]
    heights = [(70, 10.5, 20.5), (71, "", ""), ("", 10.5, 20.5)]
    rows = [[f"photos/{i}.png", START_NS + i * MS, *row, *height] for i, height in enumerate(heights)]
    write_table(folder, rows, header)
    first, second, third = (item.telemetry for item in open_flight(folder).items())
    assert isinstance(first, Telemetry)
    assert isinstance(second, Telemetry)
    above = HeightReference.HOME
    assert (first.height_above_ground_m, first.height_reference, first.home_deg) == (70, above, (10.5, 20.5))
    assert (second.height_above_ground_m, second.height_reference, second.home_deg) == (71, above, None)
    assert third is Reason.NO_HEIGHT
    write_table(folder, [[*rows[0][:-1], 200.5]], header)
    with pytest.raises(FlightError, match="column home_longitude_deg") as raised:
        open_flight(folder)
    told_in_one_line(raised, "200.5")


def test_a_height_above_ground_goes_before_one_above_home(folder: Path) -> None:
    row = ["photos/0.png", START_NS, 0, 0, 0, 60, 10.0, 20.0, "", "", 70, 10.5, 20.5]
    write_table(folder, [row], [*HEADER, *HOME_COLUMNS])
    told = next(iter(open_flight(folder).items())).telemetry
    assert isinstance(told, Telemetry)
    assert (told.height_above_ground_m, told.height_reference, told.home_deg) == (60, HeightReference.GROUND, None)


def test_a_time_that_is_no_whole_number_is_refused(folder: Path) -> None:
    change(folder, 0, "captured_at_ns", "1.7e18")
    with pytest.raises(FlightError) as raised:
        open_flight(folder)
    told_in_one_line(raised, "captured_at_ns", "1.7e18", "nanoseconds")


def test_missing_columns_are_named(folder: Path) -> None:
    write_table(folder, [["photos/0.png", START_NS, 60]], ["file", "captured_at_ns", "height_above_ground_m"])
    with pytest.raises(FlightError) as raised:
        open_flight(folder)
    told_in_one_line(raised, "roll_deg, pitch_deg, yaw_deg")


def test_a_table_without_rows_is_refused(folder: Path) -> None:
    write_table(folder, [])
    with pytest.raises(FlightError, match="no frames"):
        open_flight(folder)


def test_missing_images_are_counted_and_the_first_is_named(folder: Path) -> None:
    (folder / "photos/1.png").unlink()
    with pytest.raises(FlightError) as raised:
        open_flight(folder)
    told_in_one_line(raised, "1 of 3 images", "photos/1.png")


def test_an_image_that_cannot_be_decoded_is_a_frame_without_image(folder: Path) -> None:
    (folder / "photos/1.png").write_bytes(b"no image at all")
    assert [item.frame is None for item in open_flight(folder).items()] == [False, True, False]


def test_an_image_of_another_size_than_the_camera_is_refused(folder: Path) -> None:
    cv2.imwrite(str(folder / "photos/2.png"), picture(0, (32, 24)))
    with pytest.raises(FlightError) as raised:
        open_flight(folder)
    told_in_one_line(raised, "photos/2.png", "32x24", "64x48")


def test_pixels_are_taken_as_they_are_stored(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees"
    Image.fromarray(picture()).save(folder / "photos/turned.jpg", exif=exif)
    change(folder, 1, "file", "photos/turned.jpg")
    frame = next(open_flight(folder).items()).frame
    assert frame is not None
    assert frame.image_bgr.shape == (48, 64, 3)


def test_a_folder_without_camera_is_refused(folder: Path) -> None:
    (folder / "camera.yaml").unlink()
    with pytest.raises(CameraError, match="no camera file"):
        open_flight(folder)


def test_what_is_no_flight_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FlightError, match=r"no flight: .*nowhere"):
        open_flight(tmp_path / "nowhere")
    with pytest.raises(FlightError) as raised:
        open_flight(tmp_path)
    told_in_one_line(raised, "frames.csv", "from-photos")


def test_topics_told_for_a_flight_folder_are_refused(folder: Path) -> None:
    with pytest.raises(FlightError, match="leave --topic out"):
        open_flight(folder, topics=Topics(image="/cam"))
