"""Perceptrons by hand: the numbers and the gradients of the layers one by one, as near as bfloat16 comes to them."""

from __future__ import annotations

import pytest
import torch
from builders import generator, stir
from torch import Tensor, nn

from fosp.nets import native
from fosp.nets.features import Features
from fosp.nets.layers import MLP, EnsembleMLP
from fosp.nets.perceptron import library
from fosp.world_model.vision import ImageNorm, Stages

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="no C compiler")

DENSE, GROUPS, CLASSES, EXTRA = 5, 3, 4, 2
F = DENSE + GROUPS * CLASSES


def states(rows: int) -> Features:
    index = torch.randint(CLASSES, (rows, GROUPS), generator=generator())
    z = nn.functional.one_hot(index, CLASSES).flatten(-2).float()
    h = torch.randn(rows, DENSE, generator=generator(1))
    return Features(torch.cat([h, z], -1), index + DENSE + CLASSES * torch.arange(GROUPS), DENSE)


def computed(net: nn.Module, x: Features, extra: Tensor | None, how: str) -> list[Tensor]:
    """The output and its gradients: of the input, of the extra columns, of every weight."""
    values = x.values.clone().requires_grad_()
    asked = [values]
    read = x._replace(values=values) if how == "by hand, ones known" else Features(values)
    if extra is not None:
        asked.append(extra.clone().requires_grad_())
        read = read.joined(asked[1])
    with torch.autocast("cpu", torch.bfloat16, enabled=how != "exact"):
        y = net(read)
    if how.startswith("by hand"):
        assert "Perceptron" in str(y.grad_fn) or "View" in str(y.grad_fn)
    upstream = torch.randn(y.shape, generator=generator(2))
    return [y, *torch.autograd.grad((y.float() * upstream).sum(), [*asked, *net.parameters()])]


def off(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    """How far each tensor is off, as a share of its size."""
    pairs = zip(found, exact, strict=True)
    return [((x.detach().float() - y.detach()).norm() / y.detach().norm()).item() for x, y in pairs]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", ["one", "one and more columns", "several", "several and more columns"])
def test_by_hand_it_is_as_near_to_the_exact_numbers_as_pytorch(kind: str, layers: int, threads: int) -> None:
    assert library() is not None
    extra = torch.randn(601, EXTRA, generator=generator(3)) if "more" in kind else None
    inputs = F + EXTRA * (extra is not None)
    net = EnsembleMLP(2, inputs, 7, 40, layers) if "several" in kind else MLP(inputs, 7, 40, layers)
    stir(net)
    x, before = states(601), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        exact = computed(net, x, extra, "exact")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fosp.nets.perceptron.library", lambda: None)
            expected = off(computed(net, x, extra, "plain"), exact)
        for how in ("by hand", "by hand, ones known"):
            found = computed(net, x, extra, how)
            for by_hand, plain in zip(off(found, exact), expected, strict=True):
                assert by_hand <= 1.2 * plain + 2e-3
    finally:
        torch.set_num_threads(before)
    assert 0 < max(expected) < 0.05


def test_by_hand_only_what_is_asked_for_is_differentiated() -> None:
    """The score of an action differentiated by the action: nothing is computed for the state, nor for the critic."""
    extra = torch.zeros(6, EXTRA, requires_grad=True)
    net = EnsembleMLP(2, F + EXTRA, 3, units=8, layers=1, out_scale=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        y = net(states(6).joined(extra), constant=True)
        assert net(states(0).joined(extra[:0])).shape == (2, 0, 3)
        assert MLP(F, 3, units=8, layers=1)(states(0)).shape == (0, 3)
        doubled = MLP(F, 3, units=8, layers=1).double()  # which autocast leaves alone
        assert doubled(Features(states(4).values.double())).dtype == torch.float64
    (found,) = torch.autograd.grad(y.float().sum(), [extra])
    assert found.dtype == torch.float32 and found.abs().sum() > 0
    assert all(parameter.grad is None for parameter in net.parameters())


def test_by_hand_constants_in_bfloat16_with_leading_dimensions_give_the_same_gradients() -> None:
    """As critics and policy read dreams: nothing but the weights is differentiated; and nothing but the states."""
    net, x = MLP(F, 3, units=40, layers=2), states(60)
    stir(net)
    upstream = torch.randn(60, 3, generator=generator(2))
    folded = Features(x.values.view(4, 15, F), x.ones.view(4, 15, GROUPS), DENSE)  # pyright: ignore
    with torch.autocast("cpu", torch.bfloat16):
        y, rounded = net(x), net(folded.rounded())
        found = torch.autograd.grad((rounded.float() * upstream.view(4, 15, 3)).sum(), list(net.parameters()))
    assert rounded.shape == (4, 15, 3) and torch.equal(rounded.view(60, 3), y)
    expected = torch.autograd.grad((y.float() * upstream).sum(), list(net.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    values = x.values.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        free, fixed = net(Features(values)), net(Features(values), constant=True)
    gradients = [torch.autograd.grad((y.float() * upstream).sum(), values)[0] for y in (free, fixed)]
    assert torch.equal(*gradients)
    with torch.autocast("cpu", torch.bfloat16):
        (once,) = torch.autograd.grad(net(Features(values)).float().square().sum(), values, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):  # rather than a second gradient without this part
        once.sum().backward()


def test_by_hand_what_is_not_a_number_stays_so() -> None:
    net, x = MLP(F, 3, units=8, layers=2), states(4)
    x.values[2, 1] = float("nan")
    with torch.autocast("cpu", torch.bfloat16):
        y = net(x)
    assert y.isfinite().all(-1).tolist() == [True, True, False, True]
    (gradient,) = torch.autograd.grad(y.float().sum(), [net.out.weight])
    assert not gradient.isfinite().all()


def test_the_norms_of_images_by_hand_are_as_near_to_the_exact_numbers_as_pytorch() -> None:
    stages = Stages(ImageNorm(8, 16), nn.SiLU(), nn.Conv2d(8, 5, 3), ImageNorm(5, 14), nn.SiLU())
    stages.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stir(stages)
    images = torch.randn(9, 16, 16, 8, generator=generator()).permute(0, 3, 1, 2)

    def found(half: bool) -> list[Tensor]:
        x = images.clone(memory_format=torch.channels_last).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = stages(x)
        upstream = torch.randn(y.shape, generator=generator(2))
        return [y, *torch.autograd.grad((y.float() * upstream).sum(), [x, *stages.parameters()])]

    exact, by_hand = found(False), off(found(True), found(False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fosp.nets.perceptron.library", lambda: None)
        plain = off(found(True), exact)
    assert by_hand != plain and 0 < max(plain) < 0.05
    assert all(one <= 1.2 * other + 2e-3 for one, other in zip(by_hand, plain, strict=True))
