"""The policy's distribution, and the weights and scores of its extraction at hand-picked values."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from builders import MODEL, SCHEMA, agent, batch, dreamt, generator, stir
from torch import Tensor

from fosp.agent.actor import (
    Actor,
    ActorScales,
    WeightConfig,
    clip_through,
    likelihood_loss,
    regression_weight,
    score,
)
from fosp.agent.agent import Agent, actor_losses, dream, dynamics_loss
from fosp.nets.distributions import gumbel
from fosp.nets.features import Features
from fosp.world_model import Latent


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def test_regression_weight_by_hand() -> None:
    config = WeightConfig(beta_reward=2.0, beta_cost=3.0, clip=100.0)
    feasible, gate = numbers(1, 1, 0, 0.25, 1), numbers(1, 0, 1, 1, 1)
    reward, cost = numbers(0.5, 0.5, 9, 0.5, 50), numbers(9, 9, 0.2, 0.2, 0)
    expected = numbers(
        math.exp(1.0),  # safe: towards reward
        0.0,  # safe by p, but over the tolerated cost, so not to be imitated for its reward
        math.exp(-0.6),  # unsafe: towards safety, whatever the reward
        0.25 * math.exp(1.0) + 0.75 * math.exp(-0.6),
        100.0,  # clipped
    )
    torch.testing.assert_close(regression_weight(feasible, gate, reward, cost, config), expected)


def test_regression_weight_clips_each_exponential_and_stops_gradients() -> None:
    huge = numbers(1e4).requires_grad_()
    weight = regression_weight(numbers(0.5), numbers(1), huge, -huge, WeightConfig(clip=100.0))
    assert weight.item() == 100.0
    assert not weight.requires_grad


def test_score_by_hand() -> None:
    # (u A^r - (1 - u + nu) A^c) / (1 + nu)
    feasible, reward, cost = numbers(1, 0, 0.75, 0.75), numbers(2, 2, 2, 2), numbers(3, 3, 3, 3)
    torch.testing.assert_close(score(feasible, reward, cost, 0.0), numbers(2, -3, 1.5 - 0.75, 1.5 - 0.75))
    torch.testing.assert_close(score(feasible, reward, cost, 1.0), numbers(-0.5, -3, -1.125, -1.125))


def test_likelihood_by_hand() -> None:
    actor = Actor(3, 2, units=4, layers=1)
    features, action = torch.randn(5, 3), torch.rand(5, 2)
    mean, std = actor(features)
    log_prob = torch.distributions.Normal(mean, std).log_prob(action).mean(-1)
    weight = torch.arange(5.0)
    torch.testing.assert_close(likelihood_loss(mean, std, action, weight), -weight * log_prob)


def test_means_and_spreads_keep_to_their_bounds() -> None:
    actor = Actor(3, 2, units=4, layers=1)
    stir(actor, size=30.0)
    mean, std = actor(torch.randn(200, 3))
    assert mean.abs().max() <= 1
    assert std.min() >= actor.MIN_STD and std.max() <= actor.MAX_STD
    action = actor.sample(torch.randn(200, 3), torch.randn(200, 2) * 5)
    assert action.abs().max() <= 1


def test_clipped_actions_still_pass_gradients() -> None:
    action = numbers(-3, 0.5, 3).requires_grad_()
    clipped = clip_through(action)
    torch.testing.assert_close(clipped.detach(), numbers(-1, 0.5, 1))
    (gradient,) = torch.autograd.grad((clipped * numbers(1, 2, 3)).sum(), action)
    torch.testing.assert_close(gradient, numbers(1, 2, 3))


def losses_of(subject: Agent, seed: int = 0, **given: Any) -> dict[str, Tensor]:
    data = batch(**given)
    features = torch.randn(2, 6, subject.model.feature_size, generator=generator(1))
    imagined = dreamt(subject.model.feature_size)
    count = 2 * 5 + imagined.action[..., 0].numel()
    return actor_losses(subject, features, data, imagined, torch.randn(count, 2, generator=generator(seed)))[0]


def test_entropy_loss_falls_as_the_policy_spreads() -> None:
    subject = agent()
    narrow = losses_of(subject)["entropy"].mean()
    with torch.no_grad():
        subject.actor.net.out.bias[2:] += 2.0
    assert losses_of(subject)["entropy"].mean() < narrow


def test_the_log_is_imitated_pair_by_pair_and_not_across_episodes() -> None:
    subject = agent()
    stir(subject)
    is_first = torch.zeros(2, 6, dtype=torch.bool)
    is_first[0, 3] = True
    likelihood = losses_of(subject, is_first=is_first)["likelihood"].view(2, 5)
    assert (likelihood == 0).nonzero().tolist() == [[0, 2]]  # row 2 is a last row: its action is a placeholder


def test_advantages_are_divided_by_the_range_of_the_log() -> None:
    subject = agent()
    stir(subject)
    losses_of(subject)
    data = batch()
    features = torch.randn(2, 6, subject.model.feature_size, generator=generator(1))[:, :-1].flatten(0, 1)
    action = data.action[:, :-1].flatten(0, 1)
    for critic, span in ((subject.reward_critic, subject.reward_range), (subject.cost_critic, subject.cost_range)):
        advantage = critic.q_value(features, action) - critic.v_value(features)
        expected = torch.quantile(advantage, torch.tensor([0.05, 0.95])).diff()
        torch.testing.assert_close(span.span, expected[0])


def test_ascent_moves_the_policy_towards_what_the_critics_like(monkeypatch: pytest.MonkeyPatch) -> None:
    # Reward likes a positive first action, cost dislikes a positive second one. Where it is safe only the first counts.
    subject = agent()
    monkeypatch.setattr(subject.reward_critic, "q_value", lambda features, action: action[:, 0])
    monkeypatch.setattr(subject.cost_critic, "q_value", lambda features, action: action[:, 1])
    parameters = list(subject.actor.parameters())
    for feasible, moved in ((1.0, [1.0, 0.0]), (0.0, [0.0, -1.0])):
        monkeypatch.setattr(
            subject.reachability, "probability", lambda f, u=feasible: torch.full((len(f.values),), 1 - u)
        )
        gradients = torch.autograd.grad(losses_of(subject)["pathwise"].mean(), parameters)
        change = -gradients[-1][:2]  # of the bias of the mean
        torch.testing.assert_close(torch.sign(change.round(decimals=6)), torch.tensor(moved))


@pytest.mark.parametrize("layers", [1, 2, 5])  # five are more than go at once
def test_a_dream_at_once_is_that_step_by_step(layers: int) -> None:
    subject = agent(horizon=4, layers=layers, actor_scales=ActorScales(dynamics=1.0))
    stir(subject)
    embedding = torch.randn(7, subject.model.encoder.size, generator=generator(2))
    noise = gumbel((7, 1, MODEL.groups, MODEL.classes), generator(3))
    never = torch.zeros(7, 1, dtype=torch.bool)
    start = subject.model.observe(embedding.unsqueeze(1), torch.zeros(7, 1, 2), never, noise)[0][:, 0].detach()
    found = []
    for at_once in (False, True):
        subject.model.rssm.at_once = at_once
        imagined = dream(subject, start, generator())
        loss = dynamics_loss(subject, imagined, torch.full((28,), 0.5))
        gradients = torch.autograd.grad(loss.mean(), list(subject.actor.parameters()))
        found.append([imagined.features.values, imagined.action, imagined.cost, loss, *gradients])
        assert all(gradient.any() for gradient in gradients)
    for plain, written in zip(*found, strict=True):
        torch.testing.assert_close(written, plain, rtol=1e-3, atol=1e-5)


def test_under_autocast_a_dream_at_once_is_as_near_to_the_exact_one_as_step_by_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = agent(horizon=4, units=128, layers=2, model=replace(MODEL, deter=70, units=128))
    stir(subject)
    scaled = 1e3  # noise beside which rounding chooses no other class
    monkeypatch.setattr("fosp.agent.agent.gumbel", lambda *args: scaled * gumbel(*args))
    start = subject.model.rssm.initial(7)
    start.z[..., 0] = 1.0

    def found(at_once: bool, half: bool) -> list[Tensor]:
        subject.model.rssm.at_once = at_once
        with torch.autocast("cpu", torch.bfloat16, enabled=half), torch.no_grad():
            imagined = dream(subject, start, generator())
        return [imagined.action, imagined.features.values[..., :70]]

    exact, rounded, plain = found(False, False), found(True, True), found(False, True)
    for true, one, other in zip(exact, rounded, plain, strict=True):
        assert 0 < (one - true).norm() <= 1.5 * (other - true).norm()


@pytest.mark.parametrize(("danger", "gains"), [(0.0, [1.0, 0.0]), (1.0, [0.0, -1.0])])
def test_the_gradient_through_the_model_is_that_of_the_lambda_return(
    monkeypatch: pytest.MonkeyPatch, danger: float, gains: list[float]
) -> None:
    # A world in which the first action is the next reward and the second the next cost: R_k = a_k + gamma R_{k+1}.
    subject = agent(gamma=0.5, lam=1.0, horizon=3, explore_first=0.0, actor_scales=ActorScales(dynamics=1.0))
    stir(subject.actor)

    def step(latent: Latent, action: Tensor, noise: Tensor) -> Latent:
        return Latent(torch.cat([action, latent.h[:, 2:]], -1), latent.z)

    subject.model.rssm.at_once = False
    monkeypatch.setattr(subject.model.rssm, "imagine_step", step)
    monkeypatch.setattr(subject.model, "reward", lambda features: features.values[..., 0])
    monkeypatch.setattr(subject.model, "cost", lambda features: features.values[..., 1])
    monkeypatch.setattr(subject.model, "continues", lambda features: torch.ones(features.values.shape[:-1]))
    monkeypatch.setattr(subject.reachability, "probability", lambda f: torch.full(f.shape[:-1], danger))
    start = subject.model.rssm.initial(5)
    actions: list[Tensor] = []
    original = Actor.sample

    def sample(actor: Actor, features: Tensor, normal: Tensor) -> Tensor:
        actions.append(original(actor, features, normal).detach().requires_grad_())
        return actions[-1]

    monkeypatch.setattr(Actor, "sample", sample)
    imagined = dream(subject, start, generator())
    loss = dynamics_loss(subject, imagined, 1 - subject.reachability.probability(imagined.features.values[:-1]))
    worth = torch.tensor(gains)
    a = [action.detach() @ worth for action in actions]
    last = a[2]
    expected = torch.stack([a[0] + 0.5 * (a[1] + 0.5 * last), a[1] + 0.5 * last, last])
    torch.testing.assert_close(loss.detach(), -expected)  # the values of a fresh critic are zero, its range is one
    gradients = torch.autograd.grad(loss.sum(), actions)
    for gradient, weight in zip(gradients, (1.0, 1.5, 1.75), strict=True):  # a later action is part of more returns
        torch.testing.assert_close(gradient, (-weight * worth).expand(5, 2))


@pytest.mark.parametrize("at_once", [False, True])
def test_through_the_model_each_action_answers_for_what_follows_it_alone(at_once: bool) -> None:
    subject = agent(horizon=3, actor_scales=ActorScales(dynamics=1.0))
    subject.model.rssm.at_once = at_once
    stir(subject)
    inputs: list[Any] = []
    subject.actor.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    imagined = dream(subject, subject.model.rssm.initial(5), generator())
    loss = dynamics_loss(subject, imagined, torch.ones(15))
    assert loss.shape == (3, 5) and torch.isfinite(loss).all()
    assert len(inputs) == (1 if subject.model.rssm.runs_at_once(loss) else 3)
    assert not any(Features.of(features).values.requires_grad for features in inputs)
    gradients = torch.autograd.grad(loss.mean(), list(subject.actor.parameters()))
    assert all(gradient.any() for gradient in gradients)


def test_pairs_that_cost_more_than_the_budget_are_not_imitated(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = agent()
    tolerance = subject.config.constraint.budget / SCHEMA.max_steps / (1 - subject.config.gamma)
    monkeypatch.setattr(subject.reachability, "probability", lambda f: torch.zeros(f.values.shape[:-1]))
    for over, imitated in ((0.9, True), (1.1, False)):
        monkeypatch.setattr(subject.cost_critic, "q_value", lambda f, a, c=over: torch.full((len(a),), c * tolerance))
        assert bool(losses_of(subject)["likelihood"].any()) is imitated


def test_the_policys_own_samples_are_weighted_only_where_asked_for() -> None:
    subject = agent()
    stir(subject)
    assert not losses_of(subject)["imagined"].any()
