"""Profiles: what each sends, which one a vehicle gets, and which are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from toy_link import EAST_M, NORTH_M, START_NS, estimate, frame, telemetry, wired

from onboard.config import Config, merge
from onboard.errors import ConfigError, LinkError
from onboard.mavlink import Withheld, profile_named
from onboard.mavlink.peer.received import decode
from onboard.mavlink.tell.profile import PROFILES, profile_for
from onboard.mavlink.vehicle.autopilot import Autopilot


@pytest.mark.parametrize("name", list(PROFILES))
def test_every_profile_sends_the_messages_it_says(name: str) -> None:
    profile = profile_named(name)
    wire, link = wired(profile=profile)
    assert link.send(estimate(), telemetry())
    sent = wire.messages()
    assert [m.get_type() for m in sent[1:]] == list(profile.carriers)
    fix = decode(sent[1], link.origin)
    back = frame().enu_from_geodetic(fix.latitude_deg, fix.longitude_deg)
    assert np.linalg.norm(back - [EAST_M, NORTH_M]) < 0.01
    assert fix.time_usec == START_NS // 1000


def test_a_profile_that_is_chosen_later_keeps_the_origin_and_brings_its_globe() -> None:
    wire, link = wired()
    link.profile = profile_named("px4-odometry")
    assert link.send(estimate(), telemetry())
    fix = decode(wire.messages()[-1], link.origin)
    assert frame().enu_from_geodetic(fix.latitude_deg, fix.longitude_deg) == pytest.approx([EAST_M, NORTH_M], abs=1e-3)
    assert wire.messages()[-1].x == pytest.approx(10.0 * 6_371_000 / 6_370_064, abs=0.006)


@pytest.mark.parametrize(
    ("autopilot", "name"), [(Autopilot.ARDUPILOT, "ardupilot-odometry"), (Autopilot.PX4, "px4-global-position")]
)
def test_the_profile_follows_from_what_the_vehicle_says_it_is(autopilot: Autopilot, name: str) -> None:
    assert profile_for(autopilot).name == name


@pytest.mark.parametrize("autopilot", [Autopilot.OTHER, Autopilot.UNKNOWN])
def test_an_unknown_autopilot_needs_a_profile_by_name(autopilot: Autopilot) -> None:
    with pytest.raises(LinkError, match=r"INAV 8.*ardupilot-odometry.*px4-odometry"):
        profile_for(autopilot, "INAV 8")
    assert profile_for(autopilot, wanted="ardupilot-gps-input").name == "ardupilot-gps-input"


def test_a_profile_of_the_other_firmware_is_refused_with_those_that_fit() -> None:
    with pytest.raises(LinkError, match=r"ArduCopter 4\.6\.1.*expected auto, ardupilot-odometry") as caught:
        profile_for(Autopilot.ARDUPILOT, "ArduCopter 4.6.1", "px4-odometry", 50.0)
    assert "px4-global-position" not in str(caught.value)
    assert profile_for(Autopilot.ARDUPILOT, wanted="ardupilot-vision").name == "ardupilot-vision"


def test_external_vision_of_px4_is_refused_below_the_rate_that_it_needs() -> None:
    with pytest.raises(LinkError, match=r"rate_hz.*10.*at least 30"):
        profile_for(Autopilot.PX4, wanted="px4-odometry", rate_hz=10.0)
    assert profile_for(Autopilot.PX4, wanted="px4-odometry", rate_hz=30.0).name == "px4-odometry"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rate_hz", 0.0),
        ("latency_ms", -1.0),
        ("silent_after_s", math.nan),
        ("switch_source_set", 4),
        ("system_id", 256),
    ],
)
def test_a_link_setting_out_of_range_is_named(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"link\.{key}"):
        merge(Config(), {"link": {key: value}})


def test_a_profile_that_needs_a_calendar_withholds_boot_time_stamps() -> None:
    _, link = wired(profile=profile_named("ardupilot-gps-input"))
    assert not link.send(estimate(valid_at_ns=5_000_000_000), telemetry())
    assert link.withheld == {Withheld.NO_UNIX_TIME: 1}


def test_an_unknown_profile_names_those_there_are() -> None:
    with pytest.raises(LinkError, match=r"ardupilot-odometry.*px4-global-position"):
        profile_named("betaflight")
