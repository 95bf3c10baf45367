"""Golden vectors of what is no position: origin, heartbeat, reset, source set, status text, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav
from toy_golden import BOOT_NS, EPH_M, NAN, PLACES, SENT_NS, VALID_NS, Peer, check, estimate

from onboard.frames import MapFrame
from onboard.mavlink import MavlinkLink
from onboard.mavlink.tell import commands
from onboard.mavlink.tell.place import Home
from onboard.mavlink.wire.sender import PacedSender
from onboard.mavlink.wire.transport import open_transport, parse_address


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    with peer.socket:
        yield peer


@pytest.mark.parametrize("where", PLACES)
def test_the_origin(peer: Peer, where: str) -> None:
    (latitude, longitude), _, _ = PLACES[where]
    with MavlinkLink.open(peer.address, source_system=7) as link:
        assert link.set_origin(latitude, longitude, 488.1234)
    check(
        peer.hear(),
        target_system=7,
        latitude=round(latitude * 1e7),
        longitude=round(longitude * 1e7),
        altitude=488_123,
        time_usec=0,
    )


def test_the_heartbeat(peer: Peer) -> None:
    with MavlinkLink.open(peer.address) as link:
        assert link.heartbeat(VALID_NS)
    check(peer.hear(), type=18, autopilot=8, base_mode=0, custom_mode=0, system_status=4, mavlink_version=3)


@pytest.mark.parametrize("where", PLACES)
def test_the_position_reset_is_stamped_with_its_validity_as_the_odometry_of_the_same_link_is(
    peer: Peer, where: str
) -> None:
    origin, place, _ = PLACES[where]
    frame = MapFrame(*origin)
    with closing(open_transport(parse_address(peer.address))) as transport:
        sender = PacedSender(transport, 7, 197)
        link = MavlinkLink(sender, target_system=7, stamp=lambda ours_ns: ours_ns - BOOT_NS)
        link.use_origin(Home.at(*origin), frame)
        assert link.reset(estimate(place, frame), SENT_NS)
    check(
        peer.hear(),
        target_system=7,
        target_component=1,
        frame=0,
        command=43003,
        current=0,
        autocontinue=0,
        param1=75.000123789,
        param2=0.15,
        param3=EPH_M,
        param4=0.0,
        x=round(place[0] * 1e7),
        y=round(place[1] * 1e7),
        z=NAN,
    )


def over_the_wire(message: mav.MAVLink_message) -> mav.MAVLink_message:
    (heard,) = mav.MAVLink(None).parse_buffer(message.pack(mav.MAVLink(None, srcSystem=1, srcComponent=197)))
    return heard


def test_the_switch_of_the_source_set() -> None:
    nothing = {f"param{k}": 0.0 for k in range(2, 8)}
    check(
        over_the_wire(commands.set_ekf_source_set(2, target_system=7)),
        target_system=7,
        target_component=1,
        command=42007,
        confirmation=0,
        param1=2.0,
        **nothing,
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [("", 0, 0)]),
        ("PLTG: no fix", [("PLTG: no fix", 0, 0)]),
        ("a" * 50, [("a" * 50, 0, 0)]),
        ("a" * 50 + "b", [("a" * 50, 321, 0), ("b", 321, 1)]),
        ("a" * 50 + "b" * 50, [("a" * 50, 321, 0), ("b" * 50, 321, 1), ("", 321, 2)]),
        ("über 30 m", [("?ber 30 m", 0, 0)]),
    ],
    ids=["empty", "short", "full", "two chunks", "a full last chunk is ended by an empty one", "not ASCII"],
)
def test_the_status_text_and_its_chunks(text: str, parts: list[tuple[str, int, int]]) -> None:
    heard = [over_the_wire(one) for one in commands.statustext(text, mav.MAV_SEVERITY_WARNING, 321)]
    assert len(heard) == len(parts)
    for message, (words, text_id, number) in zip(heard, parts, strict=True):
        check(message, severity=4, text=words, id=text_id, chunk_seq=number)


def test_a_status_text_without_end_is_cut_where_the_chunks_cannot_be_counted_any_more() -> None:
    chunks = commands.statustext("a" * 100_000)
    assert [one.chunk_seq for one in chunks] == list(range(256))
