"""The listening peer: losses and garbage are counted, its process ends as told, and the command `pilotage listen`."""

from __future__ import annotations

import json
import math
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav
from toy_link import LATITUDE, LONGITUDE, START_NS, PacketSource, estimate, flight, telemetry

from onboard.errors import LinkError
from onboard.mavlink import ListenerProcess, MavlinkLink
from onboard.mavlink.peer.listener import Listener
from onboard.mavlink.peer.received import read_csv
from onboard.mavlink.tell import commands
from onboard.mavlink.wire.transport import Address, open_transport, parse_address


@pytest.mark.parametrize(
    ("order", "lost", "out_of_order"),
    [
        (range(300), 0, 0),
        ([*range(10), *range(13, 300)], 3, 0),
        ([k for k in range(300) if k not in (5, 254, 255, 256)], 4, 0),
        ([0, 1, 1, 2, 3], 0, 1),
        ([0, 2, 1, 3], 1, 1),
    ],
    ids=["whole", "gap", "gap over the wrap", "twice", "overtaken"],
)
def test_losses_show_as_gaps_of_the_numbering(tmp_path: Path, order, lost: int, out_of_order: int) -> None:
    source = PacketSource(*[commands.heartbeat()] * 300).keep(*order)
    received = Listener(source, tmp_path / "r.csv").finish(quiet_s=0)
    assert received.by_name == {"HEARTBEAT": len(list(order))}
    assert (received.lost, received.out_of_order) == (lost, out_of_order)


def test_garbage_is_counted_and_harms_nothing(tmp_path: Path) -> None:
    good = commands.heartbeat()
    broken = bytearray(good.pack(mav.MAVLink(None)))
    broken[-1] ^= 0xFF
    source = PacketSource(good, b"\x00\x01garbage", bytes(broken), good, struct.pack("<10f", *[math.nan] * 10), good)
    received = Listener(source, tmp_path / "r.csv").finish(quiet_s=0)
    assert received.by_name == {"HEARTBEAT": 3}
    assert received.bad >= 3


def test_a_peer_that_never_stops_sending_cannot_hold_the_listener(tmp_path: Path) -> None:
    class Endless(PacketSource):
        def read(self, timeout_s: float) -> bytes:
            return commands.heartbeat().pack(mav.MAVLink(None))

    began = time.monotonic()
    received = Listener(Endless(), tmp_path / "r.csv").finish(quiet_s=5.0, limit_s=0.2)
    assert received.total > 0
    assert time.monotonic() - began < 5.0


def test_two_thousand_messages_sent_as_fast_as_possible_all_arrive(tmp_path: Path) -> None:
    estimates = [estimate(valid_at_ns=START_NS + k * 1000) for k in range(2000)]
    with ListenerProcess("udpin:127.0.0.1:0", tmp_path / "received.csv") as listener:
        with MavlinkLink.open(listener.peer) as link:
            link.set_origin(LATITUDE, LONGITUDE)
            assert all(link.send(one, telemetry()) for one in estimates)
        received = listener.stop(link.sent.total())
    assert received.by_name["ODOMETRY"] == 2000
    assert (received.total, received.lost) == (2001, 0)
    assert sum(1 for _ in read_csv(tmp_path / "received.csv")) == 2000


def test_the_listening_process_may_be_told_the_senders_address(tmp_path: Path) -> None:
    with open_transport(Address("udpin", "127.0.0.1", 0))._socket as probe:
        port = probe.getsockname()[1]
    with ListenerProcess(f"udpout:127.0.0.1:{port}", tmp_path / "r.csv") as listener:
        assert listener.address == f"udpin:127.0.0.1:{port}"
        assert listener.peer == f"udpout:127.0.0.1:{port}"
        with pytest.raises(LinkError, match=re.escape(f"udpin:127.0.0.1:{port}")):  # taken
            ListenerProcess(listener.address, tmp_path / "other.csv")
        assert listener.stop().total == 0
        assert listener.stop().total == 0  # asked again, the same answer
    assert not (tmp_path / "other.csv").exists()


def test_a_listening_process_that_is_given_up_leaves_nothing_behind(tmp_path: Path) -> None:
    with ListenerProcess("udpin:127.0.0.1:0", tmp_path / "r.csv") as listener:
        process = listener._process
    assert process.poll() is not None
    assert list(tmp_path.iterdir()) == []


def test_a_listening_process_that_died_is_a_link_error(tmp_path: Path) -> None:
    with ListenerProcess("udpin:127.0.0.1:0", tmp_path / "r.csv") as listener:
        listener._process.kill()
        listener._process.wait()
        with pytest.raises(LinkError, match="ended early"):
            listener.stop()


def test_a_listening_process_without_a_folder_to_write_to_is_a_link_error(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="no folder"):
        ListenerProcess("udpin:127.0.0.1:0", tmp_path / "nowhere" / "r.csv")


def pilotage(*arguments: str) -> subprocess.Popen[str]:
    code = "from onboard.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("how", ["seconds", "interrupt"])
def test_the_listen_command_writes_the_positions_and_the_sums(tmp_path: Path, how: str) -> None:
    limit = ["--seconds", "1.5"] if how == "seconds" else []
    program = pilotage("listen", "udpin:127.0.0.1:0", "--out", str(tmp_path / "heard.csv"), *limit)
    address = ""
    while "listening at" not in address:
        address = program.stdout.readline()
    with MavlinkLink.open(str(parse_address(address.split()[-1]).peer)) as link:
        link.set_origin(LATITUDE, LONGITUDE)
        for one in flight(3):
            link.send(one, telemetry())
    if how == "interrupt":
        time.sleep(0.3)
        program.send_signal(signal.SIGINT)
    words, errors = program.communicate(timeout=20)
    assert program.returncode == 0, errors
    assert "ODOMETRY 3" in words
    sums = json.loads((tmp_path / "heard.json").read_text())
    assert sums["by_name"] == {"ODOMETRY": 3, "SET_GPS_GLOBAL_ORIGIN": 1}
    assert sums["origin"]["latitude_deg"] == LATITUDE
    assert len(list(read_csv(tmp_path / "heard.csv"))) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heard.csv", "heard.json"]


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["udpout:127.0.0.1:14550"], ["udpin:127.0.0.1:0", "--seconds", "-1"]],
    ids=["address", "direction", "time"],
)
def test_the_listen_command_refuses_bad_input_in_one_line(tmp_path: Path, arguments: list[str]) -> None:
    program = pilotage("listen", *arguments, "--out", str(tmp_path / "heard.csv"))
    _, errors = program.communicate(timeout=20)
    assert program.returncode == 2
    assert errors.startswith("pilotage: ")
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
