"""`pilotage link`: the key that both ends of a signed link share. Made here, given to the vehicle over a cable."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onboard.errors import LinkError

if TYPE_CHECKING:
    from pymavlink.dialects.v20.ardupilotmega import MAVLink_message

    from onboard.mavlink.wire.connection import Connection

_PATIENCE_S = 10.0
_NO_KEY = "does its firmware know MAVLink 2 signing? A vehicle that has another key takes a new one only over USB"

app = typer.Typer(help="The key of a signed link to the flight controller.", no_args_is_help=True)


@app.command()
def key(
    out: Annotated[Path, typer.Argument(help="The key file to make; one that is there is never replaced.")],
) -> None:
    """Make a random signing key that only you may read."""
    from onboard.mavlink.wire.signing import create_key

    create_key(out)
    typer.echo(f"{out}: give it to the vehicle with `pilotage link teach`, and name it as link.signing_key_file")


@app.command()
def teach(
    key_file: Annotated[Path, typer.Argument(metavar="KEY", help="A key file, see `pilotage link key`.")],
    address: Annotated[str, typer.Argument(help="The vehicle, over a cable: /dev/ttyX:BAUD, tcp:HOST:PORT, ...")],
    system: Annotated[int, typer.Option(help="The vehicle's system id; 0: the first autopilot heard.")] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Give a disarmed vehicle the key (SETUP_SIGNING), and see that it signs with it."""
    from onboard.mavlink.wire.connection import Connection
    from onboard.mavlink.wire.reconnect import Reconnecting
    from onboard.mavlink.wire.signing import SigningKey, setup_signing
    from onboard.mavlink.wire.transport import parse_address

    secret = SigningKey.load(key_file)
    line = Reconnecting(parse_address(address))
    try:
        unsigned = Connection(line, vehicle_system=system)
        heartbeat = _hear(unsigned, _is_autopilot)
        if heartbeat is None:
            raise LinkError("no vehicle heard", address, f"heartbeats of system {system or 'any'}")
        if _is_armed(heartbeat):
            raise LinkError("vehicle", "armed", "disarmed: in flight it would lose all that do not know the key")
        vehicle = unsigned.target_system
        if not yes:
            typer.confirm(
                f"Give system {vehicle} at {line.address} the key? On a radio it can be overheard", abort=True
            )
        for _ in range(2):  # nothing confirms it, and twice does no harm
            unsigned.send(setup_signing(secret, vehicle))
        signed = Connection(line, vehicle_system=vehicle, signing=secret)
        if _hear(signed, _is_autopilot) is None:
            raise LinkError("the vehicle does not sign with the key", address, "signed heartbeats", _NO_KEY)
    finally:
        line.close()
        secret.close()
    typer.echo(f"system {vehicle} signs with {key_file}; over other lines than USB it now refuses what is unsigned")


def _hear(connection: Connection, wanted: Callable[[MAVLink_message], bool]) -> MAVLink_message | None:
    """The first message that is wanted; None where none comes in time. Shows itself once a second meanwhile."""
    from onboard.mavlink.tell import commands

    until_s = time.monotonic() + _PATIENCE_S
    shown_s = 0.0
    while (now_s := time.monotonic()) < until_s:
        if now_s - shown_s >= 1.0 and connection.send(commands.heartbeat()):
            shown_s = now_s
        for message in connection.receive(timeout_s=0.1):
            if wanted(message):
                return message
    return None


def _is_autopilot(message: MAVLink_message) -> bool:
    from pymavlink.dialects.v20 import ardupilotmega as mav

    return message.get_type() == "HEARTBEAT" and message.autopilot != mav.MAV_AUTOPILOT_INVALID


def _is_armed(heartbeat: MAVLink_message) -> bool:
    from pymavlink.dialects.v20 import ardupilotmega as mav

    return bool(heartbeat.base_mode & mav.MAV_MODE_FLAG_SAFETY_ARMED)
