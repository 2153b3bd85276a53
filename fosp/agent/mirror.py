"""The world in a mirror: twice the experience from one log, where robot and task are their own mirror image. [ours]"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from fosp.types import Batch

B = TypeVar("B", bound=Batch)


def mirrored(batch: B, signs: tuple[float, ...], which: Tensor | None = None) -> B:
    """The batch with images flipped left to right and actions times ``signs``; of all sequences or ``which`` (B,)."""
    if which is None:
        which = torch.ones(batch.reward.shape[0], dtype=torch.bool, device=batch.reward.device)
    mask = which.view(-1, 1, 1)
    turned = batch.action * torch.tensor(signs, device=batch.action.device)
    images = {}
    for name, image in batch.images.items():  # uint8 (B, T, W, W, 3)
        images[name] = image.clone()
        images[name][which] = image[which].flip(-2)
    return replace(batch, images=images, action=torch.where(mask, turned, batch.action))
