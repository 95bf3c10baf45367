"""The ROS node's parameters: every setting under its own words, in its range, refused with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from onboard.config import Config
from onboard.errors import ConfigError
from pilotage_ros import parameters


def test_every_setting_is_a_parameter_under_its_own_words() -> None:
    names = {spec.name for spec in parameters.config_specs()}
    assert names == {f"{section}.{key}" for section, keys in Config().to_dict().items() for key in keys}


def test_a_settings_comment_is_its_description_and_its_name_gives_the_unit() -> None:
    by_name = {spec.name: spec for spec in parameters.config_specs()}
    coast = by_name["track.coast_s"]
    assert coast.description == "the longest that an estimate may live on motion alone [seconds]"
    assert "[share]" in by_name["fix.min_probability_right"].description
    assert by_name["rectify.max_tilt_deg"].high == 180.0
    assert all(spec.description for spec in parameters.all_specs())


def test_every_default_lies_in_its_range_and_every_end_of_a_range_is_a_valid_setting() -> None:
    for spec in parameters.config_specs():
        if spec.low is None or spec.high is None:
            continue
        kind = type(spec.default)
        assert spec.low <= float(spec.default) <= spec.high, spec.name
        for end in (spec.low, spec.high):
            parameters.config_of({spec.name: kind(end)})


def test_parameters_become_the_config_they_were_made_of() -> None:
    values = {spec.name: spec.default for spec in parameters.all_specs()}
    assert parameters.config_of(values) == Config()
    assert parameters.config_of(values | {"track.coast_s": 5.0}).track.coast_s == 5.0


def test_a_change_is_refused_with_its_reason() -> None:
    specs = parameters.all_specs()
    present = {spec.name: spec.default for spec in specs}

    def why(active: bool = False, **changes: Any) -> str:
        return parameters.why_not(specs, present, {k.replace("__", "."): v for k, v in changes.items()}, active)

    assert why(track__coast_s=5.0) == ""
    assert (
        why(True, track__coast_s=5.0) == "track.coast_s cannot be changed while the node is active: deactivate it first"
    )
    assert why(True, track__coast_s=present["track.coast_s"]) == ""  # no change
    assert why(True, start="47,8") == ""
    assert why(True, use_sim_time=True) == ""  # not ours
    assert "expected 1 to 100" in why(link__rate_hz=0.0)
    assert "expected one of auto" in why(image_type="sensor_msgs/msg/PointCloud2")


def test_a_camera_on_a_gimbal_needs_the_link_that_tells_of_it() -> None:
    values = {spec.name: spec.default for spec in parameters.all_specs()} | {"rectify.on_gimbal": True}
    assert parameters.config_of(values | {"telemetry": "mavlink"}).rectify.on_gimbal
    with pytest.raises(ConfigError, match="no topic tells of one"):
        parameters.config_of(values)
