"""The unfinished map: arrays in `MAP.partial/` and a journal of what in them is done.

An interrupted build goes on where it stopped when imagery, model and options are the same; else it starts anew.
Nothing lies under MAP itself until all of it is there.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from onboard.errors import MapError
from onboard.region.manifest import MANIFEST

_JOURNAL = "journal.jsonl"


class Workspace:
    """The folder of a build. `done` holds the names of finished steps; `resumed` says whether there were any."""

    def __init__(self, out: Path, signature: dict[str, Any]) -> None:
        self.out = out
        self.path = out.with_name(out.name + ".partial")
        self._journal = self.path / _JOURNAL
        self.done: set[str] = set()
        lines = self._read_journal()
        if lines and lines[0] == json.loads(json.dumps(signature)):
            self.done = {line for line in lines[1:] if isinstance(line, str)}
        else:
            self._clear()
            self.path.mkdir(parents=True)
            self._append(signature)
        self.resumed = bool(self.done)

    def array(self, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """A zeroed array `name`.npy on disk, written in place; the same one again after an interruption.

        Fresh ones are holes in a sparse file: what is never written takes no room.
        """
        file = self.path / f"{name}.npy"
        if f"array {name}" in self.done:
            array: np.ndarray = np.load(file, mmap_mode="r+")
            return array
        file.parent.mkdir(parents=True, exist_ok=True)
        array = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
        self.finish(f"array {name}")
        return array

    def finish(self, step: str) -> None:
        """Write down that a step is done; what it wrote must have been flushed."""
        self._append(step)
        self.done.add(step)

    def publish(self, force: bool) -> None:
        """Rename the finished folder to where it belongs; with `force`, in the place of an older map."""
        check_target(self.out, force)
        self._journal.unlink()
        if not self.out.exists():
            self.path.rename(self.out)
            return
        old = self.out.with_name(f"{self.out.name}.replaced-{os.getpid()}")
        self.out.rename(old)
        self.path.rename(self.out)
        shutil.rmtree(old)

    def discard(self) -> None:
        """Leave nothing behind, where going on would fail again."""
        shutil.rmtree(self.path)

    def _clear(self) -> None:
        if not self.path.exists():
            return
        ours = self._journal.is_file() or (self.path / MANIFEST).is_file()
        if not self.path.is_dir() or (any(self.path.iterdir()) and not ours):
            raise MapError("not an unfinished map", self.path, "room for one", "move it or choose another name")
        shutil.rmtree(self.path)

    def _append(self, entry: object) -> None:
        with self._journal.open("a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read_journal(self) -> list[Any]:
        """The entries up to one that was cut off by the interruption."""
        entries: list[Any] = []
        if not self._journal.is_file():
            return entries
        text = self._journal.read_text(errors="replace")
        whole = text[: text.rfind("\n") + 1]
        if len(whole) != len(text):
            self._journal.write_text(whole)  # a half-written entry would spoil the next one
        for line in whole.splitlines():
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:
                return []
        return entries


def check_target(out: Path, force: bool) -> None:
    """Raise MapError where a map may not be written; `force` replaces maps, never other folders."""
    if not out.name:
        raise MapError("no name for the map", out, "a folder to be made")
    if not out.exists():
        return
    if not force:
        raise MapError("map exists", out, "a new name", "or --force to replace it")
    if not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).is_file()):
        raise MapError("not a region map", out, "a map to replace", "choose another name: --force replaces maps only")
