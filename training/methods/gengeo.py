"""GenGeo (Remote Sens. 2026, 18(8), 1116): DINOv2, SALAD with a dustbin shared by both views, symmetric InfoNCE."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from torch import Tensor

from training.methods.base import Described, Method
from training.objectives.infonce import symmetric_infonce
from training.parts.aggregators import build_aggregator
from training.parts.encoders import build_encoder
from training.parts.temperature import Temperature

if TYPE_CHECKING:
    from training.data.batch import Batch
    from training.presets import GenGeoConfig


class GenGeo(Method):
    """One encoder and one aggregator for both views (3.1.2). It retrieves; it does not localize."""

    name = "gengeo"

    def __init__(self, config: GenGeoConfig) -> None:
        super().__init__()
        self.config = config
        self.query_px, self.reference_px = config.query_px, config.reference_px
        self.encoder = build_encoder(config.encoder)
        self.aggregator = build_aggregator(config.aggregator, self.encoder.channels[-1], self.encoder.cls_channels)
        # Clusters of its own for the reference are the ablation of table 7.
        separate = config.clusters == "separate"
        self.reference_aggregator = copy.deepcopy(self.aggregator) if separate else self.aggregator
        self.temperature = Temperature(config.temperature)

    def describe_query(self, image: Tensor) -> Described:
        features = self.encoder(self.prepare(image, self.query_px))
        return Described(self.aggregator(features.maps[-1], features.cls))

    def describe_reference(self, image: Tensor) -> Described:
        features = self.encoder(self.prepare(image, self.reference_px))
        return Described(self.reference_aggregator(features.maps[-1], features.cls))

    def training_losses(self, batch: Batch) -> dict[str, Tensor]:
        """3.4.1: the mean of both directions."""
        query, reference = self.describe_query(batch["query"]), self.describe_reference(batch["reference"])
        loss = symmetric_infonce(
            query.descriptor, reference.descriptor, self.temperature(), self.config.label_smoothing, batch["label"]
        )
        return {"retrieval": loss}
