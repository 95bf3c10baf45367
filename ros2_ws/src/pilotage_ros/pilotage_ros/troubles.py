"""What is wrong with what comes in: named while it lasts, told in the log once when it begins and once when it ends."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum

_LASTS_NS = 3_000_000_000  # a fault of single messages counts as gone when none has shown it for so long


class Trouble(str, Enum):
    """The value is the name that diagnostics and the log use."""

    NO_IMAGE = "no image arrives"
    NO_CAMERA_INFO = "no camera_info arrives"
    BAD_CAMERA_INFO = "camera_info is no calibration"
    NO_ATTITUDE = "no attitude arrives"
    NO_HEIGHT = "no height above ground arrives"
    ZERO_STAMP = "stamp of zero"
    BROKEN_MESSAGE = "a message that cannot be read"
    WRONG_ENCODING = "image encoding not known"
    UNDECODABLE_IMAGE = "image cannot be decoded"
    TWO_CAMERAS = "two cameras on one topic"
    WRONG_SIZE = "image size is not that of camera_info"
    CLOCKS_APART = "stamps are not of the node's clock"
    NO_MOUNT = "no static transform from the body to the camera"
    NO_ODOMETRY_TF = "no transform from the odometry's frame to the body"
    TWO_TYPES = "several message types on one topic"
    UNMATCHED_QOS = "a publisher offers less than the subscription asks"
    FOREIGN_START = "a start position in another frame"
    NO_DEBUG_IMAGE = "the debug image cannot be drawn"


@dataclass(frozen=True, slots=True)
class Change:
    """A trouble that has begun or ended. `line` is for the log."""

    trouble: Trouble
    began: bool
    detail: str

    @property
    def line(self) -> str:
        words = self.trouble.value + (f": {self.detail}" if self.detail else "")
        return words if self.began else f"over: {self.trouble.value}"


class Troubles:
    """The troubles that there are now. For several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._details: dict[Trouble, str] = {}
        self._struck_at_ns: dict[Trouble, int] = {}
        self._changes: list[Change] = []

    def set(self, trouble: Trouble, there: bool, detail: str = "") -> None:
        """A state that is looked at now and then: it is so, or it is not. `detail` is that of its beginning."""
        with self._lock:
            self._set(trouble, there, detail)

    def strike(self, trouble: Trouble, now_ns: int, detail: str = "") -> None:
        """A message that shows the trouble. It is over when no message has for a while: see `expire`."""
        with self._lock:
            self._struck_at_ns[trouble] = now_ns
            self._set(trouble, True, detail)

    def expire(self, now_ns: int) -> None:
        """End the troubles that no message has shown lately. `now_ns` is of the clock of `strike`."""
        with self._lock:
            for trouble, at_ns in list(self._struck_at_ns.items()):
                if now_ns - at_ns > _LASTS_NS:
                    del self._struck_at_ns[trouble]
                    self._set(trouble, False, "")

    def clear(self) -> None:
        """Forget all, without a word: the node was deactivated."""
        with self._lock:
            self._details.clear()
            self._struck_at_ns.clear()
            self._changes.clear()

    def now(self) -> dict[Trouble, str]:
        with self._lock:
            return dict(self._details)

    def changes(self) -> list[Change]:
        """What began and ended since the last call, in order."""
        with self._lock:
            changes, self._changes = self._changes, []
            return changes

    def _set(self, trouble: Trouble, there: bool, detail: str) -> None:
        if there == (trouble in self._details):
            return
        if there:
            self._details[trouble] = detail
        else:
            del self._details[trouble]
        self._changes.append(Change(trouble, there, detail))
