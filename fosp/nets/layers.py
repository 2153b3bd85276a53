"""Multi-layer perceptrons, ensembles of them, and copies that learn slowly or not at all."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fosp.nets import perceptron
from fosp.nets.features import Features, product

M = TypeVar("M", bound=nn.Module)


class MLP(nn.Module):
    """Linear -> LayerNorm -> SiLU, ``layers`` times, then a linear output. (..., inputs) -> (..., outputs).

    ``out_scale`` shrinks the initial output weights; 0 starts at a constant output, which keeps a fresh reward or value
    head from misleading whoever reads it.
    """

    def __init__(self, inputs: int, outputs: int, units: int, layers: int, out_scale: float = 1.0) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for i in range(layers):
            linear = nn.Linear(inputs if i == 0 else units, units, bias=False)
            blocks += [linear, nn.LayerNorm(units, eps=1e-3), nn.SiLU()]
        self.hidden = nn.Sequential(*blocks)
        self.out = nn.Linear(units if layers else inputs, outputs)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=1.0 / math.sqrt(module.in_features))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.out.weight.mul_(out_scale)

    def layers(self, constant: bool) -> perceptron.Layers:
        """The weights; ``constant``: to which no gradient leads."""
        hidden: list[Any] = list(self.hidden)
        linears, norms = [*hidden[::3], self.out], hidden[1::3]
        parts = ([x.weight for x in linears], [x.weight for x in norms], [x.bias for x in norms], [self.out.bias])
        weights, gains, offsets, (bias,) = ([p.detach() if constant else p for p in part] for part in parts)
        return perceptron.Layers(weights, gains, offsets, bias)

    def forward(self, x: Tensor | Features, constant: bool = False) -> Tensor:
        """``constant``: gradients reach ``x``, never the weights."""
        x = Features.of(x)
        if len(self.hidden) and perceptron.runs_by_hand(x.values, self.out.weight):
            return perceptron.run(x, self.layers(constant))
        if constant:
            return functional_call(self, {k: v.detach() for k, v in self.named_parameters()}, (x,))
        if x.ones is None or not len(self.hidden):
            return self.out(self.hidden(x.values))
        y = product(x, self.hidden[0].weight.t())  # pyright: ignore
        return self.out(self.hidden[1:](y))


class EnsembleMLP(nn.Module):
    """M independent perceptrons evaluated as one batched product. (N, inputs) -> (M, N, outputs)."""

    def __init__(
        self, members: int, inputs: int, outputs: int, units: int, layers: int, out_scale: float = 0.0
    ) -> None:
        super().__init__()
        sizes = [inputs] + [units] * layers
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(members, i, o)) for i, o in zip(sizes, sizes[1:] + [outputs], strict=True)
        )
        self.gains = nn.ParameterList(nn.Parameter(torch.ones(members, 1, units)) for _ in range(layers))
        self.offsets = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, units)) for _ in range(layers))
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))
        with torch.no_grad():
            for weight in self.weights:
                nn.init.trunc_normal_(weight, std=1.0 / math.sqrt(weight.shape[1]))
            self.weights[-1].mul_(out_scale)

    def forward(self, x: Tensor | Features, constant: bool = False) -> Tensor:
        """``constant``: gradients reach ``x``, never the weights."""
        weights, gains, offsets, (bias,) = (
            [p.detach() if constant else p for p in part]
            for part in (self.weights, self.gains, self.offsets, (self.bias,))
        )
        if len(gains) and perceptron.runs_by_hand(Features.of(x).values, self.bias):
            return perceptron.run(Features.of(x), perceptron.Layers(weights, gains, offsets, bias))
        # All members read the same input: their first layers are one matrix product.
        first = weights[0]  # (M, inputs, units)
        y = product(x, first.transpose(0, 1).flatten(1)).unflatten(-1, (first.shape[0], -1))
        y = y.transpose(0, 1)  # (M, N, units)
        for weight, gain, offset in zip(weights[1:], gains, offsets, strict=True):
            y = nn.functional.layer_norm(y, y.shape[-1:], eps=1e-3)
            y = torch.addcmul(offset.to(y.dtype), y, gain.to(y.dtype))
            y = torch.bmm(nn.functional.silu(y), weight)  # (M, N, units), in the end (M, N, outputs)
        return y + bias


class GRUCell(nn.Module):
    """Gated recurrent unit with layer norm on the gates, as in the Dreamer family (arXiv 2301.04104).

    (N, inputs), (N, D) -> (N, D). The update gate starts near closed (bias -1), so that fresh memory persists.
    """

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.gates = nn.Linear(inputs + size, 3 * size, bias=False)
        self.norm = nn.LayerNorm(3 * size, eps=1e-3)
        nn.init.trunc_normal_(self.gates.weight, std=1.0 / math.sqrt(inputs + size))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        gates = self.norm(self.gates(torch.cat([x, h.to(x.dtype)], -1)))  # (N, 3D)
        reset, candidate, update = gates.float().chunk(3, -1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        update = torch.sigmoid(update - 1.0)
        return update * candidate + (1.0 - update) * h


def frozen_copy(module: M) -> M:
    """An independent copy that no optimiser and no gradient changes."""
    twin = copy.deepcopy(module)
    twin.requires_grad_(False)
    return twin.eval()


@contextmanager
def constant(module: nn.Module) -> Iterator[None]:
    """What is computed inside takes the weights of ``module`` as constants: gradients pass through, none reach them."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, fraction: float) -> None:
    """Move a slow copy towards its original: slow <- (1 - fraction) slow + fraction fast."""
    torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), fraction)  # pyright: ignore
