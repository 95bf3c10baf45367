"""vCLUB (Cheng et al. 2020): an upper bound of the mutual information of two features, GeoLink 3.3.2.

q(y | x) is a Gaussian whose mean and log-variance a small network tells. It is fitted by maximum likelihood in steps of
its own (`fit`); what is trained against the bound (`bound`) never moves it. Features are of unit norm; they are scaled
by the root of their length, and everything is a mean over it, so that neither a variance nor a weight of the loss hangs
on it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.precision import full_precision


class VClub(nn.Module):
    """I(x; y) of x (B, dim) and y (B, dim), paired by row. `hidden` is 4096 in the paper (4.1).

    Its weights ask for no gradient except inside `fit`: a trainer's optimizer, and what synchronises it, leaves them
    alone.
    """

    def __init__(self, dim: int, hidden: int, learning_rate: float) -> None:
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.log_variance = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim), nn.Tanh())
        self.requires_grad_(False)
        self.learning_rate = learning_rate
        self._optimizer: torch.optim.Optimizer | None = None

    def likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean log q(y_i | x_i) but for a constant: what `fit` raises."""
        x, y = _scaled(x), _scaled(y)
        log_variance = self.log_variance(x)
        return (-(y - self.mean(x)).square() / log_variance.exp() - log_variance).mean() / 2

    def bound(self, x: Tensor, y: Tensor) -> Tensor:
        """Eq. 8: the mean over i of log q(y_i | x_i), less that over i and j of log q(y_j | x_i)."""
        with full_precision(x):
            x, y = _scaled(x), _scaled(y)
            mean, precision = self.mean(x), (-self.log_variance(x)).exp()
            own = ((y - mean).square() * precision).mean(dim=1)
            # All pairs without a (B, B, D) tensor: the square is written out. Terms of the variance alone cancel.
            every = precision @ y.square().T - 2 * (precision * mean) @ y.T
            every = every / y.shape[1] + (precision * mean.square()).mean(dim=1, keepdim=True)
            return (every.mean() - own.mean()) / 2

    def fit(self, x: Tensor, y: Tensor, steps: int = 1) -> float:
        """Steps of maximum likelihood on features that are held still; the negative log-likelihood before the last."""
        x, y = x.detach().float(), y.detach().float()
        optimizer = self._own_optimizer()
        loss = torch.zeros(())
        self.requires_grad_(True)
        try:
            with torch.enable_grad(), full_precision(x):
                for _ in range(steps):
                    loss = -self.likelihood(x, y)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    _share_gradients(self)
                    optimizer.step()
        finally:
            optimizer.zero_grad(set_to_none=True)
            self.requires_grad_(False)
        return float(loss.detach())

    def _own_optimizer(self) -> torch.optim.Optimizer:
        """Made at the first step, when the weights are on their device."""
        if self._optimizer is None:
            self._optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        return self._optimizer

    def optimizer_state(self) -> dict[str, Any]:
        return self._own_optimizer().state_dict()

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        self._own_optimizer().load_state_dict(state)


def _scaled(feature: Tensor) -> Tensor:
    return feature.float() * feature.shape[1] ** 0.5


def _share_gradients(module: nn.Module) -> None:
    """The mean over all processes, where there are several: nothing else synchronises these weights."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    for parameter in module.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad.div_(dist.get_world_size())
