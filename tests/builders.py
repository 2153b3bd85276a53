"""The smallest agents, batches and episodes that have all the parts, for tests that take milliseconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fosp.agent.agent import Agent, AgentConfig, Dream, Learner, OptimiserConfig
from fosp.nets.distributions import gumbel
from fosp.nets.features import Features
from fosp.types import Batch, Episode, Schema
from fosp.world_model import ModelConfig, WorldModel

WIDTH, ACTIONS, B, T = 16, 2, 2, 6
SCHEMA = Schema(
    task="fake/Tiny-v0",
    cameras={"image_front": (WIDTH, WIDTH, 3), "image_back": (WIDTH, WIDTH, 3)},
    action_size=ACTIONS,
    action_repeat=4,
    max_steps=10,
    cost_terms=("hazards",),
)
MODEL = ModelConfig(deter=8, groups=2, classes=4, units=16, layers=1, depth=4, decode_width=16, bins=41)
AGENT = AgentConfig(units=16, layers=1, bins=41, horizon=3, starts=4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def world_model(seed: int = 0, **changes: Any) -> WorldModel:
    torch.manual_seed(seed)
    return WorldModel(replace(MODEL, **changes), channels=6, width=WIDTH, actions=ACTIONS)


def agent(seed: int = 0, schema: Schema = SCHEMA, model: ModelConfig = MODEL, **changes: Any) -> Agent:
    torch.manual_seed(seed)
    return Agent(model, replace(AGENT, **changes), schema)


def learner(seed: int = 0, optimiser: OptimiserConfig | None = None, **changes: Any) -> Learner:
    return Learner(agent(seed, **changes), optimiser or OptimiserConfig(), seed)


def stir(module: nn.Module, seed: int = 0, size: float = 0.5) -> None:
    """Random numbers on all weights. Fresh heads are constant, so nothing could be seen to depend on anything."""
    draw = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=draw))


def batch(seed: int = 0, size: int = B, rows: int = T, **given: Any) -> Batch:
    """A batch of tensors as it reaches the learner, all in the middle of an episode unless ``given`` says otherwise."""
    random = np.random.default_rng(seed)
    shape = (size, rows)
    parts: dict[str, Any] = {
        "images": {
            name: torch.from_numpy(random.integers(0, 256, (*shape, *image), np.uint8))
            for name, image in SCHEMA.cameras.items()
        },
        "action": torch.from_numpy(random.uniform(-1, 1, (*shape, ACTIONS)).astype(np.float32)),
        "reward": torch.from_numpy(random.normal(size=shape).astype(np.float32)),
        "cost": torch.from_numpy((random.random(shape) < 0.3).astype(np.float32) * 2),
        "is_first": torch.zeros(shape, dtype=torch.bool),
        "is_last": torch.zeros(shape, dtype=torch.bool),
        "is_terminal": torch.zeros(shape, dtype=torch.bool),
    }
    return Batch(**{**parts, **given})


def images(data: Batch) -> Tensor:
    """uint8 (B, T, W, W, C)."""
    return torch.cat(list(data.images.values()), -1)


def noise(size: int = B, rows: int = T, seed: int = 0) -> Tensor:
    """Gumbel noise (B, T, S, K)."""
    return gumbel((size, rows, MODEL.groups, MODEL.classes), generator(seed))


def dreamt(features: int, seed: int = 0, starts: int = 3, horizon: int = 2) -> Dream:
    """An imagined rollout of random numbers."""
    draw = generator(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    rows = horizon + 1
    return Dream(
        features=Features(numbers(rows, starts, features)),
        action=numbers(horizon, starts, ACTIONS).clamp(-1, 1),
        reward=numbers(rows, starts),
        cost=numbers(rows, starts).abs(),
        proceed=torch.ones(rows, starts),
        exploring=torch.zeros(starts, dtype=torch.bool),
    )


def flags(rows: int, *set_rows: int) -> Tensor:
    """bool (1, T), true at ``set_rows``."""
    row = torch.zeros(1, rows, dtype=torch.bool)
    row[0, list(set_rows)] = True
    return row


def observation(seed: int = 0, count: int | None = None) -> dict[str, np.ndarray]:
    """Camera images of one environment, or of ``count``."""
    random = np.random.default_rng(seed)
    shape = () if count is None else (count,)
    return {name: random.integers(0, 256, (*shape, *image), np.uint8) for name, image in SCHEMA.cameras.items()}


def episode(seed: int = 0, rows: int = 11, **info: Any) -> Episode:
    """An episode with random content that was cut by its time limit."""
    random = np.random.default_rng(seed)
    action = random.uniform(-1, 1, (rows, ACTIONS)).astype(np.float32)
    action[-1] = 0
    reward = random.normal(size=rows).astype(np.float32)
    cost = (random.random(rows) < 0.3).astype(np.float32)
    reward[0] = cost[0] = 0
    first, last = np.arange(rows) == 0, np.arange(rows) == rows - 1
    return Episode(
        images={name: random.integers(0, 256, (rows, *image), np.uint8) for name, image in SCHEMA.cameras.items()},
        action=action,
        reward=reward,
        cost=cost,
        is_first=first,
        is_last=last,
        is_terminal=np.zeros(rows, bool),
        cost_terms={"hazards": cost},
        info={"task": SCHEMA.task, "scenario": None, "seed": seed, "behaviour": "fake", "goals": 0, **info},
    )


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two sets of named tensors are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
