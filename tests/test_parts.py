"""The methods' parts: held against the papers' equations, worked by hand or with explicit matrices."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from onboard.errors import ConfigError
from training.parts.config import AggregatorConfig, EncoderConfig
from training.presets import PRESETS, find_preset, method_from_dict, method_to_dict, with_weights

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
torch.set_num_threads(1)

import torch.nn.functional as F  # noqa: E402

from training.parts.aggregators import AttentionGem, Average, Gem, MixVpr, build_aggregator  # noqa: E402
from training.parts.decoder import Decoder  # noqa: E402
from training.parts.encoders import build_encoder  # noqa: E402
from training.parts.heads import split_heads  # noqa: E402
from training.parts.projectors import ColumnProjector, TemplateProjector  # noqa: E402
from training.parts.salad import Salad, transport  # noqa: E402

CONVNEXT = EncoderConfig(widths=(4, 6, 8), depths=(1, 1, 2), stem_stride=2, layer_scale=1.0)
COMPACT = dataclasses.replace(CONVNEXT, kind="compact")
DINOV2 = EncoderConfig(
    kind="dinov2", widths=(8,), depths=(6,), stem_stride=14, heads=2, position_px=28, layer_scale=1.0
)
SALAD = AggregatorConfig(kind="salad", clusters=3, cluster_dim=4, token_dim=5, hidden_dim=6, dropout=0.0)


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- encoders and heads


@pytest.mark.parametrize("config", [CONVNEXT, COMPACT, DINOV2], ids=lambda config: config.kind)
def test_an_encoders_maps_have_the_channels_and_strides_that_it_tells(config: EncoderConfig) -> None:
    encoder = build_encoder(config)
    features = encoder(random(1, 2, 3, 56, 112))
    assert [tuple(map_.shape) for map_ in features.maps] == [
        (2, channels, 56 // stride, 112 // stride)
        for channels, stride in zip(encoder.channels, encoder.strides, strict=True)
    ]
    assert encoder.strides == ((14,) if config.kind == "dinov2" else (2, 4, 8))
    assert (features.cls is not None) == (encoder.cls_channels > 0) == (config.kind == "dinov2")


def test_random_weights_are_said_plainly_with_what_the_paper_starts_from(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        build_encoder(dataclasses.replace(DINOV2, paper_weights="facebook/dinov2-base"))
    assert "RANDOM weights" in caplog.text
    assert "facebook/dinov2-base" in caplog.text


def test_weights_of_a_local_folder_are_taken_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = build_encoder(DINOV2)
    first.body.save_pretrained(tmp_path)
    caplog.clear()
    again = build_encoder(dataclasses.replace(DINOV2, weights=str(tmp_path)))
    image = random(2, 1, 3, 28, 28)
    torch.testing.assert_close(again.eval()(image).maps[0], first.eval()(image).maps[0])
    assert "RANDOM" not in caplog.text


def test_weights_that_are_not_there_or_of_other_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a folder"):
        build_encoder(dataclasses.replace(CONVNEXT, weights=str(tmp_path / "nothing")))
    build_encoder(DINOV2).body.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"\(8, 6, 14\).*\(8, 5, 14\)"):
        build_encoder(dataclasses.replace(DINOV2, depths=(5,), weights=str(tmp_path)))


def test_only_the_last_blocks_of_dinov2_get_a_gradient() -> None:
    encoder = build_encoder(dataclasses.replace(DINOV2, trained_blocks=4))
    features = encoder(random(3, 1, 3, 28, 28))
    (features.maps[0].sum() + features.cls.sum()).backward()
    learnt = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    blocks = {int(name.split(".")[3]) for name in learnt if name.startswith("body.encoder.layer.")}
    assert blocks == {2, 3, 4, 5}
    assert not any("embeddings" in name for name in learnt)
    assert all(name in learnt for name, parameter in encoder.named_parameters() if parameter.requires_grad)


@pytest.mark.parametrize("trained", [-1, 0])
def test_dinov2_can_learn_whole_or_not_at_all(trained: int) -> None:
    encoder = build_encoder(dataclasses.replace(DINOV2, trained_blocks=trained))
    frozen = [name for name, parameter in encoder.named_parameters() if not parameter.requires_grad]
    assert len(frozen) == (1 if trained else len(list(encoder.parameters())))  # the mask token has no use here


@pytest.mark.parametrize("config", [CONVNEXT, COMPACT, DINOV2], ids=lambda config: config.kind)
def test_both_heads_are_the_last_stage_cut_to_one_block_and_share_nothing(config: EncoderConfig) -> None:
    encoder = build_encoder(config).eval()
    stages, coarsest = len(encoder.strides), random(4, 2, encoder.channels[-1], 4, 4)
    f_head, s_head = split_heads(encoder)
    assert len(f_head.blocks) == len(s_head.blocks) == 1
    if config.kind != "dinov2":
        assert len(encoder.strides) == stages - 1
        coarsest = encoder(random(5, 2, 3, 32, 32)).maps[-1]
    torch.testing.assert_close(f_head.eval()(coarsest), s_head.eval()(coarsest))
    assert f_head(coarsest).shape[1] == f_head.channels == config.widths[-1]
    shared = {id(p) for p in f_head.parameters()} & {id(p) for p in s_head.parameters()}
    assert not shared


# ---- aggregators


def test_attention_is_equation_2_by_explicit_matrices() -> None:
    part = AttentionGem(4)
    torch.nn.init.normal_(part.norm.weight, generator=torch.Generator().manual_seed(1))
    cells = random(6, 1, 5, 4)
    g = cells[0].detach().double().numpy()
    normed = (g - g.mean(1, keepdims=True)) / np.sqrt(g.var(1, keepdims=True) + 1e-5)
    normed = normed * part.norm.weight.detach().numpy() + part.norm.bias.detach().numpy()
    wq, wk, wv, wo = (
        layer.weight.detach().double().numpy().T for layer in (part.query, part.key, part.value, part.restore)
    )
    assert wq.shape == wk.shape == wv.shape == (4, 2)  # halved
    scores = np.exp((normed @ wq) @ (normed @ wk).T / np.sqrt(2.0))
    wanted = g + scores / scores.sum(1, keepdims=True) @ (g @ wv) @ wo
    np.testing.assert_allclose(part.attend(cells)[0].detach().numpy(), wanted, atol=1e-5)


def test_gem_is_equation_3_and_its_power_is_learnt() -> None:
    part = Gem(2)
    values = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # two channels of 1 x 2 cells
    raw = np.array([(1.0 + 8.0) / 2, (27.0 + 64.0) / 2]) ** (1 / 3)
    descriptor = part(values)
    np.testing.assert_allclose(descriptor[0].detach().numpy(), raw / np.linalg.norm(raw), rtol=1e-5)
    descriptor[0, 0].backward()
    assert part.power.grad is not None
    assert float(part.power.grad) != 0.0


def test_average_is_the_mean_and_every_descriptor_has_unit_norm() -> None:
    features = random(7, 2, 8, 4, 4)
    wanted = F.normalize(features.mean(dim=(2, 3)), dim=1)
    torch.testing.assert_close(Average(8)(features), wanted)
    for kind in ("attention_gem", "gem", "average", "salad", "mixvpr"):
        config = dataclasses.replace(SALAD, kind=kind, descriptor_dim=12, grid=(4, 4))
        descriptor = build_aggregator(config, 8, 8)(features, random(8, 2, 8))
        assert descriptor.shape == (2, 12)
        np.testing.assert_allclose(descriptor.norm(dim=1).detach().numpy(), 1.0, atol=1e-5)


def test_transport_has_the_masses_of_its_margins() -> None:
    columns = torch.tensor([1.0, 1.0, 1.0, 7.0])
    plan = transport(3.0 * random(9, 2, 10, 4), columns, 3).exp()
    np.testing.assert_allclose(plan.sum(2).numpy(), 1.0, atol=1e-5)  # a cell is moved whole after any number of steps
    plan = transport(3.0 * random(9, 2, 10, 4), columns, 200).exp()
    np.testing.assert_allclose(plan.sum(1).numpy(), columns.expand(2, 4).numpy(), atol=1e-4)


def test_transport_on_logarithms_agrees_with_plain_sinkhorn_and_bears_large_scores() -> None:
    scores = random(10, 1, 6, 3)
    plan, mass = scores[0].double().exp().numpy(), np.array([1.0, 1.0, 4.0])
    for _ in range(4):
        plan = plan * (mass / plan.sum(axis=0))
        plan = plan / plan.sum(axis=1, keepdims=True)
    found = transport(scores, torch.tensor(mass), 4).exp()
    np.testing.assert_allclose(found[0].numpy(), plan, atol=1e-5)
    assert torch.isfinite(transport(500.0 * scores, torch.tensor(mass), 4)).all()


def test_salad_leaves_n_less_m_cells_to_the_dustbin_whose_score_is_one_number() -> None:
    part = Salad(8, 8, dataclasses.replace(SALAD, sinkhorn_steps=100))
    assert part.dustbin.shape == ()
    plan = part.assign(random(11, 2, 10, 8))
    np.testing.assert_allclose(plan.sum(dim=1).detach().numpy(), 1.0, atol=1e-3)  # each cluster: one cell's mass
    plan.pow(2).sum().backward()
    assert float(part.dustbin.grad.abs()) > 0.0
    assert not Salad(8, 8, SALAD).assign(random(11, 2, 10, 8)).isnan().any()


def test_without_a_dustbin_every_cell_goes_to_clusters_whole() -> None:
    part = Salad(8, 8, dataclasses.replace(SALAD, dustbin=False, sinkhorn_steps=100))
    plan = part.assign(random(12, 1, 10, 8))
    np.testing.assert_allclose(plan.sum(dim=2).detach().numpy(), 1.0, atol=1e-5)
    np.testing.assert_allclose(plan.sum(dim=1).detach().numpy(), 10 / 3, atol=1e-3)


def test_a_cell_unlike_every_cluster_goes_to_the_dustbin() -> None:
    part = Salad(3, 0, SALAD)
    part.score = torch.nn.Identity()  # a cell's three features are its scores
    cells = torch.tensor([[[6.0, 0, 0], [0, 6.0, 0], [0, 0, 6.0], [-6.0, -6.0, -6.0]]])
    kept = part.assign(cells)[0].sum(dim=1)
    assert (kept[:3] > 0.9).all()
    assert kept[3] < 0.01


def test_salads_descriptor_is_the_plans_sums_beside_the_projected_token() -> None:
    part = Salad(8, 8, SALAD)
    features, cls = random(13, 2, 8, 2, 5), random(14, 2, 8)
    cells = features.flatten(2).transpose(1, 2)
    plan, reduced = part.assign(cells), part.reduce(cells)
    clusters = [sum(plan[0, i, j] * reduced[0, i] for i in range(10)) for j in range(3)]
    wanted = F.normalize(torch.cat([*clusters, part.token(cls)[0]]), dim=0)
    torch.testing.assert_close(part(features, cls)[0], wanted, atol=1e-5, rtol=1e-4)


def test_a_picture_of_too_few_cells_for_the_dustbin_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than its 3 clusters"):
        Salad(8, 0, SALAD)(random(15, 1, 8, 1, 3))


def test_mixvpr_mixes_each_channels_map_then_projects_channels_and_rows() -> None:
    config = AggregatorConfig(kind="mixvpr", descriptor_dim=6, grid=(2, 3), mixers=1, rows=2)
    part, features = MixVpr(4, config), random(16, 1, 4, 2, 3)
    x = features[0].flatten(1)
    norm, first, _, second = part.mixers[0]
    x = x + second(torch.relu(first(norm(x))))
    x = part.channels.weight @ x + part.channels.bias[:, None]  # (3, 6)
    x = x @ part.rows.weight.T + part.rows.bias  # (3, 2)
    torch.testing.assert_close(part(features)[0], F.normalize(x.flatten(), dim=0), atol=1e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match="its grid"):
        part(random(16, 1, 4, 3, 3))


# ---- the decoder and what it matches


def test_a_column_projector_sums_each_column_to_its_azimuths_part_of_the_vector() -> None:
    projector = ColumnProjector((8, 4), (3, 2))
    detail = random(17, 1, 8, 3, 2)
    for level, (reduce, column) in enumerate(zip(projector.reduce, projector.columns, strict=True)):
        thin = torch.einsum("oi,iyx->oyx", reduce.weight[:, :, 0, 0], detail[0]) + reduce.bias[:, None, None]
        wanted = (thin * column.weight[0][None, :, None]).sum(dim=1) + column.bias
        torch.testing.assert_close(projector((detail,))[level][0], wanted.flatten(), atol=1e-5, rtol=1e-4)
    assert [len(vector[0]) for vector in projector((detail,))] == [8, 4]  # as many as the level's channels
    with pytest.raises(ConfigError, match="multiple of the query's 2 columns"):
        ColumnProjector((8, 5), (3, 2))


def test_a_template_is_odd_and_the_middle_of_the_view() -> None:
    projector = TemplateProjector((2, 2), 3)
    with torch.no_grad():
        for layer in (*projector.own, *projector.coarse):
            layer.weight.copy_(torch.eye(2)[:, :, None, None])
            layer.bias.zero_()
        projector.coarse[0].weight.zero_()
    fine = torch.arange(16.0).reshape(1, 1, 4, 4).expand(1, 2, 4, 4)
    coarse = torch.zeros(1, 2, 1, 1)
    templates = projector((coarse, fine))
    assert [tuple(template.shape[-2:]) for template in templates] == [(1, 1), (3, 3)]
    assert float(templates[1][0, 0, 1, 1]) == pytest.approx((5 + 6 + 9 + 10) / 4)  # of the four middle cells
    with pytest.raises(ConfigError, match="odd"):
        TemplateProjector((2,), 4)


def test_a_vectors_score_is_its_cosine_with_each_cell_after_layernorm() -> None:
    decoder = Decoder((4, 2), (4, 2))
    query, reference = random(18, 2, 4), random(19, 2, 4, 3, 3)
    scores = decoder.match(0, query, reference)
    for i in range(2):
        a = F.layer_norm(query[i], (4,))
        b = F.layer_norm(reference[i, :, 1, 2], (4,))
        assert float(scores[i, 1, 2]) == pytest.approx(float(F.cosine_similarity(a, b, dim=0)), abs=1e-4)
    everyone = decoder.match_all(query, reference)
    assert everyone.shape == (2, 2, 3, 3)
    torch.testing.assert_close(everyone[torch.arange(2), torch.arange(2)], scores, atol=1e-5, rtol=1e-4)


def test_a_template_scores_best_where_it_was_cut_and_one_there() -> None:
    decoder = Decoder((6, 4), (4, 2))
    reference = random(20, 2, 6, 8, 8)
    template = reference[:, :, 3:6, 1:4]  # its middle is cell 4, 2
    with torch.no_grad():
        scores = decoder.match(0, template, reference)
        everyone = decoder.match_all(template, reference)
    for i in range(2):
        assert np.unravel_index(int(scores[i].argmax()), (8, 8)) == (4, 2)
        assert int(everyone[i].flatten(1).amax(dim=1).argmax()) == i
    torch.testing.assert_close(everyone[torch.arange(2), torch.arange(2)], scores, atol=1e-5, rtol=1e-4)
    assert scores.max() <= 1.0 + 1e-5


def test_the_decoder_doubles_resolution_from_level_to_level_and_ends_at_the_pixels() -> None:
    decoder = Decoder((8, 6, 4), (8, 4, 2))
    maps = tuple(random(21 + i, 2, width, 3 * 2**i, 3 * 2**i) for i, width in enumerate((8, 6, 4)))
    query = tuple(random(31 + i, 2, width) for i, width in enumerate((8, 6, 4)))
    located = decoder(query, maps, (24, 24))
    assert [tuple(score.shape) for score in located.scores] == [(2, 3, 3), (2, 6, 6), (2, 12, 12)]
    assert located.logits.shape == (2, 24, 24)
    torch.testing.assert_close(located.scores[0], decoder.match(0, query[0], maps[0]))
    changed = decoder((-query[0], *query[1:]), maps, (24, 24))  # level 0's score guides what follows
    assert not torch.allclose(changed.scores[2], located.scores[2])


# ---- presets


def test_every_preset_survives_json_and_names_an_unknown_key() -> None:
    for sizes in PRESETS.values():
        assert set(sizes) == {"paper", "tiny"}
        for preset in sizes.values():
            content = json.loads(json.dumps(method_to_dict(preset.method)))
            assert method_from_dict(content) == preset.method
    with pytest.raises(ConfigError, match=r"unifygeo\.losses\.matchin"):
        method_from_dict({"method": "unifygeo", "losses": {"matchin": 1.0}})
    with pytest.raises(ConfigError, match=r"gengeo\.clusters.*shared, separate"):
        method_from_dict({"method": "gengeo", "clusters": "both"})


def test_an_unknown_preset_or_size_is_refused_and_weights_can_be_named() -> None:
    with pytest.raises(ConfigError, match="unifygeo, gengeo"):
        find_preset("unify")
    with pytest.raises(ConfigError, match="paper, tiny"):
        find_preset("gengeo", "huge")
    assert with_weights(find_preset("gengeo"), "folder").method.encoder.weights == "folder"
