"""`pilotage fly` with the real companion: a scripted vehicle is told over UDP where it is."""

from __future__ import annotations

import math
import socket
import threading
import time

import numpy as np
import toy_world
from scripted_vehicle import Circle, ScriptedVehicle
from toy_live import MS, PATIENCE_S, a_localizer

from onboard.config import Config
from onboard.live.camera import Camera
from onboard.live.clock import SteadyClock
from onboard.live.fly import Flyer
from onboard.live.sources import CameraOptions
from onboard.live.status import FlyStatus
from onboard.mavlink.companion import Companion
from onboard.mavlink.wire.connection import Connection
from onboard.region import RegionMap


class VehicleOnUdp(threading.Thread):
    """A scripted vehicle that answers whoever speaks to its port."""

    def __init__(self, vehicle: ScriptedVehicle, clock: SteadyClock) -> None:
        super().__init__(name="vehicle", daemon=True)
        self.vehicle, self._clock = vehicle, clock
        self._over = threading.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.005)
        self.address = f"udpout:127.0.0.1:{self._socket.getsockname()[1]}"

    def run(self) -> None:
        peer = None
        with self._socket:
            while not self._over.is_set():
                try:
                    data, peer = self._socket.recvfrom(65535)
                    self.vehicle.hear(data, self._clock.now_ns())
                except TimeoutError:
                    pass
                for packet in self.vehicle.speak(self._clock.now_ns()) if peer else ():
                    self._socket.sendto(packet, peer)

    def stop(self) -> None:
        self._over.set()
        self.join(PATIENCE_S)


class NoseCamera:
    """Sees the toy world from where the scripted vehicle is."""

    def __init__(self, world: toy_world.World, vehicle: ScriptedVehicle, clock: SteadyClock) -> None:
        self._world, self._vehicle, self._clock, self._at_ns = world, vehicle, clock, 0

    def grab(self) -> int | None:
        time.sleep(0.1)  # a camera of 10 Hz
        self._at_ns = self._clock.now_ns()
        return self._at_ns

    def image(self) -> np.ndarray | None:
        vehicle = self._vehicle
        north, east, v_north, v_east = vehicle.track.at((self._at_ns - vehicle.started_at_ns) * 1e-9)
        yaw_deg = math.degrees(math.atan2(v_east, v_north))
        return toy_world.look(
            self._world, toy_world.toy_camera(), (east, north), vehicle.track.height_m, (0.0, 0.0, yaw_deg)
        )

    def close(self) -> None:
        """Nothing is held."""


def test_a_vehicle_is_told_where_it_is(
    world: toy_world.World, hand_engine: toy_world.HandEngine, hand_map: RegionMap
) -> None:
    clock = SteadyClock()
    place = (hand_map.frame.anchor_latitude_deg, hand_map.frame.anchor_longitude_deg)
    track = Circle(radius_m=50.0, speed_mps=5.0, height_m=90.0)
    peer = VehicleOnUdp(ScriptedVehicle(clock.now_ns(), start_degrees=place, track=track), clock)
    stop, seen = threading.Event(), []
    peer.start()

    def show(status: FlyStatus) -> None:
        seen.append(status)
        if len(peer.vehicle.fixes) >= 10 or status.at_ns - seen[0].at_ns > 120_000 * MS:
            stop.set()

    with Connection.open(peer.address) as connection:
        companion = Companion(connection, Config(), hand_map.frame)
        flyer = Flyer(a_localizer(hand_engine, hand_map, (0.0, 0.0)).step, companion, hand_map.frame, clock)
        source = NoseCamera(world, peer.vehicle, clock)
        options = CameraOptions("/dev/toy")
        camera = Camera(options, toy_world.toy_camera(), flyer.take_frame, clock, open_it=lambda: source)
        status = flyer.run(camera, stop, show, period_s=0.05)
    peer.stop()
    assert len(peer.vehicle.fixes) >= 10, (status.reasons, status.link.in_words())
    assert peer.vehicle.violations == []
    assert status.link.synced
    assert status.link.profile == "ardupilot-odometry"
    for fix in peer.vehicle.fixes:
        at_ns = peer.vehicle.ours_ns(fix.message.time_usec * 1000)
        north, east, _, _ = track.at((at_ns - peer.vehicle.started_at_ns) * 1e-9)
        sigma_m = math.sqrt(max(fix.message.pose_covariance[0], fix.message.pose_covariance[6]))
        error_m = math.hypot(fix.message.x - north, fix.message.y - east)
        assert error_m < 2.0 + 4.0 * sigma_m  # the first ones know no velocity, and say how much that costs
