"""RunConfig: the configuration of every component of a run in one tree, and the presets it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fosp import config as mechanism
from fosp.agent.agent import AgentConfig, OptimiserConfig
from fosp.training.offline import TrainingConfig
from fosp.training.online import OnlineConfig
from fosp.types import unknown
from fosp.world_model import ModelConfig


@dataclass(frozen=True)
class RunConfig:
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    online: OnlineConfig = field(default_factory=OnlineConfig)


PRESETS: dict[str, RunConfig] = {
    # For tests and a first look: learns on any machine within minutes, but not well.
    "tiny": RunConfig(
        model=ModelConfig(deter=128, groups=16, classes=16, units=128, depth=8),
        agent=AgentConfig(units=128, horizon=10, starts=64),
        training=TrainingConfig(batch=8, length=32, updates=10_000),
    ),
    # For two cores.
    "small": RunConfig(),
    # The sizes of the paper's reference: 26 M parameters, batch 16x64. For a GPU.
    "paper": RunConfig(
        model=ModelConfig(deter=512, groups=48, classes=48, units=512, depth=32, bins=255),
        agent=AgentConfig(units=512, bins=255, horizon=15, starts=1024),
        optimiser=OptimiserConfig(model_rate=1e-4, critic_rate=1e-4, actor_rate=1e-4),
        training=TrainingConfig(batch=16, length=64, updates=250_000, save_every=2500),
    ),
}


def resolve(preset: str = "small", file: str | Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """A preset, under a YAML file, under dotted overrides ``a.b=c``. UserError for an unknown preset, key or value."""
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    config = PRESETS[preset]
    if file is not None:
        config = mechanism.load(file, config)
    return mechanism.override(config, overrides)
