"""A learner, a sampler and a progress bar that only count, for tests of the loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from builders import ACTIONS, SCHEMA
from torch import Tensor

from fosp.training.log import Run
from fosp.training.offline import Source, Trainer, TrainingConfig, pretrain
from fosp.types import Batch, Schema


class FakeLearner:
    """Its weight is the sum of the batches that it was given, so that a batch lost or given twice shows."""

    def __init__(self, during: Callable[[int], None] = lambda update: None) -> None:
        self.updates, self.skipped_steps = 0, 0
        self.weight = torch.zeros(())
        self.during = during  # called in each update, before anything has changed
        self.heeded: list[float] = []
        self.shares: list[float] = []

    def update(self, batch: Batch) -> Mapping[str, Tensor]:
        self.during(self.updates + 1)
        self.updates += 1
        self.weight = self.weight * 0.5 + batch.reward.sum()
        metrics = {"model/updates": torch.tensor(float(self.updates))}
        if self.updates % 2 == 0:  # as where the policy learns in every second update
            metrics["actor/ten"] = torch.tensor(10.0)
        return metrics

    def heed(self, cost_per_episode: float) -> None:
        self.heeded.append(cost_per_episode)

    def scale_rates(self, share: float) -> None:
        self.shares.append(share)

    def weights(self) -> dict[str, Tensor]:
        return {"weight": self.weight}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        self.weight = weights["weight"]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"none": torch.zeros(1)}, {"updates": self.updates, "skipped": self.skipped_steps}

    def load_state(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        self.updates, self.skipped_steps = numbers["updates"], numbers["skipped"]


class FakeSampler:
    """The n-th batch is full of n."""

    def __init__(self) -> None:
        self.count = 0
        self.refreshed: list[int | None] = []

    def sample(self) -> Batch:
        self.count += 1
        numbers = np.full((1, 2), self.count, np.float32)
        flags = np.zeros((1, 2), bool)
        return Batch({}, np.zeros((1, 2, 1), np.float32), numbers, numbers, flags, flags, flags)

    def refresh(self, episodes: int | None = None) -> None:
        self.refreshed.append(episodes)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


class FakeLatents(FakeSampler):
    """Of the second stage: gives what the learner takes as it is. The n-th batch is full of 1000 + n."""

    def sample(self) -> Any:
        self.count += 1
        return SimpleNamespace(reward=torch.full((1, 2), 1000.0 + self.count))


class TinyEnv:
    """Images depend on layout, step and the last action; ends after 10 steps, layouts of odd seeds after 7."""

    action_space = SimpleNamespace(low=-np.ones(ACTIONS, np.float32), high=np.ones(ACTIONS, np.float32))

    @property
    def unwrapped(self) -> TinyEnv:
        return self

    def schema(self) -> Schema:
        return SCHEMA

    def reset(self, *, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self.seed, self.t, self.action = seed, 0, np.zeros(ACTIONS)
        return self._see(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        self.t, self.action = self.t + 1, action
        cost = float(self.t % 3 == 0)
        return self._see(), float(action[0]), False, self.t >= 10 - 3 * (self.seed % 2), {
            "cost": cost, "cost_hazards": cost
        }  # fmt: skip

    def close(self) -> None:
        return None

    def _see(self) -> dict[str, np.ndarray]:
        draw = np.random.default_rng([self.seed, self.t, int(100 * (self.action[0] + 1))])
        return {name: draw.integers(0, 256, size, np.uint8) for name, size in SCHEMA.cameras.items()}


class FakeProgress:
    """Raises Ctrl-C as soon as ``stop_at`` updates, or whatever it counts, are done."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.start, self.done, self.stop_at = 0, 0, stop_at

    def __call__(self, start: int) -> FakeProgress:
        self.start = start
        return self

    def __enter__(self) -> FakeProgress:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def advance(self, n: int, **shown: object) -> None:
        self.done += n
        if self.start + self.done == self.stop_at:
            raise KeyboardInterrupt


class FakeBoard:
    """In place of TensorBoard's writer, which takes seconds to import."""

    def __init__(self, path: str, purge_step: int) -> None:
        self.rows: list[tuple[str, float, int]] = []

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.rows.append((name, value, step))

    def close(self) -> None:
        return None


def no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = FakeBoard  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)


def trainer(
    folder: Path, config: TrainingConfig | None = None, learner: Any = None, sampler: Any = None, **about: Any
) -> Trainer:
    """A trainer on the run in ``folder``, resumed where that holds a checkpoint."""
    run = Run(folder)
    run.begin("sizes: tiny\n", {"kind": "pretrain"})
    made = Trainer(learner or FakeLearner(), sampler or FakeSampler(), run, config or TrainingConfig(), "cpu", about)
    made.resume()
    return made


def no_second_stage() -> Source:
    raise AssertionError("the log was encoded without need")


def train(
    made: Trainer, bar: FakeProgress, on_save: Callable[[Path, int], None] = lambda *_: None,
    encode: Callable[[], Source] = no_second_stage,
) -> Path:  # fmt: skip
    return pretrain(made, encode, bar, on_save)
