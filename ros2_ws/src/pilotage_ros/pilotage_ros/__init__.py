"""Pilotage as a ROS 2 node: messages are converted, the localizer is called, what it says is published."""
