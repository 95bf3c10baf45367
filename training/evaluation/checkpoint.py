"""A method in torch as the evaluation sees it: pictures in, descriptors and places out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from training.benchmarks.base import Benchmark
from training.evaluation.describer import Match, Seen
from training.methods import build_method
from training.methods.base import Described, Method
from training.presets import method_from_dict


class MethodDescriber:
    """The `Describer` of a method. A picture of another size is scaled to the method's, whatever its shape."""

    def __init__(self, method: Method, facts: Mapping[str, str] | None = None) -> None:
        self.method = method
        self._device = next(method.parameters()).device
        self.name = method.name
        self.facts: Mapping[str, str] = facts or {"model": method.name}

    def describe_queries(self, pictures: Sequence[Seen]) -> np.ndarray:
        """See `Describer.describe_queries`."""
        return self._query(pictures).descriptor.float().cpu().numpy()

    def describe_references(self, pictures: Sequence[Seen]) -> np.ndarray:
        """See `Describer.describe_references`."""
        return self._reference(pictures).descriptor.float().cpu().numpy()

    def can_match(self, benchmark: Benchmark) -> bool:
        """Whether the method was trained to locate; it knows then what its views look like."""
        return bool(getattr(self.method, "localizes", False))

    def match(self, queries: Sequence[Seen], references: Sequence[Seen]) -> Match:
        """See `Describer.match`. The place is the likeliest pixel's middle; the score is what eq. 4 adds."""
        asked, seen = self._query(queries), self._reference(references)
        with torch.no_grad():
            chance = self.method.locate(asked, seen)
            added = self.method.rerank(asked, seen, torch.zeros(len(asked.descriptor), 1, device=self._device))
        if chance is None:
            raise NotImplementedError(f"{self.name} does not locate")
        rows, cols = chance.shape[1:]
        best = chance.flatten(1).argmax(dim=1).cpu().numpy()
        place = (np.stack([best // cols, best % cols], axis=1) + 0.5) / (rows, cols)
        return Match(place, added[:, 0].float().cpu().numpy())

    def _query(self, pictures: Sequence[Seen]) -> Described:
        self.method.eval()
        with torch.no_grad():
            return self.method.describe_query(self._image(pictures, self.method.query_px))

    def _reference(self, pictures: Sequence[Seen]) -> Described:
        self.method.eval()
        with torch.no_grad():
            return self.method.describe_reference(self._image(pictures, self.method.reference_px))

    def _image(self, pictures: Sequence[Seen], size: tuple[int, int]) -> torch.Tensor:
        fitted = np.stack([scaled(rgb, mask, size) for rgb, mask in pictures])
        return torch.from_numpy(fitted).to(self._device)


def scaled(rgb: np.ndarray, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(3, H, W) uint8 at `size` (height, width) of a picture (h, w, 3) and its mask; what is masked is black.

    By areas where it shrinks, linearly where it grows: training draws its pictures with this too.
    """
    rgb = np.where(mask[..., None], rgb, 0).astype(np.uint8)
    if rgb.shape[:2] != size:
        how = cv2.INTER_AREA if rgb.shape[0] >= size[0] else cv2.INTER_LINEAR
        rgb = cv2.resize(rgb, (size[1], size[0]), interpolation=how)
    return np.ascontiguousarray(rgb.transpose(2, 0, 1))


def restore(content: dict[str, Any]) -> Method:
    """The method of a checkpoint's content, with its weights; the pretrained ones are not looked for again."""
    config = content["method_config"]
    encoders = logging.getLogger("training.parts.encoders")
    level = encoders.level
    encoders.setLevel(logging.ERROR)  # it warns of random weights, which are replaced at once
    try:
        method = build_method(method_from_dict(config | {"encoder": config["encoder"] | {"weights": ""}}))
    finally:
        encoders.setLevel(level)
    method.load_state_dict(content["method"])
    return method


def open_checkpoint(path: Path) -> MethodDescriber:
    """The method of a file that `pilotage train --preset` wrote. Raises CheckpointError where it is none."""
    from training.fitting.checkpoint import load

    content = load(path)
    method = restore(content)
    facts = {
        "model": f"{content['preset']} {content['size']}",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "steps": str(content["step"]),
    }
    return MethodDescriber(method.to("cuda" if torch.cuda.is_available() else "cpu"), facts)
