"""Fixtures that several rooms share: a toy world, its region maps, and the engines that search them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests/ is no package: this is how rooms find toy_world
sys.path.insert(1, str(Path(__file__).parents[1] / "ros2_ws" / "src" / "pilotage_ros"))  # as colcon installs it

import toy_world

from onboard.engine import Engine, open_engine
from onboard.region import RegionMap


@pytest.fixture(scope="session")
def world() -> toy_world.World:
    return toy_world.make_world()


@pytest.fixture(scope="session")
def hand_engine() -> toy_world.HandEngine:
    return toy_world.HandEngine()


@pytest.fixture(scope="session")
def shipped_engine() -> Iterator[Engine]:
    engine = open_engine(None)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def hand_map(
    world: toy_world.World, hand_engine: toy_world.HandEngine, tmp_path_factory: pytest.TempPathFactory
) -> RegionMap:
    return toy_world.build_toy_map(world, hand_engine, tmp_path_factory.mktemp("hand"))


@pytest.fixture(scope="session")
def shipped_map(world: toy_world.World, shipped_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> RegionMap:
    return toy_world.build_toy_map(world, shipped_engine, tmp_path_factory.mktemp("shipped"))


@pytest.fixture(scope="session")
def chequered_map(hand_engine: toy_world.HandEngine, tmp_path_factory: pytest.TempPathFactory) -> RegionMap:
    """A map whose ground repeats itself every 60 m."""
    return toy_world.build_toy_map(toy_world.make_repeating_world(), hand_engine, tmp_path_factory.mktemp("repeating"))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen pictures that nobody looks at."""
    folder = tmp_path_factory.mktemp("images")
    for k in range(15):
        cv2.imwrite(str(folder / f"{k:03d}.png"), np.full((360, 480, 3), 10 * k, np.uint8))
    return folder
