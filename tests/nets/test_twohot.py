"""Numbers as two-hot categoricals, step by step and row by row."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fosp.nets import native
from fosp.nets.twohot import MOST, TwoHot, library, symexp, symlog


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


@pytest.mark.skipif(native.compiler() is None, reason="no C compiler")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bins", [3, 41, 127, 255])
def test_row_by_row_it_is_the_same_mean_and_loss(bins: int, kind: torch.dtype, threads: int) -> None:
    assert library() is not None
    head, draw = TwoHot(bins), torch.Generator().manual_seed(0)
    data = (3 * torch.randn(2, 150, bins, generator=draw)).to(kind)
    data[0, 0] = 0.7  # a uniform one
    data[0, 1, :] = -90.0
    data[0, 1, 1] = 90.0  # a certain one
    target = 10 * torch.randn(150, generator=draw)
    target[:4] = torch.tensor([0.0, 1e9, -1e9, head.bins[-2].item()])
    weight, before = torch.randn(2, 2, 150, generator=draw), torch.get_num_threads()
    found = []
    torch.set_num_threads(threads)
    try:
        for by_rows in (False, True):
            logits = data.clone().requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=by_rows):
                mean, loss = head.mean(logits), head.loss(logits, target.expand(2, -1))
            gradients = [
                torch.autograd.grad((w * x).sum(), logits)[0] for w, x in zip(weight, (mean, loss), strict=True)
            ]
            assert all(gradient.dtype == kind for gradient in gradients)
            found.append([mean, loss, *gradients])
    finally:
        torch.set_num_threads(before)
    assert found[1][0][0, 0] == 0 and type(found[1][0].grad_fn) is not type(found[0][0].grad_fn)
    for plain, written in zip(*found, strict=True):
        rounding = 2e-5 if plain.dtype == torch.float32 else 2**-7
        torch.testing.assert_close(written, plain, rtol=rounding, atol=rounding * plain.abs().max().item() / 10)


@pytest.mark.skipif(native.compiler() is None, reason="no C compiler")
def test_row_by_row_what_is_not_a_number_stays_so() -> None:
    head = TwoHot(41)
    logits = torch.zeros(3, 41)
    logits[1, 7] = float("nan")
    logits.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        mean, loss = head.mean(logits), head.loss(logits, torch.tensor([0.0, 0.0, float("nan")]))
    assert mean.isfinite().tolist() == [True, False, True] and loss.isfinite().tolist() == [True, False, False]
    (gradient,) = torch.autograd.grad((mean + loss).sum(), logits)
    assert gradient.isfinite().all(-1).tolist() == [True, False, False]


def test_no_rows_and_more_bins_than_are_read_row_by_row() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert TwoHot(41).mean(torch.zeros(0, 41)).shape == (0,)
        assert torch.equal(TwoHot(MOST + 1).mean(torch.zeros(2, MOST + 1)), torch.zeros(2))
