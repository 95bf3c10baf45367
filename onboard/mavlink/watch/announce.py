"""Verdicts in words for the pilot: one text when a verdict changes, and again now and then while it is bad."""

from __future__ import annotations

from enum import IntEnum

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.mavlink.tell import commands

PREFIX = "PLTG: "
MAX_TEXT = 50  # bytes of one STATUSTEXT; longer ones are cut up, and old ground stations show only the first part
REPEAT_NS = 30_000_000_000


class Severity(IntEnum):
    """MAV_SEVERITY, as far as we go: nothing of ours is an emergency."""

    CRITICAL = mav.MAV_SEVERITY_CRITICAL
    ERROR = mav.MAV_SEVERITY_ERROR
    WARNING = mav.MAV_SEVERITY_WARNING
    NOTICE = mav.MAV_SEVERITY_NOTICE
    INFO = mav.MAV_SEVERITY_INFO


class Announcer:
    """One subject of talk, for instance GPS. WARNING and worse is bad, and repeated every 30 s."""

    def __init__(self) -> None:
        self._said = ""
        self._said_at_ns = 0

    def say(self, text: str, severity: Severity, now_ns: int) -> list[mav.MAVLink_statustext_message]:
        """The message to send now, if any. An empty text is nothing worth saying, yet the talk begins anew after it."""
        if text == self._said:
            due = bool(text) and severity <= Severity.WARNING and now_ns - self._said_at_ns >= REPEAT_NS
            if not due:
                return []
        self._said, self._said_at_ns = text, now_ns
        return commands.statustext((PREFIX + text)[:MAX_TEXT], severity) if text else []


class Lasting:
    """Since when something has been so without a break, by times that the caller gives."""

    def __init__(self) -> None:
        self._since_ns: int | None = None

    def see(self, is_so: bool, at_ns: int) -> None:
        if not is_so:
            self._since_ns = None
        elif self._since_ns is None:
            self._since_ns = at_ns

    @property
    def is_so(self) -> bool:
        return self._since_ns is not None

    def for_s(self, now_ns: int) -> float:
        """Seconds that it has lasted; 0 where it is not so."""
        return 0.0 if self._since_ns is None else (now_ns - self._since_ns) * 1e-9
