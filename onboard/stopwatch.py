"""Where the time of one frame goes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stopwatch:
    """Milliseconds by stage of one frame; a stage may come twice."""

    ms: dict[str, float] = field(default_factory=dict)
    _began: float = 0.0

    def start(self) -> None:
        self._began = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.ms[stage] = self.ms.get(stage, 0.0) + 1e3 * (now - self._began)
        self._began = now
