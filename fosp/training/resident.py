"""A log that lies in the memory of the device that learns, images as bytes: learning reads and copies nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fosp.data.sampler import Sampler
from fosp.data.store import Store
from fosp.types import Batch

#: Share of the free memory of a GPU that a log may take; weights, activations and graphs need the rest.
SHARE = 0.5
_FLAGS = ("is_first", "is_last", "is_terminal")


def fits(store: Store, device: torch.device) -> bool:
    """Whether ``device`` is a GPU that can hold the log. In main memory the system keeps what was read by itself."""
    return device.type == "cuda" and store.num_bytes <= SHARE * torch.cuda.mem_get_info(device)[0]


class Resident:
    """The very batches that ``sampler`` would give, gathered on ``device``. Its state is the sampler's."""

    def __init__(self, sampler: Sampler, device: torch.device | str) -> None:
        self._sampler = sampler
        self._device = torch.device(device)
        self._load()

    def _load(self) -> None:
        """All rows of the episodes that are drawn from, episode after episode: array name -> (rows, ...)."""
        store = self._sampler.store
        rows = [row["rows"] for row in store.manifest[: self._sampler.episodes]]
        self._offsets = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])  # (episodes + 1,) first rows
        shapes = {name: spec for name, spec in store.specs.items() if name != "cost_terms"}
        self._rows = {  # images in the order of the schema
            name: torch.empty((int(self._offsets[-1]), *spec.shape), dtype=_dtype(spec.dtype), device=self._device)
            for name, spec in shapes.items()
        }
        for episode, count in enumerate(rows):
            arrays = {name: np.empty((count, *spec.shape), spec.dtype) for name, spec in shapes.items()}
            store.read_into(episode, 0, arrays)
            begin, end = self._offsets[episode : episode + 2]
            for name, array in arrays.items():
                self._rows[name][begin:end] = torch.from_numpy(array)

    def sample(self) -> Batch:
        """The next batch: tensors (B, T, ...) on the device."""
        own = self._sampler.own
        index = np.empty((own.stop - own.start, self._sampler.length), np.int64)
        for piece in self._sampler.draw():
            first = self._offsets[piece.episode] + piece.start
            index[piece.window, piece.begin : piece.stop] = first + np.arange(piece.stop - piece.begin)
        where = torch.from_numpy(index).to(self._device, non_blocking=True)  # (B, T)
        found = {name: rows[where] for name, rows in self._rows.items()}
        flags = dict(zip(_FLAGS, found.pop("flags").unbind(-1), strict=True))
        fields = {name: found.pop(name) for name in ("action", "reward")}
        cost = found.pop("cost", torch.full_like(fields["reward"], torch.nan))
        return Batch(
            images={name: found[name] for name in self._sampler.store.schema.cameras}, cost=cost, **fields, **flags
        )

    def refresh(self, episodes: int | None = None) -> None:
        self._sampler.refresh(episodes)
        self._load()

    def state_dict(self) -> dict[str, Any]:
        return self._sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        seen = self._sampler.episodes
        self._sampler.load_state_dict(state)
        if self._sampler.episodes != seen:
            self._load()

    def close(self) -> None:
        """Lets go of the memory."""
        self._rows = {}


def _dtype(dtype: Any) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
