"""Reachability of a violation, learned from costs alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from builders import AGENT, B, T, agent, batch, dreamt, flags, generator, stir
from torch import Tensor

from fosp.agent.agent import Agent, critic_losses, reach_loss
from fosp.agent.reachability import Reachability
from fosp.types import Batch

# Three sequences. The chain 0 -> 1 -> 2 -> 3, twice, where 3 is unsafe and terminal; the ring 4 -> 5 -> 6 -> 7 -> 4,
# twice, which never meets an unsafe state; and the ring cut by its time limit, with the chain behind it.
STATES, ROWS = 8, 8


def chains() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """features (3, 8, F) one-hot; violated, is_last, is_terminal (3, 8)."""
    visits = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3], [4, 5, 6, 7, 4, 5, 6, 7], [4, 5, 6, 7, 0, 1, 2, 3]])
    is_last = torch.cat([flags(ROWS, 3, 7), flags(ROWS, 7), flags(ROWS, 3, 7)])
    is_terminal = torch.cat([flags(ROWS, 3, 7), flags(ROWS), flags(ROWS, 7)])
    return torch.eye(STATES)[visits], visits == 3, is_last, is_terminal


def learn(violated: Tensor, lam: float, updates: int = 400) -> Tensor:
    """Probability of each state (8,), learned from all sequences."""
    subject = agent(reach_gamma=0.9, lam=lam)
    torch.manual_seed(0)
    subject.reachability = Reachability(STATES, units=32, layers=1)
    features, _, is_last, is_terminal = chains()
    optimiser = torch.optim.Adam(subject.reachability.head.parameters(), lr=0.02)
    for _ in range(updates):
        optimiser.zero_grad()
        reach_loss(subject, features, violated, is_last, is_terminal).mean().backward()
        optimiser.step()
        subject.reachability.update_slow(0.3)
    return subject.reachability.probability(torch.eye(STATES))


@pytest.mark.parametrize("lam", [0.0, 0.95])
def test_4_on_a_chain_the_probability_is_discounted_by_the_distance(lam: float) -> None:
    probability = learn(chains()[1], lam)
    expected = torch.tensor([0.9**3, 0.9**2, 0.9, 1.0, 0.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(probability, expected, rtol=0, atol=0.02)


def test_4_relabelling_costs_moves_the_danger() -> None:
    features, *_ = chains()
    probability = learn(features.argmax(-1) == 6, lam=0.95)  # state 6 is unsafe instead of state 3
    expected = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.9**2, 0.9, 1.0, 0.9**3])
    torch.testing.assert_close(probability, expected, rtol=0, atol=0.02)


def reach(subject: Agent, data: Batch, seed: int = 0) -> Tensor:
    features = torch.randn(B, T, subject.model.feature_size, generator=generator())
    losses = critic_losses(subject, features, data, dreamt(subject.model.feature_size, seed))
    return torch.cat([losses["reach"].flatten(), losses["reach_imagined"].flatten()]).detach()


def test_4_shuffling_rewards_changes_nothing_and_relabelling_costs_does() -> None:
    subject = agent()
    stir(subject)
    data = batch()
    base = reach(subject, data)
    shuffled = data.reward.flatten()[torch.randperm(B * T, generator=generator())].view(B, T)
    assert torch.equal(reach(subject, replace(data, reward=shuffled)), base)
    assert torch.equal(reach(subject, replace(data, cost=data.cost * 7)), base)  # not how much, only whether
    assert not torch.equal(reach(subject, replace(data, cost=(data.cost == 0).float())), base)


def test_4_in_imagination_the_predicted_cost_is_the_label() -> None:
    subject = agent()
    stir(subject)
    features = torch.randn(B, T, subject.model.feature_size, generator=generator())
    imagined = dreamt(subject.model.feature_size)
    labels = []
    for cost in (0.49, 0.51):
        same_cost = replace(imagined, cost=torch.full_like(imagined.cost, cost), reward=imagined.reward * cost)
        labels.append(critic_losses(subject, features, batch(), same_cost)["reach_imagined"].detach())
    certain = subject.reachability.loss(imagined.features.values.transpose(0, 1), torch.ones(3, 3)).detach()
    torch.testing.assert_close(labels[1], certain)  # above half of one violated frame every state is a violation
    assert not torch.isclose(labels[0], certain).any()


def test_rows_that_know_nothing_of_what_follows_teach_nothing() -> None:
    # Their target would be the estimate itself: on the last row of a window, and where a time limit cut the episode.
    subject = agent()
    stir(subject)
    features = torch.randn(1, T, subject.model.feature_size, generator=generator())
    violated = torch.zeros(1, T, dtype=torch.bool)
    loss = reach_loss(subject, features, violated, flags(T, 2), flags(T))
    assert (loss[0] == 0).tolist() == [False, False, True, False, False, True]
    violated[0, 2] = violated[0, 5] = True  # a violation is known whatever follows
    assert (reach_loss(subject, features, violated, flags(T, 2), flags(T)) > 0).all()
    assert (reach_loss(subject, features, ~violated & False, flags(T, 2, 5), flags(T, 2, 5)) > 0).all()


def test_states_may_have_time_in_front() -> None:
    subject = agent()
    stir(subject)
    features = torch.randn(3, T, subject.model.feature_size, generator=generator())
    violated = torch.rand(3, T, generator=generator(1)) < 0.3
    last = violated.roll(1, 1)
    loss = reach_loss(subject, features, violated, last, last)
    turned = reach_loss(subject, features.transpose(0, 1), violated, last, last, time=0)
    torch.testing.assert_close(turned, loss)
    torch.testing.assert_close(
        *(
            torch.autograd.grad(each.square().sum(), list(subject.reachability.head.parameters()))
            for each in (turned, loss)
        )
    )


def test_labels_are_not_changed_in_place() -> None:
    subject = agent()
    features, violated, is_last, is_terminal = chains()
    subject.reachability = Reachability(STATES, units=8, layers=1)
    before = violated.clone(), is_last.clone(), is_terminal.clone()
    reach_loss(subject, features, violated, is_last, is_terminal)
    assert torch.equal(violated, before[0]) and torch.equal(is_last, before[1]) and torch.equal(is_terminal, before[2])


def test_as_a_weight_the_probability_is_a_constant() -> None:
    net = Reachability(5, units=8, layers=1)
    stir(net)
    features = torch.randn(3, 5, requires_grad=True)
    assert not net.probability(features).requires_grad
    assert not net.slow_probability(features).requires_grad
    assert net.loss(features, torch.zeros(3)).requires_grad


def test_the_loss_is_a_cross_entropy_by_hand() -> None:
    net = Reachability(5, units=8, layers=1)
    torch.nn.init.constant_(net.head.out.bias, 1.0)
    p = torch.sigmoid(torch.tensor(1.0))
    torch.testing.assert_close(net.probability(torch.randn(2, 5)), p.expand(2))
    loss = net.loss(torch.randn(1, 5), torch.tensor([0.25]))
    torch.testing.assert_close(loss, -(0.25 * p.log() + 0.75 * (1 - p).log()).view(1))


def test_the_slow_copy_follows() -> None:
    net = Reachability(5, units=8, layers=1)
    before = net.slow_head.out.bias.clone()
    torch.nn.init.constant_(net.head.out.bias, 1.0)
    assert torch.equal(net.slow_head.out.bias, before)
    net.update_slow(AGENT.slow_fraction)
    torch.testing.assert_close(net.slow_head.out.bias, torch.full_like(before, AGENT.slow_fraction))
