"""A tiny environment, behaviours and policies whose numbers say where they come from; worker processes import it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fosp.types import Episode, Schema

SCHEMA = Schema(
    task="fake/Line-v0",
    cameras={"image_front": (4, 4, 3), "image_back": (2, 4, 3)},
    action_size=2,
    action_repeat=2,
    max_steps=9,
    cost_terms=("hazards", "vases"),
)


class FakeEnv:
    """Ends after 5 + seed % 4 steps. Step t (1, 2, ...) gives reward 100 * a[0] + t and vase cost 1 where a[1] > 0.5.

    The images show seed and t. Observations are one buffer that is written again and again, as an environment may do.
    """

    action_space = SimpleNamespace(low=-np.ones(2, np.float32), high=np.ones(2, np.float32))

    def __init__(self, terminates: bool = False, slow: float = 0.0, schema: Schema = SCHEMA) -> None:
        self._terminates = terminates
        self._slow = slow
        self._schema = schema
        self._buffer = {name: np.zeros(shape, np.uint8) for name, shape in schema.cameras.items()}
        self.resets: list[int] = []
        self.closed = False

    @property
    def unwrapped(self) -> FakeEnv:
        return self

    def schema(self) -> Schema:
        return self._schema

    def privileged(self) -> dict[str, Any]:
        return {"seed": self.seed, "t": self.t}

    def reset(self, *, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self.seed, self.t = seed, 0
        self.resets.append(seed)
        return self._see(), self._info(0.0)

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        time.sleep(self._slow)
        self.t += 1
        end = self.t == 5 + self.seed % 4
        info = self._info(float(action[1] > 0.5))
        reward = 100.0 * float(action[0]) + self.t
        return self._see(), reward, end and self._terminates, end and not self._terminates, info

    def close(self) -> None:
        self.closed = True

    def _see(self) -> dict[str, np.ndarray]:
        for name, image in self._buffer.items():
            image[..., 0], image[..., 1], image[..., 2] = self.seed % 256, self.t, name == "image_back"
        return self._buffer

    def _info(self, vases: float) -> dict[str, Any]:
        return {"cost": vases, "cost_hazards": 0.0, "cost_vases": vases, "goal_met": self.t == 3, "frames": 2}


@dataclass
class Carry:
    count: np.ndarray  # (n,) steps of each row since its last reset
    diagnostics: dict[str, Any] = field(default_factory=dict)

    def reset(self, mask: np.ndarray) -> Carry:
        return Carry(np.where(mask, 0, self.count), self.diagnostics)


class CountingPolicy:
    """Batched. Acts with (own step count / 100, seed seen in the image / 100)."""

    def initial(self, batch: int | None = None) -> Carry:
        return Carry(np.zeros(batch or 1, int))

    def act(self, carry: Carry, observation: Any) -> tuple[np.ndarray, Carry]:
        assert set(observation) == set(SCHEMA.cameras)
        seen = observation["image_front"][:, 0, 0, :].astype(float)  # (n, 3): seed, t, 0
        diagnostics = {"seen_t": seen[:, 1], "chosen": carry.count % 2, "shared": np.float32(7)}
        return np.stack([carry.count / 100, seen[:, 0] / 100], 1), Carry(carry.count + 1, diagnostics)


class FakeBehaviour:
    """Privileged. "unsafe" violates on every third step; all actions depend on seed, noise and time alone."""

    privileged = True

    def __init__(self, name: str, seed: int = 0, noise: float = 0.0) -> None:
        self._name, self._noise = name, noise
        self._random = np.random.default_rng(seed)

    def initial(self, batch: int | None = None) -> Carry:
        assert batch is None
        return Carry(np.zeros((), int))

    def act(self, carry: Carry, state: Any) -> tuple[np.ndarray, Carry]:
        assert state["t"] == carry.count
        danger = 1.0 if self._name == "unsafe" and state["t"] % 3 == 2 else 0.0
        action = np.array([self._noise * self._random.uniform(-1, 1), danger])
        return action, Carry(carry.count + 1, {"count": carry.count})


class DeadlyEnv(FakeEnv):
    """The first time that any process resets it to ``seed``, that process is killed as by the out-of-memory killer."""

    def __init__(self, mark: Path, seed: int) -> None:
        super().__init__()
        self._mark, self._deadly = mark, seed

    def reset(self, *, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        if seed == self._deadly and not self._mark.exists():
            self._mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().reset(seed=seed)


class BrokenEnv(FakeEnv):
    def step(self, action: np.ndarray) -> Any:
        raise ZeroDivisionError("the physics exploded")


def episode(seed: int = 0, rows: int = 6, schema: Schema = SCHEMA, **info: Any) -> Episode:
    """An episode of random content that depends on the seed."""
    random = np.random.default_rng(seed)
    zeros = np.zeros(rows, np.float32)
    terms = {name: (random.random(rows) < 0.3).astype(np.float32) for name in schema.cost_terms}
    for term in terms.values():
        term[0] = 0
    action = random.uniform(-1, 1, (rows, schema.action_size)).astype(np.float32)
    action[-1] = 0
    reward = random.normal(size=rows).astype(np.float32)
    reward[0] = 0
    first, last = np.arange(rows) == 0, np.arange(rows) == rows - 1
    return Episode(
        images={name: random.integers(0, 256, (rows, *shape), np.uint8) for name, shape in schema.cameras.items()},
        action=action,
        reward=reward,
        cost=sum(terms.values(), zeros),
        is_first=first,
        is_last=last,
        is_terminal=last & (seed % 2 == 1),
        cost_terms=terms,
        info={"task": schema.task, "scenario": None, "seed": seed, "behaviour": "fake", "noise": 0.0, **info},
    )


def assert_same(a: Episode, b: Episode) -> None:
    """All arrays of two episodes are equal, dtypes too."""
    pairs = {name: (getattr(a, name), getattr(b, name)) for name in ("action", "reward", "cost")}
    pairs |= {name: (getattr(a, name), getattr(b, name)) for name in ("is_first", "is_last", "is_terminal")}
    assert a.images.keys() == b.images.keys() and a.cost_terms.keys() == b.cost_terms.keys()
    pairs |= {name: (a.images[name], b.images[name]) for name in a.images}
    pairs |= {name: (a.cost_terms[name], b.cost_terms[name]) for name in a.cost_terms}
    for name, (x, y) in pairs.items():
        assert x.dtype == y.dtype, name
        np.testing.assert_array_equal(x, y, err_msg=name)
