"""The augmented Lagrangian on cost per episode."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from builders import SCHEMA, agent, batch, learner, stir
from torch import Tensor, nn

from fosp.agent.constraint import AugmentedLagrangian, ConstraintConfig
from fosp.types import UserError


def constraint(multiplier: float = 0.0, estimate: float = 0.0, **changes: float) -> AugmentedLagrangian:
    subject = AugmentedLagrangian(ConstraintConfig(**changes))
    subject.multiplier.fill_(multiplier)
    subject.estimate.fill_(estimate)
    return subject


@pytest.mark.parametrize("cost", [0.0, 4.0, 8.0, 10.0, 12.0, 30.0])
@pytest.mark.parametrize("multiplier", [0.0, 0.3, 2.0])
def test_weight_is_the_derivative_of_the_term_in_the_book(cost: float, multiplier: float) -> None:
    # Nocedal & Wright, eq. 17.65 for an inequality c >= 0 with penalty r:
    # psi = -sigma c + r c^2 / 2 where r c <= sigma, else -sigma^2 / (2 r).
    penalty, budget = 0.05, 10.0
    x = torch.tensor(cost, requires_grad=True)
    c = budget - x
    inside, outside = -multiplier * c + penalty * c**2 / 2, -(multiplier**2) / (2 * penalty) + 0 * c
    (slope,) = torch.autograd.grad(torch.where(penalty * c <= multiplier, inside, outside), x)
    weight = constraint(multiplier, cost, budget=budget, penalty=penalty, limit=100.0).weight()
    torch.testing.assert_close(weight, slope)


def test_update_by_hand() -> None:
    subject = constraint(multiplier=1.0, estimate=20.0, budget=10.0, penalty=0.5, step=0.1)
    subject.update(torch.tensor(120.0))
    assert subject.estimate.item() == pytest.approx(0.98 * 20 + 0.02 * 120)
    assert subject.multiplier.item() == pytest.approx(1.0 + 0.1 * 0.5 * (22 - 10))


def test_multiplier_and_weight_are_capped() -> None:
    subject = constraint(multiplier=4.9, estimate=1e6, limit=5.0)
    subject.update(torch.tensor(1e6))
    assert subject.multiplier.item() == 5.0 and subject.weight().item() == 5.0


def test_6_without_cost_the_multiplier_stays_at_zero() -> None:
    subject = constraint()
    for _ in range(50):
        subject.update(torch.tensor(0.0))
    assert subject.multiplier.item() == 0 and subject.weight().item() == 0


def test_6_a_multiplier_falls_when_the_budget_is_met_again() -> None:
    subject = constraint(budget=10.0, step=0.1)
    risen = []
    for _ in range(60):
        subject.update(torch.tensor(100.0))
        risen.append(subject.multiplier.item())
    assert risen == sorted(risen) and risen[-1] > 0
    fallen = []
    for _ in range(400):
        subject.update(torch.tensor(0.0))
        fallen.append(subject.multiplier.item())
    assert fallen[-1] == 0 and min(fallen) == 0
    over = next(i for i, (a, b) in enumerate(zip(fallen, fallen[1:], strict=False)) if b < a)
    assert all(b <= a for a, b in zip(fallen[over:], fallen[over + 1 :], strict=False))  # once it falls it goes on


@pytest.mark.parametrize("budget", [0.0, 10.0])
def test_6_learning_from_a_log_without_cost_leaves_the_multiplier_at_zero(budget: float) -> None:
    subject = learner(constraint=ConstraintConfig(budget=budget, step=1.0))
    for seed in range(6):
        data = batch(seed)
        subject.update(replace(data, cost=torch.zeros_like(data.cost)))
    assert subject.agent.constraint.multiplier.item() == 0


def test_6_the_learner_raises_and_lowers_the_multiplier_with_the_predicted_cost() -> None:
    subject = learner(constraint=ConstraintConfig(budget=5.0, step=1.0))
    head = subject.agent.model.cost_head
    bins = subject.agent.model.twohot.bins

    def predict(bin_: int) -> None:
        nn.init.zeros_(head.out.weight)
        nn.init.zeros_(head.out.bias)
        with torch.no_grad():
            head.out.bias[bin_] = 100.0

    costly = len(bins) // 2 + 8
    predict(costly)
    subject.update(batch())
    expected = 0.02 * bins[costly].item() * SCHEMA.max_steps  # cost per step, times the steps of an episode
    assert subject.agent.constraint.estimate.item() == pytest.approx(expected, rel=0.01)
    for seed in range(4):
        predict(costly)
        subject.update(batch(seed))
    high = subject.agent.constraint.multiplier.item()
    assert high > 0
    subject.agent.constraint.estimate.zero_()
    predict(len(bins) // 2)
    subject.update(batch())
    assert subject.agent.constraint.multiplier.item() < high


def test_recorded_cost_goes_before_imagined_cost() -> None:
    subject = learner(constraint=ConstraintConfig(budget=5.0, step=1.0))
    subject.heed(3.0)
    for seed in range(3):
        metrics = subject.update(batch(seed))
    assert subject.agent.constraint.estimate.item() == pytest.approx(3 * (1 - 0.98**3))
    assert metrics["imagined/cost_per_episode"].item() != pytest.approx(3.0)
    subject.heed(1000.0)
    subject.update(batch())
    assert subject.agent.constraint.multiplier.item() > 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_estimate_that_is_not_finite_is_ignored(bad: float) -> None:
    subject = constraint(multiplier=1.0, estimate=10.0)
    subject.update(torch.tensor(bad))
    assert subject.estimate.item() == 10.0 and subject.multiplier.item() == 1.0


def test_the_multiplier_is_remembered_with_the_weights() -> None:
    source = agent()
    source.constraint.multiplier.fill_(0.7)
    target = agent(seed=1)
    stir(target)
    state: dict[str, Tensor] = source.state_dict()
    target.load_state_dict(state)
    assert target.constraint.multiplier.item() == pytest.approx(0.7)


@pytest.mark.parametrize("steps", [0, -5])
def test_an_episode_without_a_length_is_refused(steps: int) -> None:
    # The budget is a cost per episode; a length that nobody gave would scale it at will.
    with pytest.raises(UserError, match=rf"fake/Tiny-v0 has max_steps {steps};.*at least 1"):
        agent(schema=replace(SCHEMA, max_steps=steps))
