"""One rule over one parameter: what is good, what to set otherwise, and why; and what is found when it is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from onboard.config import LinkConfig


class Severity(str, Enum):
    MUST = "must"  # it does not work otherwise, or it is not safe
    SHOULD = "should"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Case:
    """What is judged: the parameters that the vehicle has, our own settings, and whether the line is serial."""

    values: Mapping[str, float]
    link: LinkConfig
    serial: bool = False

    @property
    def source_set(self) -> int:
        """ArduPilot's source set that has to hold Pilotage."""
        return self.link.switch_source_set or 1

    def get(self, *names: str) -> float | None:
        """A parameter under the first of its names that the vehicle has."""
        return next((self.values[name] for name in names if name in self.values), None)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to put right. `parameter` may be a setting of ours ("link.latency_ms") or a matter ("time sync").

    `value` is None where there is none; `set_to` None where a person must choose; `reboot`: it counts after one only.
    """

    severity: Severity
    parameter: str
    value: float | None
    should_be: str
    why: str
    set_to: float | None = None
    reboot: bool = False


def _always(case: Case) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """`names`: of one parameter, by firmware versions, newest first. `set_to` None: a person must choose.

    `needed`: a vehicle that does not have it is found as well. `should_be` is `set_to` where it is empty.
    """

    names: tuple[str, ...]
    good: Callable[[float, Case], bool]
    set_to: Callable[[float, Case], float] | float | None
    why: str
    severity: Severity = Severity.MUST
    should_be: str = ""
    reboot: bool = False
    applies: Callable[[Case], bool] = _always
    needed: bool = True

    def look(self, case: Case) -> Finding | None:
        """What is wrong of this one, if anything."""
        if not self.applies(case):
            return None
        name = next((name for name in self.names if name in case.values), None)
        if name is None:
            return self._absent(case) if self.needed else None
        value = case.values[name]
        if self.good(value, case):
            return None
        set_to = self.set_to(value, case) if callable(self.set_to) else self.set_to
        should_be = self.should_be or (f"{set_to:g}" if set_to is not None else "")
        return Finding(self.severity, name, value, should_be, self.why, set_to, self.reboot)

    def _absent(self, case: Case) -> Finding:
        should_be = self.should_be or (f"{self.set_to:g}" if isinstance(self.set_to, (int, float)) else "there")
        why = f"the vehicle does not answer for it: this firmware may lack it. {self.why}"
        return Finding(self.severity, self.names[0], None, should_be, why)


def equals(wanted: float) -> Callable[[float, Case], bool]:
    return lambda value, case: value == wanted


def one_of(*wanted: float) -> Callable[[float, Case], bool]:
    return lambda value, case: value in wanted


def between(least: float, most: float) -> Callable[[float, Case], bool]:
    return lambda value, case: least - 1e-6 <= value <= most + 1e-6
