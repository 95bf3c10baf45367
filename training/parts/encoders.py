"""Picture to feature maps: ConvNeXt and DINOv2 by `transformers`, and the project's own small blocks.

An encoder gives its maps fine to coarse. Its last stage can be taken off: UnifyGeo makes its two heads of it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from onboard.errors import ConfigError
from training.model import Residual, conv_norm_relu
from training.parts.config import EncoderConfig

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Features:
    maps: tuple[Tensor, ...]  # fine to coarse, each (B, channels[i], H / strides[i], W / strides[i])
    cls: Tensor | None  # (B, C) the class token of a transformer


class Encoder(nn.Module):
    """`forward(image (B, 3, H, W) normalised) -> Features`."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]  # pixels of a cell of each map
    cls_channels: int = 0  # of Features.cls; 0: none

    def take_last_stage(self) -> Stage:
        """The step to the coarsest map and the blocks there. The encoder goes on without them."""
        raise NotImplementedError


class Stage(nn.Module):
    """A step to another resolution (or none), then blocks that keep shape: (B, ., h, w) -> (B, channels, h', w')."""

    def __init__(self, step: nn.Module, blocks: nn.ModuleList, channels: int) -> None:
        super().__init__()
        self.step, self.blocks, self.channels = step, blocks, channels

    def forward(self, x: Tensor) -> Tensor:
        x = self.step(x)
        for block in self.blocks:
            x = block(x)
        return x


class StagedEncoder(Encoder):
    """A stem and stages, each at half the resolution of the one before."""

    def __init__(self, stem: nn.Module, stages: list[Stage], channels: tuple[int, ...], stem_stride: int) -> None:
        super().__init__()
        self.stem, self.stages = stem, nn.ModuleList(stages)
        self.channels = channels
        self.strides = tuple(stem_stride * 2**i for i in range(len(stages)))

    def forward(self, image: Tensor) -> Features:
        x, maps = self.stem(image), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return Features(tuple(maps), None)

    def take_last_stage(self) -> Stage:
        """See `Encoder.take_last_stage`. The last stage is no more part of this encoder."""
        last = self.stages[-1]
        assert isinstance(last, Stage)
        self.stages = self.stages[:-1]
        self.channels, self.strides = self.channels[:-1], self.strides[:-1]
        return last


class Dinov2Encoder(Encoder):
    """A vision transformer: one map, at the patch's stride, and the class token. `body` is `transformers`' own."""

    def __init__(self, body: Any, trained_blocks: int) -> None:
        super().__init__()
        self.body = body
        self.patch: int = body.config.patch_size
        self.channels, self.strides = (body.config.hidden_size,), (self.patch,)
        self.cls_channels = body.config.hidden_size
        body.embeddings.mask_token.requires_grad_(False)  # of its own pre-training
        if trained_blocks >= 0:
            frozen = len(body.encoder.layer) - trained_blocks
            for part in (body.embeddings, *body.encoder.layer[: max(frozen, 0)]):
                part.requires_grad_(False)
        if trained_blocks == 0:
            body.layernorm.requires_grad_(False)

    def forward(self, image: Tensor) -> Features:
        rows, cols = (side // self.patch for side in image.shape[-2:])
        tokens = self.body.embeddings(image)
        for block in self.body.encoder.layer:
            tokens = block(tokens)
        tokens = self.body.layernorm(tokens)
        grid = tokens[:, 1:].transpose(1, 2).unflatten(2, (rows, cols))
        return Features((grid,), tokens[:, 0])

    def take_last_stage(self) -> Stage:
        """See `Encoder.take_last_stage`: the last block, which then sees patches alone, and the norm after it."""
        last, norm = self.body.encoder.layer[-1], self.body.layernorm
        self.body.encoder.layer = self.body.encoder.layer[:-1]
        self.body.layernorm = nn.Identity()
        self.cls_channels = 0
        return Stage(nn.Identity(), nn.ModuleList([TokenBlock(last, norm)]), self.channels[0])


class TokenBlock(nn.Module):
    """A transformer block on the cells of a map (B, C, h, w), and its norm."""

    def __init__(self, block: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.block, self.norm = block, norm

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.block(x.flatten(2).transpose(1, 2)))
        return tokens.transpose(1, 2).unflatten(2, x.shape[-2:])


def build_encoder(config: EncoderConfig) -> Encoder:
    """The encoder of a config. Raises ConfigError for sizes that contradict, or weights that cannot be loaded."""
    if config.kind != "dinov2" and len(config.widths) != len(config.depths):
        raise ConfigError("encoder depths", config.depths, f"one number for each of the widths {config.widths}")
    if config.kind == "convnext":
        return _convnext(config)
    if config.kind == "dinov2":
        return _dinov2(config)
    _say_random(config)
    return _compact(config)


def _convnext(config: EncoderConfig) -> StagedEncoder:
    from transformers import ConvNextConfig, ConvNextModel

    if config.weights:
        body = _pretrained(ConvNextModel, config.weights)
        found = (tuple(body.config.hidden_sizes), tuple(body.config.depths), body.config.patch_size)
        _same_sizes(config, found, (config.widths, config.depths, config.stem_stride))
    else:
        _say_random(config)
        body = ConvNextModel(
            ConvNextConfig(
                num_stages=len(config.widths),
                hidden_sizes=list(config.widths),
                depths=list(config.depths),
                patch_size=config.stem_stride,
                layer_scale_init_value=config.layer_scale,
            )
        )
    stages = [
        Stage(nn.Sequential(*stage.downsampling_layer), stage.layers, width)
        for stage, width in zip(body.encoder.stages, config.widths, strict=True)
    ]
    return StagedEncoder(body.embeddings, stages, config.widths, config.stem_stride)


def _dinov2(config: EncoderConfig) -> Dinov2Encoder:
    from transformers import Dinov2Config, Dinov2Model

    if len(config.widths) != 1 or len(config.depths) != 1:
        raise ConfigError("encoder dinov2", (config.widths, config.depths), "one width and one depth")
    if config.weights:
        body = _pretrained(Dinov2Model, config.weights)
        found = (body.config.hidden_size, body.config.num_hidden_layers, body.config.patch_size)
        _same_sizes(config, found, (config.widths[0], config.depths[0], config.stem_stride))
    else:
        _say_random(config)
        body = Dinov2Model(
            Dinov2Config(
                hidden_size=config.widths[0],
                num_hidden_layers=config.depths[0],
                num_attention_heads=config.heads,
                patch_size=config.stem_stride,
                image_size=config.position_px,
                layerscale_value=config.layer_scale,
            )
        )
    return Dinov2Encoder(body, config.trained_blocks)


def _compact(config: EncoderConfig) -> StagedEncoder:
    """The blocks of training/model.py: batch norm and ReLU throughout, which INT8 speeds up."""
    halvings = config.stem_stride.bit_length() - 1
    if config.stem_stride != 2**halvings or halvings < 1:
        raise ConfigError("stem stride", config.stem_stride, "2, 4 or 8")
    inputs = [3] + [config.widths[0]] * (halvings - 1)
    stem = nn.Sequential(*(conv_norm_relu(channels, config.widths[0], 2) for channels in inputs))
    stages = []
    for i, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
        step = nn.Identity() if i == 0 else conv_norm_relu(config.widths[i - 1], width, 2)
        stages.append(Stage(step, nn.ModuleList(Residual(width) for _ in range(depth)), width))
    return StagedEncoder(stem, stages, config.widths, config.stem_stride)


def _pretrained(kind: Any, weights: str) -> Any:
    """A model of `transformers` from a folder or a hub id, whole: a missing tensor is refused, never drawn."""
    remedy = "give a folder that holds config.json and model.safetensors, or an id that the hub can be asked for"
    if weights.startswith((".", "/", "~")) and not Path(weights).expanduser().is_dir():
        raise ConfigError("encoder weights", weights, "a folder", remedy)
    try:
        body, facts = kind.from_pretrained(str(Path(weights).expanduser()), output_loading_info=True)
    except (OSError, ValueError) as error:
        raise ConfigError("encoder weights", weights, "weights of " + kind.__name__, remedy) from error
    if facts["missing_keys"]:
        raise ConfigError("encoder weights", weights, "every tensor of " + kind.__name__, remedy)
    _log.info("encoder: weights of %s", weights)
    return body


def _same_sizes(config: EncoderConfig, found: object, wanted: object) -> None:
    if found != wanted:
        remedy = "set the config's widths, depths and stem_stride as the weights have them"
        raise ConfigError(f"sizes of the encoder in {config.weights}", found, str(wanted), remedy)


def _say_random(config: EncoderConfig) -> None:
    paper = f"; the paper starts from {config.paper_weights}" if config.paper_weights else ""
    _log.warning("encoder %s starts from RANDOM weights%s", config.kind, paper)
