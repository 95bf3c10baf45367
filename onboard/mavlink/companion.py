"""The companion at work: one `tick` every 10 ms or so does all that the link has to do, and never waits.

| what                                                        | how often                                       |
|-------------------------------------------------------------|-------------------------------------------------|
| messages are received, TIMESYNC is answered                 | each tick                                       |
| our own TIMESYNC requests                                   | 10 Hz until settled, then 5 Hz                  |
| streams, version, origin and home are asked for             | until they come, and again after a restart      |
| heartbeat                                                   | 1 Hz                                            |
| the estimate of `link.latency_ms` ago (`teller`)            | `link.rate_hz`                                  |
| the vehicle's origin is used, or given (`teller`)           | each tick; given every 2 s until it is confirmed |
| the vehicle's position and GPS against the map (`judge`)    | as they come                                    |
| words for the pilot, the switch of the source set (`judge`) | 2 Hz, on a change or every 30 s while bad       |

It never arms, changes a mode or writes a parameter.
"""

from __future__ import annotations

import logging
from collections import deque
from threading import Lock

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.config import Config
from onboard.errors import LinkError
from onboard.frames import MapFrame
from onboard.mavlink.status import LinkStatus
from onboard.mavlink.tell.link import MavlinkLink
from onboard.mavlink.tell.profile import AUTO, Profile, profile_for, profile_named
from onboard.mavlink.tell.teller import Teller
from onboard.mavlink.vehicle.autopilot import Autopilot
from onboard.mavlink.vehicle.inertia import rates_lag_ns
from onboard.mavlink.vehicle.state import Vehicle
from onboard.mavlink.watch.judge import Judge
from onboard.mavlink.wire.connection import Connection
from onboard.records import Reason, Step, Telemetry

_STEPS = 64  # waiting for a tick; far more than ever come between two
_STREAMS_SHARE = 0.5  # of a serial line's bytes that the vehicle is asked to fill
_DELAY_PARAMETERS = {  # none of PX4: stamps in a clock that it follows tell it the age, and its delays stay 0
    "ardupilot-odometry": "VISO_DELAY_MS",
    "ardupilot-vision": "VISO_DELAY_MS",
    "ardupilot-gps-input": "GPS1_DELAY_MS",
}
_log = logging.getLogger(__name__)


class Companion:
    """Everything that is said to and heard from one vehicle. It owns no thread; times are `now_ns`, our own clock.

    `wait` and `tick` belong to one thread; `take`, `telemetry_at`, `telemetry_passed` and `status` may be called from
    others. LinkError for a profile of the config that does not exist.
    """

    def __init__(self, connection: Connection, config: Config, map_frame: MapFrame) -> None:
        if config.link.profile != AUTO:
            profile_named(config.link.profile)
        self.connection, self.config = connection, config
        self.vehicle = Vehicle(
            round(config.rectify.max_telemetry_age_ms * 1e6),
            budget_bytes_per_s=_budget_bytes_per_s(connection),
            rates_lag_ns=rates_lag_ns(config.link.gyro_filter_hz),
            on_gimbal=config.rectify.on_gimbal,
        )
        self.link = MavlinkLink(
            connection, target_system=config.link.system_id or 1, stamp=self.vehicle.sync.vehicle_from_ours_ns
        )
        self._teller = Teller(self.link, connection, self.vehicle, config, map_frame)
        self._judge = Judge(self.vehicle, config.link, map_frame, self._teller.at)
        self._steps: deque[Step] = deque(maxlen=_STEPS)
        self._lock = Lock()
        self._chosen_for: tuple[Autopilot, str] | None = None
        self._restarted = 0
        self._trouble = ""

    @property
    def profile(self) -> Profile | None:
        """How the vehicle is told; None until it is known."""
        return self.link.profile if self._teller.has_profile else None

    def wait(self, timeout_s: float) -> None:
        """Until something comes, at most `timeout_s`; with the clock read after it, `tick` knows when that was."""
        self.connection.wait(timeout_s)

    def tick(self, now_ns: int) -> None:
        """Hear, answer and tell, as far as it is time to."""
        with self._lock:
            for message in self.connection.receive(now_ns):
                self._hear(message, now_ns)
            self._follow_vehicle()
            for request in self.vehicle.requests(now_ns):
                self.connection.send(request)
            while self._steps:
                self._teller.take(self._steps.popleft(), now_ns)
            self._teller.settle_origin(now_ns)
            self._teller.tell(now_ns)
            for message in self._judge.look(now_ns, self.profile, self._teller.told_at_ns):
                self.connection.send(message)
            self.link.heartbeat(now_ns)

    def take(self, step: Step) -> None:
        """The localizer's latest step; it counts from the next tick on."""
        self._steps.append(step)

    def telemetry_at(self, captured_at_ns: int) -> Telemetry | Reason:
        """What the vehicle said of an instant of ours; see `onboard.telemetry`."""
        with self._lock:
            return self.vehicle.telemetry.at(captured_at_ns)

    def telemetry_passed(self, captured_at_ns: int) -> bool:
        """Whether waiting longer would not make `telemetry_at` better."""
        with self._lock:
            return self.vehicle.telemetry.passed(captured_at_ns)

    def _hear(self, message: mav.MAVLink_message, now_ns: int) -> None:
        self.vehicle.heard(message, now_ns)
        reply = self.vehicle.sync.answer(message, now_ns)
        if reply is not None:
            self.connection.send(reply)
        if message.get_type() == "COMMAND_ACK":
            self._judge.switch.heard(message)

    def _follow_vehicle(self) -> None:
        """Choose the profile once the vehicle has said what it is, and begin anew when it does."""
        self.link.target_system = self.connection.target_system or 1
        if self.vehicle.restarted != self._restarted:
            self._restarted = self.vehicle.restarted
            self._judge.restart()
        is_now = (self.vehicle.autopilot, self.vehicle.firmware)
        if is_now == self._chosen_for or is_now[0] is Autopilot.UNKNOWN:
            return
        self._chosen_for = is_now
        settings = self.config.link
        try:
            self.link.profile = profile_for(*is_now, settings.profile, settings.rate_hz)
        except LinkError as error:  # a vehicle that we cannot serve is no reason to stop: another may come
            self._teller.has_profile, self._trouble = False, str(error)
            _log.error("%s", error)
        else:
            self._teller.has_profile, self._trouble = True, ""

    def status(self, now_ns: int) -> LinkStatus:
        """All that is known of the link now."""
        with self._lock:
            return self._status(now_ns)

    def _status(self, now_ns: int) -> LinkStatus:
        vehicle, teller, connection, sync = self.vehicle, self._teller, self.connection, self.vehicle.sync
        opinion = self._judge.opinion(now_ns, self.profile)
        return LinkStatus(
            connected=connection.connected,
            alive=vehicle.alive(now_ns),
            vehicle=vehicle.kind,
            firmware=vehicle.firmware,
            armed=vehicle.armed,
            mode=vehicle.mode_name,
            profile=self.profile.name if self.profile else None,
            telling=teller.silence is None,
            silence=None if teller.silence is None else teller.silence.value,
            synced=sync.synced,
            offset_ms=None if sync.offset_ns is None else sync.offset_ns / 1e6,
            skew_ppm=sync.skew_ppm,
            round_trip_ms=sync.round_trip_ms,
            rates_hz=vehicle.rates_hz(now_ns),
            sent=dict(connection.sent),
            received=dict(connection.received),
            refused={why.value: count for why, count in connection.refused.items()},
            withheld=dict(teller.withheld),
            lost=connection.lost,
            dropped=connection.dropped,
            reconnects=connection.reconnects,
            restarts=vehicle.restarted,
            estimator=opinion.verdict,
            estimator_sentence=opinion.sentence,
            estimator_remedy=opinion.remedy,
            apart_m=self._judge.apart_m,
            gps=self._judge.gps.verdict(now_ns),
            gps_apart_m=self._judge.gps.distance_m,
            switching=self._judge.switch.state,
            latency=teller.latency(now_ns),
            parameter=_DELAY_PARAMETERS.get(self.profile.name) if self.profile else None,
            trouble=self._trouble,
        )


def _budget_bytes_per_s(connection: Connection) -> float | None:
    """What the vehicle may stream: a share of a serial line (ten bits a byte); networks bear all that is wanted."""
    address = connection.address
    return address.port / 10 * _STREAMS_SHARE if address.kind == "serial" else None
