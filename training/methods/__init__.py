"""The three methods, assembled of training/parts and training/objectives. `build_method` makes one of its config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.presets import GenGeoConfig, MethodConfig, UnifyGeoConfig

if TYPE_CHECKING:
    from training.methods.base import Method


def build_method(config: MethodConfig) -> Method:
    """The method of a config, with the weights that its encoder names (none: random, and a warning says so).

    Raises ConfigError for sizes that contradict, or weights that cannot be loaded.
    """
    if isinstance(config, UnifyGeoConfig):
        from training.methods.unifygeo import UnifyGeo

        return UnifyGeo(config)
    if isinstance(config, GenGeoConfig):
        from training.methods.gengeo import GenGeo

        return GenGeo(config)
    from training.methods.geolink import GeoLink

    return GeoLink(config)
