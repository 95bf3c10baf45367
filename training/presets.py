"""Every setting of the three methods, and the presets named after their papers.

`PRESETS[name][size]`: "paper" is the paper's own figures, "tiny" the same method made small enough for minutes on a
CPU, from random weights. The flagship is no preset of these: it is the overhead network of training/model.py.
No torch here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from onboard.errors import ConfigError
from training.parts.config import AggregatorConfig, DecoderConfig, EncoderConfig
from training.sampling import SamplingConfig

CONVNEXT_TINY = EncoderConfig(paper_weights="facebook/convnext-tiny-224")
DINOV2_BASE = EncoderConfig(
    kind="dinov2",
    widths=(768,),
    depths=(12,),
    stem_stride=14,
    heads=12,
    trained_blocks=4,
    layer_scale=1.0,
    paper_weights="facebook/dinov2-base",
)


@dataclass(frozen=True, slots=True)
class UnifyGeoLosses:
    """Weights of eq. 5 and what its parts need. A weight of 0 leaves its part out."""

    localization: float = 1.0  # L_D
    retrieval: float = 100.0  # alpha, L_G
    matching: float = 10.0  # beta, L_M
    rerank: float = 1.0  # gamma, L_R
    label_smoothing: float = 0.1  # of L_G
    retrieval_temperature: float = 0.07  # where the learnt one starts
    matching_temperature: float = 0.1  # where the learnt one of eq. 8 and L_R starts
    truth_sigma: float = 1 / 128  # of the Gaussian truth D_gt, as a share of the reference's side


@dataclass(frozen=True, slots=True)
class UnifyGeoConfig:
    """papers/unifygeo: III.C to III.E, IV.C."""

    method: ClassVar[str] = "unifygeo"
    query_px: tuple[int, int] = (384, 768)
    reference_px: tuple[int, int] = (384, 384)
    encoder: EncoderConfig = CONVNEXT_TINY
    aggregator: AggregatorConfig = field(default_factory=AggregatorConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    losses: UnifyGeoLosses = field(default_factory=UnifyGeoLosses)
    views: Literal["separate", "shared"] = "separate"  # whether both views have encoder and heads of their own
    tasks: Literal["joint", "separate"] = "joint"  # whether retrieval and localization share an encoder
    rerank: bool = True  # eq. 4; of how many candidates (the paper: 5) is asked of the evaluation


@dataclass(frozen=True, slots=True)
class GenGeoConfig:
    """papers/gengeo: 3.2 to 3.4, 4.1.3."""

    method: ClassVar[str] = "gengeo"
    query_px: tuple[int, int] = (294, 588)
    reference_px: tuple[int, int] = (294, 294)
    encoder: EncoderConfig = DINOV2_BASE
    aggregator: AggregatorConfig = field(default_factory=lambda: AggregatorConfig(kind="salad", descriptor_dim=1024))
    clusters: Literal["shared", "separate"] = "shared"  # whether both views use one aggregator
    label_smoothing: float = 0.0
    temperature: float = 0.07  # where the learnt one starts


@dataclass(frozen=True, slots=True)
class CloudConfig:
    """GeoLink's 3-D side: Point-NN's sizes, and the kernels of the experts (table 7: three are best)."""

    points: int = 1024
    width: int = 72  # channels of a point at first; doubled by each stage
    stages: int = 4
    neighbours: int = 90
    kernels: tuple[int, ...] = (3, 5, 7)  # one an expert; the widths are ours


@dataclass(frozen=True, slots=True)
class EstimatorConfig:
    """vCLUB's q(y | x), fitted in steps of its own. All but `hidden` is ours: the paper does not say."""

    hidden: int = 4096
    learning_rate: float = 1e-4
    steps: int = 1  # after each of the trainer's


@dataclass(frozen=True, slots=True)
class GeoLinkLosses:
    """Weights of eq. 15; only `intra` is other than 1 in the paper. A weight of 0 leaves its part out: without
    `clouds`, `refinement` and `distillation` no cloud is needed, and `cross` alone is the paper's baseline."""

    cross: float = 1.0  # eq. 6: drone and satellite
    clouds: float = 1.0  # eq. 6: drone and cloud, satellite and cloud
    intra: float = 4.0  # eq. 7
    refinement: float = 1.0  # eq. 10, vCLUB
    distillation: float = 1.0  # eq. 14
    label_smoothing: float = 0.0
    temperature: float = 0.07  # where the learnt one of eq. 5 and 6 starts
    intra_temperature: float = 0.07  # held: a learnt one would win eq. 7, where the positive is the query, by itself


@dataclass(frozen=True, slots=True)
class GeoLinkConfig:
    """papers/geolink: 3.2 to 3.5, 4.1. Size of pictures and mixers: what gives the parameters and FLOPs of table 6."""

    method: ClassVar[str] = "geolink"
    query_px: tuple[int, int] = (448, 448)
    reference_px: tuple[int, int] = (448, 448)
    encoder: EncoderConfig = field(default_factory=lambda: dataclasses.replace(DINOV2_BASE, trained_blocks=-1))
    aggregator: AggregatorConfig = field(
        default_factory=lambda: AggregatorConfig(kind="mixvpr", descriptor_dim=4096, grid=(32, 32), mixers=2)
    )
    clouds: CloudConfig = field(default_factory=CloudConfig)
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)
    losses: GeoLinkLosses = field(default_factory=GeoLinkLosses)


MethodConfig = Union[UnifyGeoConfig, GenGeoConfig, GeoLinkConfig]  # noqa: UP007 (evaluated on Python 3.10)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a method is trained: AdamW, a linear warm-up, then a cosine."""

    epochs: int = 40
    batch: int = 64
    learning_rate: float = 4.5e-4
    weight_decay: float = 0.04
    warmup_epochs: float = 1.0
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    augment: Literal["none", "overhead", "panorama"] = "overhead"  # see training/data/augment.py


@dataclass(frozen=True, slots=True)
class Preset:
    name: str
    size: str
    method: MethodConfig
    schedule: Schedule = field(default_factory=Schedule)


_DINOV2_TINY = EncoderConfig(
    kind="dinov2", widths=(96,), depths=(4,), stem_stride=14, heads=4, position_px=98, layer_scale=1.0
)

_UNIFYGEO_PAPER = Preset("unifygeo", "paper", UnifyGeoConfig(), Schedule(augment="panorama"))

_UNIFYGEO_TINY = Preset(
    "unifygeo",
    "tiny",
    UnifyGeoConfig(
        query_px=(96, 96),
        reference_px=(96, 96),
        encoder=EncoderConfig(widths=(16, 32, 48, 64), depths=(1, 1, 2, 1), stem_stride=2, layer_scale=1.0),
        decoder=DecoderConfig(query="template", template_cells=5),
    ),
    Schedule(epochs=20, batch=16, learning_rate=1e-3),
)

_GENGEO_SAMPLING = SamplingConfig("similarity")

_GENGEO_PAPER = Preset(
    "gengeo",
    "paper",
    GenGeoConfig(),
    Schedule(
        epochs=80,
        batch=256,
        learning_rate=1e-4,
        weight_decay=0.01,
        sampling=_GENGEO_SAMPLING,
        augment="panorama",
    ),
)

_GENGEO_TINY = Preset(
    "gengeo",
    "tiny",
    GenGeoConfig(
        query_px=(98, 98),
        reference_px=(98, 98),
        encoder=_DINOV2_TINY,
        aggregator=AggregatorConfig(
            kind="salad",
            descriptor_dim=128,
            clusters=8,
            cluster_dim=16,
            token_dim=32,
            hidden_dim=64,
            dropout=0.0,
        ),
    ),
    Schedule(
        epochs=20,
        batch=16,
        learning_rate=1e-3,
        weight_decay=0.01,
        sampling=SamplingConfig("similarity", select=8, among=16, every_epochs=4),
    ),
)

# Epochs, batch and learning rate of the paper did not survive its copy: these are those of its baseline's kind.
_GEOLINK_PAPER = Preset(
    "geolink",
    "paper",
    GeoLinkConfig(),
    Schedule(epochs=20, batch=32, learning_rate=1e-4, weight_decay=0.01, warmup_epochs=0.1),
)

_GEOLINK_TINY = Preset(
    "geolink",
    "tiny",
    GeoLinkConfig(
        query_px=(98, 98),
        reference_px=(98, 98),
        encoder=_DINOV2_TINY,
        aggregator=AggregatorConfig(kind="mixvpr", descriptor_dim=128, grid=(7, 7), mixers=2, rows=2),
        clouds=CloudConfig(points=256, width=24, neighbours=24),
        estimator=EstimatorConfig(hidden=128, learning_rate=1e-3),
    ),
    Schedule(epochs=20, batch=16, learning_rate=1e-3, weight_decay=0.01),
)

PRESETS: dict[str, dict[str, Preset]] = {
    "unifygeo": {"paper": _UNIFYGEO_PAPER, "tiny": _UNIFYGEO_TINY},
    "gengeo": {"paper": _GENGEO_PAPER, "tiny": _GENGEO_TINY},
    "geolink": {"paper": _GEOLINK_PAPER, "tiny": _GEOLINK_TINY},
}


def find_preset(name: str, size: str = "paper") -> Preset:
    """Raises ConfigError, naming what there is."""
    if name not in PRESETS:
        raise ConfigError("preset", name, "one of " + ", ".join(PRESETS))
    if size not in PRESETS[name]:
        raise ConfigError(f"size of preset {name}", size, "one of " + ", ".join(PRESETS[name]))
    return PRESETS[name][size]


def with_weights(preset: Preset, weights: str) -> Preset:
    """The preset with its encoder started from a local folder or a hub id; empty: from random weights."""
    encoder = dataclasses.replace(preset.method.encoder, weights=weights)
    return dataclasses.replace(preset, method=dataclasses.replace(preset.method, encoder=encoder))


def method_to_dict(config: MethodConfig) -> dict[str, Any]:
    """What `method_from_dict` reads again; JSON and YAML keep it."""
    return {"method": config.method, **dataclasses.asdict(config)}


def method_from_dict(content: dict[str, Any]) -> MethodConfig:
    """The config of a checkpoint or a file; what it leaves out has its default.

    Raises ConfigError for an unknown method or key, or a value of another type.
    """
    kinds = {kind.method: kind for kind in get_args(MethodConfig)}
    name = content.get("method")
    if name not in kinds:
        raise ConfigError("method", name, "one of " + ", ".join(kinds))
    return _read(kinds[name], {key: value for key, value in content.items() if key != "method"}, str(name))


def _read(kind: type, content: object, where: str) -> Any:
    """One frozen dataclass, and those in it, from a mapping."""
    if not isinstance(content, dict):
        raise ConfigError(where, content, "a mapping of keys")
    hints = get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]
    values = {}
    for key, value in content.items():
        if key not in known:
            raise ConfigError("unknown config key", f"{where}.{key}", "one of " + ", ".join(known))
        values[key] = _value(hints[key], value, f"{where}.{key}")
    return kind(**values)


def _value(wanted: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(wanted):
        return _read(wanted, value, where)  # type: ignore[arg-type]
    if get_origin(wanted) is Literal:
        if value not in get_args(wanted):
            raise ConfigError(where, repr(value), "one of " + ", ".join(map(str, get_args(wanted))))
        return value
    if get_origin(wanted) is tuple:
        if not isinstance(value, (list, tuple)) or not all(type(item) is int for item in value):
            raise ConfigError(where, repr(value), "a list of whole numbers")
        return tuple(value)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise ConfigError(where, repr(value), f"a value of type {wanted.__name__}")
    return value
