"""Rows that are mostly one-hot groups, and their product with a matrix as a sum of a few of its rows.

A latent state is h beside S groups of K classes, so S of its S K columns are 1 and the others 0. A dense product
multiplies by all those zeros, in every network that reads the state: a third of all that an update of the paper's
sizes computes. Summing S rows is the same number up to rounding, and takes a processor a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Features(NamedTuple):
    """States as networks read them. ``ones`` None: where the ones are is not known, and products are plain ones."""

    values: Tensor  # (..., F): ``dense`` columns, then one-hot groups
    ones: Tensor | None = None  # int64 (..., S), the columns that are 1
    dense: int = 0
    extra: Tensor | None = None  # (..., A), more columns behind, only where ``ones`` are known

    @staticmethod
    def of(x: Tensor | Features) -> Features:
        return Features(x) if isinstance(x, Tensor) else x

    @staticmethod
    def cat(first: Features, second: Features) -> Features:
        """Rows of both, one after the other."""
        values = torch.cat([first.values, second.values])
        if first.ones is None or second.ones is None:
            return Features(values)
        return Features(values, torch.cat([first.ones, second.ones]), first.dense)

    def map(self, rows: Callable[[Tensor], Tensor]) -> Features:
        """Choose or reorder rows."""
        return Features(rows(self.values), None if self.ones is None else rows(self.ones), self.dense)

    def rounded(self) -> Features:
        """In the precision of products under autocast: once, instead of before each of them. For constants."""
        kind = self.values.device.type
        if not torch.is_autocast_enabled(kind):
            return self
        return self._replace(values=self.values.to(torch.get_autocast_dtype(kind)))

    def joined(self, extra: Tensor) -> Features:
        """With columns ``extra`` (..., A) behind, such as an action."""
        if self.ones is None:
            return Features(torch.cat([self.values, extra], -1))
        return self._replace(extra=extra)


def product(x: Tensor | Features, weight: Tensor) -> Tensor:
    """(..., F + A), (F + A, U) -> (..., U)."""
    values, ones, dense, extra = Features.of(x)
    if ones is None:
        return values @ weight
    extra = None if extra is None else extra.flatten(0, -2)
    y = SumOfRows.apply(values.flatten(0, -2), ones.flatten(0, -2), dense, extra, weight)
    return y.view(*values.shape[:-1], y.shape[-1])


def sum_of_rows(values: Tensor, ones: Tensor, dense: int, extra: Tensor | None, table: Tensor) -> Tensor:
    """(N, F), (N, S), (N, A), (F + A, U) with rows in one piece -> (N, U)."""
    y = nn.functional.embedding_bag(ones, table, mode="sum")
    torch.addmm(y, values[:, :dense].to(y.dtype), table[:dense], out=y)  # not addmm_, which no counter of FLOP knows
    if extra is not None:
        torch.addmm(y, extra.to(y.dtype), table[values.shape[1] :], out=y)
    return y


def table_gradient(values: Tensor, extra: Tensor | None, d_y: Tensor, by_column: bool) -> Tensor:
    """Of the table of a product, (F + A, U); ``by_column``: it lies in memory as the weight of a linear layer."""
    values = values.to(d_y.dtype)
    if extra is None:
        return (d_y.t() @ values).t() if by_column else values.t() @ d_y
    size = values.shape[1]
    d_table = d_y.new_empty(size + extra.shape[1], d_y.shape[1])
    torch.mm(values.t(), d_y, out=d_table[:size])
    torch.mm(extra.to(d_y.dtype).t(), d_y, out=d_table[size:])
    return d_table


class SumOfRows(torch.autograd.Function):
    """``product`` where the ones are known, in the precision that autocast says. Gradients are dense products."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ones: Tensor, dense: int, extra: Tensor | None, weight: Tensor) -> Tensor:
        """(N, F), (N, S), (N, A), (F + A, U) -> (N, U)."""
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
        table = weight.to(kind).contiguous()  # rows in one piece
        ctx.save_for_backward(values, extra, table)
        ctx.by_column = weight.stride(0) == 1  # as of a linear layer, whose weight is the other way round
        ctx.dtypes = values.dtype, None if extra is None else extra.dtype, weight.dtype
        return sum_of_rows(values, ones, dense, extra, table)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        values, extra, table = ctx.saved_tensors
        (kind, extra_kind, weight_kind), (by_values, _, _, by_extra, by_weight) = ctx.dtypes, ctx.needs_input_grad
        d_y, size = gradients[0].to(table.dtype), values.shape[1]
        d_values = (d_y @ table[:size].t()).to(kind) if by_values else None
        d_extra = (d_y @ table[size:].t()).to(extra_kind) if by_extra else None
        d_weight = table_gradient(values, extra, d_y, ctx.by_column).to(weight_kind) if by_weight else None
        return d_values, None, None, d_extra, d_weight
