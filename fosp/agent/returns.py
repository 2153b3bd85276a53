"""Targets as free functions. Each docstring is the equation with time indices; each test a number found by hand."""

from __future__ import annotations

import torch
from torch import Tensor


def in_sample_target(
    signal: Tensor, value: Tensor, is_first: Tensor, is_terminal: Tensor, gamma: float
) -> tuple[Tensor, Tensor]:
    """One-step target of the pair (s_t, a_t) of the log.

    y_t = x_{t+1} + gamma (1 - is_terminal_{t+1}) V(s_{t+1}),   t = 0 .. T-2, x the reward or the cost

    signal, value, is_first, is_terminal (B, T) -> y (B, T-1) and a mask (B, T-1), 0 where row t+1 begins another
    episode and the pair therefore has no successor.
    """
    going_on = 1.0 - is_terminal[:, 1:].float()
    return signal[:, 1:] + gamma * going_on * value[:, 1:], 1.0 - is_first[:, 1:].float()


def lambda_return(signal: Tensor, value: Tensor, proceed: Tensor, gamma: float, lam: float) -> Tensor:
    """Lambda-return of the imagined pair (s_k, a_k) (Sutton & Barto 2018, eq. 12.19).

    R_k = x_{k+1} + gamma c_{k+1} [(1 - lam) V(s_{k+1}) + lam R_{k+1}],  k = 0 .. H-1,  R_H = V(s_H)

    signal, value, proceed (H + 1, ...) belong to states 0 .. H -> (H, ...).
    """
    going_on = gamma * proceed[1:]
    first, share = signal[1:] + (1 - lam) * going_on * value[1:], lam * going_on  # R_k = first_k + share_k R_{k+1}
    returns = [value[-1]]
    for k in reversed(range(len(value) - 1)):
        returns.append(torch.addcmul(first[k], share[k], returns[-1]))
    return torch.stack(returns[:0:-1])


def reachability_target(
    violated: Tensor, probability: Tensor, is_last: Tensor, is_terminal: Tensor, gamma: float, lam: float
) -> Tensor:
    """Discounted probability that the state, or one after it, is in violation.

    P_t = max(l_t, gamma [(1 - lam) p(s_{t+1}) + lam P_{t+1}]),  with the bootstrap max(l_t, p(s_t)) in the last row of
    the sequence or of an episode that was cut by its time limit, and P_t = l_t in a terminal row.

    All (..., T) along the last axis -> (..., T). Nothing crosses a row with is_last.
    """
    ahead = torch.cat([probability[..., 1:], probability[..., -1:]], -1)  # of row t+1
    cut = is_last.bool().clone()
    cut[..., -1] = True
    # P_t = max(l_t, first_t + share_t P_{t+1})
    first = torch.where(cut, probability, gamma * (1 - lam) * ahead).masked_fill(is_terminal.bool(), 0.0)
    share = gamma * lam * (~(cut | is_terminal.bool())).float()
    targets = [torch.zeros_like(first[..., 0])]
    for t in reversed(range(violated.shape[-1])):
        targets.append(torch.maximum(violated[..., t], torch.addcmul(first[..., t], share[..., t], targets[-1])))
    return torch.stack(targets[:0:-1], -1)


def expectile_weight(difference: Tensor, level: float) -> Tensor:
    """|level - 1{difference < 0}|, the weight of asymmetric least squares.

    Newey & Powell 1987; implicit Q-learning, arXiv 2110.06169, equation 5.
    With difference = Q - V, level > 0.5 draws V to the upper expectile, level < 0.5 to the lower one.
    """
    return torch.where(difference < 0, 1.0 - level, level)
