"""`pilotage fly`: a camera, a flight controller and a region map become fixes, without ROS."""
