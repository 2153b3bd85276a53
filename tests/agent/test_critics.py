"""Twin critics: in-sample expectiles, pessimism, slow copies, and where gradients stop."""

from __future__ import annotations

import pytest
import torch
from builders import ACTIONS, B, T, agent, batch, copied, dreamt, generator, same, stir
from torch import Tensor

from fosp.agent.agent import Agent, critic_losses
from fosp.agent.critics import Critic

F = 6


@pytest.fixture(params=[-1, +1], ids=["reward", "cost"])
def critic(request: pytest.FixtureRequest) -> Critic:
    torch.manual_seed(0)
    critic = Critic(F, ACTIONS, units=16, layers=1, bins=41, pessimism=request.param)
    stir(critic)
    return critic


def pairs(count: int = 20, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = generator(seed)
    return torch.randn(count, F, generator=draw), torch.rand(count, ACTIONS, generator=draw) * 2 - 1


def make_bandit(subject: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Q of a pair is its first action, for reward and for cost."""
    for critic in (subject.reward_critic, subject.cost_critic):
        monkeypatch.setattr(critic, "slow_q_value", lambda features, action: action[:, 0])


@pytest.mark.parametrize("level", [0.7, 0.9])
def test_3_on_a_bandit_values_converge_to_the_expectiles(level: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # One state; the log holds actions with Q = 0 and Q = 1 equally often. Upper expectile tau, lower 1 - tau.
    subject = agent(expectile_reward=level, expectile_cost=level)
    make_bandit(subject, monkeypatch)
    features = torch.ones(1, 2 * 20 + 1, subject.model.feature_size)
    data = batch(size=1, rows=41)
    data.action[..., 0] = torch.tensor([0.0, 1.0]).repeat(21)[:41]
    imagined = dreamt(subject.model.feature_size)
    values = [subject.reward_critic.v, subject.cost_critic.v]
    parameters = [p for v in values for p in v.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=0.03)
    for _ in range(150):
        losses = critic_losses(subject, features, data, imagined)
        gradients = torch.autograd.grad(losses["v_reward"].mean() + losses["v_cost"].mean(), parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimiser.step()
    reward = subject.reward_critic.v_value(features[0, :1]).item()
    cost = subject.cost_critic.v_value(features[0, :1]).item()
    assert reward == pytest.approx(level, abs=0.01)
    assert cost == pytest.approx(1 - level, abs=0.01)


def test_values_are_regressed_on_the_actions_of_the_log_alone() -> None:
    subject = agent()
    stir(subject)
    data = batch()
    features = torch.randn(B, T, subject.model.feature_size, generator=generator())
    base = critic_losses(subject, features, data, dreamt(subject.model.feature_size, seed=0))
    other_dream = critic_losses(subject, features, data, dreamt(subject.model.feature_size, seed=1))
    for name in ("v_reward", "v_cost", "q_reward", "q_cost", "reach"):
        assert torch.equal(base[name], other_dream[name]), name
    for name in ("q_reward_imagined", "q_cost_imagined", "reach_imagined"):
        assert not torch.equal(base[name], other_dream[name]), name
    stir(subject.actor, seed=9)
    other_policy = critic_losses(subject, features, data, dreamt(subject.model.feature_size, seed=0))
    assert all(torch.equal(base[name], other_policy[name]) for name in base)


def test_the_worse_of_the_two_members_counts(critic: Critic) -> None:
    features, action = pairs()
    members = critic.twohot.mean(critic.q(torch.cat([features, action], -1)))
    expected = members.amin(0) if critic.pessimism < 0 else members.amax(0)
    torch.testing.assert_close(critic.q_value(features, action), expected)
    assert (members[0] > members[1]).any() and (members[0] < members[1]).any()
    slow = critic.twohot.mean(critic.slow_q(torch.cat([features, action], -1)))
    expected = slow.amin(0) if critic.pessimism < 0 else slow.amax(0)
    torch.testing.assert_close(critic.slow_q_value(features, action), expected)


def test_value_loss_by_hand(critic: Critic) -> None:
    features, action = pairs()
    target = critic.slow_q_value(features, action)  # of the slow Q, not of the fast one
    value = critic.v_value(features)
    weight = torch.where(target < value, 0.2, 0.8)
    assert weight.unique().numel() == 2
    expected = weight * critic.twohot.loss(critic.v(features), target)
    torch.testing.assert_close(critic.v_loss(features, action, 0.8), expected)


def test_q_loss_is_the_mean_over_members(critic: Critic) -> None:
    features, action = pairs()
    target = torch.linspace(-5, 5, 20)
    logits = critic.q(torch.cat([features, action], -1))
    expected = (critic.twohot.loss(logits[0], target) + critic.twohot.loss(logits[1], target)) / 2
    torch.testing.assert_close(critic.q_loss(features, action, target), expected)


def test_gradients_of_values_reach_inputs_and_never_the_critic(critic: Critic) -> None:
    features, action = pairs()
    features.requires_grad_()
    action.requires_grad_()
    value = critic.q_value(features, action).sum() + critic.v_value(features).sum()
    trained = [p for p in critic.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(value, [features, action, *trained], allow_unused=True)
    assert gradients[0].abs().max() > 0 and gradients[1].abs().max() > 0
    assert all(gradient is None for gradient in gradients[2:])
    assert not critic.slow_q_value(features, action).requires_grad
    assert not critic.slow_v_value(features).requires_grad


def test_slow_copies_start_equal_follow_and_are_never_trained() -> None:
    torch.manual_seed(0)
    critic = Critic(F, ACTIONS, units=16, layers=1, bins=41, pessimism=-1)
    features, action = pairs()
    assert torch.equal(critic.slow_q(torch.cat([features, action], -1)), critic.q(torch.cat([features, action], -1)))
    slow = [*critic.slow_q.parameters(), *critic.slow_v.parameters()]
    assert not any(p.requires_grad for p in slow)
    before = copied(dict(enumerate(slow)))  # type: ignore[arg-type]
    stir(critic.q, seed=1)
    stir(critic.v, seed=2)
    assert same(dict(enumerate(slow)), before)  # type: ignore[arg-type]
    critic.update_slow(0.25)
    for old, new, fast in zip(before.values(), slow, [*critic.q.parameters(), *critic.v.parameters()], strict=True):
        torch.testing.assert_close(new.detach(), 0.75 * old + 0.25 * fast.detach())


def test_members_learn_different_things() -> None:
    torch.manual_seed(0)
    critic = Critic(F, ACTIONS, units=16, layers=1, bins=41, pessimism=-1)
    features, action = pairs()
    optimiser = torch.optim.Adam(critic.q.parameters(), lr=1e-2)
    for _ in range(5):
        optimiser.zero_grad()
        critic.q_loss(features, action, features[:, 0] * 3).mean().backward()
        optimiser.step()
    members = critic.twohot.mean(critic.q(torch.cat([features, action], -1)))
    assert (members[0] - members[1]).abs().max() > 1e-3
