"""The agent: what it consists of, and one update of the whole algorithm in the order of the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fosp.agent import actor as extraction
from fosp.agent.actor import Actor, ActorScales, WeightConfig, clip_through
from fosp.agent.constraint import AugmentedLagrangian, ConstraintConfig
from fosp.agent.critics import Critic
from fosp.agent.encoded import EncodedBatch
from fosp.agent.expansion import ExpansionConfig
from fosp.agent.mirror import turned
from fosp.agent.reachability import Reachability
from fosp.agent.returns import in_sample_target, lambda_return, reachability_target
from fosp.nets.distributions import gaussian_entropy, gumbel
from fosp.nets.features import Features
from fosp.nets.layers import constant, follow, frozen_copy
from fosp.nets.statistics import RunningRange
from fosp.parallel import ALONE
from fosp.types import Batch, Schema, UserError
from fosp.world_model import Latent, ModelConfig, ModelScales, WorldModel, ahead_loss, model_loss
from fosp.world_model.loss import weighted_sum
from fosp.world_model.pixels import stack_cameras
from fosp.world_model.recurrent import Chooser

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
    ahead: int = 5  # steps over which the world model must foresee reward and cost from as many states, 0 for none
    explore_first: float = 0.5  # share of starts with a uniform first action, so that Q learns what else could be done
    expectile_reward: float = 0.8
    expectile_cost: float = 0.8
    slow_fraction: float = 0.02
    # Share by which the policy that acts follows the trained one in every update; 1 is the trained one itself. Critics
    # of finite data let the greedy action flip from update to update where all actions are about equally good.
    average: float = 1.0
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
        self.average_actor = self._begin_average()
        self.offline_actor: Actor | None = None
        self.constraint = AugmentedLagrangian(config.constraint)
        self.reward_range, self.cost_range = RunningRange(), RunningRange()
        if schema.max_steps < 1:
            raise UserError(
                f"the schema of {schema.task} has max_steps {schema.max_steps}; it must be the agent steps of an "
                "episode, at least 1, since the budget is a cost per episode"
            )
        self.steps_per_episode = schema.max_steps
        self._mirror = schema.mirror
        self.team = ALONE  # those that learn of other rows of each batch

    @property
    def mirror(self) -> tuple[float, ...]:
        """Signs of the actions in the mirrored world, where that is learned from too."""
        return self._mirror if self.config.mirror else ()

    @property
    def policy(self) -> Actor:
        """The policy that acts: the trained actor, or its moving average."""
        return self.average_actor or self.actor

    def expand(self) -> None:
        """Begin safe policy expansion: freeze the present policy as pi_off; the trained one starts from it."""
        self.offline_actor = frozen_copy(self.policy)
        self.actor.load_state_dict(self.policy.state_dict())
        self.average_actor = self._begin_average()

    def restart_actor(self, actor: Actor) -> None:
        """Go on with another, untrained actor."""
        self.actor = actor
        self.average_actor = self._begin_average()

    def _begin_average(self) -> Actor | None:
        return frozen_copy(self.actor) if self.config.average < 1 else None

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

    features: Features  # (H + 1, N, F)
    action: Tensor  # (H, N, A)
    reward: Tensor  # (H + 1, N)
    cost: Tensor  # (H + 1, N)
    proceed: Tensor  # (H + 1, N)
    exploring: Tensor  # (N,) bool: its first action was a uniform one

    def detach(self) -> Dream:
        values = {name: value.detach() for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Dream(**values, features=self.features.map(Tensor.detach))

    @property
    def alive(self) -> Tensor:
        """Probability that the rollout has not ended before the action of each pair, a constant. (H, N)"""
        return torch.cat([torch.ones_like(self.proceed[:1]), self.proceed[1:-1]]).detach().cumprod(0)


def dream(
    agent: Agent, start: Latent, generator: torch.Generator, roll: Callable[..., Dream] | None = None
) -> Dream:  # fmt: skip
    """Roll the trained actor out in the model, which is a constant; a share of the starts tries a uniform first action.

    Gradients reach the policy through the model's dynamics. As in the family (arXiv 2010.02193, sec. 2.3) the policy's
    input is a constant too, so that each action answers for what follows it. ``roll`` is ``roll_out``, or it compiled.
    """
    config, device, team = agent.config, start.h.device, agent.team
    count, size = team.size * start.h.shape[0], agent.model.actions
    noise = team.share(gumbel((config.horizon, count, *start.z.shape[1:]), generator, device), 1)
    normal = team.share(torch.randn(config.horizon, count, size, generator=generator, device=device), 1)
    uniform = team.share(torch.rand(count, size, generator=generator, device=device) * 2 - 1)
    exploring = team.share(torch.arange(count, device=device) < round(config.explore_first * count))
    with constant(agent.model), torch.set_grad_enabled(config.actor_scales.dynamics != 0):
        return (roll or roll_out)(agent, start, noise, normal, uniform, exploring)


def roll_out(
    agent: Agent, start: Latent, noise: Tensor, normal: Tensor, uniform: Tensor, exploring: Tensor
) -> Dream:  # fmt: skip
    """The dream that follows from N starts and from random numbers.

    start (N, ...), Gumbel noise (H, N, S, K), normal (H, N, A), first actions (N, A) of those that explore (N,).
    """

    model = agent.model
    chooser = agent.actor.chooser(normal, uniform, exploring) if model.rssm.runs_at_once(start.h) else None
    if chooser is None:

        def choose(features: Tensor, k: int) -> Tensor:
            action = agent.actor.sample(features.detach(), normal[k])
            return torch.where(exploring.unsqueeze(-1), uniform, action) if k == 0 else action

        states, action = model.imagine(start, choose, agent.config.horizon, noise)
        features = model.features(states)
    else:
        features, action = _roll_out_at_once(agent, start, noise, chooser)
    heads = (model.reward(features), model.cost(features), model.continues(features))
    return Dream(features, action, *heads, exploring)


def _roll_out_at_once(agent: Agent, start: Latent, noise: Tensor, chooser: Chooser) -> tuple[Features, Tensor]:
    """States 0 .. H as features (H + 1, N, F) and actions (H, N, A), all steps in one call.

    That call knows no gradient of the policy: it is the one of the same actions, chosen again for all steps together.
    """
    model = agent.model
    rolled = model.rssm.chosen(start, chooser, noise)
    features = model.features(start.followed_by(Latent(rolled.h, rolled.z)))
    if not torch.is_grad_enabled():
        return features, rolled.action
    first, *later = agent.actor.sample(features.map(lambda x: x[:-1]), chooser.noise)
    again = torch.stack([torch.where(chooser.exploring.unsqueeze(-1), chooser.first_action, first), *later])
    action = rolled.action + (again - again.detach())
    states = start.followed_by(model.rssm.foresee(start, action, noise, rolled))
    return features._replace(values=states.features), action


def critic_losses(agent: Agent, features: Tensor | Features, batch: Batch, dreamt: Dream) -> dict[str, Tensor]:
    """Losses of both critics and of reachability, in-sample on the log's pairs and on imagined ones.

    features (B, T, F) and the dream are constants. Returns flat tensors by name; masked pairs count as zero.
    """
    config, features, imagined = agent.config, Features.of(features).rounded(), dreamt.features.rounded()
    logged_action = batch.action[:, :-1].flatten(0, 1)  # (B * (T - 1), A)
    logged = features.map(lambda x: x[:, :-1].flatten(0, 1))
    dreamt_action = dreamt.action.flatten(0, 1)  # (H * N, A)
    pairs = Features.cat(logged, imagined.map(lambda x: x[:-1].flatten(0, 1)))
    action = torch.cat([logged_action, dreamt_action])
    states = Features.cat(*(x.map(lambda rows: rows.flatten(0, 1)) for x in (features, imagined)))
    rows = [batch.reward.numel(), dreamt.reward.numel()]
    losses = {}
    for name, critic, signal, imagined_signal, level in (
        ("reward", agent.reward_critic, batch.reward, dreamt.reward, config.expectile_reward),
        ("cost", agent.cost_critic, batch.cost, dreamt.cost, 1 - config.expectile_cost),
    ):
        value, imagined_value = critic.slow_v_value(states).split(rows)
        target, mask = in_sample_target(signal, value.view_as(signal), batch.is_first, batch.is_terminal, config.gamma)
        imagined_value = imagined_value.view_as(imagined_signal)
        returns = lambda_return(imagined_signal, imagined_value, dreamt.proceed, config.gamma, config.lam)
        weight = torch.cat([mask.flatten(), dreamt.alive.flatten()])
        q_loss = weight * critic.q_loss(pairs, action, torch.cat([target.flatten(), returns.flatten()]))
        losses[f"q_{name}"], losses[f"q_{name}_imagined"] = q_loss.split([len(logged_action), len(dreamt_action)])
        losses[f"v_{name}"] = mask.flatten() * critic.v_loss(logged, logged_action, level)
    losses["reach"] = reach_loss(agent, features, batch.cost > 0, batch.is_last, batch.is_terminal)
    never = torch.zeros_like(dreamt.cost.T, dtype=torch.bool)
    imagined_violation = dreamt.cost.T > 0.5 * VIOLATED_FRAME
    losses["reach_imagined"] = reach_loss(agent, imagined, imagined_violation, never, never, time=0)
    return losses


def reach_loss(
    agent: Agent, features: Tensor | Features, violated: Tensor, is_last: Tensor, is_terminal: Tensor, time: int = 1
) -> Tensor:
    """(B, T, F), (B, T) three times -> (B, T). Rows that could only repeat their own bootstrap have weight 0.

    ``time`` is the axis of time of ``features``, which may be (T, B, F): to turn what the heads say is much cheaper.
    """
    slow = agent.reachability.slow_probability(features).movedim(time, 1)
    gamma, lam = agent.config.reach_gamma, agent.config.lam
    target = reachability_target(violated.float(), slow, is_last, is_terminal, gamma, lam)
    informed = ~is_last.clone()
    informed[:, -1] = False
    informed |= violated | is_terminal
    return informed.float() * agent.reachability.loss(features, target.movedim(1, time)).movedim(time, 1)


def actor_losses(
    agent: Agent, features: Tensor | Features, batch: Batch, dreamt: Dream, noise: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Ways to extract the policy, and what was seen on the way as metrics.

    features (B, T, F) are constants, noise (B * (T - 1) + H * N, A) is standard normal; the dream may carry gradients.
    """
    config = agent.config
    logged = Features.of(features).rounded().map(lambda x: x[:, :-1].flatten(0, 1))
    log_action = batch.action[:, :-1].flatten(0, 1)
    mask = 1.0 - batch.is_first[:, 1:].float().flatten()
    imagined = dreamt.features.map(lambda x: x[:-1].detach().flatten(0, 1)).rounded()
    states = Features.cat(logged, imagined)
    parts = [len(logged.values), len(imagined.values)]
    feasible = 1 - agent.reachability.probability(states)
    mean, std = agent.actor(states)
    log_values = pair_values(agent, logged, log_action)
    agent.reward_range.update(agent.team.gather(log_values.reward_advantage))
    agent.cost_range.update(agent.team.gather(log_values.cost_advantage))
    weight = mask * _weight(agent, feasible[: parts[0]], log_values)
    action = clip_through(mean + std * noise)
    ascent = extraction.score(
        feasible,
        agent.reward_range(agent.reward_critic.q_value(states, action)),
        agent.cost_range(agent.cost_critic.q_value(states, action)),
        agent.constraint.weight(),
    )
    alive = torch.cat([torch.ones_like(mask), dreamt.alive.flatten()])
    losses = {
        "likelihood": extraction.likelihood_loss(mean[: parts[0]], std[: parts[0]], log_action, weight),
        "pathwise": -alive * ascent,
        "dynamics": torch.zeros_like(ascent),
        "imagined": torch.zeros_like(ascent),
        "entropy": -alive * gaussian_entropy(std),
    }
    if config.actor_scales.dynamics:
        losses["dynamics"] = dynamics_loss(agent, dreamt, feasible[parts[0] :])
    if config.actor_scales.imagined:
        dreamt_action = dreamt.action.detach().flatten(0, 1)
        own_weight = _weight(agent, feasible[parts[0] :], pair_values(agent, imagined, dreamt_action))
        own_weight = own_weight * dreamt.alive.flatten()
        losses["imagined"] = extraction.likelihood_loss(mean[parts[0] :], std[parts[0] :], dreamt_action, own_weight)
    seen = {
        "reach/probability": 1 - feasible[: parts[0]].mean(),
        "critic/reward_value": log_values.reward_value.mean(),
        "critic/cost_value": log_values.cost_value.mean(),
        "actor/std": std.mean(),
    }
    return losses, seen


def dynamics_loss(agent: Agent, dreamt: Dream, feasible: Tensor) -> Tensor:
    """Score of imagined lambda-returns, whose gradient reaches the policy through the model. feasible (H * N,).

    The critics are constants. Returns (H, N).
    """
    config = agent.config
    gains = []
    for critic, signal, scale in (
        (agent.reward_critic, dreamt.reward, agent.reward_range),
        (agent.cost_critic, dreamt.cost, agent.cost_range),
    ):
        value = critic.v_value(dreamt.features)
        returns = lambda_return(signal, value, dreamt.proceed, config.gamma, config.lam)
        gains.append(scale(returns - value[:-1].detach()))
    score = extraction.score(feasible.view_as(gains[0]), gains[0], gains[1], agent.constraint.weight())
    return -dreamt.alive * score


class PairValues(NamedTuple):
    """What the critics say of pairs of state and action, constants, (N,) each."""

    reward_value: Tensor  # V^r
    cost_value: Tensor  # V^c
    reward_advantage: Tensor  # A^r = Q^r - V^r
    cost_advantage: Tensor  # A^c


@torch.no_grad()
def pair_values(agent: Agent, features: Tensor | Features, action: Tensor) -> PairValues:
    """(N, F), (N, A)."""
    reward, cost = agent.reward_critic.v_value(features), agent.cost_critic.v_value(features)
    reward_advantage = agent.reward_critic.q_value(features, action) - reward
    return PairValues(reward, cost, reward_advantage, agent.cost_critic.q_value(features, action) - cost)


def _weight(agent: Agent, feasible: Tensor, values: PairValues) -> Tensor:
    # Tolerance gate g: the discounted cost of a policy at the budget. An exact zero would be regression noise.
    config = agent.config
    tolerance = config.constraint.budget / agent.steps_per_episode / (1 - config.gamma)
    gate = (values.cost_value + values.cost_advantage <= tolerance).float()
    return extraction.regression_weight(
        feasible,
        gate,
        agent.reward_range(values.reward_advantage),
        agent.cost_range(values.cost_advantage),
        config.weights,
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
        compiled: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
    ) -> None:
        """``compiled`` makes of each function that computes losses a faster one; None leaves them as they stand."""
        self.agent, self.config, self.autocast = agent.to(device), optimiser, autocast
        self.device = torch.device(device)
        losses = model_loss, ahead_loss, roll_out, critic_losses, actor_losses
        self.model_loss, self.ahead_loss, self.roll_out, self.critic_losses, self.actor_losses = (
            losses if compiled is None else map(compiled, losses)
        )
        self.compiled = compiled is not None
        if self.compiled:  # a compiler can do nothing with what is written by hand
            agent.model.leave_to_autograd()
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.rates = {"model": optimiser.model_rate, "critics": optimiser.critic_rate, "actor": optimiser.actor_rate}
        self.groups = agent.groups()
        self.optimisers = {
            name: torch.optim.Adam(self.groups[name], lr=rate, eps=optimiser.eps, fused=self.device.type == "cpu")
            for name, rate in self.rates.items()
        }
        self.updates = 0
        self.skipped_steps = 0  # of optimisers, up to three in an update: gradients were not finite
        self._recorded_cost: float | None = None

    def heed(self, cost_per_episode: float) -> None:
        """Let the constraint answer this, the cost of episodes that were acted, from now on, and not imagined cost."""
        self._recorded_cost = cost_per_episode

    def scale_rates(self, share: float) -> None:
        """Learn with this share of the configured rates from now on."""
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = share * self.rates[name]

    def update(self, batch: Batch | EncodedBatch) -> dict[str, Tensor]:
        """One update on a batch of tensors; returns metrics as tensors of shape ().

        An encoded batch holds states instead of images: the world model stays as it is, all else learns.
        """
        if (
            self.compiled and self.device.type == "cuda"
        ):  # what the CUDA graphs of the update before have returned is not needed any more
            torch.compiler.cudagraph_mark_step_begin()
        if isinstance(batch, EncodedBatch):
            metrics = self._update_policy(batch.latents, batch.batch)
            self.updates += 1
            return {name: value.detach() for name, value in metrics.items()}
        agent, config, team = self.agent, self.agent.config, self.agent.team
        sequences, time = team.size * batch.reward.shape[0], batch.reward.shape[1]
        half = None
        if agent.mirror:
            half = team.share(torch.rand(sequences, generator=self.generator, device=self.device) < 0.5)
            batch = replace(batch, action=turned(batch.action, agent.mirror, half))
        images = stack_cameras(batch.images, half)
        shape = (sequences, time, agent.model.config.groups, agent.model.config.classes)
        noise = team.share(gumbel(shape, self.generator, self.device))
        with self.autocast():
            losses, latents = self.model_loss(
                agent.model, images, batch.action, batch.reward, batch.cost, batch.is_first,
                batch.is_terminal, noise, self._decoded(time),
            )  # fmt: skip
            rows, drawn, weight = self._look_ahead(batch)
            ahead = self.ahead_loss(
                agent.model, latents, batch.action, batch.reward, batch.cost, batch.is_first, rows, drawn
            )
            losses |= {name: weight * loss for name, loss in ahead.items()}
            total = weighted_sum(losses, config.model_scales)
        metrics = {f"model/{name}": loss.mean() for name, loss in losses.items()}
        metrics["model/grad_norm"] = self._step("model", total)
        every = self.config.behaviour_every
        if every and self.updates % every == 0:
            metrics |= self._update_policy(latents.detach(), batch)
        self.updates += 1
        return {name: value.detach() for name, value in metrics.items()}

    def _update_policy(self, latents: Latent, batch: Batch) -> dict[str, Tensor]:
        metrics = self._update_behaviour(latents, batch)
        if self.agent.average_actor is not None:
            follow(self.agent.average_actor, self.agent.actor, self.agent.config.average)
        return metrics

    def _update_behaviour(self, latents: Latent, batch: Batch) -> dict[str, Tensor]:
        """Critics, reachability, multiplier and policy, on posterior states (B, T, ...) as constants."""
        agent, config = self.agent, self.agent.config
        features = agent.model.features(latents)
        with self.autocast():
            dreamt = dream(agent, self._starts(latents, batch), self.generator, self.roll_out)
            losses = self.critic_losses(agent, features, batch, dreamt.detach())
            total = weighted_sum(losses, config.critic_scales)
        metrics = {f"critic/{name}": loss.mean() for name, loss in losses.items()}
        metrics["critic/grad_norm"] = self._step("critics", total)
        imagined_cost, recorded = self._cost_per_episode(dreamt), self._recorded_cost
        agent.constraint.update(imagined_cost if recorded is None else torch.full_like(imagined_cost, recorded))
        normal = self._sample_noise(batch, dreamt)
        with self.autocast():
            losses, seen = self.actor_losses(agent, features, batch, dreamt, normal)
            total = weighted_sum(losses, config.actor_scales)
        metrics |= {f"actor/{name}": loss.mean() for name, loss in losses.items()}
        metrics["actor/grad_norm"] = self._step("actor", total)
        for slow in (agent.reward_critic, agent.cost_critic, agent.reachability):
            slow.update_slow(config.slow_fraction)
        metrics |= seen
        metrics |= {
            "constraint/multiplier": agent.constraint.multiplier.clone(),
            "constraint/weight": agent.constraint.weight(),
            "constraint/cost_per_episode": agent.constraint.estimate.clone(),
            "reach/violated": (batch.cost > 0).float().mean(),
            "critic/reward_range": agent.reward_range.span.clone(),
            "critic/cost_range": agent.cost_range.span.clone(),
            "imagined/reward": dreamt.reward[1:].mean(),
            "imagined/cost": dreamt.cost[1:].mean(),
            "imagined/cost_per_episode": imagined_cost,
        }
        return metrics

    def _sample_noise(self, batch: Batch, dreamt: Dream) -> Tensor:
        """Standard normal noise of the policy's action in the log's pairs, then in the imagined ones. (N, A)"""
        team = self.agent.team
        logged, dreamed = (team.size * x.numel() for x in (batch.reward[:, 1:], dreamt.action[..., 0]))
        size = (logged + dreamed, self.agent.model.actions)
        normal = torch.randn(size, generator=self.generator, device=self.device)
        imagined = normal[logged:].unflatten(0, (len(dreamt.action), -1))
        return torch.cat([team.share(normal[:logged]), team.share(imagined, 1).flatten(0, 1)])

    def _decoded(self, time: int) -> Tensor | None:
        """Which of the rows of a sequence are reconstructed in this update; None for all."""
        every = min(self.agent.model.config.decode_every, time)
        if every == 1:
            return None
        first = torch.randint(every, (), generator=self.generator, device=self.device)
        return first + every * torch.arange(time // every, device=self.device)

    def _look_ahead(self, batch: Batch) -> tuple[Tensor, Tensor, float]:
        """Random start rows of ``ahead_loss`` (N,), its noise (L, N, S, K), and the weight of its mean."""
        (sequences, time), config, model = batch.reward.shape, self.agent.config, self.agent.model.config
        team = self.agent.team
        steps = min(config.ahead, time - 1)
        count = config.starts if steps else 0

        def draw(limit: int) -> Tensor:
            return torch.randint(limit, (count,), generator=self.generator, device=self.device)

        rows = draw(team.size * sequences) * time + draw(time - steps)
        noise = gumbel((steps, count, model.groups, model.classes), self.generator, self.device)
        if team.size == 1 or not count:
            return rows, noise, 1.0
        held, weight = team.held(rows, sequences * time)
        return rows[held] % (sequences * time), noise[:, held], weight

    def _starts(self, latents: Latent, batch: Batch) -> Latent:
        """States of the batch from which imagination starts, at random; nothing follows a terminal one."""
        team, terminal = self.agent.team, self.agent.team.gather(batch.is_terminal).flatten()
        order = torch.randperm(len(terminal), generator=self.generator, device=self.device)
        order = order[~terminal[order]][: self.agent.config.starts]
        order = order[: len(order) // team.size * team.size]
        states = latents.detach().flatten()
        return Latent(team.pick(states.h, order), team.pick(states.z, order))

    def _cost_per_episode(self, dreamt: Dream) -> Tensor:
        """Of the trained policy: where it chose every action itself, and late, for the first half shows the log's own
        danger."""
        team = self.agent.team
        late = team.gather(dreamt.cost[self.agent.config.horizon // 2 :].T).T
        exploring = team.gather(dreamt.exploring)
        own = ~exploring if not exploring.all() else exploring
        return late[:, own].mean().clamp(min=0).detach() * self.agent.steps_per_episode

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
        return tensors, {"updates": self.updates, "skipped": self.skipped_steps}

    def load_state(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        self.generator.set_state(tensors["generator"].cpu())
        for name, optimiser in self.optimisers.items():
            entries: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"{name}/"):
                    _, index, kind = key.split("/")
                    entries.setdefault(int(index), {})[kind] = value
            optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})
            for parameter, entry in optimiser.state.items():
                entry |= {key: laid_as(value, parameter) for key, value in entry.items() if key != "step"}
        self.updates, self.skipped_steps = numbers["updates"], numbers["skipped"]

    def _step(self, name: str, loss: Tensor) -> Tensor:
        """The only place that computes gradients and changes weights. What is not finite is skipped and counted."""
        parameters = self.groups[name]
        gradients = self.agent.team.mean(torch.autograd.grad(loss, parameters))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = laid_as(gradient, parameter)
        norm = nn.utils.get_total_norm(gradients)
        if norm > self.config.clip:
            nn.utils.clip_grads_with_norm_(parameters, self.config.clip, norm)
        if torch.isfinite(norm):
            self.optimisers[name].step()
        else:
            self.skipped_steps += 1
        self.optimisers[name].zero_grad(set_to_none=True)
        return norm


def laid_as(x: Tensor, like: Tensor) -> Tensor:
    """``x`` in memory as ``like`` of the same shape: a fused optimiser takes both as they lie, channels last or not."""
    return x if x.stride() == like.stride() else torch.empty_like(like).copy_(x)
