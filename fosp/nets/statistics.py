"""Running statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningRange(nn.Module):
    """Moving estimate of the 5-95 percentile range of what is seen, never below ``floor``."""

    span: Tensor
    seen: Tensor

    def __init__(self, rate: float = 0.02, floor: float = 1e-2) -> None:
        super().__init__()
        self.rate, self.floor = rate, floor
        self.register_buffer("span", torch.ones(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Numbers that are not finite leave the estimate as it is: it could never recover from them."""
        low, high = torch.quantile(x.float().flatten(), torch.tensor([0.05, 0.95], device=x.device))
        fresh = high - low
        moved = torch.where(self.seen, torch.lerp(self.span, fresh, self.rate), fresh)
        usable = torch.isfinite(fresh)
        self.span.copy_(torch.where(usable, moved, self.span))
        self.seen.logical_or_(usable)

    def __call__(self, x: Tensor) -> Tensor:
        return x / self.span.clamp(min=self.floor)
