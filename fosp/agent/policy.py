"""From images to an executed action: filter the latent state, let the policies propose, let the critics choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fosp.agent.acting import Acting, LaidOut, Plain, Reading
from fosp.agent.agent import Agent
from fosp.agent.expansion import candidate_scores, choose
from fosp.types import Schema, UserError
from fosp.world_model import Latent


@dataclass(frozen=True)
class Carry:
    """What a policy remembers between two steps, for n environments. Diagnostics are of the step just taken."""

    latent: Latent  # (n, ...)
    action: Tensor  # executed last, (n, A)
    single: bool  # made by initial() without a number
    seeds: np.ndarray  # (n,) of the episodes; with ``steps`` they say what is drawn
    steps: np.ndarray  # (n,) taken in the episode
    diagnostics: dict[str, np.ndarray] = field(default_factory=dict)

    def reset(self, mask: np.ndarray, seeds: Sequence[int] | None = None) -> Carry:
        """Forget the rows where ``mask`` (n,) is true: their environments begin a new episode, of ``seeds`` (n,)."""
        mask = np.asarray(mask, bool)
        keep = torch.as_tensor(~mask, device=self.action.device).float().unsqueeze(-1)  # (n, 1)
        latent = Latent(self.latent.h * keep, self.latent.z * keep.unsqueeze(-1))
        # Without seeds the next episode of a row draws other numbers than the one before.
        new = self.seeds + len(self.seeds) if seeds is None else np.asarray(seeds, np.uint64)
        return replace(
            self, latent=latent, action=self.action * keep, seeds=np.where(mask, new, self.seeds),
            steps=np.where(mask, 0, self.steps),
        )  # fmt: skip


class Draws(NamedTuple):
    """Random numbers of one step of n environments."""

    normal: Tensor  # (n, K, A), of all candidates
    uniform: Tensor  # (n,), of the choice between them


class AgentPolicy:
    """Acts with an agent: means and the best candidate, or sampled actions and candidates with ``explore`` (online).

    Where the agent holds a frozen offline policy, both propose (safe policy expansion); candidates of each policy are
    its mean (its sample while exploring) and ``samples`` further draws. The very action that was scored is returned.

    ``frozen`` promises that the weights of the agent do not change any more: from copies of them it acts twice as fast.

    What is drawn depends on ``seed``, on the seed of the episode and on the step in it, and on nothing else: not on how
    many environments share a batch, nor on what ended before.
    """

    seeded = True  # ``initial`` and the carry's ``reset`` take the seeds of the episodes

    def __init__(
        self, agent: Agent, schema: Schema, explore: bool = False, seed: int = 0, frozen: bool = False
    ) -> None:
        self.agent, self.schema, self.explore, self.seed = agent, schema, explore, seed
        self.device = next(agent.parameters()).device
        self.acting: Acting = LaidOut(agent) if frozen and agent.config.layers else Plain(agent)

    def initial(self, batch: int | None = None, seeds: Sequence[int] | None = None) -> Carry:
        """The beginning of one episode, or of ``batch`` with ``seeds``; where they are not given, 0, 1, 2, ..."""
        count = 1 if batch is None else batch
        return Carry(
            latent=self.agent.model.rssm.initial(count, self.device),
            action=torch.zeros(count, self.schema.action_size, device=self.device),
            single=batch is None,
            seeds=np.asarray(range(count) if seeds is None else seeds, np.uint64),
            steps=np.zeros(count, np.int64),
        )

    def _images(self, observation: Mapping[str, np.ndarray], carry: Carry) -> Tensor:
        """Cameras stacked on channels, uint8 (n, W, W, C)."""
        views = []
        for name, size in self.schema.cameras.items():
            if name not in observation:
                raise UserError(f"observation has no image {name!r}; the policy needs {list(self.schema.cameras)}")
            image = np.asarray(observation[name])
            # The number of rows too: one image for several environments would be broadcast without a word.
            shape = size if carry.single else (len(carry.action), *size)
            if image.shape != shape or image.dtype != np.uint8:
                found = f"{image.dtype} {image.shape}"
                raise UserError(f"observation {name!r} is {found}; the policy takes uint8 {shape} here")
            views.append(torch.from_numpy(np.require(image[None] if carry.single else image, requirements=["C", "W"])))
        return torch.cat(views, -1).to(self.device)

    @torch.inference_mode()
    def act(self, carry: Carry, observation: Mapping[str, np.ndarray]) -> tuple[np.ndarray, Carry]:
        """The executed actions (n, A) or (A,), and the carry of the next step.

        Raises UserError for images that do not fit, and where no candidate, or what the critics say of all of them, is
        finite: nothing that can be sent to a robot is returned then.
        """
        latent = self.acting.observe(carry.latent, carry.action, self._images(observation, carry))
        reading = self.acting.read(latent)
        policies = reading.mean.shape[1]
        draws = self._draw(carry, policies)
        proposals = self._propose(reading, draws)  # (n, policies * K, A)
        executed, index, values = self._select(latent, reading, proposals, draws)
        said = {name: value.float().cpu().numpy() for name, value in values.items()}
        own = proposals.shape[1] // policies
        chosen = index // own if policies > 1 else torch.full_like(index, -1)
        said["chosen"] = chosen.cpu().numpy()
        out = executed.float().cpu().numpy()
        known = np.column_stack([out, said["reward_value"], said["cost_value"]])  # (n, A + 2)
        if not np.isfinite(known).all():
            *action, reward, cost = known[~np.isfinite(known).all(1)][0].tolist()
            raise UserError(
                f"the policy for {self.schema.task} finds no action that is safe to send (the best is {action}, of "
                f"reward {reward} and cost {cost}): its weights are damaged or have diverged; take another checkpoint"
            )
        if carry.single:
            said, out = {k: v[0] for k, v in said.items()}, out[0]
        return out, replace(carry, latent=latent, action=executed, steps=carry.steps + 1, diagnostics=said)

    def _draw(self, carry: Carry, policies: int) -> Draws | None:
        """What each row draws in this step; None where nothing is drawn."""
        count = policies * (self.agent.config.expansion.samples + 1)
        if not self.explore and count == policies:
            return None
        normal = np.empty((len(carry.steps), count, self.schema.action_size), np.float32)
        uniform = np.empty(len(carry.steps), np.float32)
        for row, key in enumerate(zip(carry.seeds.tolist(), carry.steps.tolist(), strict=True)):
            rng = np.random.default_rng((self.seed % 2**64, *key))
            normal[row], uniform[row] = rng.standard_normal(normal.shape[1:], np.float32), rng.random(dtype=np.float32)
        return Draws(torch.from_numpy(normal).to(self.device), torch.from_numpy(uniform).to(self.device))

    def _propose(self, reading: Reading, draws: Draws | None) -> Tensor:
        """Candidates (n, policies * K, A): each policy's mean, or a sample while exploring, and further samples."""
        count = self.agent.config.expansion.samples + 1
        candidates = reading.mean.repeat_interleave(count, 1)
        if draws is not None:
            noise = draws.normal.clone()
            if not self.explore:
                noise[:, ::count] = 0.0
            candidates = candidates + reading.std.repeat_interleave(count, 1) * noise
        return candidates.clamp(-1, 1)

    def _look_ahead(self, latent: Latent, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Discounted reward and cost of K candidates in each of n states, (n, K) each, after L > 0 steps in the model.

        sum_{k<L} gamma^k x_{k+1} + gamma^L Q(s_L, a_L) in the model's most probable continuation. The rest of the way
        is that of the trained policy.
        """
        agent, config = self.agent, self.agent.config.expansion
        n, count, _ = actions.shape
        state = Latent(*(x.repeat_interleave(count, 0) for x in latent))  # (n * K, ...)
        action, discount = actions.flatten(0, 1), torch.ones(n * count, device=actions.device)
        reward, cost = torch.zeros_like(discount), torch.zeros_like(discount)
        for k in range(config.lookahead):
            state = agent.model.rssm.imagine_step(state, action, noise=None)
            features = state.features
            reward += discount * agent.model.reward(features)
            cost += discount * agent.model.cost(features)
            discount *= agent.config.gamma * agent.model.continues(features)
            if k + 1 >= config.hold:
                action = agent.policy(features)[0]
        reward += discount * agent.reward_critic.q_value(state.features, action)
        cost += discount * agent.cost_critic.q_value(state.features, action)
        return reward.view(n, count), cost.view(n, count)

    def _select(
        self, latent: Latent, reading: Reading, actions: Tensor, draws: Draws | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Of candidates (n, K, A) the executed action (n, A), its index (n,), and what the critics say of it."""
        agent, size = self.agent, actions.shape[-1]
        looks = agent.config.expansion.lookahead > 0
        reward, cost = self._look_ahead(latent, actions) if looks else reading.judge(actions)
        # The state's value, which makes advantages of these, is the same for all candidates and moves no choice.
        ranges = agent.reward_range(reward), agent.cost_range(cost)
        scores = candidate_scores(*ranges, reading.probability, agent.config.expansion)
        index = choose(scores, agent.config.expansion.alpha, draws.uniform if self.explore and draws else None)
        pick = index.unsqueeze(-1)
        values = {
            "violation_probability": reading.probability,
            "reward_value": reward.gather(1, pick).squeeze(1),
            "cost_value": cost.gather(1, pick).squeeze(1),
        }
        return actions.gather(1, pick.unsqueeze(-1).expand(-1, 1, size)).squeeze(1), index, values
