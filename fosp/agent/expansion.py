"""Safe policy expansion: the frozen offline policy and the one that is being trained propose, the critics choose."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ExpansionConfig:
    alpha: float = 0.1  # temperature of the choice between candidates while exploring
    kappa: float = 1.0  # weight of the cost advantage in a candidate's score
    infeasible_above: float = 0.5  # violation probability from which on only the cost decides
    samples: int = 0  # further candidates that each policy draws besides its mean
    lookahead: int = 0  # steps that a candidate is tried in the model before the critics judge where it leads
    hold: int = 1  # the first so many of these repeat the candidate; the trained policy chooses the rest


def candidate_scores(
    reward_advantage: Tensor, cost_advantage: Tensor, violation_probability: Tensor, config: ExpansionConfig
) -> Tensor:
    """Scores of K candidates in each of N states; higher is better.

    A^r / S_r - kappa A^c / S_c where the state is feasible, -A^c / S_c where it is not: there the lower Q^c wins.
    Advantages (N, K), divided by their ranges; violation probability (N,) -> (N, K). Rows do not see one another. A
    candidate of which a critic says nothing finite scores -inf, so that any other goes before it.
    """
    feasible = (violation_probability <= config.infeasible_above).unsqueeze(-1)
    scores = torch.where(feasible, reward_advantage - config.kappa * cost_advantage, -cost_advantage)
    known = reward_advantage.isfinite() & cost_advantage.isfinite()
    return scores.masked_fill(~known, -torch.inf)


def choice_probabilities(scores: Tensor, alpha: float) -> Tensor:
    """softmax(score / alpha) over the candidates. (N, K) -> (N, K)."""
    return torch.softmax(scores / alpha, -1)


def choose(scores: Tensor, alpha: float, uniform: Tensor | None) -> Tensor:
    """(N, K) -> (N,), index of the executed candidate: the best, or drawn by softmax.

    ``uniform`` (N,) in [0, 1) are the draws, one for each row, so that no row's choice depends on how many there are.
    """
    if uniform is None:
        return scores.argmax(-1)
    below = choice_probabilities(scores, alpha).cumsum(-1) <= uniform.unsqueeze(-1)
    return below.sum(-1).clamp(max=scores.shape[-1] - 1)  # rounded sums may end below 1
