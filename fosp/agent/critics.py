"""Twin Q on state and action, V on the state, slow copies of both; written once, used for reward and for cost."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fosp.agent.returns import expectile_weight
from fosp.nets.features import Features
from fosp.nets.layers import MLP, EnsembleMLP, follow, frozen_copy
from fosp.nets.twohot import TwoHot


class Critic(nn.Module):
    """``pessimism`` -1 takes the lower of both Q (reward), +1 the higher (cost): never better than either believes."""

    MEMBERS = 2

    def __init__(self, features: int, actions: int, units: int, layers: int, bins: int, pessimism: int) -> None:
        super().__init__()
        self.pessimism = pessimism
        self.twohot = TwoHot(bins)
        self.q = EnsembleMLP(self.MEMBERS, features + actions, bins, units, layers)
        self.v = MLP(features, bins, units, layers, out_scale=0.0)
        self.slow_q = frozen_copy(self.q)
        self.slow_v = frozen_copy(self.v)

    def worst(self, logits: Tensor) -> Tensor:
        """The value that the members agree on at least. (M, N, bins) -> (N,)."""
        return self.worst_value(self.twohot.mean(logits))

    def worst_value(self, values: Tensor) -> Tensor:
        """(M, N) -> (N,)."""
        return values.amin(0) if self.pessimism < 0 else values.amax(0)

    def q_value(self, features: Tensor | Features, action: Tensor) -> Tensor:
        """(N, F), (N, A) -> (N,). Gradients reach the action and the features, never the critic."""
        return self.worst(self.q(Features.of(features).joined(action), constant=True))

    def v_value(self, features: Tensor | Features) -> Tensor:
        """(..., F) -> (...)."""
        return self.twohot.mean(self.v(features, constant=True))

    @torch.no_grad()
    def slow_q_value(self, features: Tensor | Features, action: Tensor) -> Tensor:
        """(N, F), (N, A) -> (N,)."""
        return self.worst(self.slow_q(Features.of(features).joined(action)))

    @torch.no_grad()
    def slow_v_value(self, features: Tensor | Features) -> Tensor:
        """(..., F) -> (...)."""
        return self.twohot.mean(self.slow_v(features))

    def q_loss(self, features: Tensor | Features, action: Tensor, target: Tensor) -> Tensor:
        """Two-hot cross-entropy of both members, averaged. (N, F), (N, A), (N,) -> (N,)."""
        logits = self.q(Features.of(features).joined(action))  # (M, N, bins)
        return self.twohot.loss(logits, target.expand(self.MEMBERS, -1)).mean(0)

    def v_loss(self, features: Tensor | Features, action: Tensor, level: float) -> Tensor:
        """In-sample expectile regression of V on the slow Q of the *log's* actions. (N, F), (N, A) -> (N,).

        The cross-entropy is weighted with |level - 1{Q < V}|. Its minimum over V is the expectile, because the
        expectation of the two-hot bins at the minimum is the weighted mean of the targets.
        """
        target = self.slow_q_value(features, action)
        logits = self.v(features)
        weight = expectile_weight(target - self.twohot.mean(logits).detach(), level)
        return weight * self.twohot.loss(logits, target)

    def update_slow(self, fraction: float) -> None:
        follow(self.slow_q, self.q, fraction)
        follow(self.slow_v, self.v, fraction)
