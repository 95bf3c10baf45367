"""What is compared with what: the variants that are trained, and the papers' statements about them.

A fact says that one measure is better than another. `paper` are the paper's own figures, without and with, for the
direction only: its data, sizes and pretrained weights are others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from training.presets import Preset, find_preset

RERANKED = 5  # UnifyGeo's k
SIZE = "tiny"
EPOCHS = {"unifygeo": 10, "gengeo": 8, "geolink": 5}  # the whole study in about half an hour of one core


@dataclass(frozen=True, slots=True)
class Measure:
    """A variant, and how many of its first answers are re-ranked."""

    variant: str
    rerank: int = 0


@dataclass(frozen=True, slots=True)
class Fact:
    """`better` is said to have more R@1, or fewer metres in the right reference, than `worse` on the held-out places
    of `domain`. UnifyGeo's joint training is held against training the detailed features and the decoder alone."""

    statement: str
    source: str
    better: Measure
    worse: Measure
    metric: Literal["R@1", "mean m", "median m"]
    domain: Literal["own", "other"]
    paper: tuple[float, float]  # without, with; points of R@1 or metres

    @property
    def sign(self) -> int:
        """+1 where more is better."""
        return 1 if self.metric == "R@1" else -1


def _same(preset: Preset) -> Preset:
    return preset


def _losses(**weights: float) -> Callable[[Preset], Preset]:
    """The preset with other weights of its losses."""

    def change(preset: Preset) -> Preset:
        method: Any = preset.method
        return dataclasses.replace(
            preset, method=dataclasses.replace(method, losses=dataclasses.replace(method.losses, **weights))
        )

    return change


def _aggregator(**values: Any) -> Callable[[Preset], Preset]:
    def change(preset: Preset) -> Preset:
        method: Any = preset.method
        aggregator = dataclasses.replace(method.aggregator, **values)
        return dataclasses.replace(preset, method=dataclasses.replace(method, aggregator=aggregator))

    return change


def _method(**values: Any) -> Callable[[Preset], Preset]:
    def change(preset: Preset) -> Preset:
        return dataclasses.replace(preset, method=dataclasses.replace(preset.method, **values))

    return change


VARIANTS: dict[str, tuple[str, Callable[[Preset], Preset]]] = {
    "unifygeo": ("unifygeo", _same),
    "unifygeo, localization alone": ("unifygeo", _losses(retrieval=0.0, rerank=0.0)),
    "gengeo": ("gengeo", _same),
    "gengeo, no dustbin": ("gengeo", _aggregator(dustbin=False)),
    "gengeo, clusters apart": ("gengeo", _method(clusters="separate")),
    "geolink": ("geolink", _same),
    "geolink, pictures alone": ("geolink", _losses(clouds=0.0, intra=0.0, refinement=0.0, distillation=0.0)),
    "geolink, cross-view alone": ("geolink", _losses(intra=0.0, refinement=0.0, distillation=0.0)),
    "geolink, refinement added": ("geolink", _losses(intra=0.0, distillation=0.0)),
    "geolink, intra-view added": ("geolink", _losses(refinement=0.0, distillation=0.0)),
    "geolink, distillation added": ("geolink", _losses(intra=0.0, refinement=0.0)),
}

_FULL, _RERANKED, _ALONE = Measure("unifygeo"), Measure("unifygeo", RERANKED), Measure("unifygeo, localization alone")
_GENGEO = Measure("gengeo")
_PICTURES, _CROSS = Measure("geolink, pictures alone"), Measure("geolink, cross-view alone")


def _gengeo(statement: str, worse: str, paper: tuple[float, float]) -> Fact:
    return Fact(statement, "GenGeo table 7", _GENGEO, Measure(worse), "R@1", "other", paper)


def _geolink(statement: str, better: str, worse: Measure, paper: tuple[float, float]) -> Fact:
    return Fact(statement, "GeoLink table 5", Measure(better), worse, "R@1", "other", paper)


FACTS = (
    Fact("re-ranking raises R@1", "UnifyGeo table V", _RERANKED, _FULL, "R@1", "own", (78.44, 82.80)),
    Fact("re-ranking raises R@1", "UnifyGeo table V", _RERANKED, _FULL, "R@1", "other", (61.18, 67.58)),
    Fact("joint training lowers metres", "UnifyGeo table VI", _FULL, _ALONE, "mean m", "own", (2.59, 2.26)),
    Fact("joint training lowers metres", "UnifyGeo table VI", _FULL, _ALONE, "mean m", "other", (4.30, 3.05)),
    _gengeo("the dustbin helps", "gengeo, no dustbin", (67.14, 71.27)),
    _gengeo("shared clusters help", "gengeo, clusters apart", (48.57, 71.27)),
    _geolink("clouds help", "geolink, cross-view alone", _PICTURES, (15.56, 17.86)),
    _geolink("refinement helps", "geolink, refinement added", _CROSS, (17.86, 21.80)),
    _geolink("intra-view loss helps", "geolink, intra-view added", _CROSS, (17.86, 26.68)),
    _geolink("distillation helps", "geolink, distillation added", _CROSS, (17.86, 22.61)),
    _geolink("all three help", "geolink", _CROSS, (17.86, 33.03)),
)


def reranked(variant: str) -> tuple[int, ...]:
    """How many answers are re-ranked in the evaluations of a variant that the facts ask for; 0 is always there."""
    asked = {m.rerank for fact in FACTS for m in (fact.better, fact.worse) if m.variant == variant}
    return tuple(sorted({0, *asked}))


def variant_preset(name: str, epochs: int = 0) -> Preset:
    """The tiny preset of a variant, trained for `epochs`; 0: its method's of EPOCHS."""
    base, change = VARIANTS[name]
    preset = change(find_preset(base, SIZE))
    return dataclasses.replace(preset, schedule=dataclasses.replace(preset.schedule, epochs=epochs or EPOCHS[base]))
