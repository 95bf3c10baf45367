"""What a training tells: a progress bar, a line an epoch, TensorBoard scalars, and log.jsonl to read later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

LOG, SCALARS = "log.jsonl", "tensorboard"


class Journal:
    """Of one run in one folder; silent in all processes but the first. What was told of steps after `step`, which a
    killed run took and a resumed one takes again, is taken back."""

    def __init__(self, out: Path, step: int, epochs: int, loud: bool) -> None:
        self._out, self._loud, self._epochs = out, loud, epochs
        self._console = Console(quiet=not loud, highlight=False, soft_wrap=True)
        self._sums: dict[str, Tensor | float] = {}
        self._count = 0
        self._writer: SummaryWriter | None = None
        if loud:
            kept = [line for line in read_log(out) if line["step"] <= step]
            beside = out / f"{LOG}.partial"
            beside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
            beside.replace(out / LOG)
            self._writer = SummaryWriter(str(out / SCALARS), purge_step=step + 1)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)

    def __enter__(self) -> Journal:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._writer is not None:
            self._writer.close()

    def say(self, line: str) -> None:
        """One line for a person."""
        self._console.print(line, markup=False)

    def begin(self, epoch: int, done: int, count: int) -> None:
        """An epoch, counted from 0, of `count` batches of which `done` were taken."""
        self._sums, self._count = {}, 0
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._bar.add_task(f"epoch {epoch + 1}/{self._epochs}", total=count, completed=done)

    def step(self, step: int, values: Mapping[str, Tensor | float]) -> None:
        """The losses of a step and what else changes."""
        self._count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            if self._writer is not None:
                self._writer.add_scalar(name, float(value), step)
        for task in self._bar.task_ids:
            self._bar.advance(task)

    def end(self, epoch: int, step: int) -> None:
        """The means of the epoch, or of what this run did of it."""
        if not self._loud or not self._count:
            return
        means = {name: float(total) / self._count for name, total in self._sums.items()}
        with (self._out / LOG).open("a", encoding="utf-8") as log:
            log.write(
                json.dumps({"epoch": epoch + 1, "step": step} | {k: round(v, 6) for k, v in means.items()}) + "\n"
            )
        loss = means.pop("loss")
        parts = ", ".join(f"{k.removeprefix('loss/')} {v:.3f}" for k, v in means.items() if k.startswith("loss/"))
        self.say(f"epoch {epoch + 1}/{self._epochs}  step {step}  loss {loss:.4f}  ({parts})")


def read_log(out: Path) -> list[dict[str, float]]:
    """The lines of a run's log, one an epoch; none where there is no log. A line cut short by a kill is left out."""
    path = out / LOG
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines
