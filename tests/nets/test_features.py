"""Products with one-hot columns as sums of rows: the numbers and the gradients of the dense product."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from builders import MODEL, agent, generator
from torch import Tensor

from fosp.nets.features import Features, product
from fosp.nets.layers import MLP, EnsembleMLP
from fosp.world_model import Latent

DENSE, GROUPS, CLASSES, EXTRA = 5, 3, 4, 2
F = DENSE + GROUPS * CLASSES


def states(*shape: int, dtype: torch.dtype = torch.float64) -> Features:
    """Random states (..., F) with where their ones are."""
    draw = generator()
    index = torch.randint(CLASSES, (*shape, GROUPS), generator=draw)
    z = torch.nn.functional.one_hot(index, CLASSES).flatten(-2).to(dtype)
    h = torch.randn(*shape, DENSE, generator=draw, dtype=dtype)
    return Features(torch.cat([h, z], -1), index + DENSE + CLASSES * torch.arange(GROUPS), DENSE)


def gradients(y: Tensor, of: Sequence[Tensor]) -> list[Tensor]:
    upstream = torch.randn(y.shape, dtype=y.dtype, generator=generator(1))
    return list(torch.autograd.grad(y, of, upstream))


@pytest.mark.parametrize("with_extra", [False, True])
@pytest.mark.parametrize("by_column", [False, True])
def test_a_sum_of_rows_has_the_value_and_the_gradients_of_the_product(with_extra: bool, by_column: bool) -> None:
    x = states(2, 6)
    x = x._replace(values=x.values.requires_grad_())
    extra = torch.randn(2, 6, EXTRA, generator=generator(2), dtype=torch.float64, requires_grad=True)
    rows, draw = F + EXTRA * with_extra, generator(3)
    shape = (7, rows) if by_column else (rows, 7)
    leaf = torch.randn(*shape, generator=draw, dtype=torch.float64, requires_grad=True)
    weight = leaf.t() if by_column else leaf
    read, dense, asked = x, x.values, [x.values, leaf]
    if with_extra:
        read, dense, asked = x.joined(extra), torch.cat([x.values, extra], -1), [x.values, leaf, extra]
    summed, plain = product(read, weight), dense @ weight
    assert type(summed.grad_fn) is not type(plain.grad_fn)  # or nothing would be compared
    torch.testing.assert_close(summed, plain)
    found, expected = gradients(summed, asked), gradients(plain, asked)
    torch.testing.assert_close(found, expected)
    if not (with_extra and by_column):  # which no network here has
        assert found[1].is_contiguous()  # as the weight is, or an optimiser takes its slow way


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_perceptrons_read_both_kinds_alike(layers: int) -> None:
    x = states(9)
    net = MLP(F, 3, units=8, layers=layers).double()
    torch.testing.assert_close(net(x), net(x.values))
    torch.testing.assert_close(net(x, constant=True), net(x.values))
    torch.testing.assert_close(gradients(net(x), [*net.parameters()]), gradients(net(x.values), [*net.parameters()]))
    extra = torch.randn(9, EXTRA, generator=generator(1), dtype=torch.float64)
    twins = EnsembleMLP(2, F + EXTRA, 3, units=8, layers=max(1, layers), out_scale=1.0).double()
    plain = twins(torch.cat([x.values, extra], -1))
    torch.testing.assert_close(twins(x.joined(extra)), plain)
    weights = list(twins.parameters())
    torch.testing.assert_close(gradients(twins(x.joined(extra)), weights), gradients(plain, weights))


def test_only_what_is_asked_for_is_differentiated() -> None:
    """The score of an action differentiated by the action: nothing is computed for the state, nor for the critic."""
    x, extra = states(4), torch.zeros(4, EXTRA, dtype=torch.float64, requires_grad=True)
    twins = EnsembleMLP(2, F + EXTRA, 3, units=8, layers=1, out_scale=1.0).double()
    y = twins(x.joined(extra), constant=True)
    (found,) = gradients(y, [extra])
    assert found.abs().sum() > 0
    assert all(parameter.grad is None for parameter in twins.parameters())


def test_rows_are_chosen_alike_in_all_parts() -> None:
    x = states(3, 4)
    first, rest = (x.map(lambda part, k=k: part[k]) for k in (slice(1), slice(1, 3)))
    both = Features.cat(first, rest)
    assert torch.equal(both.values, x.values)
    assert both.ones is not None and x.ones is not None and torch.equal(both.ones, x.ones)
    assert Features.cat(first, Features(rest.values)).ones is None  # of some rows is not enough
    assert Features.of(x) is x and Features.of(x.values).ones is None


def test_in_bfloat16_it_is_rounded_as_the_product_is() -> None:
    x, weight = states(64, dtype=torch.float32), torch.randn(F, 8, generator=generator(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        summed, plain = product(x, weight), product(x.values, weight)
    assert summed.dtype == plain.dtype == torch.bfloat16
    torch.testing.assert_close(summed.float(), x.values @ weight, rtol=0.02, atol=0.05)


def test_where_the_ones_of_a_state_are() -> None:
    model = agent().model
    index = torch.randint(MODEL.classes, (2, 5, MODEL.groups), generator=generator())
    z = torch.nn.functional.one_hot(index, MODEL.classes).float()
    latents = Latent(torch.randn(2, 5, MODEL.deter, generator=generator()), z)
    found = model.features(latents)
    assert found.ones is not None and torch.equal(found.values.gather(-1, found.ones), torch.ones(2, 5, MODEL.groups))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ones = model.features(latents).ones
    assert ones is not None and torch.equal(ones, found.ones)
    z[0, 2] = 0.0  # as before the first row
    assert model.features(latents).ones is None
    model.leave_to_autograd()
    assert model.features(Latent(latents.h, torch.nn.functional.one_hot(index, MODEL.classes).float())).ones is None
