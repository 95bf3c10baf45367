"""Batches for training: no place twice, hard negatives where they belong, and the same again after an interruption."""

from __future__ import annotations

import numpy as np
import pytest

from onboard.errors import ConfigError
from training.sampling import PlaceBatches, SamplingConfig, alike, near_on_ground

torch = pytest.importorskip("torch")


def on_a_line(count: int) -> np.ndarray:
    """Places every 10 m to the east, far from the origin as UTM coordinates are."""
    return np.stack([4.0e6 + 10.0 * np.arange(count), np.full(count, 5.2e6)], axis=1)


def many_pairs(places: int = 12, each: int = 5) -> np.ndarray:
    return np.repeat(np.arange(places) + 100, each)


def test_the_defaults_are_those_of_the_paper() -> None:
    config = SamplingConfig()
    assert (config.select, config.among, config.every_epochs) == (64, 128, 4)


@pytest.mark.parametrize("kind", ["shuffled", "gps"])
def test_no_place_is_twice_in_a_batch_and_no_pair_twice_in_an_epoch(kind: str) -> None:
    labels = many_pairs()
    sampler = PlaceBatches(labels, 8, SamplingConfig(kind, 4, 6), where_m=on_a_line(12)[labels - 100])
    batches = sampler.batches(3)
    assert all(len({labels[i] for i in batch}) == 8 for batch in batches)
    used = [i for batch in batches for i in batch]
    assert len(set(used)) == len(used)
    assert len(used) >= 0.8 * len(labels)


def test_shuffling_uses_every_pair_when_the_places_fill_whole_batches() -> None:
    sampler = PlaceBatches(np.arange(24), 8)
    assert sorted(i for batch in sampler.batches(0) for i in batch) == list(range(24))
    assert sampler.batches(0) != sampler.batches(1)
    assert sampler.batches(0) == sampler.batches(0)


def test_a_batch_by_gps_holds_the_anchor_its_nearest_and_some_of_the_next() -> None:
    sampler = PlaceBatches(np.arange(40), 9, SamplingConfig("gps", 8, 12), where_m=on_a_line(40))
    first = sampler.batches(0)[0]
    away = sorted(abs(i - first[0]) for i in first[1:])
    nearest = set(near_on_ground(on_a_line(40), 12)[first[0], :4])
    assert nearest <= set(first)  # k/2 nearest
    assert away[-1] <= 12  # the rest from among the K nearest
    assert set(first[1:5]) == nearest
    random_half = {
        tuple(sorted(company[4:])) for company in (sampler._company(20, np.random.default_rng(s)) for s in range(9))
    }
    assert len(random_half) > 1  # k/2 by chance


def test_gps_neighbours_are_exact_far_from_the_origin_and_never_the_place_itself() -> None:
    found = near_on_ground(on_a_line(50), 4)
    assert set(found[20]) == {18, 19, 21, 22}
    assert not (found == np.arange(50)[:, None]).any()


def test_similar_places_are_neighbours_even_where_a_query_is_most_like_another_places_reference() -> None:
    reference = np.eye(5, dtype=np.float32)
    query = reference[[0, 2, 1, 3, 4]]  # 1 looks like 2 and 2 like 1
    found = alike(query, reference, 2)
    assert found[1, 0] == 2
    assert found[2, 0] == 1
    assert found.shape == (5, 2)
    assert not (found == np.arange(5)[:, None]).any()


def test_dynamic_similarity_replaces_gps_every_e_epochs() -> None:
    config = SamplingConfig("similarity", 2, 2, every_epochs=4)
    labels = np.repeat(np.arange(8), 2)
    sampler = PlaceBatches(labels, 2, config, where_m=on_a_line(8)[labels])
    by_gps = sampler.neighbours.copy()
    assert [epoch for epoch in range(13) if sampler.wants_descriptors(epoch)] == [4, 8, 12]
    angle = np.pi * (labels % 4) / 4 + 0.01 * labels  # place p resembles p + 4, which lies 40 m away
    looks = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    sampler.update(looks, looks)
    assert not np.array_equal(sampler.neighbours, by_gps)
    assert [int(row[0]) for row in sampler.neighbours] == [4, 5, 6, 7, 0, 1, 2, 3]


def test_without_positions_similarity_begins_by_shuffling() -> None:
    sampler = PlaceBatches(np.arange(12), 4, SamplingConfig("similarity", 2, 4), where_m=np.full((12, 2), np.nan))
    assert sampler.neighbours is None
    assert sampler.batches(0) == PlaceBatches(np.arange(12), 4).batches(0)


def test_continuing_in_the_middle_of_an_epoch_gives_the_batches_that_were_left() -> None:
    config = SamplingConfig("similarity", 4, 8)

    def fresh() -> PlaceBatches:
        return PlaceBatches(many_pairs(), 6, config, seed=7, where_m=on_a_line(12)[many_pairs() - 100])

    whole = fresh()
    looks = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    whole.update(looks, looks)
    whole.set_epoch(5)
    wanted = list(whole)
    whole.set_epoch(5, done=3)
    state = whole.state_dict()
    resumed = fresh()
    resumed.load_state_dict(state)
    assert list(resumed) == wanted[3:]
    assert len(resumed) == len(wanted) - 3


def test_the_processes_share_one_batch_between_them() -> None:
    whole = PlaceBatches(np.arange(32), 8).batches(2)
    shares = [PlaceBatches(np.arange(32), 8, rank=rank, ranks=2) for rank in range(2)]
    for share in shares:
        share.set_epoch(2)
    for batch, left, right in zip(whole, *shares, strict=True):
        assert sorted(batch) == sorted(left + right)
        assert len(left) == len(right) == 4


def test_what_cannot_be_sampled_is_said_in_one_line() -> None:
    with pytest.raises(ConfigError, match="number of places"):
        PlaceBatches(np.arange(4), 8)
    with pytest.raises(ConfigError, match="GPS sampling"):
        PlaceBatches(np.arange(4), 2, SamplingConfig("gps"), where_m=np.full((4, 2), np.nan))
    with pytest.raises(ConfigError, match="processes"):
        PlaceBatches(np.arange(9), 9, ranks=2)
    with pytest.raises(ConfigError, match="sampling"):
        SamplingConfig("similarity", 64, 32)
    with pytest.raises(ConfigError, match="descriptors"):
        PlaceBatches(np.arange(9), 3).update(np.zeros((8, 2)), np.zeros((8, 2)))
    with pytest.raises(ConfigError, match="sampler's state"):
        PlaceBatches(np.arange(9), 3).load_state_dict({"epoch": 0, "done": 0, "neighbours": torch.zeros(4, 2)})
