"""Numbers as categorical distributions, and, on a processor, their mean and loss in one pass each: ``twohot.c``."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fosp.nets import native


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|), the squashing of arXiv 2301.04104, eq. 1."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Inverse of symlog."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


class TwoHot(nn.Module):
    """Numbers as categorical distributions over bins that are spaced as symexp(-limit .. limit) (arXiv 2301.04104).

    The expectation is taken over the bins themselves, not in symlog space: only so is it unbiased for targets that are
    uncertain (a cost of 100 with chance 0.1 is 10, not 0.6), and only so does a weighted cross-entropy have the
    weighted mean as its minimum, which expectile regression needs.
    """

    bins: Tensor

    def __init__(self, count: int, limit: float = 8.0) -> None:
        super().__init__()
        if count % 2 == 0:
            raise ValueError(f"count is {count}; it must be odd so that zero is a bin")
        self.limit, self.count = limit, count
        self.register_buffer("bins", symexp(torch.linspace(-limit, limit, count)), persistent=False)

    def mean(self, logits: Tensor) -> Tensor:
        """(..., bins) -> (...), float32. Bins of opposite sign are paired so that a uniform one is exactly 0."""
        if self._by_rows(logits):
            return RowMean.apply(logits, self.bins)
        weighted = torch.softmax(logits.float(), -1) * self.bins
        half = self.count // 2
        return (weighted[..., :half].flip(-1) + weighted[..., half + 1 :]).sum(-1)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy with the two bins that bracket the target, a constant. (..., bins), (...) -> (...)."""
        target = target.float()
        if self._by_rows(logits):
            return RowLoss.apply(logits, target, self.bins, self.limit)
        low = ((symlog(target) + self.limit) * ((self.count - 1) / (2 * self.limit))).floor().long()
        low = low.clamp(0, self.count - 2)
        low_bin, high_bin = self.bins[low], self.bins[low + 1]
        share = ((target - low_bin) / (high_bin - low_bin)).clamp(0, 1)  # of the upper bin
        log_p = torch.log_softmax(logits.float(), -1)
        log_low = log_p.gather(-1, low.unsqueeze(-1)).squeeze(-1)
        log_high = log_p.gather(-1, low.unsqueeze(-1) + 1).squeeze(-1)
        return -((1 - share) * log_low + share * log_high)

    def _by_rows(self, logits: Tensor) -> bool:
        """Whether ``twohot.c`` reads the rows: not in the plain float32 reference, and not where a compiler does."""
        if not logits.is_cpu or not native.rounds() or torch.compiler.is_compiling():
            return False
        if logits.dtype not in (torch.float32, torch.bfloat16) or self.bins.dtype != torch.float32:
            return False
        return logits.shape[-1] == self.count <= MOST and library() is not None


def library() -> ctypes.CDLL | None:
    """What the C beside this gives, or None where it cannot be compiled."""
    return native.beside(__file__)


MOST = 1024  # bins, as in twohot.c
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64


class _Arguments(ctypes.Structure):
    _fields_ = [
        *((name, _INT) for name in ("rows", "count", "half_precision", "threads")),
        *((name, _POINTER) for name in ("logits", "bins")),
        ("limit", ctypes.c_double),
        *((name, _POINTER) for name in ("given", "result", "level", "d_result", "d_logits")),
    ]


def _call(function: str, logits: Tensor, limit: float = 0.0, **tensors: Tensor) -> None:
    arguments = _Arguments(
        logits.numel() // logits.shape[-1], logits.shape[-1], logits.dtype == torch.bfloat16, torch.get_num_threads(),
        logits=native.address(logits), limit=limit, **{k: native.address(v) for k, v in tensors.items()},
    )  # fmt: skip
    compiled = library()
    assert compiled is not None
    getattr(compiled, function)(ctypes.byref(arguments))


class RowMean(torch.autograd.Function):
    """``TwoHot.mean`` of logits (..., K)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, bins: Tensor) -> Tensor:
        logits = logits.contiguous()
        result, level = (torch.empty(logits.shape[:-1], dtype=torch.float32) for _ in range(2))
        _call("mean", logits, bins=bins, result=result, level=level)
        ctx.save_for_backward(logits, bins, result, level)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # pyright: ignore
        logits, bins, result, level = ctx.saved_tensors
        d_logits, d_result = torch.empty_like(logits), gradients[0].contiguous()
        _call(
            "mean_gradient", logits, bins=bins, result=result, level=level, d_result=d_result, d_logits=d_logits
        )  # fmt: skip
        return d_logits, None


class RowLoss(torch.autograd.Function):
    """``TwoHot.loss`` of logits (..., K) with targets (...), which have no gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, bins: Tensor, limit: float) -> Tensor:
        logits, given = logits.contiguous(), target.expand(logits.shape[:-1]).contiguous()
        result, level = (torch.empty(logits.shape[:-1], dtype=torch.float32) for _ in range(2))
        _call("loss", logits, limit, bins=bins, given=given, result=result, level=level)
        ctx.save_for_backward(logits, given, bins, level)
        ctx.limit = limit
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore
        logits, given, bins, level = ctx.saved_tensors
        d_logits, d_result = torch.empty_like(logits), gradients[0].contiguous()
        _call(
            "loss_gradient", logits, ctx.limit, bins=bins, given=given, level=level, d_result=d_result,
            d_logits=d_logits,
        )  # fmt: skip
        return d_logits, None, None, None
