"""A method's checkpoint becomes files, in one go: every profile in every precision, the gate, and the card."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from export.check import Tolerances
from export.facts import git_revision
from export.methods.check import check, chosen, picture_feed, print_rows
from export.methods.files import Feed, Session, make_files, write_card
from export.methods.onnx import export_profile
from export.methods.profiles import LOCATE, QUERY, REFERENCE, profiles_of
from onboard.errors import EngineError
from training.evaluation.checkpoint import restore
from training.evaluation.run import take
from training.fitting.checkpoint import load
from training.fitting.pairs import PairSource
from training.fitting.sources import open_training
from training.methods.base import Method
from training.presets import Preset, method_from_dict

_COMPARED = 8  # of the calibration's feeds: for cosines and times


def export_method(
    checkpoint: Path,
    out: Path,
    data: str,
    preset: str = "",
    frames: int = 32,
    queries: int = 100,
    training_data: str = "",
    tolerances: Tolerances = Tolerances(),
    seed: int = 5,
) -> Path:
    """Write the files of a checkpoint of `pilotage train --preset` into `out`; returns the card.

    `data`: KIND:PATH as in training; its training pairs calibrate, its held-out `queries` are what the gate asks.
    `preset`: what the checkpoint is expected to be; empty: anything. Raises EngineError, CheckpointError, DataError.
    """
    content = load(checkpoint)
    if preset and content["preset"] != preset:
        raise EngineError("checkpoint of another preset", content["preset"], preset, "leave --preset out")
    config = method_from_dict(content["method_config"])
    source, heldout = open_training(data, Preset(content["preset"], content["size"], config))
    facts = {
        "name": f"{content['preset']}-{content['size']}",
        "steps": content["step"],
        "training_data": training_data or content["data"],
        "git_revision": git_revision(),
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
    }
    with _quiet():
        wholes = export_profiles(restore(content), out, facts)
        feeds = feeds_of(wholes, source, frames, seed)
        files = [make_files(whole, feeds[profile]) for profile, whole in wholes.items()]
    benchmark = take(heldout[0], queries)
    few = {profile: every[:_COMPARED] for profile, every in feeds.items()}
    rows = check(files, few, benchmark, tolerances)
    print_rows(rows, benchmark)
    return write_card(out, facts, files, chosen(rows))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that the exporter and the quantizer log for people who call them by hand."""
    loggers = [logging.getLogger(name) for name in (None, "onnx_ir", "onnxscript", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def export_profiles(method: Method, out: Path, facts: dict[str, Any]) -> dict[str, Path]:
    """The float32 file of every profile, NAME.PROFILE.onnx."""
    return {
        profile.name: export_profile(profile, out / f"{facts['name']}.{profile.name}.onnx", facts)
        for profile in profiles_of(method)
    }


def feeds_of(wholes: dict[str, Path], source: PairSource, count: int, seed: int) -> dict[str, list[Feed]]:
    """What each profile is fed with `count` training pairs; a locating one, what the float files say of them.

    Half of what a profile of both views is fed are queries, half references.
    """
    sessions = {name: Session(path) for name, path in wholes.items()}
    rng = np.random.default_rng(seed)
    feeds: dict[str, list[Feed]] = {name: [] for name in wholes}
    for index in rng.choice(len(source), count, replace=count > len(source)):
        pair = source.draw(int(index), np.random.default_rng([seed, int(index)]))
        said: list[np.ndarray] = []
        for side in (QUERY, REFERENCE):
            name = side if side in sessions else next(iter(sessions))
            feed = picture_feed(sessions[name], pair[side])
            feeds[name].append(feed)
            if LOCATE in sessions:
                said += sessions[name].run(feed)[1:]
        if LOCATE in sessions:
            feeds[LOCATE].append(dict(zip(sessions[LOCATE].inputs, said, strict=True)))
    return feeds
