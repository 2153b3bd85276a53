"""The world in a mirror: twice the experience from one log, where robot and task are their own mirror image. [ours]"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from fosp.types import Batch

B = TypeVar("B", bound=Batch)


def mirrored(batch: B, signs: tuple[float, ...]) -> B:
    """The batch with images, (B, T, W, W, 3), flipped left to right and actions times ``signs``."""
    images = {name: image.flip(-2) for name, image in batch.images.items()}
    return replace(batch, images=images, action=turned(batch.action, signs))


def turned(action: Tensor, signs: tuple[float, ...], which: Tensor | None = None) -> Tensor:
    """Actions (B, T, A) times ``signs``; of all sequences or ``which`` (B,)."""
    other = action * torch.tensor(signs, device=action.device)
    return other if which is None else torch.where(which.view(-1, 1, 1), other, action)
