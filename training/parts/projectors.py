"""A query's detail maps to its descriptors of each level (UnifyGeo III.C)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from onboard.errors import ConfigError


def channels_first_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """A LayerNorm over the channels of (B, C, h, w)."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ColumnProjector(nn.Module):
    """The paper's: of F_g^0 (B, C, H', W') each level makes one vector (B, C_l). A 1x1 convolution to C_l / W'
    channels, a linear layer over each column (H' to 1), and all azimuths side by side."""

    def __init__(self, channels: tuple[int, ...], cells: tuple[int, int]) -> None:
        """channels of levels 0 to n; cells: rows, cols of F_g^0."""
        super().__init__()
        rows, cols = cells
        uneven = [width for width in channels if width % cols]
        if uneven:
            raise ConfigError("channels of a level", uneven[0], f"a multiple of the query's {cols} columns of cells")
        self.reduce = nn.ModuleList(nn.Conv2d(channels[0], width // cols, 1) for width in channels)
        self.columns = nn.ModuleList(nn.Linear(rows, 1) for _ in channels)

    def forward(self, levels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The query's maps of levels 0 to n, of which the first is used."""
        return tuple(
            column(reduce(levels[0]).transpose(2, 3)).flatten(1)
            for reduce, column in zip(self.reduce, self.columns, strict=True)
        )


class TemplateProjector(nn.Module):
    """For overhead views: each level's descriptor is a template (B, C_l, k, k), the middle of the view's own map.

    It is a 1x1 convolution of the level's map and one of F_g^0, enlarged. A side of an even number of cells has no
    middle cell; the means of neighbours have one.
    """

    def __init__(self, channels: tuple[int, ...], cells: int) -> None:
        super().__init__()
        if cells < 1 or cells % 2 == 0:
            raise ConfigError("template_cells", cells, "an odd number")
        self.cells = cells
        self.own = nn.ModuleList(nn.Conv2d(width, width, 1) for width in channels)
        self.coarse = nn.ModuleList(nn.Conv2d(channels[0], width, 1) for width in channels[1:])

    def forward(self, levels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The query's maps of levels 0 to n."""
        templates = []
        for level, (own, x) in enumerate(zip(self.own, levels, strict=True)):
            x = own(x)
            if level:
                coarse = self.coarse[level - 1](levels[0])
                x = x + F.interpolate(coarse, size=list(x.shape[-2:]), mode="bilinear", align_corners=False)
            templates.append(self._middle(x))
        return tuple(templates)

    def _middle(self, x: Tensor) -> Tensor:
        rows, cols = x.shape[-2:]
        x = F.avg_pool2d(x, (2 - rows % 2, 2 - cols % 2), 1)
        top, left = (max(0, (side - self.cells) // 2) for side in x.shape[-2:])
        return x[:, :, top : x.shape[-2] - top, left : x.shape[-1] - left]
