"""Numbers as two-hot categoricals, categoricals with straight-through gradients, Gaussians."""

from __future__ import annotations

import torch
from torch import distributions

from fosp.nets.distributions import (
    categorical_kl,
    gaussian_entropy,
    gaussian_log_prob,
    gumbel,
    mix_uniform,
    straight_through,
)


def test_kl_is_that_of_torch_distributions() -> None:
    draw = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 5, 3, 4, generator=draw).log_softmax(-1)  # (N, S, K) each
    expected = distributions.kl_divergence(distributions.Categorical(logits=p), distributions.Categorical(logits=q))
    torch.testing.assert_close(categorical_kl(p, q), expected.sum(-1))
    assert torch.equal(categorical_kl(p, p), torch.zeros(5))


def test_mixing_keeps_every_class_possible() -> None:
    logits = torch.tensor([[100.0, 0.0, 0.0, 0.0]])
    probabilities = mix_uniform(logits, 0.01).exp()
    torch.testing.assert_close(probabilities, torch.tensor([[0.9925, 0.0025, 0.0025, 0.0025]]))
    torch.testing.assert_close(mix_uniform(logits[:, 1:], 0.0).exp(), torch.full((1, 3), 1 / 3))


def test_gumbel_samples_have_the_frequencies_of_the_probabilities() -> None:
    probabilities = torch.tensor([0.05, 0.25, 0.7])
    shape = (20_000, 3)
    sample = straight_through(probabilities.log().expand(shape), gumbel(shape, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(sample.mean(0), probabilities, rtol=0, atol=0.015)


def test_noise_depends_on_the_generator_alone() -> None:
    first = gumbel((3, 4), torch.Generator().manual_seed(1))
    torch.manual_seed(99)
    assert torch.equal(first, gumbel((3, 4), torch.Generator().manual_seed(1)))
    assert not torch.equal(first, gumbel((3, 4), torch.Generator().manual_seed(2)))
    assert torch.isfinite(gumbel((100_000,), torch.Generator().manual_seed(0))).all()


def test_straight_through_is_one_hot_with_the_gradient_of_the_probabilities() -> None:
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 4, generator=draw, requires_grad=True)
    value = torch.randn(2, 3, 4, generator=draw)  # what each class is worth
    sample = straight_through(logits.log_softmax(-1), gumbel((2, 3, 4), draw))
    assert torch.equal(sample.detach().sort(-1).values, torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(2, 3, 4))
    (through,) = torch.autograd.grad((sample * value).sum(), logits)
    (expected,) = torch.autograd.grad((logits.softmax(-1) * value).sum(), logits)
    torch.testing.assert_close(through, expected)
    assert through.abs().max() > 0.01


def test_without_noise_the_mode_is_taken() -> None:
    log_probs = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]).log()
    assert torch.equal(straight_through(log_probs, None), torch.tensor([[0.0, 1, 0], [0, 0, 1]]))


def test_gaussians_are_those_of_torch_distributions() -> None:
    draw = torch.Generator().manual_seed(0)
    mean, x = torch.randn(2, 5, 3, generator=draw)
    std = torch.rand(5, 3, generator=draw) + 0.1
    expected = distributions.Independent(distributions.Normal(mean, std), 1)
    torch.testing.assert_close(gaussian_log_prob(mean, std, x), expected.log_prob(x))
    torch.testing.assert_close(gaussian_entropy(std), expected.entropy())
