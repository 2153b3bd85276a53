"""RunConfig: the configuration of every component of a run in one tree, and the presets it starts from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fosp import config as mechanism
from fosp.agent.actor import ActorScales
from fosp.agent.agent import AgentConfig, OptimiserConfig
from fosp.agent.constraint import ConstraintConfig
from fosp.training.offline import TrainingConfig
from fosp.training.online import OnlineConfig
from fosp.types import unknown
from fosp.world_model import ModelConfig, ModelScales


@dataclass(frozen=True)
class RunConfig:
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    online: OnlineConfig = field(default_factory=OnlineConfig)


#: What was measured to reach a skill soonest on two processor cores; docs/speed.md says what each part of it gains.
#: Images are read in patches and reconstructed at half size in whitened colours, at a hundredth of the reference's
#: weight: the sum over pixels left reward and cost no say in what the state holds. The world model learns first, then
#: critics and policy on the encoded log. A horizon of 33 steps (2.7 s) instead of 333 makes advantages large against
#: values. A world model of 2500 small updates believes some things that are not so, and a policy that follows it
#: freely finds them: the weight of the log's likelihood guards against that, and the budget is not as firm as it could
#: be.
_CORES = RunConfig(
    model=ModelConfig(stem=4, decode_width=32, whitening=1.0, bins=63, depth=8),
    agent=AgentConfig(
        units=128,
        bins=63,
        gamma=0.97,
        horizon=10,
        starts=64,
        ahead=8,
        slow_fraction=0.2,
        average=0.01,
        model_scales=ModelScales(image=0.01, reward=5.0, cost=5.0, reward_ahead=5.0, cost_ahead=5.0),
        actor_scales=ActorScales(likelihood=1.5, pathwise=0.5, dynamics=1.0),
        constraint=ConstraintConfig(budget=6.0),
    ),
    optimiser=OptimiserConfig(model_rate=1e-3, critic_rate=1e-3, actor_rate=1e-3, behaviour_every=0),
    training=TrainingConfig(batch=8, length=32, updates=2500, latent_updates=1000, latent_batch=16, decay=0.5),
    online=OnlineConfig(episodes=32, updates_per_step=0.1, decay=0.5),
)

PRESETS: dict[str, RunConfig] = {
    "laptop": _CORES,
    # Smaller, and as the reference: strides, images at full size, everything together in one stage. For tests. Every
    # fourth image is reconstructed, another one in each update: a fifth of the time won (docs/speed.md).
    "tiny": RunConfig(
        model=ModelConfig(deter=128, groups=16, classes=16, units=128, depth=8, whitening=1.0, decode_every=4),
        agent=replace(_CORES.agent, bins=127),
        optimiser=replace(_CORES.optimiser, behaviour_every=1),
        training=TrainingConfig(batch=8, length=32, updates=10_000, decay=0.5),
    ),
    # The sizes at which published code is compared on two cores.
    "small": RunConfig(),
    # The sizes of the paper's reference: 26 M parameters, batch 16x64. For a GPU.
    "paper": RunConfig(
        model=ModelConfig(deter=512, groups=48, classes=48, units=512, depth=32, bins=255, costly_weight=10.0),
        agent=AgentConfig(units=512, bins=255, horizon=15, starts=1024, ahead=0),
        optimiser=OptimiserConfig(model_rate=1e-4, critic_rate=1e-4, actor_rate=1e-4),
        training=TrainingConfig(batch=16, length=64, updates=250_000, save_every=2500),
    ),
}


def resolve(
    preset: str = "laptop", file: str | os.PathLike[str] | None = None, overrides: Sequence[str] = ()
) -> RunConfig:
    """A preset, under a YAML file, under dotted overrides ``a.b=c``. UserError for an unknown preset, key or value."""
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    config = PRESETS[preset]
    if file is not None:
        config = mechanism.load(file, config)
    return mechanism.override(config, overrides)
