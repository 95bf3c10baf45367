"""Begin a training from a network that was trained before: the same one, or a smaller one that grows.

A grown network gives at first what the smaller one gave (Net2Net, Chen et al. 2016, in its plainest form): new channels
are drawn at random but nothing old listens to them yet, and new blocks add nothing yet. All of it learns from there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from onboard.errors import ConfigError
from training.model import ModelConfig, OverheadNet, Residual

STOOD = 2.5  # root mean square of trained weights over that of new ones
GROWS = ("stem_channels", "quarter_channels", "trunk_channels", "trunk_blocks")


def grown(net: OverheadNet, config: ModelConfig) -> OverheadNet:
    """A network of `config` that gives what `net` gives. Raises ConfigError where `config` is smaller or its heads'
    outputs differ: those are what maps are made of."""
    for name in ModelConfig.__dataclass_fields__:
        had, wanted = getattr(net.config, name), getattr(config, name)
        if wanted < had or (wanted != had and name not in GROWS):
            raise ConfigError(
                f"{name} of the network to begin from", had, f"{'at most ' if name in GROWS else ''}{wanted}"
            )
    out = OverheadNet(config)
    old, new = net.state_dict(), out.state_dict()
    ends = {f"{name}.second.1.weight" for name, part in out.named_modules() if isinstance(part, Residual)}
    for name, value in new.items():
        if name in ends:  # of a block; what is new of it adds nothing yet
            value.zero_()
        if name not in old:
            continue
        corner = tuple(slice(0, size) for size in old[name].shape)
        if value.ndim == 4:  # old outputs do not hear new inputs
            value[corner[0], old[name].shape[1] :] = 0
        value[corner] = old[name]
    out.load_state_dict(new)
    return out.train(net.training)


@torch.no_grad()
def settle(net: OverheadNet, image: Tensor, mask: Tensor) -> None:
    """Measures each batch norm on image (B, 3, N, N) and mask (B, 1, N, N), and rewrites it to give what it gave.

    Norms that were folded into convolutions, and came back as ones that change nothing, divide by a batch's own
    spread as soon as they are trained: without this the network would be another at its first step. Those without
    weights (the last of detail and fine features) are set to what is measured. Convolutions before a norm, which does
    not feel their size, are brought to `STOOD` times what a new one has: folding leaves some so small
    that Adam's steps, which have one size for all, would wipe out in a few of them what they know.
    """
    _restore_sizes(net)
    handles = [m.register_forward_pre_hook(_measure) for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    was = net.training
    net.eval()
    try:
        net(image, mask)
    finally:
        net.train(was)
        for handle in handles:
            handle.remove()


def _restore_sizes(net: OverheadNet) -> None:
    modules = list(net.modules())
    for convolution, norm in itertools.pairwise(modules):
        if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            continue
        assert norm.running_mean is not None
        assert norm.running_var is not None
        inputs = convolution.weight[0].numel()
        times = STOOD / math.sqrt(3 * inputs) / convolution.weight.square().mean().sqrt().clamp_min(1e-9)
        convolution.weight.mul_(times)
        norm.running_mean.mul_(times)
        norm.running_var.add_(norm.eps).mul_(times**2).sub_(norm.eps)


def _measure(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    variance, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3), correction=0)
    if norm.affine:
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        norm.bias.add_(gain * (mean - norm.running_mean))
        norm.weight.copy_(gain * torch.sqrt(variance + norm.eps))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def fit(parameters: list[nn.Parameter], loss: Callable[[], Tensor], steps: int = 30, rate: float = 0.1) -> float:
    """Fits a few parameters alone, such as temperatures that no ONNX file keeps; returns the last loss."""
    optimizer = torch.optim.Adam(parameters, lr=rate)
    last = float("nan")
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        last = float(value.detach())
    return last
