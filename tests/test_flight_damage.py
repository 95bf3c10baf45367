"""Bags with odd images, stamps and bytes: what can be read is counted, what cannot is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_bag import IMAGE, IMU, changed, header, image, message, toy_messages, write_bag
from toy_flight import MS, START_NS, jpeg, told_in_one_line

from onboard.errors import FlightError
from onboard.flight import open_flight, ros


def stamped(body: Any, new_header: Any) -> Any:
    body.header = new_header
    return body


def raw_image(at_ns: int, encoding: str, pixels: np.ndarray) -> Any:
    return message(
        "sensor_msgs/msg/Image",
        header=header(at_ns, "optical"),
        height=48,
        width=64,
        encoding=encoding,
        is_bigendian=0,
        step=pixels.size // 48,
        data=pixels.ravel(),
    )


def test_images_of_a_second_camera_on_the_topic_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def from_two(i: int) -> Any:
        at_ns = START_NS + (150 + 500 * i) * MS
        return image(at_ns, jpeg(i)) if i != 1 else stamped(image(at_ns, jpeg(i)), header(at_ns, "thermal"))

    path = write_bag(tmp_path / "bag", changed(IMAGE, from_two))
    flight = open_flight(path)
    assert "notes" not in flight.facts
    times = [item.captured_at_ns - START_NS for item in flight.items()]
    assert times == [t * MS for t in (150, 1150, 1650)]
    assert flight.facts["notes"] == "image of another camera, frame_id 'thermal', left out (1)"
    assert len([r for r in caplog.records if "thermal" in r.message]) == 1
    list(flight.items())
    assert flight.facts["notes"].endswith("(1)")  # counted anew


def test_images_that_change_their_size_are_told(tmp_path: Path) -> None:
    made = changed(IMAGE, lambda i: image(START_NS + (150 + 500 * i) * MS, jpeg(i, (64, 48) if i < 2 else (32, 24))))
    flight = open_flight(write_bag(tmp_path / "bag", made))
    assert len(list(flight.items())) == 4
    assert flight.facts["notes"] == "image of another size, 32x24 (2)"


def test_a_stamp_of_zero_is_the_time_of_logging_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = [(t, at, stamped(body, header(0, "optical")) if t == IMAGE else body) for t, at, body in toy_messages()]
    flight = open_flight(write_bag(tmp_path / "bag", made))
    times = [item.captured_at_ns - START_NS for item in flight.items()]
    assert times == [t * MS for t in (150, 650, 1150, 1650)]
    assert "stamp of zero" in flight.facts["notes"]
    assert flight.facts["notes"].endswith("(4)")
    assert len([r for r in caplog.records if "stamp of zero" in r.message]) == 1


def test_an_encoding_that_is_not_read_is_named_with_those_that_are(tmp_path: Path) -> None:
    depth = np.zeros((48, 128), np.uint8)
    made = [
        ("/camera/image_raw", at, raw_image(at, "16UC1", depth)) if t == IMAGE else (t, at, body)
        for t, at, body in toy_messages()
    ]
    with pytest.raises(FlightError) as raised:
        open_flight(write_bag(tmp_path / "bag", made))
    told_in_one_line(raised, "/camera/image_raw", "16UC1", "bgr8", "--topic")


def test_a_compressed_format_that_is_not_read_is_named(tmp_path: Path) -> None:
    def h264(i: int) -> Any:
        body = image(START_NS + (150 + 500 * i) * MS, np.arange(80, dtype=np.uint8))
        body.format = "h264"
        return body

    with pytest.raises(FlightError) as raised:
        open_flight(write_bag(tmp_path / "bag", changed(IMAGE, h264)))
    told_in_one_line(raised, IMAGE, "h264", "JPEG")


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_keep_their_colours(pattern: str) -> None:
    rgb = {"r": 200, "g": 120, "b": 40}
    cell = np.array([rgb[c] for c in pattern], np.uint8).reshape(2, 2)
    bgr = ros.image_bgr(raw_image(START_NS, f"bayer_{pattern}8", np.tile(cell, (24, 32))), ros.IMAGE)
    assert bgr is not None
    np.testing.assert_array_equal(bgr[10, 10], [40, 120, 200])


@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_or_scrambled_mcap_is_one_line_at_any_byte(tmp_path: Path, compressed: bool) -> None:
    whole = next(write_bag(tmp_path / "bag", toy_messages(), compressed=compressed).glob("*.mcap")).read_bytes()
    assert (b"zstd" in whole) == compressed
    broken = tmp_path / "broken.mcap"
    generator = np.random.default_rng(11)
    refused = 0
    for cut in (0, 3, 8, 60, *generator.integers(100, len(whole) - 1, 20)):
        broken.write_bytes(whole[:cut])
        with pytest.raises(FlightError) as raised:
            open_flight(broken)
        told_in_one_line(raised, "broken recording", "broken.mcap", "copy it again")
    for _ in range(60):
        scrambled = np.frombuffer(whole, np.uint8).copy()
        scrambled[generator.integers(0, len(whole), 20)] = generator.integers(0, 256, 20)
        broken.write_bytes(scrambled.tobytes())
        said = complaint(broken)
        assert "\n" not in said
        refused += said != ""
    assert refused > 5


def complaint(path: Path) -> str:
    """What a whole reading of a flight has to complain of; any other error than FlightError passes through."""
    try:
        flight = open_flight(path)
        list(flight.items())
        flight.truth()
    except FlightError as error:
        return str(error)
    return ""


def test_a_bag_that_breaks_off_within_is_told_while_it_is_replayed(tmp_path: Path) -> None:
    flight = open_flight(write_bag(tmp_path / "bag", toy_messages(), cut=(IMU, START_NS + 1730 * MS)))
    items = flight.items()
    seen = [next(items) for _ in range(3)]
    assert len(seen) == 3
    with pytest.raises(FlightError) as raised:
        next(items)
    told_in_one_line(raised, "broken recording", "bag")
