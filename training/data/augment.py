"""Changes to a whole batch of pairs: flips and rotations of both pictures together, then each picture's own noise.

UnifyGeo IV.C (after Sample4Geo): synchronized horizontal flip and rotation of the pair, colour jitter, grid dropout,
coarse dropout. The place of the query in the reference, and the cloud, turn with the pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onboard.errors import ConfigError
from training.data.batch import Batch

Views = Literal["none", "overhead", "panorama"]


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    flip: float = 0.5  # chance that a pair is mirrored
    rotate: float = 0.75  # chance that it is turned, by one, two or three quarters
    jitter: float = 0.15  # brightness, contrast and saturation change by up to this share
    grid_dropout: float = 0.15  # chance of a grid of holes
    coarse_dropout: float = 0.15  # chance of a few larger holes


def augment(
    batch: Batch, views: Views, generator: torch.Generator | None = None, config: AugmentConfig = AugmentConfig()
) -> Batch:
    """A changed copy of a batch of pictures uint8; of "none" the batch itself.

    Every random number is drawn on the CPU from the generator, or from torch's own. Of overhead views both pictures
    turn; of panoramas the columns are shifted, for a quarter of a turn is a quarter of the width: north is in the
    middle, east to its right. Raises ConfigError for overhead pictures that are not square.
    """
    if views == "none":
        return batch
    if views == "overhead":
        for name in ("query", "reference"):
            rows, cols = batch[name].shape[-2:]  # type: ignore[literal-required]
            if rows != cols:
                raise ConfigError(f"augmented overhead {name}", f"{rows} x {cols} pixels", "a square")
    batch = _copy(batch)
    count = len(batch["query"])
    mirrored = _draw(count, generator) < config.flip
    turns = torch.where(
        _draw(count, generator) < config.rotate, torch.randint(1, 4, (count,), generator=generator), torch.tensor(0)
    )
    for i in range(count):
        if mirrored[i]:
            flip_pair(batch, i)
        if turns[i]:
            turn_pair(batch, i, int(turns[i]), views)
    for pictures in (batch["query"], batch["reference"]):
        jitter(pictures, config.jitter, generator)
        for i in range(count):
            if _draw(1, generator) < config.grid_dropout:
                grid_dropout(pictures[i], generator)
            if _draw(1, generator) < config.coarse_dropout:
                coarse_dropout(pictures[i], generator)
    return batch


def flip_pair(batch: Batch, i: int) -> None:
    """Mirrors pair i in place, east for west."""
    for pictures in (batch["query"], batch["reference"]):
        pictures[i] = pictures[i].flip(2)
    batch["position"][i, 1] = 1.0 - batch["position"][i, 1]
    if "cloud" in batch:
        batch["cloud"][i, :, 0] *= -1.0


def turn_pair(batch: Batch, i: int, quarters: int, views: Views) -> None:
    """Turns pair i in place by quarters of a turn, anticlockwise as seen on the map."""
    batch["reference"][i] = torch.rot90(batch["reference"][i], quarters, (1, 2))
    if views == "overhead":
        batch["query"][i] = torch.rot90(batch["query"][i], quarters, (1, 2))
    else:  # the map's north goes west, which is left in the panorama
        width = batch["query"].shape[-1]
        batch["query"][i] = torch.roll(batch["query"][i], -round(width * quarters / 4), 2)
    for _ in range(quarters):
        row, col = batch["position"][i].tolist()
        batch["position"][i] = torch.tensor([1.0 - col, row])
        if "cloud" in batch:
            east, north = batch["cloud"][i, :, 0].clone(), batch["cloud"][i, :, 1].clone()
            batch["cloud"][i, :, 0], batch["cloud"][i, :, 1] = -north, east


def jitter(pictures: Tensor, amount: float, generator: torch.Generator | None = None) -> None:
    """Brightness, contrast and saturation of each picture (B, 3, H, W) uint8, in place."""
    gain, contrast, saturation = (
        (1.0 + amount * (2.0 * _draw(len(pictures), generator) - 1.0)).tolist() for _ in range(3)
    )
    for i, picture in enumerate(pictures):
        x = picture.float() * gain[i]
        x = (x - x.mean()) * contrast[i] + x.mean()
        grey = x.mean(dim=0, keepdim=True)
        pictures[i] = ((x - grey) * saturation[i] + grey).round().clamp(0, 255).to(torch.uint8)


def grid_dropout(picture: Tensor, generator: torch.Generator | None = None) -> None:
    """Black squares in a regular grid, half as wide as their distance, on (3, H, W) in place."""
    rows, cols = picture.shape[-2:]
    shortest = max(8, min(rows, cols) // 16)
    pitch = int(torch.randint(shortest, 2 * shortest + 1, (1,), generator=generator))
    shift = torch.randint(0, pitch, (2,), generator=generator)
    row_in = (torch.arange(rows) + shift[0]) % pitch < pitch // 2
    col_in = (torch.arange(cols) + shift[1]) % pitch < pitch // 2
    picture[:, (row_in[:, None] & col_in[None, :]).to(picture.device)] = 0


def coarse_dropout(picture: Tensor, generator: torch.Generator | None = None) -> None:
    """A few black rectangles, each a tenth to a fifth of a side, on (3, H, W) in place."""
    rows, cols = picture.shape[-2:]
    for _ in range(int(torch.randint(2, 6, (1,), generator=generator))):
        share = 0.1 + 0.1 * _draw(2, generator)
        corner = _draw(2, generator) * (1.0 - share)
        top, left = int(corner[0] * rows), int(corner[1] * cols)
        picture[:, top : top + int(share[0] * rows), left : left + int(share[1] * cols)] = 0


def _draw(count: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(count, generator=generator)


def _copy(batch: Batch) -> Batch:
    return {key: value.clone() for key, value in batch.items()}  # type: ignore[return-value, attr-defined]
