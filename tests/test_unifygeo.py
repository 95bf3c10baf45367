"""UnifyGeo: its losses worked by hand, its parts' sizes as the paper states them, and its switches."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from onboard.errors import ConfigError
from training.parts.config import AggregatorConfig, DecoderConfig, EncoderConfig
from training.presets import UnifyGeoConfig, UnifyGeoLosses, find_preset

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
torch.set_num_threads(1)

from training.data.batch import Batch  # noqa: E402
from training.methods import build_method  # noqa: E402
from training.methods.unifygeo import UnifyGeo  # noqa: E402
from training.objectives.infonce import infonce, symmetric_infonce  # noqa: E402
from training.objectives.localization import (  # noqa: E402
    gaussian_truth,
    known,
    level_weights,
    location_loss,
    matching_loss,
)
from training.objectives.rerank import rerank_loss  # noqa: E402

TOY = UnifyGeoConfig(
    query_px=(32, 32),
    reference_px=(32, 32),
    encoder=EncoderConfig(widths=(8, 12, 16), depths=(1, 1, 1), stem_stride=2, layer_scale=1.0),
    decoder=DecoderConfig(query="template", template_cells=3),
)
COLUMNS = dataclasses.replace(TOY, decoder=DecoderConfig(query="column"))


def toy(config: UnifyGeoConfig = TOY) -> UnifyGeo:
    torch.manual_seed(1)
    method = build_method(config)
    assert isinstance(method, UnifyGeo)
    return method


def toy_batch(count: int = 4) -> Batch:
    """Smooth noise; each query is its reference moved by a few pixels."""
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(count, 3, 12, 12, generator=generator)
    ground = torch.nn.functional.interpolate(noise, size=(48, 48), mode="bilinear") * 60 + 128
    ground = ground.clamp(0, 255).to(torch.uint8)
    shift = torch.randint(-6, 7, (count, 2), generator=generator)
    views = [ground[i, :, 8 + r : 40 + r, 8 + c : 40 + c] for i, (r, c) in enumerate(shift.tolist())]
    return {
        "query": torch.stack(views),
        "reference": ground[:, :, 8:40, 8:40],
        "label": torch.arange(count),
        "position": 0.5 + shift / 32,
        "metres_per_pixel": torch.ones(count),
        "where_m": torch.zeros(count, 2, dtype=torch.float64),
    }


def weighted(**changes: float) -> UnifyGeoConfig:
    return dataclasses.replace(TOY, losses=dataclasses.replace(TOY.losses, **changes))


# ---- the losses, by hand


def test_equation_6_with_smoothing_gives_nine_tenths_to_the_positive_and_a_share_to_everyone() -> None:
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    reference = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    logits = np.array([[0.6, 0.0], [0.8, 1.0]]) / 0.5
    chance = np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    target = np.array([[0.95, 0.05], [0.05, 0.95]])  # 0.9 + 0.1 / 2, 0.1 / 2
    assert float(infonce(query, reference, 0.5, 0.1)) == pytest.approx(-(target * chance).sum(1).mean(), abs=1e-6)
    both = symmetric_infonce(query, reference, 0.5, 0.1)
    assert float(both) == pytest.approx(
        0.5 * float(infonce(query, reference, 0.5, 0.1) + infonce(reference, query, 0.5, 0.1))
    )


def test_the_truth_is_a_gaussian_about_the_place_that_sums_to_one() -> None:
    truth = gaussian_truth(torch.tensor([[0.5, 0.25]]), (4, 8), 0.1)[0]
    assert float(truth.sum()) == pytest.approx(1.0, abs=1e-6)
    rows = np.exp(-0.5 * ((np.array([0.125, 0.375, 0.625, 0.875]) - 0.5) / 0.1) ** 2)
    np.testing.assert_allclose(truth.sum(dim=1).numpy(), rows / rows.sum(), rtol=1e-5)
    np.testing.assert_allclose(truth[1, 1].item(), truth[1, 2].item(), rtol=1e-5)  # column 2 begins at a quarter


def test_equation_7_is_the_cross_entropy_of_truth_and_distribution() -> None:
    logits = torch.tensor([[[0.0, 1.0], [2.0, -1.0]]])
    truth = torch.tensor([[[0.1, 0.2], [0.7, 0.0]]])
    d = np.exp([0.0, 1.0, 2.0, -1.0])
    wanted = -(np.array([0.1, 0.2, 0.7, 0.0]) * np.log(d / d.sum())).sum()
    assert float(location_loss(logits, truth)) == pytest.approx(wanted, abs=1e-6)


def test_a_levels_weights_are_the_truth_max_pooled_and_normalised_again() -> None:
    truth = torch.tensor([[[0.1, 0.0, 0.0, 0.2], [0.0, 0.3, 0.0, 0.0], [0.0, 0.0, 0.4, 0.0], [0.0] * 4]])
    np.testing.assert_allclose(level_weights(truth, (2, 2))[0].numpy(), np.array([[0.3, 0.2], [0.0, 0.4]]) / 0.9)


def test_equation_8_weighs_the_contrast_of_each_cell_with_all_cells_of_its_own_map() -> None:
    scores = torch.tensor([[[0.9, 0.1], [0.3, -0.2]]])
    weights = torch.tensor([[[0.75, 0.25], [0.0, 0.0]]])
    e = np.exp(np.array([0.9, 0.1, 0.3, -0.2]) / 0.1)
    wanted = -0.75 * np.log(e[0] / e.sum()) - 0.25 * np.log(e[1] / e.sum())
    assert float(matching_loss(scores, weights, 0.1)) == pytest.approx(wanted, abs=1e-5)


def test_the_reranking_loss_has_every_map_of_the_batch_in_its_denominator() -> None:
    scores = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(3)).clamp(-1, 1)
    weights = torch.zeros(2, 2, 2)
    weights[0, 0, 1], weights[1, 1, 1] = 1.0, 1.0
    own = torch.tensor([0, 2])  # query 1 of the batch has no known position
    e = np.exp(scores.double().numpy() / 0.1)
    wanted = -0.5 * (np.log(e[0, 0, 0, 1] / e[0].sum()) + np.log(e[1, 2, 1, 1] / e[1].sum()))
    assert float(rerank_loss(scores, weights, 0.1, own)) == pytest.approx(wanted, abs=1e-5)
    label = torch.tensor([5, 5, 6])  # references 0 and 1 are of one place: 1 is no negative of query 0
    left_out = np.log(e[0, 0, 0, 1] / (e[0, 0].sum() + e[0, 2].sum()))
    wanted = -0.5 * (left_out + np.log(e[1, 2, 1, 1] / e[1].sum()))
    assert float(rerank_loss(scores, weights, 0.1, own, label)) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("config", [TOY, COLUMNS], ids=["template", "column"])
def test_the_total_is_equation_5_with_weights_1_100_10_1(config: UnifyGeoConfig) -> None:
    method, batch = toy(config).eval(), toy_batch()
    losses = method.training_losses(batch)
    assert list(losses) == ["retrieval", "localization", "matching", "rerank"]
    query, reference = method.describe_query(batch["query"]), method.describe_reference(batch["reference"])
    located = method.decode(query, reference)
    truth = gaussian_truth(batch["position"], (32, 32), 1 / 128)
    levels = [level_weights(truth, score.shape[-2:]) for score in located.scores]
    by_level = [matching_loss(score, w, 0.1) for score, w in zip(located.scores, levels, strict=True)]
    everyone = method.decoder.match_all(query.detail[0], reference.detail[0])
    wanted = {
        "retrieval": 100 * symmetric_infonce(query.descriptor, reference.descriptor, 0.07, 0.1),
        "localization": 1 * location_loss(located.logits, truth),
        "matching": 10 * sum(by_level),
        "rerank": 1 * rerank_loss(everyone, levels[0], 0.1, torch.arange(4)),
    }
    assert len(by_level) == 3
    for name, loss in losses.items():
        torch.testing.assert_close(loss, wanted[name], atol=1e-3, rtol=1e-4)


def test_both_temperatures_are_learnt() -> None:
    method = toy()
    torch.stack(list(method.training_losses(toy_batch()).values())).sum().backward()
    for temperature in (method.retrieval_temperature, method.matching_temperature):
        assert float(temperature.log.grad.abs()) > 0.0


def test_pairs_of_unknown_position_train_retrieval_alone() -> None:
    method, batch = toy().eval(), toy_batch()
    everyone = method.training_losses(batch)
    batch["position"][1] = torch.nan
    batch["position"][2] = torch.tensor([0.5, 1.2])  # outside the reference
    assert known(batch["position"]).tolist() == [True, False, False, True]
    some = method.training_losses(batch)
    torch.testing.assert_close(some["retrieval"], everyone["retrieval"])
    assert not torch.allclose(some["localization"], everyone["localization"])
    assert all(loss.isfinite() for loss in some.values())
    batch["position"][:] = torch.nan
    assert list(method.training_losses(batch)) == ["retrieval"]


@pytest.mark.parametrize("config", [TOY, COLUMNS], ids=["template", "column"])
def test_mixed_precision_changes_the_losses_little_and_similarities_stay_exact(config: UnifyGeoConfig) -> None:
    method, batch = toy(config).eval(), toy_batch()
    exact = method.training_losses(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = method.training_losses(batch)
        query, reference = method.describe_query(batch["query"]), method.describe_reference(batch["reference"])
        scores = method.decode(query, reference).scores
    assert all(score.dtype == torch.float32 for score in scores)
    for name, loss in exact.items():
        assert float(mixed[name].detach()) == pytest.approx(float(loss.detach()), rel=0.1), name


# ---- sizes of the paper


def test_the_papers_network_has_the_sizes_that_it_states() -> None:
    with torch.device("meta"):
        method = toy(find_preset("unifygeo", "paper").method)
    assert sum(parameter.numel() for parameter in method.parameters()) / 1e6 == pytest.approx(57.7, abs=0.05)
    branch = method.reference_branch
    assert branch.encoder.channels == (96, 192, 384)
    assert [len(stage.blocks) for stage in branch.encoder.stages] == [3, 3, 9]
    for head in (branch.f_head, branch.s_head):
        assert (len(head.blocks), head.channels) == (1, 768)
        assert sum(isinstance(layer, torch.nn.Conv2d) and layer.stride == (2, 2) for layer in head.step.modules()) == 1
    assert method.query_branch is not branch
    assert branch.aggregator.query.out_features == 384  # halved
    assert branch.aggregator.descriptor_dim == 768
    assert [norm.normalized_shape[0] for norm in method.decoder.map_norms] == [768, 384, 192, 96]


def test_the_papers_pictures_give_levels_of_12_24_48_and_96_cells() -> None:
    with torch.device("meta"):
        method = toy(find_preset("unifygeo", "paper").method)
        _, levels = method.reference_branch(torch.zeros(1, 3, 384, 384))
        _, seen = method.query_branch(torch.zeros(1, 3, 384, 768))
        vectors = method.projector(seen)
        logits = method.decoder(vectors, levels, (384, 384)).logits
    assert [tuple(level.shape[1:]) for level in levels] == [(768, 12, 12), (384, 24, 24), (192, 48, 48), (96, 96, 96)]
    assert tuple(seen[0].shape[1:]) == (768, 12, 24)
    assert [tuple(vector.shape) for vector in vectors] == [(1, 768), (1, 384), (1, 192), (1, 96)]
    assert tuple(logits.shape) == (1, 384, 384)


def test_the_papers_figures_are_the_presets() -> None:
    paper = find_preset("unifygeo", "paper")
    losses = UnifyGeoLosses()
    assert (losses.localization, losses.retrieval, losses.matching, losses.rerank) == (1.0, 100.0, 10.0, 1.0)
    assert losses.label_smoothing == 0.1
    assert isinstance(paper.method, UnifyGeoConfig)
    schedule = paper.schedule
    assert (schedule.epochs, schedule.batch, schedule.learning_rate) == (40, 64, 4.5e-4)
    assert (schedule.weight_decay, schedule.warmup_epochs) == (0.04, 1.0)


# ---- the method


@pytest.mark.parametrize("config", [TOY, COLUMNS], ids=["template", "column"])
def test_the_place_is_a_distribution_over_the_references_pixels(config: UnifyGeoConfig) -> None:
    method, batch = toy(config).eval(), toy_batch(2)
    query, reference = method.describe_query(batch["query"]), method.describe_reference(batch["reference"])
    place = method.locate(query, reference)
    assert place.shape == (2, 32, 32)
    np.testing.assert_allclose(place.sum(dim=(1, 2)).detach().numpy(), 1.0, atol=1e-5)


def test_reranking_is_equation_4() -> None:
    method, batch = toy().eval(), toy_batch(4)
    query, reference = method.describe_query(batch["query"][:2]), method.describe_reference(batch["reference"])
    order = torch.tensor([1, 0, 3, 2, 1, 0])  # three candidates for each of two queries
    scores = torch.tensor([[0.5, 0.4, 0.3], [0.2, 0.1, 0.0]])
    found = method.rerank(query, reference.rows(order), scores)
    everyone = method.decoder.match_all(query.detail[0], reference.detail[0]).flatten(2).amax(dim=2)
    wanted = scores + torch.stack([everyone[0, order[:3]], everyone[1, order[3:]]])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    off = toy(dataclasses.replace(TOY, rerank=False)).eval()
    assert off.rerank(query, reference.rows(order), scores) is scores


def test_views_and_tasks_share_weights_only_where_the_config_says_so() -> None:
    paper, shared = toy(), toy(dataclasses.replace(TOY, views="shared"))
    assert paper.query_branch is not paper.reference_branch
    assert not {id(p) for p in paper.query_branch.parameters()} & {id(p) for p in paper.reference_branch.parameters()}
    assert shared.query_branch is shared.reference_branch
    apart = toy(dataclasses.replace(TOY, tasks="separate"))
    losses = apart.training_losses(toy_batch())
    losses["retrieval"].backward()
    assert all(p.grad is None for p in apart.reference_branch.encoder.parameters())
    assert all(p.grad is not None for p in apart.reference_branch.semantic_encoder.parameters())
    joint = toy()
    joint.training_losses(toy_batch())["retrieval"].backward()
    assert all(p.grad is not None for p in joint.reference_branch.encoder.parameters())


def test_a_weight_of_nothing_leaves_its_loss_out_and_retrieval_alone_has_no_decoder() -> None:
    assert "rerank" not in toy(weighted(rerank=0.0)).training_losses(toy_batch())
    alone = toy(weighted(localization=0.0, matching=0.0, rerank=0.0))
    assert list(alone.training_losses(toy_batch())) == ["retrieval"]
    assert not any(name.startswith(("decoder", "projector")) for name, _ in alone.named_parameters())
    described = alone.describe_query(toy_batch()["query"])
    assert alone.locate(described, described) is None
    with pytest.raises(ConfigError, match="a loss weight above 0"):
        alone.decode(described, described)
    places, batch = toy(weighted(retrieval=0.0)), toy_batch()
    assert "retrieval" not in places.training_losses(batch)
    batch["position"][:] = torch.nan
    with pytest.raises(ConfigError, match="pairs of known position"):
        places.training_losses(batch)


@pytest.mark.parametrize("kind", ["compact", "dinov2"])
def test_other_encoders_and_aggregators_fit_in(kind: str) -> None:
    encoder = dataclasses.replace(TOY.encoder, kind=kind)
    sizes = (32, 32)
    if kind == "dinov2":
        encoder = EncoderConfig("dinov2", (8,), (2,), stem_stride=14, heads=2, position_px=42, layer_scale=1.0)
        sizes = (42, 42)
    config = dataclasses.replace(
        TOY,
        encoder=encoder,
        query_px=sizes,
        reference_px=sizes,
        aggregator=AggregatorConfig(kind="gem", descriptor_dim=6),
    )
    method, batch = toy(config), toy_batch()
    losses = method.training_losses(batch)
    assert all(loss.isfinite() for loss in losses.values())
    described = method.describe_query(batch["query"])
    assert described.descriptor.shape == (4, 6)
    assert method.locate(described, method.describe_reference(batch["reference"])).shape == (4, *sizes)


def test_a_picture_size_that_the_strides_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiples of the coarsest stride, 8"):
        toy(dataclasses.replace(TOY, query_px=(32, 36)))


@pytest.mark.parametrize("config", [TOY, COLUMNS], ids=["template", "column"])
def test_it_learns_where_a_handful_of_views_lie_and_which_is_which(config: UnifyGeoConfig) -> None:
    method, batch = toy(config).train(), toy_batch()
    optimizer = torch.optim.AdamW(method.main_parameters(), lr=5e-3)
    history = []
    for _ in range(30):
        losses = method.training_losses(batch)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    for name in ("localization", "matching", "rerank"):
        assert history[-1][name] < 0.8 * history[0][name], name
    query, reference = method.describe_query(batch["query"]), method.describe_reference(batch["reference"])
    scores = query.descriptor @ reference.descriptor.T
    assert (scores.argmax(dim=1) == torch.arange(4)).all()
    place = method.locate(query, reference).flatten(1).argmax(dim=1)
    off = torch.stack([place // 32, place % 32], dim=1) + 0.5 - 32 * batch["position"]
    assert float(off.abs().max()) <= 2.0
