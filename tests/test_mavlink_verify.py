"""What was received against what was written: every difference is found."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from toy_link import ALTITUDE, LATITUDE, LONGITUDE, START_NS, PacketSource, flight, frame, reference, telemetry

from onboard.errors import LinkError
from onboard.mavlink import ListenerProcess, MavlinkLink
from onboard.mavlink.peer.listener import Listener
from onboard.mavlink.peer.received import Received, read_csv
from onboard.mavlink.peer.verify import verify
from onboard.mavlink.tell import messages
from onboard.mavlink.tell.place import Home
from onboard.records import Estimate

FIX_COLUMNS = [
    *("captured_at_ns", "source", "state", "published", "latitude_deg", "longitude_deg"),
    *("cov_ee_m2", "cov_en_m2", "cov_nn_m2", "heading_deg", "reason", "best_latitude_deg", "best_longitude_deg"),
    "rivals",
]


def write_fixes(path: Path, estimates: list[Estimate]) -> None:
    """fixes.csv as a replay writes it, with a refused frame between every two published ones."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(FIX_COLUMNS)
        for one in estimates:
            latitude, longitude = frame().geodetic_from_enu(one.position_enu_m)
            (ee, en), (_, nn) = one.covariance[:2, :2]
            place = [f"{latitude:.9f}", f"{longitude:.9f}", *(f"{c:.4f}" for c in (ee, en, nn))]
            rows.writerow([one.valid_at_ns, "a.jpg", "tracking", 1, *place, "90.000", "", *place[:2], ""])
            rows.writerow([one.valid_at_ns + 125_000_000, "b.jpg", "tracking", 0, *[""] * 6, "weak_match", "", "", ""])


@pytest.fixture
def flown(tmp_path: Path) -> tuple[Path, Path, Received]:
    """20 estimates sent to a listening process: its CSV, the fixes.csv, its sums."""
    estimates = flight(20)
    with ListenerProcess("udpin:127.0.0.1:0", tmp_path / "received.csv") as listener:
        with MavlinkLink.open(listener.peer) as link:
            link.set_origin(LATITUDE, LONGITUDE, ALTITUDE)
            for one in estimates:
                link.heartbeat(one.valid_at_ns)
                assert link.send(one, telemetry())
        received = listener.stop(link.sent.total())
    write_fixes(tmp_path / "fixes.csv", estimates)
    return tmp_path / "received.csv", tmp_path / "fixes.csv", received


def test_a_listening_process_counts_and_decodes_all_that_was_sent(flown: tuple[Path, Path, Received]) -> None:
    received_csv, fixes_csv, received = flown
    assert received.by_name == {"SET_GPS_GLOBAL_ORIGIN": 1, "HEARTBEAT": 5, "ODOMETRY": 20}
    assert (received.total, received.lost, received.out_of_order, received.bad) == (26, 0, 0, 0)
    assert received.origin == Home.at(LATITUDE, LONGITUDE, ALTITUDE)
    assert received.csv_path == received_csv
    result = verify(received_csv, fixes_csv)
    assert result.ok
    assert (result.matched, result.missing, result.unexpected, result.differing) == (20, 0, 0, 0)
    assert result.worst_m < 2e-4
    assert [fix.quality for fix in read_csv(received_csv)] == [99] * 20
    assert [path.name for path in received_csv.parent.iterdir() if "partial" in path.name] == []


def rewrite(path: Path, change) -> None:
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *change(rows)]) + "\n")


def test_verify_fails_when_one_message_is_missing(flown: tuple[Path, Path, Received]) -> None:
    received_csv, fixes_csv, _ = flown
    rewrite(received_csv, lambda rows: rows[:7] + rows[8:])
    result = verify(received_csv, fixes_csv)
    assert not result.ok
    assert (result.matched, result.missing) == (19, 1)
    assert str((START_NS + 7 * 250_000_000) // 1000) in result.problems[0]


def test_verify_fails_when_a_message_came_twice_or_from_nowhere(flown: tuple[Path, Path, Received]) -> None:
    received_csv, fixes_csv, _ = flown
    rewrite(received_csv, lambda rows: [*rows, rows[3]])
    assert verify(received_csv, fixes_csv).unexpected == 1
    rewrite(fixes_csv, lambda rows: [rows[0].replace("tracking,1", "tracking,0"), *rows[1:]])
    result = verify(received_csv, fixes_csv)
    assert not result.ok
    assert (result.matched, result.unexpected) == (19, 2)


@pytest.mark.parametrize(
    ("column", "by"),
    [("latitude_deg", 2e-7), ("longitude_deg", -2e-7), ("cov_ee_m2", 2e-4), ("cov_en_m2", -2e-4), ("cov_nn_m2", 2e-4)],
)
def test_verify_fails_when_one_row_differs(flown: tuple[Path, Path, Received], column: str, by: float) -> None:
    received_csv, fixes_csv, _ = flown

    def change(rows: list[str]) -> list[str]:
        cells = rows[8].split(",")  # a published row
        at = FIX_COLUMNS.index(column)
        cells[at] = f"{float(cells[at]) + by:.9f}"
        return [*rows[:8], ",".join(cells), *rows[9:]]

    rewrite(fixes_csv, change)
    result = verify(received_csv, fixes_csv)
    assert not result.ok
    assert (result.matched, result.differing, result.missing) == (19, 1, 0)


def test_verify_fails_when_north_and_east_are_swapped(flown: tuple[Path, Path, Received]) -> None:
    received_csv, fixes_csv, _ = flown

    def change(rows: list[str]) -> list[str]:
        table = [row.split(",") for row in rows]
        return [",".join([*c[:7], c[9], c[8], c[7], *c[10:]]) for c in table]

    rewrite(received_csv, change)
    assert verify(received_csv, fixes_csv).differing == 20


def test_positions_before_the_origin_do_not_verify(tmp_path: Path) -> None:
    estimates = flight(1)
    listener = Listener(PacketSource(messages.odometry(estimates[0], telemetry(), reference())), tmp_path / "r.csv")
    listener.finish(quiet_s=0)
    write_fixes(tmp_path / "fixes.csv", estimates)
    result = verify(tmp_path / "r.csv", tmp_path / "fixes.csv")
    assert result.differing == 1
    assert math.isnan(result.worst_m)


def test_verify_misses_the_second_of_two_rows_of_one_instant(flown: tuple[Path, Path, Received]) -> None:
    received_csv, fixes_csv, _ = flown
    rewrite(fixes_csv, lambda rows: [rows[0], rows[0], *rows[1:]])
    result = verify(received_csv, fixes_csv)
    assert (result.matched, result.missing, result.ok) == (20, 1, False)


def test_verify_names_a_file_that_is_missing_or_another(tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(LinkError, match="no file of fixes"):
        verify(other, tmp_path / "fixes.csv")
    write_fixes(tmp_path / "fixes.csv", flight(1))
    with pytest.raises(LinkError, match="no file of received"):
        verify(tmp_path / "received.csv", tmp_path / "fixes.csv")
    with pytest.raises(LinkError, match="columns"):
        verify(other, tmp_path / "fixes.csv")
    with pytest.raises(LinkError, match="columns"):
        verify(other, other)
