"""The policy: its distribution, the weights of its regression, its losses.

Why these weights. Maximise u A^r - (1 - u) A^c under a bound on KL[pi || pi_b] to the behaviour of the log. The
Lagrangian gives pi*(a|s) ~ pi_b(a|s) exp{beta (u A^r - (1 - u) A^c)}. For u in {0, 1} the exponential of the switch is
the switch of the exponentials, u exp(beta A^r) + (1 - u) exp(-beta A^c); projecting pi* on a parametric policy by
maximum likelihood over the log makes that the weight of each log-likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fosp.nets.distributions import gaussian_log_prob
from fosp.nets.features import Features
from fosp.nets.layers import MLP
from fosp.world_model.recurrent import MAX_LAYERS, Chooser


@dataclass(frozen=True)
class ActorScales:
    """Weights of the ways to extract a policy from the critics; docs/method.md, "Pathwise ascent", says why several."""

    likelihood: float = 0.3  # weighted log-likelihood of the log's actions
    pathwise: float = 1.0  # ascent of the critics' score through the policy's own sample
    dynamics: float = 0.0  # ascent of the same score of imagined lambda-returns, through the world model's dynamics
    imagined: float = 0.0  # the regression's weights on the policy's own imagined samples
    entropy: float = 3e-4


@dataclass(frozen=True)
class WeightConfig:
    beta_reward: float = 1.0
    beta_cost: float = 1.0
    clip: float = 100.0  # of each exponential


class Actor(nn.Module):
    """Independent Gaussians with mean in (-1, 1) and standard deviation in [0.1, 1]; executed actions are clipped."""

    MIN_STD, MAX_STD = 0.1, 1.0

    def __init__(self, features: int, actions: int, units: int, layers: int) -> None:
        super().__init__()
        self.net = MLP(features, 2 * actions, units, layers, out_scale=0.1)

    def forward(self, features: Tensor | Features) -> tuple[Tensor, Tensor]:
        """(..., F) -> mean, standard deviation (..., A)."""
        return self.distribution(self.net(features))

    def distribution(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """What the network's outputs (..., 2A) mean -> mean, standard deviation (..., A)."""
        mean, spread = outputs.float().chunk(2, -1)
        std = self.MIN_STD + (self.MAX_STD - self.MIN_STD) * torch.sigmoid(spread)
        return torch.tanh(mean), std

    def sample(self, features: Tensor | Features, noise: Tensor) -> Tensor:
        """Standard normal noise (..., A) -> executable action (..., A), differentiable where it is not clipped."""
        mean, std = self(features)
        return clip_through(mean + std * noise)

    def chooser(self, noise: Tensor, first_action: Tensor, exploring: Tensor) -> Chooser | None:
        """``sample`` with noise (H, N, A), for a rollout that is computed at once; ``exploring`` rows (N,) begin with
        ``first_action`` (N, A). None where there are more layers than that can take."""
        hidden: list[Any] = list(self.net.hidden)
        if not 1 <= len(hidden) // 3 <= MAX_LAYERS:
            return None
        layers = [
            (linear.weight.detach(), norm.weight.detach(), norm.bias.detach())
            for linear, norm in zip(hidden[::3], hidden[1::3], strict=True)
        ]
        out, std = self.net.out, (self.MIN_STD, self.MAX_STD)
        return Chooser(layers, out.weight.detach(), out.bias.detach(), std, noise, first_action, exploring)


def clip_through(action: Tensor) -> Tensor:
    """Clip to [-1, 1] but pass gradients as if not clipped, so that a mean near a bound can come back."""
    return action + (action.clamp(-1, 1) - action).detach()


def regression_weight(
    feasible: Tensor, gate: Tensor, reward_advantage: Tensor, cost_advantage: Tensor, config: WeightConfig
) -> Tensor:
    """w = u g exp(beta_r A^r / S_r) + (1 - u) exp(-beta_c A^c / S_c). All (N,), advantages already divided by S."""
    towards_reward = (config.beta_reward * reward_advantage).exp().clamp(max=config.clip)
    towards_safety = (-config.beta_cost * cost_advantage).exp().clamp(max=config.clip)
    return (feasible * gate * towards_reward + (1 - feasible) * towards_safety).detach()


def score(feasible: Tensor, reward: Tensor, cost: Tensor, cost_weight: Tensor | float) -> Tensor:
    """u A^r / S_r - (1 - u + nu) A^c / S_c, over 1 + nu so that its size does not depend on the multiplier nu. (N,)"""
    return (feasible * reward - (1 - feasible + cost_weight) * cost) / (1 + cost_weight)


def likelihood_loss(mean: Tensor, std: Tensor, action: Tensor, weight: Tensor) -> Tensor:
    """Negative weighted log-likelihood, averaged over the action's dimensions. (N, A) three times, (N,) -> (N,)."""
    return -weight.detach() * gaussian_log_prob(mean, std, action) / action.shape[-1]
