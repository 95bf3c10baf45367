"""GeoLink: its 3-D side held against plain sums, every loss switched by its weight, and no cloud where it is used."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
torch.set_num_threads(1)

from onboard.errors import ConfigError  # noqa: E402
from training.methods import build_method  # noqa: E402
from training.methods.geolink import GeoLink  # noqa: E402
from training.objectives.distillation import affinity, relation_loss  # noqa: E402
from training.parts.experts import MultiExpert  # noqa: E402
from training.parts.pointnn import PointNN, encode, farthest_points, in_unit_ball  # noqa: E402
from training.parts.vclub import VClub  # noqa: E402
from training.presets import (  # noqa: E402
    CloudConfig,
    GeoLinkConfig,
    GeoLinkLosses,
    find_preset,
    method_from_dict,
    method_to_dict,
)

TINY = find_preset("geolink", "tiny").method
SMALL = dataclasses.replace(
    TINY,
    query_px=(28, 28),
    reference_px=(28, 28),
    encoder=dataclasses.replace(TINY.encoder, widths=(16,), depths=(1,), heads=2, position_px=28),
    aggregator=dataclasses.replace(TINY.aggregator, descriptor_dim=16, grid=(2, 2), mixers=1, rows=2),
    clouds=CloudConfig(points=32, width=6, stages=2, neighbours=8),
    estimator=dataclasses.replace(TINY.estimator, hidden=16),
)
OFF = GeoLinkLosses(clouds=0.0, intra=0.0, refinement=0.0, distillation=0.0)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(seed: int, *shape: int) -> torch.Tensor:
    return torch.nn.functional.normalize(noise(seed, *shape), dim=1)


def method(losses: GeoLinkLosses = SMALL.losses, seed: int = 0) -> GeoLink:
    torch.manual_seed(seed)
    built = build_method(dataclasses.replace(SMALL, losses=losses))
    assert isinstance(built, GeoLink)
    return built


def batch(count: int = 4, clouds: bool = True) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(5)
    pictures = torch.from_numpy(rng.integers(0, 256, (2, count, 3, 28, 28), dtype=np.uint8))
    out = {"query": pictures[0], "reference": pictures[1], "label": torch.arange(count)}
    return out | ({"cloud": 40.0 * noise(9, count, 48, 3)} if clouds else {})


# ---- Point-NN


def test_the_encoding_of_a_point_is_sines_and_cosines_of_each_coordinate() -> None:
    point = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    waves = [1000.0 / 100.0 ** (k / 2) for k in range(2)]
    wanted = [f(x * wave) for x in point.tolist() for wave in waves for f in (math.sin, math.cos)]
    np.testing.assert_allclose(encode(point, 12).numpy(), wanted, atol=1e-6)


def test_farthest_points_spread_over_the_cloud_from_its_first() -> None:
    cloud = torch.tensor([[[0.0, 0, 0], [0.1, 0, 0], [1.0, 0, 0], [9.0, 0, 0], [5.0, 0, 0]]])
    assert farthest_points(cloud, 4)[0].tolist() == [0, 3, 4, 2]


def test_point_nn_has_no_weights_and_does_not_care_where_or_how_large_a_cloud_is_nor_who_is_beside_it() -> None:
    net, cloud = PointNN(32, 6, 2, 8), noise(1, 3, 40, 3)
    assert not list(net.parameters())
    feature = net(cloud)
    assert feature.shape == (3, net.dim) == (3, 24)
    away = net(7.0 * cloud + torch.tensor([100.0, -50.0, 3.0]))
    # Waves of 1000 radians turn rounding into more than rounding.
    assert torch.nn.functional.cosine_similarity(away, feature).min() > 0.99
    torch.testing.assert_close(net(cloud[1:2]), feature[1:2], rtol=1e-4, atol=1e-3)
    assert (feature[1:] - feature[:1]).abs().mean(dim=1).min() > 0.3


def test_one_stage_is_the_published_aggregation_in_plain_loops() -> None:
    net, place = PointNN(8, 6, 1, 3), in_unit_ball(noise(2, 1, 8, 3))
    feature = encode(place, 6)
    chosen = farthest_points(place, 4)[0].tolist()
    near = [place[0].sub(place[0, c]).norm(dim=1).argsort()[:3].tolist() for c in chosen]
    away = torch.stack([place[0, n] - place[0, c] for c, n in zip(chosen, near, strict=True)])
    unlike = torch.stack([feature[0, n] - feature[0, c] for c, n in zip(chosen, near, strict=True)])
    away, unlike = away / (away.std() + 1e-5), unlike / (unlike.std() + 1e-5)
    for k, c in enumerate(chosen):
        rows = []
        for i in range(3):
            where = encode(away[k, i], 12)
            rows.append((torch.cat([unlike[k, i], feature[0, c]]) + where) * where)
        pooled = torch.stack(rows).max(dim=0).values + torch.stack(rows).mean(dim=0)
        wanted = torch.nn.functional.gelu(pooled)
        torch.testing.assert_close(net._stage(place, feature, 4)[1][0, k], wanted, rtol=1e-3, atol=1e-3)


def test_at_the_papers_size_four_stages_leave_1152_numbers_and_the_experts_4096() -> None:
    config = GeoLinkConfig()
    net = PointNN(config.clouds.points, config.clouds.width, config.clouds.stages, config.clouds.neighbours)
    assert (net.points, net.stages, net.dim) == (1024, 4, 1152)
    assert config.aggregator.descriptor_dim == 4096
    assert (config.losses.intra, config.estimator.hidden, len(config.clouds.kernels)) == (4.0, 4096, 3)
    with torch.device("meta"):
        experts = MultiExpert(net.dim, 4096, config.clouds.kernels)
    assert len(experts.experts) == 3
    assert [e.project.out_features for e in (experts.shared, *experts.experts)] == [1024] * 4


def test_a_cloud_of_too_few_points_is_refused() -> None:
    with pytest.raises(ConfigError, match="clouds"):
        PointNN(32, 6, 2, 8)(noise(1, 2, 16, 3))


# ---- the multi-expert block


def test_experts_are_weighed_by_a_gate_and_put_beside_the_shared_one() -> None:
    torch.manual_seed(3)
    block, feature = MultiExpert(12, 16), noise(4, 5, 12)
    weights = block.weights(feature)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(5))
    x = block.norm(feature)
    parts = [block.shared(x)] + [weights[:, [i]] * expert(x) for i, expert in enumerate(block.experts)]
    wanted = torch.cat(parts, dim=1)
    torch.testing.assert_close(block(feature), wanted / wanted.norm(dim=1, keepdim=True))
    with pytest.raises(ConfigError, match="multi-expert"):
        MultiExpert(12, 16, (3, 4, 5))


# ---- vCLUB


def test_the_bound_is_the_difference_of_two_mean_log_likelihoods_over_all_pairs() -> None:
    torch.manual_seed(1)
    club, x, y = VClub(6, 8, 1e-3), unit(1, 5, 6), unit(2, 5, 6)
    mean, log_variance = club.mean(x * 6**0.5), club.log_variance(x * 6**0.5)

    def log_q(i: int, j: int) -> float:
        normal = torch.distributions.Normal(mean[i], (0.5 * log_variance[i]).exp())
        return float(normal.log_prob(y[j] * 6**0.5).mean())

    own = np.mean([log_q(i, i) for i in range(5)])
    every = np.mean([log_q(i, j) for i in range(5) for j in range(5)])
    assert float(club.bound(x, y)) == pytest.approx(own - every, abs=1e-5)


def test_the_bound_moves_features_and_never_the_estimator_whose_own_step_moves_it_alone() -> None:
    torch.manual_seed(1)
    club = VClub(6, 8, 1e-2)
    x, y = unit(1, 5, 6), unit(2, 5, 6).requires_grad_()
    before = [p.clone() for p in club.parameters()]
    club.bound(x, y).backward()
    assert y.grad is not None
    assert y.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in club.parameters())
    y.grad = None
    club.fit(x, y)
    assert y.grad is None
    assert all(not torch.equal(p, q) for p, q in zip(club.parameters(), before, strict=True))
    assert all(p.grad is None and not p.requires_grad for p in club.parameters())


def test_fitted_the_bound_tells_features_that_hang_on_each_other_from_those_that_do_not() -> None:
    torch.manual_seed(1)
    x = unit(1, 256, 4)
    told = {}
    for name, y in (("same", x), ("other", unit(2, 256, 4))):
        club = VClub(4, 32, 5e-3)
        first, last = club.fit(x, y), club.fit(x, y, 300)
        assert last < first
        told[name] = float(club.bound(x, y))
    assert told["same"] > 5 * abs(told["other"])


# ---- relation distillation


def test_affinities_are_distances_over_their_mean() -> None:
    feature = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    distance = np.array([[0, 5, 1], [5, 0, np.hypot(3, 3)], [1, np.hypot(3, 3), 0]])
    np.testing.assert_allclose(affinity(feature).numpy(), distance / (distance.sum() / 6), rtol=1e-6)


def test_distillation_is_the_mean_squared_error_of_affinities_and_leaves_the_teacher_alone() -> None:
    student, teacher = unit(1, 4, 6).requires_grad_(), unit(2, 4, 9).requires_grad_()
    loss = relation_loss(student, teacher)
    difference = (affinity(student) - affinity(teacher)).detach().numpy()
    assert float(loss.detach()) == pytest.approx(
        np.mean([difference[i, j] ** 2 for i in range(4) for j in range(4) if i != j])
    )
    loss.backward()
    assert teacher.grad is None
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().sum() > 0
    assert float(relation_loss(teacher, 3.0 * teacher).detach()) == pytest.approx(0.0, abs=1e-9)
    assert float(relation_loss(student[:1], teacher[:1]).detach()) == 0.0


# ---- the method


def test_the_losses_are_those_of_the_paper_with_their_weights() -> None:
    geolink, data = method(), batch()
    losses = geolink.training_losses(data)
    assert set(losses) == {"cross", "clouds", "intra", "refinement", "distillation"}
    query, reference = (
        geolink.describe_query(data["query"]).descriptor,
        geolink.describe_reference(data["reference"]).descriptor,
    )
    cloud, tau = geolink.describe_cloud(data["cloud"]), float(geolink.temperature().detach())

    def contrast(a: torch.Tensor, b: torch.Tensor, temperature: float) -> float:
        logits = (a @ b.T).detach().double().numpy() / temperature
        return float(np.mean([-np.log(np.exp(row[i]) / np.exp(row).sum()) for i, row in enumerate(logits)]))

    both = lambda a, b: (contrast(a, b, tau) + contrast(b, a, tau)) / 2  # noqa: E731
    assert float(losses["cross"]) == pytest.approx(both(query, reference), abs=1e-4)
    assert float(losses["clouds"]) == pytest.approx(both(query, cloud) + both(reference, cloud), abs=1e-4)
    own = sum(contrast(view, view, 0.07) for view in (query, reference, cloud))
    assert float(losses["intra"]) == pytest.approx(4.0 * own, abs=1e-4)
    bounds = geolink.query_estimator.bound(cloud, query) + geolink.reference_estimator.bound(cloud, reference)
    assert float(losses["refinement"]) == pytest.approx(float(bounds), abs=1e-5)
    relations = relation_loss(query, cloud) + relation_loss(reference, cloud)
    assert float(losses["distillation"]) == pytest.approx(float(relations), abs=1e-5)


@pytest.mark.parametrize("name", ["clouds", "intra", "refinement", "distillation"])
def test_each_loss_is_left_out_by_a_weight_of_zero_and_doubled_by_twice_its_weight(name: str) -> None:
    whole = method().training_losses(batch())
    without = method(dataclasses.replace(SMALL.losses, **{name: 0.0})).training_losses(batch())
    assert set(whole) - set(without) == {name}
    twice = method(dataclasses.replace(SMALL.losses, **{name: 2 * getattr(SMALL.losses, name)})).training_losses(
        batch()
    )
    assert float(twice[name]) == pytest.approx(2 * float(whole[name]), rel=1e-5)


def test_without_losses_that_need_clouds_there_is_no_3d_side_and_no_cloud_is_asked_for() -> None:
    plain = method(OFF)
    assert set(plain.training_losses(batch(clouds=False))) == {"cross"}
    assert not any("experts" in name or "estimator" in name for name, _ in plain.named_parameters())
    with pytest.raises(ConfigError, match="no point clouds"):
        method().training_losses(batch(clouds=False))


def test_inference_is_of_pictures_alone() -> None:
    geolink, data = method().eval(), batch(clouds=False)
    wanted = geolink.describe_query(data["query"]).descriptor
    torch.testing.assert_close(wanted.norm(dim=1), torch.ones(4))
    del geolink.points, geolink.experts, geolink.query_estimator, geolink.reference_estimator
    torch.testing.assert_close(geolink.describe_query(data["query"]).descriptor, wanted)
    # The same picture says the same in either view: encoder and aggregator are shared.
    torch.testing.assert_close(geolink.describe_reference(data["query"]).descriptor, wanted)


def test_gradients_reach_encoder_aggregator_and_experts_and_the_estimators_have_steps_of_their_own() -> None:
    geolink, data = method(), batch()
    torch.stack(list(geolink.training_losses(data).values())).sum().backward()
    main = {id(p) for p in geolink.main_parameters()}
    estimators = [p for c in (geolink.query_estimator, geolink.reference_estimator) for p in c.parameters()]
    assert not main & {id(p) for p in estimators}
    assert all(p.grad is None for p in estimators)
    for part in (geolink.encoder.body.encoder, geolink.aggregator, geolink.experts):
        assert all(p.grad is not None for p in part.parameters())
    before = {name: p.clone() for name, p in geolink.named_parameters()}
    geolink.own_steps(data)
    moved = {name for name, p in geolink.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if "estimator" in name}


def test_an_anchor_that_no_loss_teaches_is_frozen() -> None:
    geolink = method(dataclasses.replace(OFF, refinement=1.0, distillation=1.0))
    losses = geolink.training_losses(batch())
    assert set(losses) == {"cross", "refinement", "distillation"}
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None for p in geolink.main_parameters())  # nothing that DDP would wait for
    assert not any(p.requires_grad for p in geolink.experts.parameters())


def test_a_training_that_is_taken_up_again_ends_with_the_same_weights() -> None:
    def steps(geolink: GeoLink, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            torch.stack(list(geolink.training_losses(batch()).values())).sum().backward()
            optimizer.step()
            geolink.own_steps(batch())

    whole = method()
    optimizer = torch.optim.SGD(whole.main_parameters(), lr=0.01)
    steps(whole, optimizer, 2)
    kept = copy.deepcopy({"weights": whole.state_dict(), "own": whole.own_state()})
    resumed = method(seed=1)
    resumed.load_state_dict(kept["weights"])
    resumed.load_own_state(kept["own"])
    steps(whole, optimizer, 2)
    steps(resumed, torch.optim.SGD(resumed.main_parameters(), lr=0.01), 2)
    for (name, one), other in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_the_losses_fall_on_a_batch_that_is_seen_again_and_again() -> None:
    geolink, data = method(), batch()
    optimizer = torch.optim.Adam(geolink.main_parameters(), lr=3e-3)
    totals = []
    for _ in range(25):
        parts = geolink.training_losses(data)
        total = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        geolink.own_steps(data)
        totals.append(float(parts["cross"].detach()))
    assert totals[-1] < 0.7 * totals[0]


def test_the_presets_config_survives_a_file() -> None:
    for size in ("paper", "tiny"):
        config = find_preset("geolink", size).method
        assert method_from_dict(method_to_dict(config)) == config
