"""The vehicle's messages become telemetry in our clock, and the latest reading of each kind.

A stamp of the vehicle's is carried over by `TimeSync`. Before that is synced a message counts from its arrival, which
is late by the link's delay: `stamped_by_arrival` says so. A stamp that ends up in our future, or long before the
arrival, is of another boot or of no clock: such a sample is dropped and counted.

Not all that is sent is believed. An estimator without aiding reports a velocity of zero whatever the vehicle does, so
velocity counts only while the estimator says that it knows it. And a heading counts only while the estimator holds an
attitude and either a compass is healthy or a horizontal velocity is known, which no estimator reaches before its
yaw is aligned.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.frames import quaternion_from_euler
from onboard.home import HeightZero
from onboard.mavlink.tell.commands import AUTOPILOT
from onboard.mavlink.tell.place import DEGREES_E7
from onboard.mavlink.vehicle import height, readings
from onboard.mavlink.vehicle.height import HeightChoice, HeightSource
from onboard.mavlink.vehicle.inertia import InertialSums
from onboard.mavlink.vehicle.timesync import TimeSync
from onboard.records import HeightReference
from onboard.telemetry import TelemetryBuffer

_FUTURE_NS = 20_000_000  # what the sync may be off by in its first second
_LATE_NS = 2_000_000_000
_SILENT_NS = 1_000_000_000  # then another message of the same content counts
_STATUS_SILENT_NS = 5_000_000_000  # then nothing is known of the estimator
_MS, _US = 1_000_000, 1_000
_WRAP_MS = 2**32  # time_boot_ms: 49.7 days
_COMPASS = mav.MAV_SYS_STATUS_SENSOR_3D_MAG


class Hearing:
    """Fed with every message of the autopilot, and of the gimbal. `misstamped` counts what was dropped for its stamp.

    `rates_lag_ns`: see `InertialSums`.
    """

    def __init__(self, sync: TimeSync, telemetry: TelemetryBuffer, rates_lag_ns: int = 0) -> None:
        self.telemetry = telemetry
        self.stamped_by_arrival = True
        self.misstamped = 0
        self._sync = sync
        self._sums = InertialSums(rates_lag_ns)
        self._spoke_ns: dict[str, int] = {}
        self.forget()
        self._handlers: dict[str, Callable[[mav.MAVLink_message, int], None]] = {
            "ATTITUDE": self._euler,
            "ATTITUDE_QUATERNION": self._quaternion,
            "LOCAL_POSITION_NED": self._local_position,
            "GLOBAL_POSITION_INT": self._global_position,
            "DISTANCE_SENSOR": self._distance,
            "ALTITUDE": self._altitude,
            "HOME_POSITION": self._home_position,
            "GPS_RAW_INT": self._gps,
            "EKF_STATUS_REPORT": self._estimator,
            "ESTIMATOR_STATUS": self._estimator,
            "SYS_STATUS": self._sys_status,
            "HIGHRES_IMU": self._imu,
            "SCALED_IMU": self._imu,
            "RAW_IMU": self._imu,
        }

    def forget(self) -> None:
        """The vehicle has begun anew: no reading holds any more. Samples in the buffer stay true."""
        self.local: readings.LocalPosition | None = None
        self.globe: readings.GlobalPosition | None = None
        self.gps: readings.GpsReading | None = None
        self.estimator: readings.EstimatorReading | None = None
        self.gimbal: readings.GimbalReading | None = None
        self.imu: readings.ImuReading | None = None
        self.height_m: float | None = None
        self.compass_healthy: bool | None = None
        self._height = HeightChoice()
        self._zero = HeightZero()
        self._estimator_heard_ns = 0
        self._quat_wxyz: readings.Quaternion | None = None
        self._attitude_ns = 0
        self._sums.begin_anew()

    @property
    def height_source(self) -> HeightSource | None:
        return self._height.source

    @property
    def home_deg(self) -> tuple[float, float] | None:
        """(latitude, longitude) of the ground that heights above home are counted from; None where not known."""
        return self._zero.place_deg

    def heard(self, message: mav.MAVLink_message, now_ns: int) -> None:
        kind = message.get_type()
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(message, now_ns)
            self._spoke_ns[kind] = now_ns

    def heard_gimbal(self, message: mav.MAVLink_message, now_ns: int) -> None:
        """GIMBAL_DEVICE_ATTITUDE_STATUS: what the autopilot tells of its gimbal is stamped by its clock; a gimbal that
        speaks for itself has a boot clock of its own, so the arrival counts. The first device heard is the camera's.
        """
        of_autopilot = message.get_srcComponent() == AUTOPILOT
        t_ns = self._stamp_ns(message, now_ns) if of_autopilot else now_ns
        reading = readings.gimbal(message, now_ns if t_ns is None else t_ns)
        if t_ns is None or (self.gimbal is not None and self.gimbal.device != reading.device):
            return
        self.gimbal = reading
        self.telemetry.add_gimbal(t_ns, reading.quat_wxyz, reading.yaw_from_north)

    def heading_known(self, now_ns: int) -> bool:
        estimator = self._known_estimator(now_ns)
        if estimator is None or not estimator.attitude_known:
            return False
        return self.compass_healthy is not False or estimator.velocity_known

    def _known_estimator(self, now_ns: int) -> readings.EstimatorReading | None:
        return self.estimator if now_ns - self._estimator_heard_ns <= _STATUS_SILENT_NS else None

    def _speaks(self, kind: str, now_ns: int) -> bool:
        return kind in self._spoke_ns and 0 <= now_ns - self._spoke_ns[kind] <= _SILENT_NS

    # -- stamps

    def _stamp_ns(self, message: mav.MAVLink_message, now_ns: int) -> int | None:
        """When the content was so, by our clock; None where the stamp cannot be."""
        ours_ns = self._carried_ns(message, now_ns)
        self.stamped_by_arrival = ours_ns is None
        if ours_ns is None:
            return now_ns
        if not -_LATE_NS <= ours_ns - now_ns <= _FUTURE_NS:
            self.misstamped += 1
            return None
        return ours_ns

    def _reading_ns(self, message: mav.MAVLink_message, now_ns: int) -> int:
        """As `_stamp_ns`, and the arrival where the stamp cannot be: for what is judged slowly."""
        ours_ns = self._carried_ns(message, now_ns)
        return ours_ns if ours_ns is not None and -_LATE_NS <= ours_ns - now_ns <= _FUTURE_NS else now_ns

    def _carried_ns(self, message: mav.MAVLink_message, now_ns: int) -> int | None:
        vehicle_now_ns = self._sync.vehicle_from_ours_ns(now_ns)
        if vehicle_now_ns is None:
            return None
        if "time_usec" in message.fieldnames:
            return self._sync.ours_from_vehicle_ns(message.time_usec * _US)
        turns = round((vehicle_now_ns // _MS - message.time_boot_ms) / _WRAP_MS)
        return self._sync.ours_from_vehicle_ns((message.time_boot_ms + turns * _WRAP_MS) * _MS)

    # -- messages

    def _euler(self, message: mav.MAVLink_message, now_ns: int) -> None:
        if not self._speaks("ATTITUDE_QUATERNION", now_ns):
            angles = message.roll, message.pitch, message.yaw
            if all(math.isfinite(angle) for angle in angles):
                self._attitude(message, quaternion_from_euler(*angles), now_ns)

    def _quaternion(self, message: mav.MAVLink_message, now_ns: int) -> None:
        self._attitude(message, (message.q1, message.q2, message.q3, message.q4), now_ns)

    def _attitude(self, message: mav.MAVLink_message, quat_wxyz: readings.Quaternion, now_ns: int) -> None:
        t_ns = self._stamp_ns(message, now_ns)
        if t_ns is not None:
            self._quat_wxyz, self._attitude_ns = quat_wxyz, now_ns
            self.telemetry.add_attitude(t_ns, quat_wxyz, self.heading_known(now_ns))
            self._sums.attitude(t_ns, quat_wxyz, (message.rollspeed, message.pitchspeed, message.yawspeed))

    def _local_position(self, message: mav.MAVLink_message, now_ns: int) -> None:
        t_ns = self._stamp_ns(message, now_ns)
        if t_ns is not None:
            self.local = readings.local_position(message, t_ns)
            self._velocity(t_ns, self.local.velocity_ned_mps, now_ns)

    def _global_position(self, message: mav.MAVLink_message, now_ns: int) -> None:
        t_ns = self._stamp_ns(message, now_ns)
        if t_ns is None:
            return
        self.globe = readings.global_position(message, t_ns)
        self._height_sample(HeightSource.ABOVE_HOME, t_ns, self.globe.relative_height_m, now_ns)
        if not self._speaks("LOCAL_POSITION_NED", now_ns):
            self._velocity(t_ns, self.globe.velocity_ned_mps, now_ns)

    def _velocity(self, t_ns: int, velocity_ned_mps: readings.Vector, now_ns: int) -> None:
        estimator = self._known_estimator(now_ns)
        if estimator is not None and estimator.velocity_known:
            self.telemetry.add_velocity(t_ns, velocity_ned_mps)

    def _distance(self, message: mav.MAVLink_message, now_ns: int) -> None:
        if self._quat_wxyz is None or now_ns - self._attitude_ns > _SILENT_NS:
            return
        height_m = height.rangefinder_height_m(message, self._quat_wxyz)
        t_ns = self._stamp_ns(message, now_ns)
        if t_ns is not None:
            self._height_sample(HeightSource.RANGEFINDER, t_ns, height_m, now_ns)

    def _altitude(self, message: mav.MAVLink_message, now_ns: int) -> None:
        t_ns = self._stamp_ns(message, now_ns)
        if t_ns is not None:
            self._height_sample(HeightSource.CLEARANCE, t_ns, height.clearance_m(message), now_ns)
            self._height_sample(HeightSource.ALTITUDE, t_ns, height.altitude_relative_m(message), now_ns)

    def _height_sample(self, source: HeightSource, t_ns: int, height_m: float | None, now_ns: int) -> None:
        if height_m is None:
            return
        above_home = source.reference is HeightReference.HOME
        home_deg = self._zero.height(height_m, now_ns) if above_home else None
        if self._height.heard(source, now_ns):
            self.height_m = height_m
            self.telemetry.add_height(t_ns, height_m, source.reference, home_deg)

    def _home_position(self, message: mav.MAVLink_message, now_ns: int) -> None:
        self._zero.home(message.latitude / DEGREES_E7, message.longitude / DEGREES_E7, now_ns)

    def _gps(self, message: mav.MAVLink_message, now_ns: int) -> None:
        self.gps = readings.gps(message, self._reading_ns(message, now_ns))

    def _estimator(self, message: mav.MAVLink_message, now_ns: int) -> None:
        self._estimator_heard_ns = now_ns
        self.estimator = readings.estimator(message, now_ns)

    def _sys_status(self, message: mav.MAVLink_message, now_ns: int) -> None:
        used = message.onboard_control_sensors_enabled & message.onboard_control_sensors_health
        self.compass_healthy = bool(used & _COMPASS)

    def _imu(self, message: mav.MAVLink_message, now_ns: int) -> None:
        self.imu = readings.imu(message, self._reading_ns(message, now_ns))
        t_ns = self._stamp_ns(message, now_ns)
        if t_ns is not None and self._sync.synced:
            inertia = self._sums.force(t_ns, self.imu.specific_force_frd_mps2)
            if inertia is not None:
                self.telemetry.add_inertia(t_ns, inertia)
