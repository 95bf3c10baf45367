"""One visit of the doctor: listen, read, measure, judge; and mend or try, where that was asked for and agreed to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onboard.config import LinkConfig
from onboard.mavlink.doctor.advice import by_severity, examine, names_for
from onboard.mavlink.doctor.parameters import Parameter, ParameterClient
from onboard.mavlink.doctor.probe import link_findings, measure
from onboard.mavlink.doctor.report import Change, Diagnosis, VehicleState
from onboard.mavlink.doctor.rules import Case, Finding
from onboard.mavlink.doctor.session import Session
from onboard.mavlink.doctor.trial import DryRun, Place, TrialVerdict, switches_set, trial_findings, try_fix
from onboard.mavlink.tell.profile import Profile, profile_for


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to be done beside looking. `ask` is asked before anything is changed, `say` tells of the progress."""

    ask: Callable[[str], bool]
    say: Callable[[str], None]
    fix: bool = False
    dry_run_fix: bool = False
    at: Place | None = None
    patience_s: float = 15.0
    measure_s: float = 8.0


def visit(session: Session, settings: LinkConfig, wishes: Wishes) -> Diagnosis:
    """LinkError where no vehicle is heard, it is not one that we can serve, or it is armed and was to be changed."""
    vehicle, connection = session.vehicle, session.connection
    wishes.say(f"waiting for a heartbeat at {connection.address}")
    session.meet(wishes.patience_s)
    profile = profile_for(vehicle.autopilot, vehicle.firmware, settings.profile, settings.rate_hz)
    state = "armed" if vehicle.armed else "disarmed"
    wishes.say(f"{vehicle.kind}, {vehicle.firmware}, {state}; messages by profile {profile.name}")
    if wishes.fix or wishes.dry_run_fix:
        session.meet_again()
    client, names = ParameterClient(session), names_for(profile)
    wishes.say(f"reading {len(names)} parameters")
    before = client.read(names)
    wishes.say(f"measuring the link for {wishes.measure_s:g} s")
    link = measure(session, wishes.measure_s)
    parameters = before
    changes: tuple[Change, ...] = ()
    if wishes.fix:
        changes = _mend(session, client, before, _judge(profile, settings, session, before), wishes)
        parameters = before | {change.after.name: change.after for change in changes}
    dry_run = None
    if any(change.reboot for change in changes) and wishes.dry_run_fix:
        remedy = "restart it, and run the doctor again"
        dry_run = DryRun(TrialVerdict.NOT_RUN, "what was set counts only after a restart of the vehicle", remedy)
    elif wishes.dry_run_fix:
        dry_run = _try(session, profile, settings, wishes)
    findings = _judge(profile, settings, session, parameters) + link_findings(link)
    if dry_run is not None:
        findings += trial_findings(dry_run)
    return Diagnosis(
        address=str(connection.address),
        system=vehicle.target_system,
        kind=vehicle.kind,
        autopilot=vehicle.autopilot.value,
        firmware=vehicle.firmware,
        armed=vehicle.armed,
        mode=vehicle.mode_name,
        signed=bool(settings.signing_key_file),
        profile=profile.name,
        state=VehicleState.of(vehicle, session.clock()),
        parameters={name: parameter.value for name, parameter in parameters.items()},
        findings=tuple(by_severity(findings)),
        link=link,
        dry_run=dry_run,
        changes=changes,
    )


def _judge(profile: Profile, settings: LinkConfig, session: Session, parameters: dict[str, Parameter]) -> list[Finding]:
    values = {name: parameter.value for name, parameter in parameters.items()}
    return examine(profile, Case(values, settings, serial=session.connection.address.kind == "serial"))


def _mend(
    session: Session,
    client: ParameterClient,
    parameters: dict[str, Parameter],
    findings: list[Finding],
    wishes: Wishes,
) -> tuple[Change, ...]:
    """Set what is found wrong and has one right value, after a question that names each."""
    plan = [one for one in findings if one.set_to is not None and one.parameter in parameters]
    if not plan:
        wishes.say("nothing to set")
        return ()
    for one in plan:
        wishes.say(f"  {one.parameter}: {one.value:g} -> {one.set_to:g}")
    if not wishes.ask(f"set these {len(plan)} parameters?"):
        return ()
    session.meet_again()
    changes = []
    for one in plan:
        before = parameters[one.parameter]
        after = client.write(before, float(one.set_to or 0.0))
        changes.append(Change(before, after, one.reboot))
        wishes.say(f"set {after.name}")
    return tuple(changes)


def _try(session: Session, profile: Profile, settings: LinkConfig, wishes: Wishes) -> DryRun:
    steps = ["tell the vehicle for some seconds that it is where it is"]
    if profile.local and session.vehicle.origin is None and settings.set_origin:
        steps.append("give it an origin there")
    if switches_set(profile, settings):
        steps.append(f"switch it to source set {settings.switch_source_set}, and back to 1 afterwards")
    if not wishes.ask(f"dry run, on the ground, propellers off: {', '.join(steps)}?"):
        return DryRun(TrialVerdict.NOT_RUN, "not wanted")
    session.meet_again()
    wishes.say("dry run")
    return try_fix(session, profile, settings, wishes.at)
