"""Safe policy expansion: two policies propose, the critics choose."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from builders import ACTIONS, SCHEMA, agent, generator, observation, stir
from torch import Tensor

from fosp.agent.agent import Agent
from fosp.agent.expansion import ExpansionConfig, candidate_scores, choice_probabilities, choose
from fosp.agent.policy import AgentPolicy

Value = Callable[[Tensor, Tensor], Tensor]


def test_2_equal_scores_give_one_half() -> None:
    probabilities = choice_probabilities(torch.tensor([[3.0, 3.0], [-100.0, -100.0]]), alpha=0.1)
    assert torch.equal(probabilities, torch.full((2, 2), 0.5))
    index = choose(torch.zeros(4000, 2), 0.1, torch.rand(4000, generator=generator()))
    assert index.float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_2_a_better_candidate_is_preferred() -> None:
    scores = torch.tensor([[0.0, 0.1], [0.2, 0.1]])
    probabilities = choice_probabilities(scores, alpha=0.1)
    torch.testing.assert_close(probabilities[:, 1], torch.sigmoid(torch.tensor([1.0, -1.0])))
    assert choose(scores, 0.1, None).tolist() == [1, 0]
    drawn = choose(scores[:1].expand(4000, 2), 0.1, torch.rand(4000, generator=generator())).float().mean().item()
    assert drawn == pytest.approx(1 / (1 + math.exp(-1)), abs=0.03)


def test_2_rows_of_a_batch_choose_independently() -> None:
    # One draw for all rows would give the same index everywhere.
    index = choose(torch.zeros(50, 2), 0.1, torch.rand(50, generator=generator()))
    assert 10 < index.sum() < 40
    # Neighbouring rows agree as often as not.
    index = choose(torch.zeros(4000, 2), 0.1, torch.rand(4000, generator=generator(1)))
    assert (index[1:] == index[:-1]).float().mean().item() == pytest.approx(0.5, abs=0.03)
    # And what the other rows score moves neither this row's score nor its choice.
    scores = torch.tensor([[0.3, 0.1], [0.0, 9.0], [9.0, 0.0]])
    for other in (0.0, 5.0):
        scores[1:, 1] = other
        assert choose(scores, 0.1, None)[0] == 0
        torch.testing.assert_close(choice_probabilities(scores, 0.1)[0], torch.softmax(torch.tensor([3.0, 1.0]), 0))


def test_scores_by_hand() -> None:
    config = ExpansionConfig(kappa=2.0, infeasible_above=0.5)
    reward = torch.tensor([[1.0, 3.0], [1.0, 3.0]])
    cost = torch.tensor([[0.1, 0.5], [0.1, 0.5]])
    scores = candidate_scores(reward, cost, torch.tensor([0.5, 0.51]), config)
    # The first state is feasible. In the second the lower cost wins whatever the rewards say.
    torch.testing.assert_close(scores, torch.tensor([[1 - 0.2, 3 - 1.0], [-0.1, -0.5]]))


class Judged:
    """An agent that has begun expansion, whose critics are replaced by ``reward`` and ``cost`` of (features, action).

    ``pairs`` are the (features, action) that the reward critic was asked for.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, reward: Value, cost: Value | None = None, danger: float = 0.0,
        **changes: Any,
    ) -> None:  # fmt: skip
        self.agent = agent(**changes)
        stir(self.agent, size=0.3)
        self.agent.expand()
        stir(self.agent.actor, seed=7, size=0.5)  # the trained policy has moved on
        self.pairs: list[tuple[Tensor, Tensor]] = []

        def ask(features: Tensor, action: Tensor) -> Tensor:
            self.pairs.append((features, action))
            return reward(features, action)

        def zero(features: Tensor, action: Tensor) -> Tensor:
            return torch.zeros(len(features))

        monkeypatch.setattr(self.agent.reward_critic, "q_value", ask)
        monkeypatch.setattr(self.agent.cost_critic, "q_value", cost or zero)
        for critic in (self.agent.reward_critic, self.agent.cost_critic):
            monkeypatch.setattr(critic, "v_value", lambda features: torch.zeros(len(features)))
        monkeypatch.setattr(self.agent.reachability, "probability", lambda f: torch.full((len(f),), danger))


def proposals(subject: Agent, features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean actions (n, A) of the frozen and of the trained policy."""
    assert subject.offline_actor is not None
    with torch.inference_mode():
        return subject.offline_actor(features)[0], subject.actor(features)[0]


def test_2_each_environment_takes_the_better_proposal_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    # The best action is one that differs from environment to environment: the frozen policy's in rows 0, 2, 4, 6.
    wanted: list[Tensor] = []

    def reward(features: Tensor, action: Tensor) -> Tensor:
        tiled = features.view(8, 2, -1)[:, 0]
        frozen, trained = proposals(judged.agent, tiled)
        best = torch.where(torch.arange(8).unsqueeze(-1) % 2 == 0, frozen, trained)
        wanted.append(best)
        return -(action.view(8, 2, -1) - best.unsqueeze(1)).square().sum(-1).flatten()

    judged = Judged(monkeypatch, reward)
    policy = AgentPolicy(judged.agent, SCHEMA)
    action, carry = policy.act(policy.initial(8), observation(count=8))
    assert carry.diagnostics["chosen"].tolist() == [0, 1] * 4
    torch.testing.assert_close(torch.from_numpy(action), wanted[-1])


def test_2_the_very_action_that_was_scored_is_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    # While exploring, proposals are samples: one drawn anew for execution would be another action than the scored one.
    judged = Judged(monkeypatch, lambda features, action: action.sum(-1))
    policy = AgentPolicy(judged.agent, SCHEMA, explore=True, seed=3)
    carry = policy.initial(16)
    for step in range(3):
        action, carry = policy.act(carry, observation(step, count=16))
        _, scored = judged.pairs[-1]  # (16 * 2, A): the frozen policy's candidate, then the trained one's
        chosen = carry.diagnostics["chosen"]
        assert set(chosen) == {0, 1}
        executed = scored.view(16, 2, ACTIONS)[torch.arange(16), torch.from_numpy(chosen)]
        assert torch.equal(torch.from_numpy(action), executed)
        assert torch.equal(carry.action, executed)  # the model is told what was executed
        torch.testing.assert_close(torch.from_numpy(carry.diagnostics["reward_value"]), executed.sum(-1))


def test_2_each_proposal_is_scored_with_its_own_action(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = Judged(monkeypatch, lambda features, action: action.sum(-1))
    policy = AgentPolicy(judged.agent, SCHEMA)
    policy.act(policy.initial(4), observation(count=4))
    ((features, scored),) = judged.pairs
    features, scored = features.view(4, 2, -1), scored.view(4, 2, ACTIONS)
    assert torch.equal(features[:, 0], features[:, 1])
    frozen, trained = proposals(judged.agent, features[:, 0])
    torch.testing.assert_close(scored[:, 0], frozen)
    torch.testing.assert_close(scored[:, 1], trained)
    assert not torch.allclose(frozen, trained)


def test_in_an_infeasible_state_the_lower_cost_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    for danger, sign in ((0.1, +1), (0.9, -1)):
        judged = Judged(
            monkeypatch, lambda f, a: 100 * a[:, 0], lambda f, a: a[:, 0], danger, expansion=ExpansionConfig(kappa=1.0)
        )
        policy = AgentPolicy(judged.agent, SCHEMA)
        action, _ = policy.act(policy.initial(6), observation(count=6))
        _, scored = judged.pairs[-1]
        first = scored.view(6, 2, ACTIONS)[..., 0]
        best = first.amax(-1) if sign > 0 else first.amin(-1)
        assert torch.equal(torch.from_numpy(action[:, 0]), best)


def test_more_candidates_per_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = Judged(monkeypatch, lambda f, a: a[:, 0], expansion=ExpansionConfig(samples=3))
    policy = AgentPolicy(judged.agent, SCHEMA)
    action, carry = policy.act(policy.initial(5), observation(count=5))
    _, scored = judged.pairs[-1]
    scored = scored.view(5, 8, ACTIONS)
    index = scored[..., 0].argmax(-1)
    assert torch.equal(torch.from_numpy(action), scored[torch.arange(5), index])
    assert carry.diagnostics["chosen"].tolist() == (index // 4).tolist()
    assert (scored[:, 1:4] != scored[:, :1]).any()  # the further candidates are samples
