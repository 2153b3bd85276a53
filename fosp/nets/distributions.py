"""Distributions as small free functions: symlog two-hot numbers, one-hot categoricals, bounded Gaussians.

Randomness is always an argument: noise tensors are drawn by the caller from its own ``torch.Generator``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|), the squashing of arXiv 2301.04104, eq. 1."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Inverse of symlog."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


class TwoHot(nn.Module):
    """Numbers as categorical distributions over bins that are spaced as symexp(-limit .. limit) (arXiv 2301.04104).

    The expectation is taken over the bins themselves, not in symlog space: only so is it unbiased for targets that are
    uncertain (a cost of 100 with chance 0.1 is 10, not 0.6), and only so does a weighted cross-entropy have the
    weighted mean as its minimum, which expectile regression needs.
    """

    bins: Tensor

    def __init__(self, count: int, limit: float = 8.0) -> None:
        super().__init__()
        if count % 2 == 0:
            raise ValueError(f"count is {count}; it must be odd so that zero is a bin")
        self.limit, self.count = limit, count
        self.register_buffer("bins", symexp(torch.linspace(-limit, limit, count)), persistent=False)

    def mean(self, logits: Tensor) -> Tensor:
        """(..., bins) -> (...), float32. Bins of opposite sign are paired so that a uniform one is exactly 0."""
        weighted = torch.softmax(logits.float(), -1) * self.bins
        half = self.count // 2
        return (weighted[..., :half].flip(-1) + weighted[..., half + 1 :]).sum(-1)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy with the two bins that bracket the target. (..., bins), (...) -> (...)."""
        target = target.float()
        low = ((symlog(target) + self.limit) * ((self.count - 1) / (2 * self.limit))).floor().long()
        low = low.clamp(0, self.count - 2)
        low_bin, high_bin = self.bins[low], self.bins[low + 1]
        share = ((target - low_bin) / (high_bin - low_bin)).clamp(0, 1)  # of the upper bin
        log_p = torch.log_softmax(logits.float(), -1)
        log_low = log_p.gather(-1, low.unsqueeze(-1)).squeeze(-1)
        log_high = log_p.gather(-1, low.unsqueeze(-1) + 1).squeeze(-1)
        return -((1 - share) * log_low + share * log_high)


def mix_uniform(logits: Tensor, share: float) -> Tensor:
    """Log-probabilities of the categorical mixed with a uniform one; keeps every KL finite. (..., K) -> (..., K)."""
    probs = torch.softmax(logits.float(), -1)
    return torch.log((1 - share) * probs + share / logits.shape[-1])


def gumbel(shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """Standard Gumbel noise, for sampling categoricals by arg-max."""
    uniform = torch.rand(shape, generator=generator, device=device).clamp_(1e-10, 1.0 - 1e-7)
    return uniform.log_().neg_().log_().neg_()


def straight_through(log_probs: Tensor, noise: Tensor | None) -> Tensor:
    """One-hot sample (the mode where ``noise`` is None) whose gradient is that of the probabilities. (..., K)."""
    scores = log_probs if noise is None else log_probs + noise
    sample = nn.functional.one_hot(scores.argmax(-1), log_probs.shape[-1]).to(log_probs.dtype)
    if not log_probs.requires_grad:
        return sample
    probs = log_probs.exp()
    return sample + (probs - probs.detach())  # in this order the value stays one-hot to the bit


def categorical_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL[p || q] summed over the groups. (..., S, K) -> (...)."""
    return (log_p.exp() * (log_p - log_q)).sum((-1, -2))


def gaussian_log_prob(mean: Tensor, std: Tensor, x: Tensor) -> Tensor:
    """Log-density of independent Gaussians, summed over the action. (..., A) -> (...)."""
    return (-0.5 * ((x - mean) / std) ** 2 - torch.log(std) - 0.5 * math.log(2 * math.pi)).sum(-1)


def gaussian_entropy(std: Tensor) -> Tensor:
    """Differential entropy of independent Gaussians. (..., A) -> (...)."""
    return (torch.log(std) + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)
