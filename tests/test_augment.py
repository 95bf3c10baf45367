"""Changes to a batch of pairs: the place that a query is at turns with both pictures."""

from __future__ import annotations

import pytest

from onboard.errors import ConfigError

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from training.data.augment import AugmentConfig, augment, coarse_dropout, flip_pair, grid_dropout, turn_pair  # noqa: E402
from training.data.batch import Batch  # noqa: E402

SIDE = 24
TURNS_ALONE = AugmentConfig(flip=0.5, rotate=0.75, jitter=0.0, grid_dropout=0.0, coarse_dropout=0.0)


def marked(count: int = 1, width: int = SIDE) -> Batch:
    """Grey pairs with a bright pixel at the query's place in the reference, and the same picture seen as the query."""
    rows = torch.randint(0, SIDE, (count,), generator=torch.Generator().manual_seed(1))
    cols = torch.randint(0, SIDE, (count,), generator=torch.Generator().manual_seed(2))
    reference = torch.full((count, 3, SIDE, SIDE), 10, dtype=torch.uint8)
    reference[torch.arange(count), :, rows, cols] = 250
    position = (torch.stack([rows, cols], dim=1) + 0.5) / SIDE
    cloud = torch.tensor([[3.0, 1.0, 9.0]]).repeat(count, 1, 1)
    return {
        "query": reference.clone() if width == SIDE else torch.zeros(count, 3, SIDE, width, dtype=torch.uint8),
        "reference": reference,
        "label": torch.arange(count),
        "position": position,
        "metres_per_pixel": torch.ones(count),
        "where_m": torch.zeros(count, 2, dtype=torch.float64),
        "cloud": cloud,
    }


def bright(picture: torch.Tensor) -> torch.Tensor:
    """Row, col of the brightest pixel as shares of the sides."""
    at = int(picture[0].flatten().argmax())
    return (torch.tensor([at // picture.shape[-1], at % picture.shape[-1]]) + 0.5) / picture.shape[-1]


def test_the_position_stays_on_its_pixel_through_flips_and_turns() -> None:
    batch = marked(40)
    changed = augment(batch, "overhead", torch.Generator().manual_seed(3), TURNS_ALONE)
    moved = 0
    for i in range(40):
        torch.testing.assert_close(bright(changed["reference"][i]), changed["position"][i])
        torch.testing.assert_close(changed["query"][i], changed["reference"][i])  # both alike
        moved += not torch.equal(changed["position"][i], batch["position"][i])
    assert 20 < moved < 40
    torch.testing.assert_close(bright(batch["reference"][0]), batch["position"][0])  # the batch itself is unchanged


def test_a_quarter_turn_takes_north_to_west_in_pictures_position_and_cloud() -> None:
    batch = marked()
    batch["position"][0] = torch.tensor([0.0, 0.5])  # the north edge
    turn_pair(batch, 0, 1, "overhead")
    assert batch["position"][0].tolist() == [0.5, 0.0]
    assert batch["cloud"][0, 0].tolist() == [-1.0, 3.0, 9.0]  # what was east is north, what was north is west


def test_a_mirror_changes_east_for_west_and_an_unknown_position_stays_unknown() -> None:
    batch = marked()
    batch["position"][0] = torch.tensor([0.25, 0.1])
    flip_pair(batch, 0)
    torch.testing.assert_close(batch["position"][0], torch.tensor([0.25, 0.9]))
    assert batch["cloud"][0, 0].tolist() == [-3.0, 1.0, 9.0]
    batch["position"][0] = torch.nan
    turn_pair(batch, 0, 3, "overhead")
    assert batch["position"][0].isnan().all()


def test_a_panorama_is_shifted_by_a_quarter_of_its_width_where_the_map_turns_a_quarter() -> None:
    batch = marked(width=4 * SIDE)
    north = 2 * SIDE  # the middle column
    batch["query"][0, :, :, north] = 200
    turn_pair(batch, 0, 1, "panorama")  # the map's north now lies in the west, left of the middle
    assert (batch["query"][0, 0, 0] == 200).nonzero().flatten().tolist() == [SIDE]
    torch.testing.assert_close(bright(batch["reference"][0]), batch["position"][0])


def test_the_same_seed_gives_the_same_batch_and_none_gives_the_batch_itself() -> None:
    batch = marked(6)
    first, second = (augment(batch, "overhead", torch.Generator().manual_seed(5)) for _ in range(2))
    other = augment(batch, "overhead", torch.Generator().manual_seed(6))
    assert torch.equal(first["query"], second["query"])
    assert not torch.equal(first["query"], other["query"])
    assert augment(batch, "none") is batch


def test_colour_changes_and_holes_leave_positions_alone() -> None:
    batch = marked(4)
    still = AugmentConfig(flip=0.0, rotate=0.0, jitter=0.3, grid_dropout=1.0, coarse_dropout=1.0)
    changed = augment(batch, "overhead", torch.Generator().manual_seed(7), still)
    assert torch.equal(changed["position"], batch["position"])
    assert not torch.equal(changed["query"], changed["reference"])  # each picture has noise of its own


def test_dropouts_make_black_holes_and_keep_most_of_the_picture() -> None:
    for drop in (grid_dropout, coarse_dropout):
        picture = torch.full((3, 96, 96), 100, dtype=torch.uint8)
        drop(picture, torch.Generator().manual_seed(8))
        share = float((picture == 0).float().mean())
        assert 0.01 < share < 0.5


def test_an_overhead_view_that_is_not_square_is_refused() -> None:
    with pytest.raises(ConfigError, match="a square"):
        augment(marked(width=2 * SIDE), "overhead")
