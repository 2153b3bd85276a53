"""Acting from weights laid out for it says what the modules say, within float error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from builders import ACTIONS, MODEL, SCHEMA, agent, observation, stir

from fosp.agent.acting import LaidOut, Plain, _Convolution
from fosp.agent.agent import Agent
from fosp.agent.expansion import ExpansionConfig, candidate_scores
from fosp.agent.policy import AgentPolicy, Carry
from fosp.world_model import Latent


def subject(expand: bool = True, stem: int = 2, **changes: Any) -> Agent:
    """An agent all of whose weights, gains and offsets are random numbers; the frozen policy differs from the other."""
    made = agent(model=replace(MODEL, stem=stem), **changes)
    stir(made, size=0.3)
    if expand:
        made.expand()
        stir(made.actor, seed=7)
    return made


def follow(policy: AgentPolicy, count: int | None, steps: int = 4) -> list[tuple[np.ndarray, Carry]]:
    """Actions and carries; some rows begin anew on the way."""
    carry, made = policy.initial(count), []
    for step in range(steps):
        action, carry = policy.act(carry, observation(step, count))
        made.append((action, carry))
        if step == 1 and count is not None:
            carry = carry.reset(np.arange(count) % 2 == 0)
    return made


@pytest.mark.parametrize("count", [None, 1, 3, 5])
@pytest.mark.parametrize(
    ("explore", "changes"),
    [
        (False, {}),
        (True, {}),
        (False, {"expand": False}),
        (True, {"expand": False, "expansion": ExpansionConfig(samples=2)}),
        (False, {"expansion": ExpansionConfig(samples=3)}),
        (False, {"expansion": ExpansionConfig(lookahead=2)}),
        (False, {"layers": 1, "stem": 4}),
        (True, {"layers": 3}),
    ],
)
def test_both_ways_act_the_same(count: int | None, explore: bool, changes: dict[str, Any]) -> None:
    made = subject(**changes)
    laid_out, plain = (AgentPolicy(made, SCHEMA, explore, seed=3, frozen=frozen) for frozen in (True, False))
    assert isinstance(laid_out.acting, LaidOut) and isinstance(plain.acting, Plain)
    for (action, carry), (expected, reference) in zip(follow(laid_out, count), follow(plain, count), strict=True):
        np.testing.assert_allclose(action, expected, atol=2e-5)
        assert torch.equal(carry.latent.z, reference.latent.z)
        torch.testing.assert_close(carry.latent.h, reference.latent.h, atol=2e-5, rtol=0)
        assert carry.diagnostics.keys() == reference.diagnostics.keys()
        for name, value in reference.diagnostics.items():
            np.testing.assert_allclose(carry.diagnostics[name], value, rtol=2e-4, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("few", [0, _Convolution.FEW])
def test_convolutions_of_many_and_of_few_pixels_are_those_of_the_encoder(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Convolution, "FEW", few)
    library, asked = torch.conv2d, []
    monkeypatch.setattr(torch, "conv2d", lambda *given: (asked.append(given), library(*given))[1])
    made, images = subject(), torch.from_numpy(np.concatenate(list(observation(0, 3).values()), -1))
    with torch.inference_mode():
        seen = images
        for layer in LaidOut(made)._encoder:
            seen = layer(seen)
        expected = made.model.encode(images)  # channels first
    assert (len(asked) > 0) == (few == 0)
    torch.testing.assert_close(seen.permute(0, 3, 1, 2).flatten(1), expected, atol=2e-5, rtol=2e-5)


def test_what_they_say_differs_from_state_to_state() -> None:
    # Else the test above would compare constants.
    made = follow(AgentPolicy(subject(), SCHEMA, frozen=True), 5)
    assert np.ptp(np.stack([action for action, _ in made]), axis=(0, 1)).min() > 0.01
    for name in ("violation_probability", "reward_value", "cost_value"):
        assert np.ptp([carry.diagnostics[name] for _, carry in made]) > 0.01
    assert {int(index) for _, carry in made for index in carry.diagnostics["chosen"]} == {0, 1}


def test_a_state_without_class_is_no_class() -> None:
    # Before the first step z is zero, not the first class of each group.
    acting = LaidOut(subject())
    latent = acting.agent.model.rssm.initial(2)
    with torch.inference_mode():
        read, expected = acting.read(latent), Plain(acting.agent).read(latent)
        other = acting.read(Latent(latent.h, torch.nn.functional.one_hot(torch.zeros(2, 2).long(), 4).float()))
    torch.testing.assert_close(read.probability, expected.probability)
    assert not torch.allclose(read.probability, other.probability)


def test_frozen_weights_are_copies() -> None:
    made = subject()
    policies = [AgentPolicy(made, SCHEMA, frozen=frozen) for frozen in (True, False)]
    before = [
        policy.act(policy.initial(), observation())[1].diagnostics["violation_probability"] for policy in policies
    ]
    stir(made.reachability, seed=5)
    after = [policy.act(policy.initial(), observation())[1].diagnostics["violation_probability"] for policy in policies]
    assert after[0] == before[0] and after[1] != before[1]


def test_without_hidden_layers_the_modules_are_asked() -> None:
    made = subject(layers=0)
    action, _ = AgentPolicy(made, SCHEMA, frozen=True).act(AgentPolicy(made, SCHEMA).initial(), observation())
    assert action.shape == (ACTIONS,)


@pytest.mark.parametrize("frozen", [True, False])
def test_the_choice_is_that_of_advantages(frozen: bool) -> None:
    # Q is scored instead of Q - V: V is the same for all candidates of a state.
    made = subject(expansion=ExpansionConfig(samples=5, kappa=0.7))
    made.reward_range.span.fill_(0.3)
    made.cost_range.span.fill_(1.7)
    policy = AgentPolicy(made, SCHEMA, frozen=frozen)
    action, carry = policy.act(policy.initial(6), observation(count=6))
    features, drawn = carry.latent.features, policy._draw(policy.initial(6), 2)
    with torch.inference_mode():
        reading = Plain(made).read(carry.latent)
        actions = policy._propose(reading, drawn)
        reward, cost = reading.judge(actions)
        scores = candidate_scores(
            made.reward_range(reward - made.reward_critic.v_value(features).unsqueeze(-1)),
            made.cost_range(cost - made.cost_critic.v_value(features).unsqueeze(-1)),
            reading.probability,
            made.config.expansion,
        )
        best = actions[torch.arange(6), scores.argmax(-1)]
    np.testing.assert_allclose(action, best.numpy(), atol=1e-5)
