"""What flies: one frame's way from the camera to the flight controller (no torch, no ROS)."""

__version__ = "0.1.0"
