"""Targets against numbers worked out by hand, and what must not leak into them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from builders import T, agent, batch, dreamt, flags, generator, stir
from torch import Tensor

from fosp.agent.agent import Agent, critic_losses
from fosp.agent.critics import Critic
from fosp.agent.returns import expectile_weight, in_sample_target, lambda_return, reachability_target
from fosp.types import Batch


def row(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float32)


def test_in_sample_target_by_hand() -> None:
    # y_t = x_{t+1} + 0.5 (1 - terminal_{t+1}) V_{t+1}; row 2 is terminal, row 3 begins another episode.
    target, mask = in_sample_target(row(0, 1, 2, 0, 4), row(10, 20, 30, 40, 50), flags(5, 0, 3), flags(5, 2), gamma=0.5)
    torch.testing.assert_close(target[:, [0, 1, 3]], row(1 + 10, 2, 4 + 25))
    assert torch.equal(mask, row(1, 1, 0, 1))


def test_a_time_limit_does_not_stop_the_bootstrap() -> None:
    target, mask = in_sample_target(row(0, 1, 2), row(10, 20, 30), flags(3, 0), flags(3), gamma=0.5)
    torch.testing.assert_close(target, row(11, 17))  # row 2 may be the last row of an episode: nothing asks for is_last
    assert mask.all()


class Seen:
    """Targets and weights that the critics were given, as (B, T - 1)."""

    def __init__(self, subject: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
        self.target: dict[int, Tensor] = {}
        original = Critic.q_loss

        def q_loss(critic: Critic, features: Tensor, action: Tensor, target: Tensor) -> Tensor:
            self.target[critic.pessimism] = target[: 2 * (T - 1)]  # the log's pairs come before those imagined
            return original(critic, features, action, target)

        monkeypatch.setattr(Critic, "q_loss", q_loss)


def test_5_a_replay_with_reward_t_yields_t_plus_1(monkeypatch: pytest.MonkeyPatch) -> None:
    # The values of a fresh critic are exactly zero, so the targets are the signals of the next row.
    subject = agent()
    seen = Seen(subject, monkeypatch)
    count = torch.arange(float(T)).expand(2, T)
    critic_losses(
        subject, torch.randn(2, T, subject.model.feature_size), batch(reward=count, cost=10 * count),
        dreamt(subject.model.feature_size),
    )  # fmt: skip
    expected = torch.arange(1.0, T).expand(2, T - 1)
    assert torch.equal(seen.target[-1].view(2, T - 1), expected)
    assert torch.equal(seen.target[+1].view(2, T - 1), 10 * expected)


NAMES = ("q_reward", "v_reward", "q_cost", "v_cost")


def pair_losses(subject: Agent, features: Tensor, data: Batch) -> dict[str, Tensor]:
    """In-sample losses (T - 1,) of one sequence."""
    losses = critic_losses(subject, features, data, dreamt(subject.model.feature_size))
    return {name: losses[name].detach() for name in NAMES}


def test_5_nothing_leaks_across_the_start_of_an_episode() -> None:
    # Rows 0-2 and 3-5 are two episodes in one window. Pair 2 is the last row of the first: it has no successor.
    subject = agent()
    stir(subject)
    data = batch(size=1, is_first=flags(T, 3), is_last=flags(T, 2))
    features = torch.randn(1, T, subject.model.feature_size, generator=generator(1))
    base = pair_losses(subject, features, data)
    assert all(base[name][2] == 0 and (base[name][[0, 1, 3, 4]] != 0).all() for name in NAMES)
    later = features.clone()
    later[:, 3:] += 1.0
    changed = replace(data, reward=data.reward.clone(), cost=data.cost.clone(), action=data.action.clone())
    changed.reward[:, 3:] += 5.0
    changed.cost[:, 3:] += 5.0
    changed.action[:, 2:] *= -1  # row 2's action is a placeholder
    other = pair_losses(subject, later, changed)
    for name in NAMES:
        torch.testing.assert_close(base[name][:3], other[name][:3])
        assert not torch.isclose(base[name][3:], other[name][3:]).any()


def test_5_nothing_leaks_across_the_end_of_a_sequence() -> None:
    # The last row is the successor of the one before and no pair of its own: its action is never read.
    subject = agent()
    stir(subject)
    data = batch(size=2)
    features = torch.randn(2, T, subject.model.feature_size, generator=generator(1))
    base = pair_losses(subject, features, data)
    assert all(base[name].shape == (2 * (T - 1),) for name in NAMES)
    data.action[:, -1] = torch.nan
    other = pair_losses(subject, features, data)
    assert all(torch.equal(base[name], other[name]) for name in NAMES)
    # Nor does the end of one sequence of the batch reach the beginning of the next.
    changed = features.clone()
    changed[1] += 1.0
    other = pair_losses(subject, changed, data)
    assert all(torch.equal(base[name][: T - 1], other[name][: T - 1]) for name in NAMES)


def test_lambda_return_by_hand() -> None:
    signal, value = torch.tensor([9.0, 1.0, 2.0]), torch.tensor([9.0, 10.0, 20.0])
    proceed = torch.tensor([9.0, 1.0, 0.5])
    last = 2 + 0.5 * 0.5 * 20  # R_1 = x_2 + gamma c_2 V_2
    first = 1 + 0.5 * (0.25 * 10 + 0.75 * last)
    returns = lambda_return(signal, value, proceed, gamma=0.5, lam=0.75)
    torch.testing.assert_close(returns, torch.tensor([first, last]))


def test_lambda_return_at_its_two_ends() -> None:
    draw = generator()
    signal, value, proceed = torch.randn(3, 5, 2, generator=draw)
    one_step = lambda_return(signal, value, proceed, 0.9, 0.0)
    torch.testing.assert_close(one_step, signal[1:] + 0.9 * proceed[1:] * value[1:])
    ones = torch.ones_like(proceed)
    monte_carlo = lambda_return(signal, value, ones, 0.9, 1.0)
    expected = sum(0.9**k * signal[k + 1] for k in range(4)) + 0.9**4 * value[4]
    torch.testing.assert_close(monte_carlo[0], expected)


def test_a_terminal_state_ends_an_imagined_return() -> None:
    signal, value = torch.ones(4, 1), torch.full((4, 1), 100.0)
    proceed = torch.tensor([[1.0], [1.0], [0.0], [1.0]])
    returns = lambda_return(signal, value, proceed, 0.9, 1.0)
    torch.testing.assert_close(returns[:2, 0], torch.tensor([1 + 0.9, 1.0]))


def test_reachability_target_by_hand() -> None:
    # gamma 0.5, lambda 0.5: from behind, row 3 bootstraps 0.8; row 2: 0.5 (0.4 + 0.4); row 1 is in violation;
    # row 0: 0.5 (0.5 * 0.2 + 0.5 * 1).
    target = reachability_target(row(0, 1, 0, 0), row(0.1, 0.2, 0.6, 0.8), flags(4), flags(4), gamma=0.5, lam=0.5)
    torch.testing.assert_close(target, row(0.3, 1.0, 0.4, 0.8))


def test_reachability_target_does_not_cross_an_end() -> None:
    probability = row(0.1, 0.2, 0.3, 0.4)
    violated = row(0, 0, 1, 0)
    cut = reachability_target(violated, probability, flags(4, 1), flags(4), gamma=0.5, lam=0.5)
    torch.testing.assert_close(cut[:, :2], row(0.5 * 0.2, 0.2))  # row 1 ends by its time limit: its own bootstrap
    ended = reachability_target(violated, probability, flags(4, 1), flags(4, 1), gamma=0.5, lam=0.5)
    torch.testing.assert_close(ended[:, :2], row(0.5 * 0.5 * 0.2, 0.0))  # row 1 is terminal: nothing lies ahead


def test_reachability_target_keeps_the_label_in_every_kind_of_row() -> None:
    for last, terminal in ((flags(2), flags(2)), (flags(2, 0), flags(2)), (flags(2, 0), flags(2, 0))):
        target = reachability_target(row(1, 1), row(0.1, 0.1), last, terminal, gamma=0.5, lam=0.5)
        assert torch.equal(target, row(1, 1))


def test_expectile_weight_by_hand() -> None:
    weight = expectile_weight(torch.tensor([-2.0, 0.0, 3.0]), 0.8)
    torch.testing.assert_close(weight, torch.tensor([0.2, 0.8, 0.8]))
