"""The losses of UnifyGeo (III.E), for views instead of panoramas.

UnifyGeo matches one vector against each cell of the aerial map. An overhead view is matched as a template,
the view's own detail map, so a matching score is a correlation and "cell" below means a displacement.

    L_G  symmetric InfoNCE of the global descriptors, label smoothing 0.1             (eq. 6)
    L_R  coarse matching score at the right displacement of the right tile, against
         every displacement of every tile in the batch; Gaussian-smoothed truth        (eq. 7, 8 over the batch)
    L_M  fine matching scores of the view's patches round the right displacement      (eq. 8, next level)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def zero_mean_template(features: Tensor, mask: Tensor) -> Tensor:
    """features (B, C, h, w) less their mean over mask (B, 1, h, w), of unit norm as one vector; zero outside."""
    count = mask.sum(dim=(2, 3), keepdim=True).clamp_min(1.0)
    mean = (features * mask).sum(dim=(2, 3), keepdim=True) / count
    centred = (features - mean) * mask
    return centred / torch.sqrt((centred * centred).sum(dim=(1, 2, 3), keepdim=True) + 1e-6)


def correlate(
    templates: Tensor, template_mask: Tensor, maps: Tensor, map_mask: Tensor, reach: int
) -> tuple[Tensor, Tensor]:
    """Scores of all templates (Q, C, h, w) over all maps (M, C, h, w), displaced by -reach..reach cells.

    Returns scores (Q, M, 2 reach + 1, 2 reach + 1) in -1..1 and the share of the template's cells that lie on
    valid map there. A score is the correlation over the square root of the number of valid cells, so that
    a partial overlap is judged by the part that is there.
    """
    size = templates.shape[-1] + maps.shape[-1]
    scores = _cross_correlate(templates, maps, size)
    count = _cross_correlate(template_mask, map_mask, size)
    index = torch.arange(-reach, reach + 1, device=scores.device) % size
    scores, count = scores[..., index, :][..., index], count[..., index, :][..., index]
    total = template_mask.sum(dim=(1, 2, 3)).clamp_min(1.0)[:, None, None, None]
    share = count / total
    return scores / torch.sqrt(count.clamp_min(0.25 * total)), share


def _cross_correlate(left: Tensor, right: Tensor, size: int) -> Tensor:
    """Circular cross-correlations summed over channels: (Q, C, ., .), (M, C, ., .) -> (Q, M, size, size).

    The product of spectra is two real batched matrix products. All operands are made contiguous, gradients
    too: on a CPU a strided batch is some twenty times slower.
    """
    a = torch.fft.rfft2(left, s=(size, size)).flatten(2).permute(2, 0, 1)  # (frequencies, Q, C)
    b = torch.fft.rfft2(right, s=(size, size)).flatten(2).permute(2, 1, 0)  # (frequencies, C, M)
    stacked = torch.cat([a.real, a.imag], dim=2).contiguous()
    real = stacked @ torch.cat([b.real, b.imag], dim=1).contiguous()
    imaginary = stacked @ torch.cat([b.imag, -b.real], dim=1).contiguous()
    for part in (real, imaginary):
        if part.requires_grad:
            part.register_hook(torch.Tensor.contiguous)
    product = torch.complex(real.permute(1, 2, 0).contiguous(), imaginary.permute(1, 2, 0).contiguous())
    return torch.fft.irfft2(product.unflatten(2, (size, size // 2 + 1)), s=(size, size))


def gaussian_truth(displacement: Tensor, reach: int, sigma: float) -> Tensor:
    """(B, 2 reach + 1, 2 reach + 1): a Gaussian about displacement (B, 2) row, col in cells, summing to one."""
    axis = torch.arange(-reach, reach + 1, device=displacement.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * ((axis[None] - displacement[..., None]) / sigma) ** 2)  # (B, 2, n)
    truth = weights[:, 0, :, None] * weights[:, 1, None, :]
    return truth / truth.sum(dim=(1, 2), keepdim=True).clamp_min(1e-9)


def matching_loss(scores: Tensor, share: Tensor, truth: Tensor, scale: Tensor) -> Tensor:
    """L_R: cross-entropy over all tiles and displacements. scores (B, B, n, n), truth (B, n, n)."""
    batch = len(scores)
    logits = torch.where(share > 0.4, scale * scores, torch.full_like(scores, -30.0))
    logits = logits.reshape(batch, -1)
    target = torch.zeros_like(scores)
    target[torch.arange(batch), torch.arange(batch)] = truth
    return -(target.reshape(batch, -1) * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def patch_matching_loss(
    view: Tensor,
    view_mask: Tensor,
    tile: Tensor,
    tile_mask: Tensor,
    moved_px: Tensor,
    offset_px: Tensor,
    scale: Tensor,
    stride: int,
    patch: int = 16,
) -> Tensor:
    """L_M at the fine level: each patch of the view finds its own place within half a patch of the truth.

    view, tile (B, F, h, w), masks (B, 1, h, w); moved_px (B, 2, H, W), a field of displacements row, col in pixels over
    the view, NaN where it is not known: under an error of heading or height, and over relief, each patch is displaced
    differently. offset_px (B, 2) is the view's as a whole: the tile is first shifted by its whole part, and by
    a random step more, so that truth is not always the middle.
    """
    batch, _, height, _ = view.shape
    margin = patch // 2
    lies, known = patch_displacements(moved_px, height // patch)
    jitter = torch.randint(-margin // 2, margin // 2 + 1, (batch, 2), device=view.device)
    whole = (offset_px / stride).round().long() + jitter
    rest = lies / stride - whole[:, None]
    pad = height
    tile, tile_mask = F.pad(tile, [pad] * 4), F.pad(tile_mask, [pad] * 4)
    windows, window_masks = [], []
    # unbind, not tile[i]: the gradient of an index fills a whole batch of zeros for each of them
    for i, (one, one_mask) in enumerate(zip(tile.unbind(), tile_mask.unbind(), strict=True)):
        row, col = (pad + int(whole[i, 0]) - margin, pad + int(whole[i, 1]) - margin)
        span = height + 2 * margin
        windows.append(one[:, row : row + span, col : col + span])
        window_masks.append(one_mask[:, row : row + span, col : col + span])
    search, search_mask = torch.stack(windows), torch.stack(window_masks)

    def tiles(x: Tensor, size: int) -> Tensor:
        """(B, F, h, w) -> (B * patches, F, size, size), one every `patch` cells."""
        cut = x.unfold(2, size, patch).unfold(3, size, patch)
        return cut.permute(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1], size, size)

    template, template_mask = tiles(view, patch), tiles(view_mask, patch)
    found, found_mask = tiles(search, patch + 2 * margin), tiles(search_mask, patch + 2 * margin)
    rest, known = rest.flatten(0, 1), known.flatten()
    keep = (template_mask.mean(dim=(1, 2, 3)) > 0.6) & (found_mask.mean(dim=(1, 2, 3)) > 0.8)
    keep &= known & (rest.abs().amax(dim=1) < margin - 0.5)
    if not bool(keep.any()):
        return view.sum() * 0.0
    truth = gaussian_truth(rest[keep], margin, 0.6)
    template = zero_mean_template(template[keep], template_mask[keep])
    size = patch + 2 * margin
    product = torch.fft.rfft2(template, s=(size, size)).conj() * torch.fft.rfft2(found[keep], s=(size, size))
    scores = torch.fft.irfft2(product.sum(dim=1), s=(size, size))[:, : 2 * margin + 1, : 2 * margin + 1]
    logits = (scale * scores / patch).flatten(1)
    return -(truth.flatten(1) * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def patch_displacements(moved_px: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Medians of a field (B, 2, H, W) over count x count patches, (B, count^2, 2) row, col, and where they are known.

    A median, since of a patch with roofs and ground in it the greater part says where it lies. Known: two thirds.
    """
    side = moved_px.shape[-1] // count
    cells = moved_px.unfold(2, side, side).unfold(3, side, side).flatten(4).flatten(2, 3)  # (B, 2, count^2, side^2)
    known = cells.isfinite().float().mean(dim=(1, 3)) > 2 / 3
    return cells.nanquantile(0.5, dim=3).transpose(1, 2).nan_to_num(), known


def retrieval_loss(view: Tensor, tile: Tensor, scale: Tensor) -> Tensor:
    """L_G: symmetric InfoNCE of unit descriptors (B, D), label smoothing 0.1.

    The other views compete beside the other tiles (and tiles beside views): a small batch holds few wrong answers.
    """
    size = len(view)
    target = torch.arange(size, device=view.device)
    itself = torch.full((size,), -1e4, device=view.device).diag()
    across = scale * view @ tile.T
    to_tiles = torch.cat([across, scale * view @ view.T + itself], dim=1)
    to_views = torch.cat([across.T, scale * tile @ tile.T + itself], dim=1)
    # Smoothing by hand: over what may be right, not over the masked diagonal.
    return 0.5 * (_smoothed(to_tiles, target, size) + _smoothed(to_views, target, size))


def _smoothed(logits: Tensor, target: Tensor, size: int, smoothing: float = 0.1) -> Tensor:
    """Cross-entropy with the smoothed share spread over the first `size` columns."""
    log_share = F.log_softmax(logits, dim=1)
    right = log_share.gather(1, target[:, None]).mean()
    return -(1 - smoothing) * right - smoothing * log_share[:, :size].mean()


class Temperatures(torch.nn.Module):
    """Learned inverse temperatures of the three softmaxes, kept below 100."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.tensor([math.log(30.0), math.log(20.0), math.log(12.0)]))

    def forward(self) -> Tensor:
        return torch.exp(self.log_scale.clamp(max=math.log(100.0)))
