"""Reachability: how probable is it that a violation lies ahead of a state? Labels come from costs alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fosp.nets.features import Features
from fosp.nets.layers import MLP, follow, frozen_copy


class Reachability(nn.Module):
    """p(s), the discounted probability of a violation from s on; feasibility is u(s) = 1 - p(s). Sigmoid head."""

    def __init__(self, features: int, units: int, layers: int) -> None:
        super().__init__()
        self.head = MLP(features, 1, units, layers, out_scale=0.0)
        self.slow_head = frozen_copy(self.head)

    def probability(self, features: Tensor | Features) -> Tensor:
        """(..., F) -> (...). A constant for whoever uses it as a weight: no gradient reaches the head."""
        return torch.sigmoid(self.head(features, constant=True).float().squeeze(-1)).detach()

    @torch.no_grad()
    def slow_probability(self, features: Tensor | Features) -> Tensor:
        """(..., F) -> (...)."""
        return torch.sigmoid(self.slow_head(features).float().squeeze(-1))

    def loss(self, features: Tensor | Features, target: Tensor) -> Tensor:
        """Cross-entropy with targets in [0, 1]. (..., F), (...) -> (...)."""
        logits = self.head(features).float().squeeze(-1)
        return nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")

    def update_slow(self, fraction: float) -> None:
        follow(self.slow_head, self.head, fraction)
