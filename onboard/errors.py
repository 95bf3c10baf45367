"""The one family of errors that a user meets.

A message is one line in four parts: what is wrong, the value found, what was expected, the remedy.
Errors are raised at start-up and at doors (files, links, arguments); a frame that cannot give a fix
is no error but a `Rejected` record with a reason.
"""


class PilotageError(Exception):
    """Base of every error that a program of ours reports in one line with exit status 2."""

    def __init__(self, what: str, value: object = None, expected: str = "", remedy: str = "") -> None:
        self.what, self.value, self.expected, self.remedy = what, value, expected, remedy
        parts = [what if value is None else f"{what}: {value}"]
        if expected:
            parts.append(f"expected {expected}")
        if remedy:
            parts.append(remedy)
        super().__init__("; ".join(part.replace("\n", " ") for part in parts))


class ConfigError(PilotageError):
    """An unknown key, a wrong type or a value out of range."""


class CameraError(PilotageError):
    """A camera model that cannot be used."""


class EngineError(PilotageError):
    """A model file or an inference engine that cannot be used."""


class MapError(PilotageError):
    """A region map that is missing, broken, or made for another model."""


class FlightError(PilotageError):
    """A recorded flight that cannot be read."""


class LinkError(PilotageError):
    """A MAVLink link that cannot be opened."""
