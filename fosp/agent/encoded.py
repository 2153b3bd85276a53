"""A log seen once through a trained world model: its states, ready to learn critics and policy from.

With the world model at rest, images have nothing more to say: an update of critics and policy on stored states costs a
fifth of one that looks at images, so the second stage of offline pretraining runs on these. [ours]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fosp.nets.distributions import gumbel
from fosp.types import Batch
from fosp.world_model import Latent, WorldModel
from fosp.world_model.pixels import stack_cameras


@dataclass(frozen=True)
class EncodedBatch:
    """Posterior states (B, T, ...) and what belongs to their rows; ``batch.images`` is empty."""

    latents: Latent
    batch: Batch


class EncodedLog:
    """Posterior states of whole episodes, filtered from their first rows, as a sampler of windows.

    ``episodes``: batches (B, T) of whole episodes, tensors. States are kept as float16 h and the class of each group.
    ``own``: the windows of each batch that are given; all ``batch_size`` are drawn.
    """

    FIELDS = ("action", "reward", "cost", "is_first", "is_last", "is_terminal")

    def __init__(
        self, model: WorldModel, episodes: Iterable[Batch], batch_size: int, length: int, seed: int, autocast: Any,
        own: slice = slice(None),
    ) -> None:  # fmt: skip
        self.classes, self.batch_size, self.length = model.config.classes, batch_size, length
        self.own = own
        self.rng = np.random.default_rng(seed)
        device = next(model.parameters()).device
        generator = torch.Generator(device).manual_seed(seed)
        parts: dict[str, list[Tensor]] = {name: [] for name in ("h", "z", *self.FIELDS)}
        rows: list[int] = []
        for batch in episodes:
            latents = self._filter(model, batch, generator, autocast)
            parts["h"].append(latents.h.half().flatten(0, 1))
            parts["z"].append(latents.z.argmax(-1).to(torch.uint8).flatten(0, 1))
            for name in self.FIELDS:
                parts[name].append(getattr(batch, name).flatten(0, 1))
            rows += [batch.reward.shape[1]] * batch.reward.shape[0]
        self.rows = {name: torch.cat(values) for name, values in parts.items()}  # (rows of all episodes, ...)
        lengths = np.array(rows)
        self.ends = np.cumsum(lengths)  # row after the last one of each episode
        fits = np.maximum(1, lengths - length + 1)  # start rows of each episode
        self.owners = np.repeat(np.arange(len(lengths)), fits)  # episode of each start row
        self.starts = np.concatenate([o + np.arange(n) for o, n in zip(self.ends - lengths, fits, strict=True)])

    @staticmethod
    @torch.no_grad()
    def _filter(model: WorldModel, batch: Batch, generator: torch.Generator, autocast: Any) -> Latent:
        cameras = stack_cameras(batch.images)  # (B, T, W, W, C)
        with autocast():
            pieces = [model.encode(piece) for piece in cameras.split(32, 1)]  # in pieces: activations are large
            shape = (*batch.reward.shape, model.config.groups, model.config.classes)
            noise = gumbel(shape, generator, cameras.device)
            latents, _, _ = model.observe(torch.cat(pieces, 1), batch.action, batch.is_first, noise)
        return latents

    def sample(self) -> EncodedBatch:
        """Windows uniform over all start rows, by the rule of ``fosp.data.sampler.Sampler``."""
        draws = self.rng.integers(len(self.starts), size=self.batch_size)
        windows = self.starts[draws][:, None] + np.arange(self.length)  # (B, T)
        stops = self.ends[self.owners[draws]]  # (B,)
        for window in np.flatnonzero(windows[:, -1] >= stops):  # an episode that is shorter than a window
            filled, stop = 0, stops[window]
            while (room := stop - windows[window, filled]) < self.length - filled:
                filled += room
                episode = self.owners[self.rng.integers(len(self.starts))]
                stop, first = self.ends[episode], self.ends[episode - 1] if episode else 0
                windows[window, filled:] = first + np.arange(self.length - filled)
        index = torch.from_numpy(windows[self.own]).to(self.rows["h"].device)  # (B, T)
        z = nn.functional.one_hot(self.rows["z"][index].long(), self.classes).float()
        fields = {name: self.rows[name][index] for name in self.FIELDS}
        return EncodedBatch(Latent(self.rows["h"][index].float(), z), Batch(images={}, **fields))

    def refresh(self, episodes: int | None = None) -> None:
        """The log of offline pretraining does not grow."""

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state["generator"]
