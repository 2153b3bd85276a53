"""Distributions as small free functions: one-hot categoricals, bounded Gaussians.

Randomness is always an argument: noise tensors are drawn by the caller from its own ``torch.Generator``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


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
