"""The constraint on expected cost: an augmented Lagrangian (Nocedal & Wright, Numerical Optimization, 2006, 17.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: Cost per episode below which an estimate is taken for regression noise: a tenth of one violated frame.
NOISE = 0.1


@dataclass(frozen=True)
class ConstraintConfig:
    budget: float = 10.0  # cost per episode that is tolerated
    penalty: float = 0.05  # 1/mu: how strongly an excess is answered at once, per unit of cost per episode
    step: float = 2e-4  # share of the exact multiplier update that each learner update makes
    limit: float = 10.0  # cap of the multiplier


class AugmentedLagrangian(nn.Module):
    """Inequality c = budget - cost >= 0 with multiplier sigma and penalty 1/mu.

    Where c / mu <= sigma the term of eq. 17.65 has the derivative sigma - c / mu with respect to cost, otherwise 0:
    ``weight`` is that derivative, what one unit of cost counts against reward. ``update`` is eq. 17.66,
    sigma <- max(sigma - c / mu, 0), taken in small steps since the estimate of the cost is noisy.
    """

    multiplier: Tensor
    estimate: Tensor

    def __init__(self, config: ConstraintConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("multiplier", torch.zeros(()))
        self.register_buffer("estimate", torch.zeros(()))

    def _excess(self) -> Tensor:
        """Cost per episode above the budget.

        What a cost head says of a log without cost counts as a little below any budget, so that even with a budget of 0
        the multiplier stays at zero there, and can come down again.
        """
        excess = self.estimate - self.config.budget
        return torch.where(self.estimate < NOISE, excess.clamp(max=-NOISE), excess)

    def weight(self) -> Tensor:
        excess = self._excess()
        return (self.multiplier + self.config.penalty * excess).clamp(0.0, self.config.limit)

    @torch.no_grad()
    def update(self, cost_per_episode: Tensor) -> None:
        """``cost_per_episode`` (): present estimate of the policy's cost in one episode; ignored unless finite."""
        cost = cost_per_episode.float()
        self.estimate.lerp_(torch.where(torch.isfinite(cost), cost, self.estimate), 0.02)
        excess = self._excess()
        self.multiplier.add_(self.config.step * self.config.penalty * excess).clamp_(0.0, self.config.limit)
