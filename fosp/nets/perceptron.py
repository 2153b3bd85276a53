"""Perceptrons on a processor, in bfloat16, with their gradient: products by PyTorch, what lies between in one pass.

The numbers are those of ``MLP`` and ``EnsembleMLP`` up to rounding (the output of several is bfloat16, as that of one).
Between two products PyTorch reads and writes all rows three times, for norm, gain and SiLU, and keeps a record of each;
here they are read once: ``perceptron.c``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fosp.nets import native
from fosp.nets.features import Features, sum_of_rows, table_gradient

HALF = torch.bfloat16


class _Arguments(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("members", "rows", "units", "threads", "row_step", "member_step")),
        *(
            (name, ctypes.c_void_p)
            for name in ("x", "gain", "offset", "y", "moments", "d_y", "d_x", "d_gain", "d_offset")
        ),
    ]


def library() -> ctypes.CDLL | None:
    """What the C beside this gives, or None where it cannot be compiled."""
    return native.beside(__file__)


def runs_by_hand(x: Tensor, weight: Tensor) -> bool:
    """Whether this can be done here: on a processor under autocast, with nothing left to a compiler."""
    if not x.is_cpu or not native.rounds() or torch.compiler.is_compiling():
        return False
    if x.dtype not in (torch.float32, HALF) or weight.dtype != torch.float32:
        return False
    return library() is not None


class Layers(NamedTuple):
    """Weights of one perceptron, (outputs, inputs) as in ``nn.Linear``, or of several, (M, inputs, outputs)."""

    weights: Sequence[Tensor]  # one more than there are norms
    gains: Sequence[Tensor]  # (units,) or (M, 1, units)
    offsets: Sequence[Tensor]
    bias: Tensor  # (outputs,) or (M, 1, outputs)


def run(x: Features, layers: Layers) -> Tensor:
    """(..., F) -> (..., outputs) of one, (N, F) -> (M, N, outputs) of several."""
    extra = None if x.extra is None else x.extra.flatten(0, -2)
    ones = None if x.ones is None else x.ones.flatten(0, -2)
    y = Perceptron.apply(
        x.values.flatten(0, -2), ones, x.dense, extra, len(layers.gains),
        *layers.weights, *layers.gains, *layers.offsets, layers.bias,
    )  # fmt: skip
    return y if layers.bias.dim() > 1 else y.view(*x.values.shape[:-1], y.shape[-1])


def _call(function: str, members: int, x: Tensor, **tensors: Tensor | None) -> None:
    """x (N, M units) or (M, N, units)."""
    flat = x.dim() == 2
    rows, units = (len(x), x.shape[1] // members) if flat else x.shape[1:]
    steps = (members * units, units) if flat else (units, rows * units)
    arguments = _Arguments(
        members, rows, units, torch.get_num_threads(), *steps, x=native.address(x),
        **{name: native.address(tensor) for name, tensor in tensors.items()},
    )  # fmt: skip
    getattr(library(), function)(ctypes.byref(arguments))


class Perceptron(torch.autograd.Function):
    """Linear -> LayerNorm -> SiLU, then a linear output, of one member or of several that read the same input."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, ones: Tensor | None, dense: int, extra: Tensor | None, count: int, *parameters: Tensor
    ) -> Tensor:  # fmt: skip
        """(N, F), (N, S), (N, A), ``count`` norms, layers -> (N, outputs) or (M, N, outputs)."""
        weights, gains, offsets, bias = _parts(parameters, count)
        several, learned = bias.dim() > 1, any(ctx.needs_input_grad[5:])
        members = len(bias) if several else 1
        ctx.kinds = values.dtype, None if extra is None else extra.dtype
        values, extra, table = values.to(HALF), None if extra is None else extra.to(HALF), _table(weights[0])
        x = values @ table if ones is None else sum_of_rows(values, ones, dense, extra, table)  # (N, M units)
        rounded, kept, bias = [w.to(HALF) for w in weights[1:]], [], bias.to(HALF)
        for index, (gain, offset, weight) in enumerate(zip(gains, offsets, rounded, strict=True)):
            rows = (len(values), gain.shape[-1])
            y, moments = (
                x.new_empty((members, *rows) if several else rows),
                torch.empty(members, len(values), 2, dtype=torch.float32),
            )
            _call("forward", members, x, gain=gain, offset=offset, y=y, moments=moments)
            kept += [x, y if learned else None, moments]
            last = index == count - 1
            if several:
                x = torch.baddbmm(bias, y, weight) if last else torch.bmm(y, weight)
            else:
                x = torch.addmm(bias, y, weight.t()) if last else torch.mm(y, weight.t())
        ctx.save_for_backward(values, extra, table, *rounded, *gains, *offsets, *kept)
        ctx.sizes = count, members, several
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        count, members, several = ctx.sizes
        values, extra, table, *rest = ctx.saved_tensors
        weights, gains, offsets = (rest[k * count : (k + 1) * count] for k in range(3))
        kept = rest[3 * count :]
        by_values, _, _, by_extra, _, *by_parameters = ctx.needs_input_grad
        learned, d = any(by_parameters), gradients[0].to(HALF).contiguous()
        d_bias = d.sum(-2, keepdim=several, dtype=torch.float32) if learned else None
        d_weights: list[Tensor] = []  # the last layer's first
        d_norms: list[list[Tensor]] = []
        for index in reversed(range(count)):
            x, y, moments = kept[3 * index : 3 * index + 3]
            weight, gain, offset = weights[index], gains[index], offsets[index]
            if learned:
                d_weights.append((torch.bmm(y.transpose(1, 2), d) if several else torch.mm(d.t(), y)).float())
                d_norms.append([torch.empty_like(gain), torch.empty_like(offset)])
            d_y = torch.bmm(d, weight.transpose(1, 2)) if several else torch.mm(d, weight)
            d = torch.empty_like(x)
            d_gain, d_offset = d_norms[-1] if learned else (None, None)
            _call(
                "backward", members, x, gain=gain, offset=offset, moments=moments, d_y=d_y, d_x=d, d_gain=d_gain,
                d_offset=d_offset,
            )  # fmt: skip
        size = values.shape[1]
        d_values = (d @ table[:size].t()).to(ctx.kinds[0]) if by_values else None
        d_extra = (d @ table[size:].t()).to(ctx.kinds[1]) if by_extra else None
        if not learned:
            return d_values, None, None, d_extra, None, *(None for _ in by_parameters)
        d_table = table_gradient(values, extra, d, not several)
        d_first = d_table.view(len(table), members, -1).transpose(0, 1) if several else d_table.t()
        d_first = d_first.to(torch.float32, memory_format=torch.contiguous_format)
        d_gains, d_offsets = zip(*reversed(d_norms), strict=True)
        return d_values, None, None, d_extra, None, d_first, *reversed(d_weights), *d_gains, *d_offsets, d_bias


class NormSiLU(torch.autograd.Function):
    """Layer norm and SiLU of rows (N, units), with gain and offset (units)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
        ctx.kind = x.dtype
        x, y, moments = (
            x.to(HALF).contiguous(),
            torch.empty(x.shape, dtype=HALF),
            torch.empty(len(x), 2, dtype=torch.float32),
        )
        _call("forward", 1, x, gain=gain, offset=offset, y=y, moments=moments)
        ctx.save_for_backward(x, gain, offset, moments)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore
        x, gain, offset, moments = ctx.saved_tensors
        d_y = gradients[0].to(HALF).contiguous()
        d_x, d_gain, d_offset = torch.empty_like(x), torch.empty_like(gain), torch.empty_like(offset)
        _call(
            "backward", 1, x, gain=gain, offset=offset, moments=moments, d_y=d_y, d_x=d_x, d_gain=d_gain,
            d_offset=d_offset,
        )  # fmt: skip
        return d_x.to(ctx.kind), d_gain, d_offset


def _parts(parameters: Sequence[Tensor], count: int) -> Layers:
    first, second, third = count + 1, 2 * count + 1, 3 * count + 1
    return Layers(parameters[:first], parameters[first:second], parameters[second:third], parameters[third])


def _table(weight: Tensor) -> Tensor:
    """(U, F) or (M, F, U) -> (F, U) or (F, M U), rounded, rows in one piece."""
    if weight.dim() > 2:
        return weight.transpose(0, 1).to(HALF, memory_format=torch.contiguous_format).flatten(1)
    table = torch.empty(weight.shape[1], len(weight), dtype=HALF)
    pointers = (ctypes.c_void_p(native.address(x)) for x in (weight, table))
    sizes = (ctypes.c_int64(x) for x in (*weight.shape, torch.get_num_threads()))
    compiled = library()
    assert compiled is not None
    compiled.turn(*pointers, *sizes)
    return table
