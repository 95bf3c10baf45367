"""UnifyGeo (arXiv 2505.07622): retrieval and localization by one encoder, and re-ranking between them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from onboard.errors import ConfigError
from training.methods.base import Described, Method
from training.objectives.infonce import symmetric_infonce
from training.objectives.localization import gaussian_truth, known, level_weights, location_loss, matching_loss
from training.objectives.rerank import rerank_loss
from training.parts.aggregators import build_aggregator
from training.parts.decoder import Decoder, Located
from training.parts.encoders import Encoder, build_encoder
from training.parts.heads import split_heads
from training.parts.projectors import ColumnProjector, TemplateProjector
from training.parts.temperature import Temperature

if TYPE_CHECKING:
    from training.data.batch import Batch
    from training.presets import UnifyGeoConfig


class Branch(nn.Module):
    """One view's encoder, F-head, S-head and aggregator."""

    def __init__(self, encoder: Encoder, config: UnifyGeoConfig) -> None:
        super().__init__()
        self.f_head, self.s_head = split_heads(encoder)
        self.encoder = encoder
        # With tasks kept apart retrieval has an encoder of its own: the ablation of joint training.
        self.semantic_encoder = copy.deepcopy(encoder) if config.tasks == "separate" else None
        self.aggregator = build_aggregator(config.aggregator, self.s_head.channels)

    def forward(self, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The descriptor (B, D), and the maps of levels 0 to n: F^0 of the F-head, then the encoder's, finer and
        finer."""
        features = self.encoder(image)
        semantic = features if self.semantic_encoder is None else self.semantic_encoder(image)
        descriptor = self.aggregator(self.s_head(semantic.maps[-1]), None)
        return descriptor, (self.f_head(features.maps[-1]), *reversed(features.maps))


class UnifyGeo(Method):
    """Both branches, the query's projectors and the decoder.

    `Described.detail` is, of a query, its descriptors of levels 0 to n; of a reference, its maps.
    """

    name = "unifygeo"

    def __init__(self, config: UnifyGeoConfig) -> None:
        super().__init__()
        self.config = config
        self.query_px, self.reference_px = config.query_px, config.reference_px
        weights = config.losses
        self.localizes = max(weights.localization, weights.matching, weights.rerank) > 0.0
        encoder = build_encoder(config.encoder)
        channels, strides = encoder.channels[::-1], encoder.strides[::-1]
        _check_sizes(config, strides[0])
        self.reference_branch = Branch(copy.deepcopy(encoder), config)
        self.query_branch = self.reference_branch if config.views == "shared" else Branch(encoder, config)
        self.levels = len(strides)  # of a transformer one: its trunk has the heads' resolution, and no finer map
        if self.localizes:
            self.decoder = Decoder(channels, strides)
            if config.decoder.query == "column":
                cells = (config.query_px[0] // strides[0], config.query_px[1] // strides[0])
                self.projector: nn.Module = ColumnProjector(channels, cells)
            else:
                self.projector = TemplateProjector(channels, config.decoder.template_cells)
        self.retrieval_temperature = Temperature(weights.retrieval_temperature)
        self.matching_temperature = Temperature(weights.matching_temperature)

    def describe_query(self, image: Tensor) -> Described:
        descriptor, levels = self.query_branch(self.prepare(image, self.query_px))
        detail = self.projector(levels[: self.levels]) if self.localizes else None
        return Described(descriptor, detail)

    def describe_reference(self, image: Tensor) -> Described:
        descriptor, levels = self.reference_branch(self.prepare(image, self.reference_px))
        return Described(descriptor, levels[: self.levels] if self.localizes else None)

    def decode(self, query: Described, reference: Described) -> Located:
        """Every level's scores, and the logits of the place. Raises ConfigError where no localization is trained."""
        descriptors, maps = _detail(query), _detail(reference)
        return self.decoder(descriptors, maps, self.reference_px)

    def locate(self, query: Described, reference: Described) -> Tensor | None:
        """See `Method.locate`: the distribution D over the pixels of `reference_px`."""
        if not self.localizes:
            return None
        logits = self.decode(query, reference).logits
        return torch.softmax(logits.flatten(1), dim=1).view_as(logits)

    def rerank(self, query: Described, candidates: Described, scores: Tensor) -> Tensor:
        """Eq. 4: the retrieval score (cosine) and the best score of level 0, summed."""
        if not (self.config.rerank and self.localizes):
            return scores
        repeated = _detail(query)[0].repeat_interleave(scores.shape[1], dim=0)
        best = self.decoder.match(0, repeated, _detail(candidates)[0]).flatten(1).amax(dim=1)
        return scores + best.view_as(scores)

    def training_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 5: L_D, L_G, L_M and L_R, each times its weight. Pairs of unknown position train retrieval alone."""
        weights = self.config.losses
        query, reference = self.describe_query(batch["query"]), self.describe_reference(batch["reference"])
        losses = {}
        if weights.retrieval:
            losses["retrieval"] = weights.retrieval * symmetric_infonce(
                query.descriptor,
                reference.descriptor,
                self.retrieval_temperature(),
                weights.label_smoothing,
                batch["label"],
            )
        if self.localizes:
            losses.update(self._localization_losses(query, reference, batch))
        if not losses:
            raise ConfigError("losses of a batch", "none", "pairs of known position, or a retrieval weight above 0")
        return losses

    def _localization_losses(self, query: Described, reference: Described, batch: Batch) -> dict[str, Tensor]:
        weights, there = self.config.losses, known(batch["position"])
        chosen = there.nonzero()[:, 0]
        losses: dict[str, Tensor] = {}
        if len(chosen) == 0:
            return losses
        at_query, at_reference = query.rows(chosen), reference.rows(chosen)
        truth = gaussian_truth(batch["position"][chosen], self.reference_px, weights.truth_sigma)
        temperature = self.matching_temperature()
        located = self.decode(at_query, at_reference)
        levels = [level_weights(truth, (score.shape[-2], score.shape[-1])) for score in located.scores]
        if weights.localization:
            losses["localization"] = weights.localization * location_loss(located.logits, truth)
        if weights.matching:
            parts = [matching_loss(score, w, temperature) for score, w in zip(located.scores, levels, strict=True)]
            losses["matching"] = weights.matching * torch.stack(parts).sum()
        if weights.rerank:
            scores = self.decoder.match_all(_detail(at_query)[0], _detail(reference)[0])
            losses["rerank"] = weights.rerank * rerank_loss(scores, levels[0], temperature, chosen, batch["label"])
        return losses


def _detail(described: Described) -> tuple[Tensor, ...]:
    if described.detail is None:
        raise ConfigError("localization", "off", "a loss weight above 0 for one of its parts")
    return described.detail


def _check_sizes(config: UnifyGeoConfig, stride: int) -> None:
    for name, size in (("query_px", config.query_px), ("reference_px", config.reference_px)):
        if size[0] % stride or size[1] % stride:
            raise ConfigError(f"unifygeo {name}", size, f"multiples of the coarsest stride, {stride}")
