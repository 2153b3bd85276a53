"""Numbers as two-hot categoricals, categoricals with straight-through gradients, Gaussians."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, distributions

from fosp.nets.distributions import (
    TwoHot,
    categorical_kl,
    gaussian_entropy,
    gaussian_log_prob,
    gumbel,
    mix_uniform,
    straight_through,
    symexp,
    symlog,
)


def encode(head: TwoHot, target: Tensor) -> Tensor:
    """The two-hot vector of each target: the gradient of a cross-entropy is softmax minus target. (N,) -> (N, bins)."""
    logits = torch.zeros(len(target), head.count, requires_grad=True)
    (gradient,) = torch.autograd.grad(head.loss(logits, target).sum(), logits)
    return (torch.softmax(logits.detach(), -1) - gradient).clamp(min=1e-12)  # rounding leaves a trace of either sign


def test_symlog_and_symexp_by_hand() -> None:
    x = torch.tensor([-(math.e - 1), 0.0, math.e**2 - 1])
    torch.testing.assert_close(symlog(x), torch.tensor([-1.0, 0.0, 2.0]))
    many = torch.linspace(-500, 500, 101)
    torch.testing.assert_close(symexp(symlog(many)), many, rtol=1e-5, atol=1e-5)


def test_twohot_loss_by_hand() -> None:
    head = TwoHot(3, limit=math.log(2))  # bins -1, 0, 1
    torch.testing.assert_close(head.bins, torch.tensor([-1.0, 0.0, 1.0]))
    probabilities = torch.tensor([[0.2, 0.5, 0.3]])
    loss = head.loss(probabilities.log(), torch.tensor([0.25]))
    assert loss.item() == pytest.approx(-(0.75 * math.log(0.5) + 0.25 * math.log(0.3)), abs=1e-6)
    assert head.loss(probabilities.log(), torch.tensor([-1.0])).item() == pytest.approx(-math.log(0.2), abs=1e-6)


def test_twohot_of_a_number_has_that_number_as_its_mean() -> None:
    head = TwoHot(41)
    targets = torch.cat([torch.linspace(-2900, 2900, 37), torch.linspace(-2, 2, 41), head.bins])
    code = encode(head, targets)
    torch.testing.assert_close(code.sum(-1), torch.ones(len(targets)))
    assert (code > 1e-6).sum(-1).max() <= 2
    torch.testing.assert_close(head.mean(torch.log(code)), targets, rtol=1e-4, atol=2e-3)


def test_the_minimum_of_the_twohot_loss_is_the_mean_of_uncertain_targets() -> None:
    # A cost of 100 with chance 0.1: the minimiser over all distributions is the mean two-hot vector, and it says 10.
    head = TwoHot(41)
    targets = torch.tensor([100.0] + [0.0] * 9)
    best = encode(head, targets).mean(0)
    assert head.mean(torch.log(best)).item() == pytest.approx(10.0, abs=1e-2)
    logits = torch.log(best).requires_grad_()
    (gradient,) = torch.autograd.grad(head.loss(logits.expand(10, -1), targets).mean(), logits)
    assert gradient.abs().max() < 1e-4  # and it is a minimum


def test_twohot_of_equal_logits_is_exactly_zero() -> None:
    head = TwoHot(127)
    assert torch.equal(head.mean(torch.full((3, 127), 0.7)), torch.zeros(3))


def test_twohot_clamps_what_lies_outside_its_bins() -> None:
    head = TwoHot(41)
    code = encode(head, torch.tensor([1e9, -1e9]))
    assert code[0, -1].item() == pytest.approx(1) and code[1, 0].item() == pytest.approx(1)


def test_twohot_needs_a_bin_at_zero() -> None:
    with pytest.raises(ValueError, match="40.*odd"):
        TwoHot(40)


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
