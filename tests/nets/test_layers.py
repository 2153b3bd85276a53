"""Perceptrons, ensembles, the recurrent cell, copies, and the running range."""

from __future__ import annotations

import copy

import pytest
import torch
from builders import copied, same, stir
from torch import nn

from fosp.nets.layers import MLP, EnsembleMLP, GRUCell, constant, follow, frozen_copy
from fosp.nets.statistics import RunningRange


def test_a_perceptron_with_zero_output_scale_starts_constant() -> None:
    net = MLP(3, 2, units=8, layers=2, out_scale=0.0)
    assert torch.equal(net(torch.randn(5, 3)), torch.zeros(5, 2))


@pytest.mark.parametrize("layers", [1, 2])
def test_each_member_of_an_ensemble_is_a_perceptron_of_its_own(layers: int) -> None:
    ensemble = EnsembleMLP(2, inputs=3, outputs=4, units=8, layers=layers)
    stir(ensemble)
    x = torch.randn(5, 3)
    together = ensemble(x)
    assert together.shape == (2, 5, 4)
    for member in range(2):
        y = x @ ensemble.weights[0][member]
        for weight, gain, offset in zip(list(ensemble.weights)[1:], ensemble.gains, ensemble.offsets, strict=True):
            y = nn.functional.layer_norm(y, (8,), gain[member, 0], offset[member, 0], eps=1e-3)
            y = nn.functional.silu(y) @ weight[member]
        torch.testing.assert_close(together[member], y + ensemble.bias[member])
    assert (together[0] - together[1]).abs().max() > 0.1


def test_members_of_an_ensemble_start_different_inside_and_equal_outside() -> None:
    ensemble = EnsembleMLP(2, inputs=3, outputs=4, units=8, layers=1)
    assert torch.equal(ensemble(torch.randn(5, 3)), torch.zeros(2, 5, 4))
    assert not torch.equal(ensemble.weights[0][0], ensemble.weights[0][1])


def test_recurrent_cell_by_hand() -> None:
    cell = GRUCell(3, 2)
    nn.init.zeros_(cell.gates.weight)  # reset 0.5, candidate 0, update sigmoid(0 - 1)
    h = torch.tensor([[1.0, -2.0]])
    update = 1 / (1 + torch.e)
    torch.testing.assert_close(cell(torch.randn(1, 3), h), (1 - update) * h)


def test_recurrent_cell_with_gates_by_hand() -> None:
    cell = GRUCell(1, 1)
    with torch.no_grad():
        cell.norm.weight.zero_()
        cell.norm.bias.copy_(torch.tensor([0.0, 3.0, 1.0]))  # reset, candidate, update before their squashings
    update = torch.sigmoid(torch.tensor(0.0))
    expected = update * torch.tanh(torch.tensor(0.5 * 3.0)) + (1 - update) * 0.25
    torch.testing.assert_close(cell(torch.zeros(1, 1), torch.tensor([[0.25]])), expected.view(1, 1))


def test_a_frozen_copy_is_independent_and_in_no_gradient() -> None:
    net = MLP(3, 2, units=4, layers=1)
    twin = frozen_copy(net)
    before = copied(twin.state_dict())
    assert not any(p.requires_grad for p in twin.parameters())
    assert all(p.requires_grad for p in net.parameters())
    stir(net)
    assert same(twin.state_dict(), before)
    assert not same(net.state_dict(), before)


def test_calling_frozen_lets_gradients_reach_inputs_and_no_weight() -> None:
    net = MLP(3, 2, units=4, layers=1)
    x = torch.randn(5, 3, requires_grad=True)
    out = net(x, constant=True)
    torch.testing.assert_close(out, net(x))
    gradients = torch.autograd.grad(out.square().sum(), [x, *net.parameters()], allow_unused=True)
    assert gradients[0].abs().max() > 0
    assert all(gradient is None for gradient in gradients[1:])
    assert all(p.requires_grad for p in net.parameters())


def test_inside_constant_weights_are_constants_and_gradients_pass() -> None:
    net, other = MLP(3, 2, units=4, layers=1), MLP(2, 3, units=4, layers=1)
    net.out.bias.requires_grad_(False)  # was a constant before
    with pytest.raises(ZeroDivisionError), constant(net):
        raise ZeroDivisionError
    with constant(net):
        out = net(other(torch.randn(5, 2))).square().sum()
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["out.bias"]
    trained = [p for p in net.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(out, [*other.parameters(), *trained], allow_unused=True)
    count = len(list(other.parameters()))
    assert all(gradient is not None for gradient in gradients[:count])
    assert all(gradient is None for gradient in gradients[count:])


def test_following_moves_by_the_fraction() -> None:
    slow, fast = nn.Linear(2, 1), nn.Linear(2, 1)
    with torch.no_grad():
        for p in slow.parameters():
            p.fill_(1.0)
        for p in fast.parameters():
            p.fill_(3.0)
    before = copy.deepcopy(fast.state_dict())
    follow(slow, fast, 0.25)
    assert all(torch.equal(p, torch.full_like(p, 1.5)) for p in slow.parameters())
    assert same(fast.state_dict(), before)


def test_running_range_is_of_the_5_to_95_percentiles() -> None:
    seen = RunningRange(rate=0.1)
    numbers = torch.arange(101.0)
    seen.update(numbers)  # the first range is taken whole
    assert seen.span.item() == pytest.approx(90)
    seen.update(2 * numbers)
    assert seen.span.item() == pytest.approx(0.9 * 90 + 0.1 * 180)
    torch.testing.assert_close(seen(torch.tensor([99.0])), torch.tensor([1.0]))


def test_running_range_has_a_floor_and_does_not_shift() -> None:
    seen = RunningRange(floor=0.01)
    seen.update(torch.full((10,), 5.0))
    assert seen.span.item() == 0
    torch.testing.assert_close(seen(torch.tensor([0.0, 0.02])), torch.tensor([0.0, 2.0]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_running_range_survives_numbers_that_are_not_finite(bad: float) -> None:
    # One batch with a broken number must not spoil every weight and every choice from then on.
    seen = RunningRange()
    seen.update(torch.arange(101.0))
    seen.update(torch.full((101,), bad))
    assert seen.span.item() == pytest.approx(90)


def test_running_range_starts_with_the_first_finite_numbers() -> None:
    seen = RunningRange()
    seen.update(torch.full((5,), float("nan")))
    seen.update(torch.arange(101.0))
    assert seen.span.item() == pytest.approx(90)
