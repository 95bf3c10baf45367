"""GeoLink (papers/geolink): 3-D anchors while it learns, pictures alone when it is used.

Clouds are asked for by losses only: `describe_query` and `describe_reference` know nothing of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from onboard.errors import ConfigError
from training.methods.base import Described, Method
from training.objectives.distillation import relation_loss
from training.objectives.infonce import infonce, symmetric_infonce
from training.parts.aggregators import build_aggregator
from training.parts.encoders import build_encoder
from training.parts.experts import MultiExpert
from training.parts.pointnn import PointNN
from training.parts.temperature import Temperature
from training.parts.vclub import VClub

if TYPE_CHECKING:
    from training.data.batch import Batch
    from training.presets import GeoLinkConfig

Anchored = tuple[Tensor, Tensor, Tensor]  # descriptors (B, D) of unit norm: query, reference, cloud


class GeoLink(Method):
    """One encoder and one aggregator for both views; the 3-D side is there where a loss of the config needs it."""

    name = "geolink"

    def __init__(self, config: GeoLinkConfig) -> None:
        super().__init__()
        self.config = config
        self.query_px, self.reference_px = config.query_px, config.reference_px
        self.encoder = build_encoder(config.encoder)
        self.aggregator = build_aggregator(config.aggregator, self.encoder.channels[-1], self.encoder.cls_channels)
        self.temperature = Temperature(config.losses.temperature)
        weights, dim = config.losses, int(self.aggregator.descriptor_dim)  # type: ignore[arg-type]
        self.needs_clouds = max(weights.clouds, weights.refinement, weights.distillation) > 0.0
        if self.needs_clouds:
            c = config.clouds
            self.points = PointNN(c.points, c.width, c.stages, c.neighbours)
            self.experts = MultiExpert(self.points.dim, dim, c.kernels)
            # Refinement and distillation hold the anchor still: without contrast of its own it learns nothing.
            self.experts.requires_grad_(max(weights.clouds, weights.intra) > 0.0)
        if weights.refinement > 0.0:
            self.query_estimator = VClub(dim, config.estimator.hidden, config.estimator.learning_rate)
            self.reference_estimator = VClub(dim, config.estimator.hidden, config.estimator.learning_rate)
        self._last: Anchored | None = None  # what `own_steps` fits to: the step's features, held still

    def describe_query(self, image: Tensor) -> Described:
        return self._describe(image, self.query_px)

    def describe_reference(self, image: Tensor) -> Described:
        return self._describe(image, self.reference_px)

    def _describe(self, image: Tensor, size: tuple[int, int]) -> Described:
        features = self.encoder(self.prepare(image, size))
        return Described(self.aggregator(features.maps[-1], features.cls))

    def describe_cloud(self, cloud: Tensor) -> Tensor:
        """(B, D) of unit norm of clouds (B, N, 3): eq. 1 to 4 after the reconstruction."""
        return self.experts(self.points(cloud))

    def training_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 15: cross-view and intra-view contrast, refinement, distillation, each times its weight."""
        weights, label = self.config.losses, batch["label"]
        query = self.describe_query(batch["query"]).descriptor
        reference = self.describe_reference(batch["reference"]).descriptor
        tau = self.temperature()
        losses = {"cross": weights.cross * symmetric_infonce(query, reference, tau, weights.label_smoothing, label)}
        views = [query, reference]
        if self.needs_clouds:
            cloud = self.describe_cloud(self._clouds(batch))
            losses |= self._anchored_losses((query, reference, cloud), tau, label)
            views.append(cloud)
        if weights.intra:  # eq. 7
            parts = [infonce(view, view, weights.intra_temperature, label=label) for view in views]
            losses["intra"] = weights.intra * torch.stack(parts).sum()
        return losses

    def _anchored_losses(self, anchored: Anchored, tau: Tensor, label: Tensor) -> dict[str, Tensor]:
        weights, (query, reference, cloud) = self.config.losses, anchored
        losses, smoothing = {}, weights.label_smoothing
        if weights.clouds:  # the rest of eq. 6
            both = [symmetric_infonce(view, cloud, tau, smoothing, label) for view in (query, reference)]
            losses["clouds"] = weights.clouds * torch.stack(both).sum()
        if weights.refinement:
            # Eq. 10. The anchor is held still: the pictures' features are what shall depend less on it.
            still = cloud.detach()
            bounds = self.query_estimator.bound(still, query) + self.reference_estimator.bound(still, reference)
            losses["refinement"] = weights.refinement * bounds
            self._last = (query.detach(), reference.detach(), still)
        if weights.distillation:  # eq. 14
            distilled = relation_loss(query, cloud) + relation_loss(reference, cloud)
            losses["distillation"] = weights.distillation * distilled
        return losses

    @staticmethod
    def _clouds(batch: Batch) -> Tensor:
        if "cloud" not in batch:
            remedy = "make them with `pilotage train clouds`, or set the weights of the losses that need them to 0"
            raise ConfigError("training data of geolink", "no point clouds", "a cloud of each place", remedy)
        return batch["cloud"]

    def own_steps(self, batch: Batch) -> None:
        """The estimators' maximum likelihood (eq. 9) on the features of the trainer's step."""
        if self._last is None:
            return
        (query, reference, cloud), self._last = self._last, None
        self.query_estimator.fit(cloud, query, self.config.estimator.steps)
        self.reference_estimator.fit(cloud, reference, self.config.estimator.steps)

    def _estimators(self) -> dict[str, VClub]:
        if self.config.losses.refinement <= 0.0:
            return {}
        return {"query": self.query_estimator, "reference": self.reference_estimator}

    def own_state(self) -> dict[str, Any]:
        return {name: estimator.optimizer_state() for name, estimator in self._estimators().items()}

    def load_own_state(self, state: dict[str, Any]) -> None:
        for name, estimator in self._estimators().items():
            estimator.load_optimizer_state(state[name])
