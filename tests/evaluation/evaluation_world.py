"""An environment and policies whose return and cost follow from seed and action; worker processes import this."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fosp.types import Episode, Schema, UserError

SCHEMA = Schema("fake/Line-v0", {"image_front": (2, 2, 3)}, action_size=1, max_steps=5, cost_terms=("wall",))


class LineEnv:
    """Five steps. The reward is the action, the cost 2 on the first seed % 4 steps if the action is above 0.5."""

    action_space = SimpleNamespace(low=-np.ones(1, np.float32), high=np.ones(1, np.float32))
    metadata: dict[str, Any] = {}

    def __init__(self) -> None:
        self.seed = self.t = 0
        self.closed = False

    @property
    def unwrapped(self) -> LineEnv:
        return self

    def schema(self) -> Schema:
        return SCHEMA

    def reset(self, *, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self.seed, self.t = seed, 0
        return self._observation(), self._info(0.0)

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        self.t += 1
        cost = 2.0 if action[0] > 0.5 and self.t <= self.seed % 4 else 0.0
        return self._observation(), float(action[0]), False, self.t == 5, self._info(cost)

    def picture(self) -> np.ndarray:
        return np.full((4, 4, 3), self.t, np.uint8)

    def close(self) -> None:
        self.closed = True

    def _observation(self) -> dict[str, np.ndarray]:
        return {"image_front": np.full((2, 2, 3), self.seed % 256, np.uint8)}

    def _info(self, cost: float) -> dict[str, Any]:
        return {"cost": cost, "cost_wall": cost, "goal_met": self.t == 2, "frames": 1}


@dataclass
class Carry:
    diagnostics: dict[str, np.ndarray] = field(default_factory=dict)

    def reset(self, mask: np.ndarray) -> Carry:
        return self


class Constant:
    """Always the same action."""

    def __init__(self, action: float) -> None:
        self._action = action

    def initial(self, batch: int | None = None) -> Carry:
        return Carry()

    def act(self, carry: Carry, observation: dict[str, np.ndarray]) -> tuple[np.ndarray, Carry]:
        rows = len(observation["image_front"])
        return np.full((rows, 1), self._action, np.float32), carry


def fast() -> Constant:
    return Constant(1.0)


def slow() -> Constant:
    return Constant(0.25)


def refused() -> Constant:
    raise UserError("checkpoint runs/x is damaged; train again")


def killed() -> Constant:
    os._exit(9)  # as the kernel does to a process that takes all memory


def entry(label: str, make: Any = fast) -> tuple[str, Any, dict[str, Any]]:
    return label, partial(make), {"kind": label}


def keep(folder: Path, index: int, policy: Constant, episode: Episode, pictures: np.ndarray) -> None:
    file = folder / f"{index}-{episode.info['seed']}.npz"
    images = episode.images["image_front"]
    np.savez(file, cost=episode.cost, reward=episode.reward, images=images, pictures=pictures)
