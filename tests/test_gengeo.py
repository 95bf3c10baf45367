"""GenGeo: both views through one encoder and one set of clusters, and its loss as section 3.4.1 writes it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from training.parts.config import AggregatorConfig, EncoderConfig
from training.presets import GenGeoConfig, find_preset

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
torch.set_num_threads(1)

from training.data.batch import Batch  # noqa: E402
from training.methods import build_method  # noqa: E402
from training.methods.gengeo import GenGeo  # noqa: E402
from training.objectives.infonce import infonce, symmetric_infonce  # noqa: E402

TOY = GenGeoConfig(
    query_px=(28, 56),
    reference_px=(42, 42),
    encoder=EncoderConfig(
        kind="dinov2", widths=(16,), depths=(5,), stem_stride=14, heads=2, position_px=42, layer_scale=1.0
    ),
    aggregator=AggregatorConfig(
        kind="salad", descriptor_dim=12, clusters=4, cluster_dim=4, token_dim=4, hidden_dim=8, dropout=0.0
    ),
)


def toy_batch(count: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return {
        "query": torch.randint(0, 256, (count, 3, 28, 56), generator=generator, dtype=torch.uint8),
        "reference": torch.randint(0, 256, (count, 3, 42, 42), generator=generator, dtype=torch.uint8),
        "label": torch.arange(count),
        "position": torch.full((count, 2), torch.nan),
        "metres_per_pixel": torch.ones(count),
        "where_m": torch.zeros(count, 2, dtype=torch.float64),
    }


def toy(config: GenGeoConfig = TOY) -> GenGeo:
    torch.manual_seed(1)
    method = build_method(config)
    assert isinstance(method, GenGeo)
    return method


def unit(seed: int, *shape: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=1)


# ---- the loss


def test_infonce_without_smoothing_is_minus_log_of_the_positives_share() -> None:
    query, reference = unit(1, 3, 5), unit(2, 3, 5)
    d = np.exp(query.double().numpy() @ reference.double().numpy().T / 0.2)
    wanted = -np.mean([np.log(d[i, i] / d[i].sum()) for i in range(3)])
    assert float(infonce(query, reference, 0.2)) == pytest.approx(wanted, abs=1e-5)
    back = -np.mean([np.log(d[i, i] / d[:, i].sum()) for i in range(3)])
    assert float(symmetric_infonce(query, reference, 0.2)) == pytest.approx((wanted + back) / 2, abs=1e-5)


def test_another_picture_of_the_same_place_is_no_negative() -> None:
    query, reference = unit(3, 3, 5), unit(4, 3, 5)
    alone = infonce(query[[0, 2]], reference[[0, 2]], 0.1)
    label = torch.tensor([7, 7, 8])
    d = np.exp(query.double().numpy() @ reference.double().numpy().T / 0.1)
    of_first = -np.log(d[0, 0] / (d[0, 0] + d[0, 2]))
    found = infonce(query, reference, 0.1, label=label)
    of_others = -np.log(d[1, 1] / (d[1, 1] + d[1, 2])) - np.log(d[2, 2] / d[2].sum())
    assert float(found) == pytest.approx((of_first + of_others) / 3, abs=1e-5)
    assert float(alone) == pytest.approx((of_first - np.log(d[2, 2] / (d[2, 0] + d[2, 2]))) / 2, abs=1e-5)


def test_its_only_loss_is_the_symmetric_one_of_its_own_descriptors() -> None:
    method, batch = toy().eval(), toy_batch()
    query, reference = method.describe_query(batch["query"]), method.describe_reference(batch["reference"])
    wanted = symmetric_infonce(query.descriptor, reference.descriptor, 0.07)
    losses = method.training_losses(batch)
    assert list(losses) == ["retrieval"]
    torch.testing.assert_close(losses["retrieval"], wanted)


# ---- the method


def test_views_of_other_shapes_share_encoder_and_clusters() -> None:
    method = toy().eval()
    assert method.reference_aggregator is method.aggregator
    square = torch.zeros(1, 3, 42, 42, dtype=torch.uint8)
    as_reference = method.describe_reference(square).descriptor
    assert as_reference.shape == (1, 12)
    same = method.prepare(square, (42, 42))
    features = method.encoder(same)
    torch.testing.assert_close(as_reference, method.aggregator(features.maps[-1], features.cls))
    assert method.describe_query(torch.zeros(2, 3, 28, 56, dtype=torch.uint8)).descriptor.shape == (2, 12)


def test_separate_clusters_are_an_aggregator_of_its_own_for_the_reference() -> None:
    method = toy(dataclasses.replace(TOY, clusters="separate"))
    together = {id(p) for p in method.aggregator.parameters()} & {
        id(p) for p in method.reference_aggregator.parameters()
    }
    assert not together


def test_the_dustbin_can_be_left_out() -> None:
    aggregator = dataclasses.replace(TOY.aggregator, dustbin=False)
    names = [name for name, _ in toy(dataclasses.replace(TOY, aggregator=aggregator)).named_parameters()]
    assert not any("dustbin" in name for name in names)
    assert any("dustbin" in name for name, _ in toy().named_parameters())


def test_the_encoder_and_the_aggregator_are_interchangeable() -> None:
    encoder = EncoderConfig(kind="compact", widths=(4, 8), depths=(1, 1), stem_stride=2)
    for kind in ("salad", "attention_gem", "gem", "average"):
        aggregator = dataclasses.replace(TOY.aggregator, kind=kind)
        method = toy(dataclasses.replace(TOY, encoder=encoder, aggregator=aggregator))
        assert method.training_losses(toy_batch())["retrieval"].isfinite()


def test_only_what_learns_is_the_optimizers_and_the_rest_keeps_its_weights() -> None:
    method = toy(dataclasses.replace(TOY, encoder=dataclasses.replace(TOY.encoder, trained_blocks=4))).train()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    optimizer = torch.optim.AdamW(method.main_parameters(), lr=1e-2, weight_decay=0.1)
    method.training_losses(toy_batch())["retrieval"].backward()
    optimizer.step()
    changed = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert not any("embeddings" in name or "layer.0." in name for name in changed)
    assert any("layer.1." in name for name in changed)
    assert any("aggregator" in name for name in changed)


def test_it_learns_a_handful_of_pairs() -> None:
    method, batch = toy().train(), toy_batch()
    optimizer = torch.optim.AdamW(method.main_parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = method.training_losses(batch)["retrieval"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_it_says_that_it_does_not_localize_and_leaves_retrieval_scores_alone() -> None:
    method, batch = toy().eval(), toy_batch()
    query, reference = method.describe_query(batch["query"]), method.describe_reference(batch["reference"])
    assert query.detail is None
    assert method.locate(query, reference) is None
    scores = torch.tensor([[0.9, 0.1]] * 4)
    assert method.rerank(query, reference.rows(torch.arange(8) % 4), scores) is scores


def test_the_papers_figures_are_the_presets() -> None:
    paper = find_preset("gengeo", "paper")
    config, schedule = paper.method, paper.schedule
    assert isinstance(config, GenGeoConfig)
    assert (config.encoder.kind, config.encoder.widths, config.encoder.stem_stride) == ("dinov2", (768,), 14)
    assert config.encoder.trained_blocks == 4
    assert (config.aggregator.clusters, config.aggregator.cluster_dim) == (64, 128)
    assert config.aggregator.descriptor_dim == 1024
    assert (config.query_px, config.reference_px) == ((294, 588), (294, 294))  # of VIGOR
    assert (schedule.epochs, schedule.batch, schedule.learning_rate) == (80, 256, 1e-4)
    assert (schedule.sampling.select, schedule.sampling.among, schedule.sampling.every_epochs) == (64, 128, 4)
