"""The small places data set made in the repo (`training.data.smallplaces`): held-out sites of one of its domains."""

from __future__ import annotations

from pathlib import Path

from training.benchmarks.base import Benchmark, one_of
from training.data.smallplaces import SPLITS, STYLES, benchmark
from training.data.smallworld import KINDS, RECTIFIED

PROTOCOLS = tuple(f"{domain}{kind}" for domain in STYLES for kind in ("", *(f"-{kind}" for kind in KINDS)))


def load(root: Path, protocol: str = PROTOCOLS[0], split: str = "test") -> tuple[Benchmark, ...]:
    """DOMAIN for all rectified views, DOMAIN-KIND for those of one kind. Raises BenchmarkError or SmallPlacesError."""
    one_of("protocol of small", protocol, PROTOCOLS)
    one_of("split of small", split, SPLITS)
    domain, _, kind = protocol.partition("-")
    return (benchmark(root, domain, split, (kind,) if kind else RECTIFIED),)
