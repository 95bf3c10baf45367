"""`pilotage doctor`: is this vehicle set up to fly on Pilotage, and if not, what has to be set, to what, and why."""

from __future__ import annotations

import json as json_format
import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from onboard.config import load_config
from onboard.errors import LinkError


def doctor(
    mavlink: Annotated[str, typer.Option(help="The flight controller, e.g. /dev/ttyTHS1:921600, udpin:0.0.0.0:14550.")],
    profile: Annotated[str | None, typer.Option(help="Messages to fly by; auto asks the vehicle what it is.")] = None,
    config: Annotated[Path | None, typer.Option(help="The YAML of settings that it is to fly with.")] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Set what is wrong, after a question.")] = False,
    dry_run_fix: Annotated[
        bool, typer.Option(help="On the ground, after a question: send fixes and see whether the estimator takes them.")
    ] = False,
    at: Annotated[str | None, typer.Option(help="LAT,LON of the vehicle, for the dry run.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the report.")] = False,
    signing_key: Annotated[Path | None, typer.Option(help="Key file of MAVLink 2 signing.")] = None,
    wait_s: Annotated[float, typer.Option(help="How long to wait for a heartbeat.")] = 15.0,
    measure_s: Annotated[float, typer.Option(help="How long to measure the link.")] = 8.0,
) -> None:
    """Look a vehicle over: firmware, parameters, link, time. Exit status 0: ready, 1: not, 2: it cannot be told.

    It changes nothing unless told to: --fix and --dry-run-fix ask first, and never touch an armed vehicle.
    """
    from rich.console import Console

    from onboard.live.cli import open_connection, with_link
    from onboard.live.clock import SteadyClock
    from onboard.mavlink.doctor.report import show
    from onboard.mavlink.doctor.session import Session
    from onboard.mavlink.doctor.visit import Wishes, visit

    if json and (fix or dry_run_fix) and not yes:
        raise LinkError("--json with --fix or --dry-run-fix", "nobody to ask", "--yes")
    for name, seconds in (("--wait-s", wait_s), ("--measure-s", measure_s)):
        if not 1 <= seconds <= 600:
            raise LinkError(name, seconds, "1 to 600")
    settings = with_link(load_config(config), profile, signing_key)
    wishes = Wishes(
        ask=lambda question: yes or typer.confirm(question, err=True),
        say=lambda text: print(text, file=sys.stderr, flush=True),
        fix=fix,
        dry_run_fix=dry_run_fix,
        at=None if at is None else parse_place(at),
        patience_s=wait_s,
        measure_s=measure_s,
    )
    with open_connection(mavlink, settings) as connection:
        diagnosis = visit(Session(connection, SteadyClock().now_ns), settings.link, wishes)
    if json:
        print(json_format.dumps(diagnosis.as_dict(), indent=2))
    else:
        show(diagnosis, Console())
    if not diagnosis.ready:
        raise typer.Exit(1)


def parse_place(text: str) -> tuple[float, float]:
    """(latitude, longitude) in degrees of "LAT,LON". LinkError for anything else."""
    try:
        latitude, longitude = (float(part) for part in text.split(","))
    except ValueError as error:
        raise LinkError("--at", repr(text), "LAT,LON in degrees") from error
    if not (math.isfinite(latitude + longitude) and abs(latitude) <= 90 and abs(longitude) <= 180):
        raise LinkError("--at", repr(text), "LAT,LON in degrees")
    return latitude, longitude
