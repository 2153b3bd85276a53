"""The agent: what it consists of, and one update of the whole algorithm in the order of the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fosp.agent import actor as extraction
from fosp.agent.actor import Actor, ActorScales, WeightConfig
from fosp.agent.constraint import AugmentedLagrangian, ConstraintConfig
from fosp.agent.critics import Critic
from fosp.agent.encoded import EncodedBatch
from fosp.agent.expansion import ExpansionConfig
from fosp.agent.mirror import mirrored
from fosp.agent.reachability import Reachability
from fosp.agent.returns import in_sample_target, lambda_return, reachability_target
from fosp.nets.distributions import gumbel
from fosp.nets.layers import constant, frozen_copy
from fosp.nets.statistics import RunningRange
from fosp.types import Batch, Schema
from fosp.world_model import Latent, ModelConfig, ModelScales, WorldModel, model_loss
from fosp.world_model.loss import weighted_sum

VIOLATED_FRAME = 1.0  # cost of one violated frame


@dataclass(frozen=True)
class CriticScales:
    """Weights of the losses of critics and reachability."""

    q_reward: float = 1.0
    q_cost: float = 1.0
    v_reward: float = 1.0
    v_cost: float = 1.0
    reach: float = 1.0
    q_reward_imagined: float = 1.0
    q_cost_imagined: float = 1.0
    reach_imagined: float = 1.0


@dataclass(frozen=True)
class AgentConfig:
    """Everything about what to do, given a world model."""

    units: int = 256
    layers: int = 2
    bins: int = 127
    gamma: float = 1 - 1 / 333  # per agent step
    lam: float = 0.95
    horizon: int = 15  # H, imagined steps
    starts: int = 128  # posterior states of a batch from which imagination starts
    explore_first: float = 0.5  # share of starts with a uniform first action, so that Q learns what else could be done
    expectile_reward: float = 0.8
    expectile_cost: float = 0.8
    slow_fraction: float = 0.02
    reach_gamma: float = 0.95
    mirror: bool = True  # learn from the mirrored world too, where the task says that it is its own mirror image
    model_scales: ModelScales = field(default_factory=ModelScales)
    critic_scales: CriticScales = field(default_factory=CriticScales)
    actor_scales: ActorScales = field(default_factory=ActorScales)
    weights: WeightConfig = field(default_factory=WeightConfig)
    constraint: ConstraintConfig = field(default_factory=ConstraintConfig)
    expansion: ExpansionConfig = field(default_factory=ExpansionConfig)


class Agent(nn.Module):
    """All modules, without optimisers. ``offline_actor`` is the frozen policy of safe policy expansion, or None."""

    def __init__(self, model_config: ModelConfig, config: AgentConfig, schema: Schema) -> None:
        super().__init__()
        self.config = config
        shapes = list(schema.cameras.values())
        self.model = WorldModel(model_config, sum(s[2] for s in shapes), shapes[0][0], schema.action_size)
        size, actions = self.model.feature_size, schema.action_size
        self.reward_critic = Critic(size, actions, config.units, config.layers, config.bins, pessimism=-1)
        self.cost_critic = Critic(size, actions, config.units, config.layers, config.bins, pessimism=+1)
        self.reachability = Reachability(size, config.units, config.layers)
        self.actor = Actor(size, actions, config.units, config.layers)
        self.offline_actor: Actor | None = None
        self.constraint = AugmentedLagrangian(config.constraint)
        self.reward_range, self.cost_range = RunningRange(), RunningRange()
        self.steps_per_episode = schema.max_steps or 250
        self.mirror = schema.mirror if config.mirror else ()

    def expand(self) -> None:
        """Begin safe policy expansion: freeze the present actor as pi_off; the trained one starts from it."""
        self.offline_actor = frozen_copy(self.actor)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by optimiser. Slow copies and the frozen policy are in none."""
        parts: dict[str, list[nn.Module]] = {
            "model": [self.model],
            "critics": [self.reward_critic, self.cost_critic, self.reachability],
            "actor": [self.actor],
        }
        return {name: [p for m in ms for p in m.parameters() if p.requires_grad] for name, ms in parts.items()}


@dataclass(frozen=True)
class Dream:
    """Imagined rollout of the trained actor, N starts: states 0..H, actions 0..H-1, what the heads say of each."""

    features: Tensor  # (H + 1, N, F)
    action: Tensor  # (H, N, A)
    reward: Tensor  # (H + 1, N)
    cost: Tensor  # (H + 1, N)
    proceed: Tensor  # (H + 1, N)


@torch.no_grad()
def dream(agent: Agent, start: Latent, generator: torch.Generator) -> Dream:
    """Roll the trained actor out in the model; a share of the starts tries a uniform first action."""
    config, device = agent.config, start.h.device
    count = start.h.shape[0]
    size = agent.model.actions
    noise = gumbel((config.horizon, count, *start.z.shape[1:]), generator, device)
    normal = torch.randn(config.horizon, count, size, generator=generator, device=device)
    uniform = torch.rand(count, size, generator=generator, device=device) * 2 - 1
    exploring = torch.arange(count, device=device).unsqueeze(-1) < round(config.explore_first * count)

    def choose(features: Tensor, k: int) -> Tensor:
        action = agent.actor.sample(features, normal[k])
        return torch.where(exploring, uniform, action) if k == 0 else action

    states, action = agent.model.imagine(start, choose, config.horizon, noise)
    features = states.features
    model = agent.model
    return Dream(features, action, model.reward(features), model.cost(features), model.continues(features))


def critic_losses(agent: Agent, features: Tensor, batch: Batch, dreamt: Dream) -> dict[str, Tensor]:
    """Losses of both critics and of reachability, in-sample on the log's pairs and on imagined ones.

    features (B, T, F) are constants. Returns flat tensors by name; masked pairs count as zero.
    """
    config = agent.config
    action = batch.action[:, :-1].flatten(0, 1)  # (B * (T - 1), A)
    pairs = features[:, :-1].flatten(0, 1)
    dreamt_pairs, dreamt_action = dreamt.features[:-1].flatten(0, 1), dreamt.action.flatten(0, 1)
    losses = {}
    for name, critic, signal, imagined_signal, level in (
        ("reward", agent.reward_critic, batch.reward, dreamt.reward, config.expectile_reward),
        ("cost", agent.cost_critic, batch.cost, dreamt.cost, 1 - config.expectile_cost),
    ):
        target, mask = in_sample_target(
            signal, critic.slow_v_value(features), batch.is_first, batch.is_terminal, config.gamma
        )
        mask = mask.flatten()
        losses[f"q_{name}"] = mask * critic.q_loss(pairs, action, target.flatten())
        losses[f"v_{name}"] = mask * critic.v_loss(pairs, action, level)
        value = critic.slow_v_value(dreamt.features)
        returns = lambda_return(imagined_signal, value, dreamt.proceed, config.gamma, config.lam)
        losses[f"q_{name}_imagined"] = critic.q_loss(dreamt_pairs, dreamt_action, returns.flatten())
    losses["reach"] = reach_loss(agent, features, batch.cost > 0, batch.is_last, batch.is_terminal)
    never = torch.zeros_like(dreamt.cost.T, dtype=torch.bool)
    losses["reach_imagined"] = reach_loss(
        agent, dreamt.features.transpose(0, 1), dreamt.cost.T > 0.5 * VIOLATED_FRAME, never, never
    )
    return losses


def reach_loss(agent: Agent, features: Tensor, violated: Tensor, is_last: Tensor, is_terminal: Tensor) -> Tensor:
    """(B, T, F), (B, T) three times -> (B, T). Rows that could only repeat their own bootstrap have weight 0."""
    slow = agent.reachability.slow_probability(features)
    gamma, lam = agent.config.reach_gamma, agent.config.lam
    target = reachability_target(violated.float(), slow, is_last, is_terminal, gamma, lam)
    informed = ~is_last.clone()
    informed[:, -1] = False
    informed |= violated | is_terminal
    return informed.float() * agent.reachability.loss(features, target)


def actor_losses(agent: Agent, features: Tensor, batch: Batch, dreamt: Dream, noise: Tensor) -> dict[str, Tensor]:
    """Ways to extract the policy; features (B, T, F) are constants, noise (B * (T - 1) + H * N, A) standard normal."""
    config = agent.config
    logged = features[:, :-1].flatten(0, 1)
    log_action = batch.action[:, :-1].flatten(0, 1)
    mask = 1.0 - batch.is_first[:, 1:].float().flatten()
    reward_advantage, cost_advantage = advantages(agent, logged, log_action)
    agent.reward_range.update(reward_advantage)
    agent.cost_range.update(cost_advantage)
    weight = mask * _weight(agent, logged, log_action, reward_advantage, cost_advantage)
    dreamt_states, dreamt_action = dreamt.features[:-1].flatten(0, 1), dreamt.action.flatten(0, 1)
    states = torch.cat([logged, dreamt_states])
    action = agent.actor.sample(states, noise)
    ascent = extraction.score(
        1 - agent.reachability.probability(states),
        agent.reward_range(agent.reward_critic.q_value(states, action)),
        agent.cost_range(agent.cost_critic.q_value(states, action)),
        agent.constraint.weight(),
    )
    losses = {
        "likelihood": extraction.likelihood_loss(agent.actor, logged, log_action, weight),
        "pathwise": -ascent,
        "entropy": extraction.entropy_loss(agent.actor, states),
    }
    if config.actor_scales.imagined:
        own = advantages(agent, dreamt_states, dreamt_action)
        own_weight = _weight(agent, dreamt_states, dreamt_action, *own)
        losses["imagined"] = extraction.likelihood_loss(agent.actor, dreamt_states, dreamt_action, own_weight)
    else:
        losses["imagined"] = torch.zeros_like(ascent)
    return losses


def dynamics_loss(agent: Agent, start: Latent, generator: torch.Generator) -> Tensor:
    """Score of imagined lambda-returns, whose gradient reaches the policy through the model. Latent (N, ...) -> (H, N).

    The model and the critics are constants. As in the family (arXiv 2010.02193, sec. 2.3) the policy's input is a
    constant too, so that each action answers for what follows it.
    """
    config, device = agent.config, start.h.device
    count, size = start.h.shape[0], agent.model.actions
    noise = gumbel((config.horizon, count, *start.z.shape[1:]), generator, device)
    normal = torch.randn(config.horizon, count, size, generator=generator, device=device)

    def choose(features: Tensor, k: int) -> Tensor:
        return agent.actor.sample(features.detach(), normal[k])

    with constant(agent.model):
        states, _ = agent.model.imagine(start, choose, config.horizon, noise)
        features = states.features  # (H + 1, N, F)
        proceed = agent.model.continues(features)
        reward, cost = agent.model.reward(features), agent.model.cost(features)
    gains = []
    for critic, signal, scale in (
        (agent.reward_critic, reward, agent.reward_range),
        (agent.cost_critic, cost, agent.cost_range),
    ):
        value = critic.v_value(features)
        returns = lambda_return(signal, value, proceed, config.gamma, config.lam)
        gains.append(scale(returns - value[:-1].detach()))
    feasible = 1 - agent.reachability.probability(features[:-1])
    return -extraction.score(feasible, gains[0], gains[1], agent.constraint.weight())


def advantages(agent: Agent, features: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """A^r and A^c of pairs, constants. (N, F), (N, A) -> (N,), (N,)."""
    reward = agent.reward_critic.q_value(features, action) - agent.reward_critic.v_value(features)
    cost = agent.cost_critic.q_value(features, action) - agent.cost_critic.v_value(features)
    return reward.detach(), cost.detach()


def _weight(agent: Agent, features: Tensor, action: Tensor, reward_advantage: Tensor, cost_advantage: Tensor) -> Tensor:
    # Tolerance gate g: the discounted cost of a policy at the budget. An exact zero would be regression noise.
    config = agent.config
    tolerance = config.constraint.budget / agent.steps_per_episode / (1 - config.gamma)
    gate = (agent.cost_critic.q_value(features, action) <= tolerance).float()
    feasible = 1 - agent.reachability.probability(features)
    return extraction.regression_weight(
        feasible, gate, agent.reward_range(reward_advantage), agent.cost_range(cost_advantage), config.weights
    )


@dataclass(frozen=True)
class OptimiserConfig:
    model_rate: float = 4e-4
    critic_rate: float = 3e-4
    actor_rate: float = 3e-4
    eps: float = 1e-8
    clip: float = 1000.0
    behaviour_every: int = 1  # critics and actor learn in every k-th model update; 0 leaves them to the encoded log


class Learner:
    """One TrainState: modules, optimisers, normalisers, generator and counters, with one state and one update."""

    def __init__(
        self,
        agent: Agent,
        optimiser: OptimiserConfig,
        seed: int,
        device: torch.device | str = "cpu",
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self.agent, self.config, self.autocast = agent.to(device), optimiser, autocast
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        rates = {"model": optimiser.model_rate, "critics": optimiser.critic_rate, "actor": optimiser.actor_rate}
        self.groups = agent.groups()
        self.optimisers = {
            name: torch.optim.Adam(self.groups[name], lr=rate, eps=optimiser.eps, foreach=True)
            for name, rate in rates.items()
        }
        self.updates = 0
        self.skipped = 0  # updates whose gradients were not finite

    def update(self, batch: Batch | EncodedBatch) -> dict[str, Tensor]:
        """One update on a batch of tensors; returns metrics as tensors of shape ().

        An encoded batch holds states instead of images: the world model stays as it is, all else learns.
        """
        if isinstance(batch, EncodedBatch):
            metrics = self._update_behaviour(batch.latents, batch.batch)
            self.updates += 1
            return {name: value.detach() for name, value in metrics.items()}
        agent, config = self.agent, self.agent.config
        if agent.mirror:
            half = torch.rand(batch.reward.shape[0], generator=self.generator, device=self.device) < 0.5
            batch = mirrored(batch, agent.mirror, half)
        shape = (*batch.reward.shape, agent.model.config.groups, agent.model.config.classes)
        noise = gumbel(shape, self.generator, self.device)
        with self.autocast():
            losses, latents = model_loss(
                agent.model, stack_cameras(batch), batch.action, batch.reward, batch.cost, batch.is_first,
                batch.is_terminal, noise,
            )  # fmt: skip
            total = weighted_sum(losses, config.model_scales)
        metrics = {f"model/{name}": loss.mean() for name, loss in losses.items()}
        metrics["model/grad_norm"] = self._step("model", total)
        every = self.config.behaviour_every
        if every and self.updates % every == 0:
            metrics |= self._update_behaviour(latents.detach(), batch)
        self.updates += 1
        return {name: value.detach() for name, value in metrics.items()}

    def _update_behaviour(self, latents: Latent, batch: Batch) -> dict[str, Tensor]:
        """Critics, reachability, multiplier and policy, on posterior states (B, T, ...) as constants."""
        agent, config = self.agent, self.agent.config
        features = latents.features
        flat = latents.flatten()
        starts = torch.randperm(flat.h.shape[0], generator=self.generator, device=self.device)[: config.starts]
        with self.autocast():
            dreamt = dream(agent, flat[starts], self.generator)
            losses = critic_losses(agent, features, batch, dreamt)
            total = weighted_sum(losses, config.critic_scales)
        metrics = {f"critic/{name}": loss.mean() for name, loss in losses.items()}
        metrics["critic/grad_norm"] = self._step("critics", total)
        later = dreamt.cost[config.horizon // 2 :].mean()  # the first half still shows the log's own danger
        agent.constraint.update(later.clamp(min=0) * agent.steps_per_episode)
        count = batch.reward[:, 1:].numel() + dreamt.action[..., 0].numel()
        normal = torch.randn(count, agent.model.actions, generator=self.generator, device=self.device)
        with self.autocast():
            losses = actor_losses(agent, features, batch, dreamt, normal)
            through = config.actor_scales.dynamics != 0
            losses["dynamics"] = dynamics_loss(agent, flat[starts], self.generator) if through else normal.new_zeros(1)
            total = weighted_sum(losses, config.actor_scales)
        metrics |= {f"actor/{name}": loss.mean() for name, loss in losses.items()}
        metrics["actor/grad_norm"] = self._step("actor", total)
        for slow in (agent.reward_critic, agent.cost_critic, agent.reachability):
            slow.update_slow(config.slow_fraction)
        metrics |= {
            "constraint/multiplier": agent.constraint.multiplier.clone(),
            "constraint/weight": agent.constraint.weight(),
            "constraint/cost_per_episode": agent.constraint.estimate.clone(),
            "reach/violated": (batch.cost > 0).float().mean(),
            "reach/probability": agent.reachability.probability(features).mean(),
            "critic/reward_value": agent.reward_critic.v_value(features).mean(),
            "critic/cost_value": agent.cost_critic.v_value(features).mean(),
            "critic/reward_range": agent.reward_range.span.clone(),
            "critic/cost_range": agent.cost_range.span.clone(),
            "imagined/reward": dreamt.reward[1:].mean(),
            "imagined/cost": dreamt.cost[1:].mean(),
            "actor/std": agent.actor(features.flatten(0, 1))[1].mean(),
        }
        return metrics

    def weights(self) -> dict[str, Tensor]:
        """Every module's tensors by name, frozen and slow copies included."""
        return dict(self.agent.state_dict())

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        self.agent.load_state_dict(dict(weights))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What besides the weights an exact restart needs: tensors by name, and numbers for JSON."""
        tensors = {"generator": self.generator.get_state()}
        for name, optimiser in self.optimisers.items():
            for index, entry in optimiser.state_dict()["state"].items():
                tensors |= {f"{name}/{index}/{key}": torch.as_tensor(value) for key, value in entry.items()}
        return tensors, {"updates": self.updates, "skipped": self.skipped}

    def load_state(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        self.generator.set_state(tensors["generator"].cpu())
        for name, optimiser in self.optimisers.items():
            entries: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"{name}/"):
                    _, index, kind = key.split("/")
                    entries.setdefault(int(index), {})[kind] = value
            optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})
        self.updates, self.skipped = numbers["updates"], numbers["skipped"]

    def _step(self, name: str, loss: Tensor) -> Tensor:
        """The only place that computes gradients and changes weights. What is not finite is skipped and counted."""
        parameters = self.groups[name]
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip)
        if torch.isfinite(norm):
            self.optimisers[name].step()
        else:
            self.skipped += 1
        self.optimisers[name].zero_grad(set_to_none=True)
        return norm


def stack_cameras(batch: Batch) -> Tensor:
    """uint8 (B, T, W, W, C)."""
    return torch.cat(list(batch.images.values()), -1)
