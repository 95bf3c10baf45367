"""The renderer's own branch of the error family."""

from onboard.errors import PilotageError


class RenderError(PilotageError):
    """A place or a flight that cannot be made, read or written."""
