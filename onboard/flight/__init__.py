"""Recorded flights come in: rosbag2 recordings, flight folders, and geotagged photos made into one."""

from onboard.flight.open import open_flight
from onboard.flight.source import Flight, FlightItem, Topics, Truth

__all__ = ["Flight", "FlightItem", "Topics", "Truth", "open_flight"]
