"""From images to actions: alone or side by side, from the start of an episode or after a restart."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import ACTIONS, SCHEMA, WIDTH, agent, copied, observation, same, stir

from fosp.agent.agent import Agent
from fosp.agent.expansion import ExpansionConfig
from fosp.agent.policy import AgentPolicy, Carry
from fosp.types import Policy, UserError


@pytest.fixture
def subject() -> Agent:
    subject = agent()
    stir(subject, size=0.3)
    subject.expand()
    stir(subject.actor, seed=7)
    return subject


def frames(count: int, steps: int) -> list[dict[str, np.ndarray]]:
    return [observation(seed=step, count=count) for step in range(steps)]


def of_row(images: dict[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    return {name: image[row] for name, image in images.items()}


def test_it_is_a_policy(subject: Agent) -> None:
    policy = AgentPolicy(subject, SCHEMA)
    assert isinstance(policy, Policy)
    action, carry = policy.act(policy.initial(), observation())
    assert action.shape == (ACTIONS,) and action.dtype == np.float32 and np.abs(action).max() <= 1
    assert carry.diagnostics.keys() == {"violation_probability", "reward_value", "cost_value", "chosen"}
    assert all(np.shape(value) == () for value in carry.diagnostics.values())
    assert 0 < carry.diagnostics["violation_probability"] < 1 and carry.diagnostics["chosen"] in (0, 1)


def test_several_environments_act_as_each_would_alone(subject: Agent) -> None:
    policy = AgentPolicy(subject, SCHEMA)
    together = policy.initial(3)
    alone = [policy.initial() for _ in range(3)]
    for images in frames(3, 4):
        actions, together = policy.act(together, images)
        assert actions.shape == (3, ACTIONS)
        for row in range(3):
            action, alone[row] = policy.act(alone[row], of_row(images, row))
            np.testing.assert_allclose(actions[row], action, atol=1e-6)
            for name, value in alone[row].diagnostics.items():
                np.testing.assert_allclose(together.diagnostics[name][row], value, rtol=1e-4, atol=1e-4)


def test_a_row_that_is_reset_begins_anew_and_the_others_go_on(subject: Agent) -> None:
    policy = AgentPolicy(subject, SCHEMA)
    carry, undisturbed = policy.initial(3), policy.initial(3)
    for images in frames(3, 3):
        _, carry = policy.act(carry, images)
        _, undisturbed = policy.act(undisturbed, images)
    carry = carry.reset(np.array([False, True, False]))
    fresh = policy.initial(3)
    for images in frames(3, 2):
        actions, carry = policy.act(carry, images)
        kept, undisturbed = policy.act(undisturbed, images)
        new, fresh = policy.act(fresh, images)
        np.testing.assert_allclose(actions[[0, 2]], kept[[0, 2]], atol=1e-6)
        np.testing.assert_allclose(actions[1], new[1], atol=1e-6)
        assert np.abs(actions[1] - kept[1]).max() > 1e-4


def test_a_reset_leaves_the_old_carry_as_it_was(subject: Agent) -> None:
    policy = AgentPolicy(subject, SCHEMA)
    _, carry = policy.act(policy.initial(2), observation(count=2))
    before = carry.latent.h.clone(), carry.latent.z.clone(), carry.action.clone()
    cleared = carry.reset(np.array([True, True]))
    assert not cleared.latent.features.any() and not cleared.action.any()
    assert torch.equal(carry.latent.h, before[0]) and torch.equal(carry.latent.z, before[1])
    assert torch.equal(carry.action, before[2])


def test_the_first_step_of_an_episode_is_the_first_row_of_a_sequence(subject: Agent) -> None:
    # What the model learned at rows with is_first is what it meets when an episode begins.
    policy = AgentPolicy(subject, SCHEMA)
    images = observation(count=2)
    _, carry = policy.act(policy.initial(2), images)
    stacked = torch.from_numpy(np.concatenate([images[name] for name in SCHEMA.cameras], -1))
    embedding = subject.model.encode(stacked.unsqueeze(1))
    starts = torch.ones(2, 1, dtype=torch.bool)
    latents, *_ = subject.model.observe(embedding, torch.zeros(2, 1, ACTIONS), starts, torch.zeros(2, 1, 2, 4))
    torch.testing.assert_close(carry.latent.h, latents.h[:, 0].detach())
    torch.testing.assert_close(carry.latent.z, latents.z[:, 0].detach())


def test_the_next_state_knows_the_action_that_was_executed(subject: Agent) -> None:
    policy = AgentPolicy(subject, SCHEMA)
    _, carry = policy.act(policy.initial(), observation(0))
    _, after = policy.act(carry, observation(1))
    with torch.inference_mode():
        expected = subject.model.rssm.advance(carry.latent, carry.action)
    torch.testing.assert_close(after.latent.h, expected)


def test_without_expansion_the_policy_itself_acts(subject: Agent) -> None:
    subject.offline_actor = None
    policy = AgentPolicy(subject, SCHEMA)
    action, carry = policy.act(policy.initial(), observation())
    with torch.inference_mode():
        mean, _ = subject.actor(carry.latent.features)
    np.testing.assert_allclose(action, mean[0].numpy(), atol=1e-6)
    assert carry.diagnostics["chosen"] == -1


def test_in_evaluation_nothing_is_drawn(subject: Agent) -> None:
    policy = AgentPolicy(subject, SCHEMA)
    first, _ = policy.act(policy.initial(4), observation(count=4))
    torch.manual_seed(99)
    second, _ = policy.act(policy.initial(4, seeds=[5, 6, 7, 8]), observation(count=4))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("explore", "samples"), [(True, 0), (True, 2), (False, 2)])
def test_what_is_drawn_depends_on_the_seed_alone(subject: Agent, explore: bool, samples: int) -> None:
    subject.config = replace(subject.config, expansion=ExpansionConfig(samples=samples))

    def run(seed: int) -> np.ndarray:
        policy = AgentPolicy(subject, SCHEMA, explore=explore, seed=seed)
        carry, actions = policy.initial(3), []
        for images in frames(3, 3):
            action, carry = policy.act(carry, images)
            actions.append(action)
        return np.stack(actions)

    first = run(1)
    torch.manual_seed(99)
    np.testing.assert_array_equal(first, run(1))
    assert not np.array_equal(first, run(2))
    assert np.abs(first).max() <= 1


@pytest.mark.parametrize(("explore", "samples"), [(True, 0), (True, 2), (False, 2)])
def test_what_an_episode_draws_is_its_own(subject: Agent, explore: bool, samples: int) -> None:
    # Neither the number of rows, nor the place in the batch, nor the episodes before it change what an episode draws.
    subject.config = replace(subject.config, expansion=ExpansionConfig(samples=samples))
    policy = AgentPolicy(subject, SCHEMA, explore=explore, seed=1)

    def run(carry: Carry, row: int, count: int) -> np.ndarray:
        actions = []
        for images in frames(1, 3):
            action, carry = policy.act(carry, {name: np.repeat(image, count, 0) for name, image in images.items()})
            actions.append(action[row])
        return np.stack(actions)

    alone = run(policy.initial(1, seeds=[42]), 0, 1)
    np.testing.assert_allclose(run(policy.initial(3, seeds=[7, 42, 8]), 1, 3), alone, atol=1e-6)
    _, used = policy.act(policy.initial(2), observation(5, count=2))
    np.testing.assert_allclose(run(used.reset(np.array([False, True]), [0, 42]), 1, 2), alone, atol=1e-6)
    assert np.abs(run(policy.initial(1, seeds=[43]), 0, 1) - alone).max() > 1e-3
    assert np.abs(run(used.reset(np.array([False, True])), 1, 2) - run(policy.initial(2), 1, 2)).max() > 1e-3


def test_the_same_carry_draws_the_same(subject: Agent) -> None:
    policy = AgentPolicy(subject, SCHEMA, explore=True)
    _, carry = policy.act(policy.initial(2), observation(count=2))
    first, after = policy.act(carry, observation(1, count=2))
    np.testing.assert_array_equal(policy.act(carry, observation(1, count=2))[0], first)
    assert not np.array_equal(policy.act(after, observation(1, count=2))[0], first)


@pytest.mark.parametrize(("lookahead", "hold"), [(0, 1), (1, 1), (3, 1), (3, 2), (2, 5)])
def test_a_candidate_is_judged_by_where_it_leads(subject: Agent, lookahead: int, hold: int) -> None:
    # sum_{k<L} gamma^k x_{k+1} + gamma^L Q(s_L, a_L), the candidate held for some steps, then the policy's mean.
    subject.offline_actor = None
    expansion = ExpansionConfig(lookahead=lookahead, hold=hold)
    subject.config = replace(subject.config, expansion=expansion, gamma=0.9)
    policy = AgentPolicy(subject, SCHEMA)
    action, carry = policy.act(policy.initial(3), observation(count=3))
    with torch.inference_mode():
        state, chosen, discount = carry.latent, torch.from_numpy(action), torch.ones(3)
        reward, cost = torch.zeros(3), torch.zeros(3)
        for k in range(lookahead):
            state = subject.model.rssm.imagine_step(state, chosen, None)
            reward = reward + discount * subject.model.reward(state.features)
            cost = cost + discount * subject.model.cost(state.features)
            discount = discount * 0.9 * subject.model.continues(state.features)
            chosen = chosen if k + 1 < hold else subject.actor(state.features)[0]
        reward = reward + discount * subject.reward_critic.q_value(state.features, chosen)
        cost = cost + discount * subject.cost_critic.q_value(state.features, chosen)
    np.testing.assert_allclose(carry.diagnostics["reward_value"], reward.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(carry.diagnostics["cost_value"], cost.numpy(), rtol=1e-4, atol=1e-4)


def test_several_environments_look_ahead_as_each_would_alone(subject: Agent) -> None:
    subject.config = replace(subject.config, expansion=ExpansionConfig(lookahead=2))
    policy = AgentPolicy(subject, SCHEMA)
    images = observation(count=3)
    together, _ = policy.act(policy.initial(3), images)
    for row in range(3):
        alone, _ = policy.act(policy.initial(), of_row(images, row))
        np.testing.assert_allclose(together[row], alone, atol=1e-6)


def test_exploration_spreads_as_the_policy_says(subject: Agent) -> None:
    subject.offline_actor = None
    policy = AgentPolicy(subject, SCHEMA, explore=True)
    image = {name: np.repeat(image[None], 3000, 0) for name, image in observation().items()}
    action, carry = policy.act(policy.initial(3000), image)
    with torch.inference_mode():
        mean, std = subject.actor(carry.latent.features[:1])
        drawn = (mean + std * torch.randn(20_000, ACTIONS, generator=torch.Generator().manual_seed(5))).clamp(-1, 1)
    np.testing.assert_allclose(action.mean(0), drawn.mean(0).numpy(), atol=0.04)
    np.testing.assert_allclose(action.std(0), drawn.std(0).numpy(), atol=0.04)


def test_acting_changes_nothing_in_the_agent(subject: Agent) -> None:
    before = copied(subject.state_dict())
    policy = AgentPolicy(subject, SCHEMA, explore=True)
    carry = policy.initial(2)
    for images in frames(2, 3):
        _, carry = policy.act(carry, images)
    assert same(subject.state_dict(), before)


def wrong(**changes: np.ndarray) -> dict[str, np.ndarray]:
    return {**observation(), **changes}


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (wrong(image_back=np.zeros((32, 32, 3), np.uint8)), r"image_back.*\(32, 32, 3\).*\(16, 16, 3\)"),
        (wrong(image_back=np.zeros((WIDTH, WIDTH, 4), np.uint8)), r"image_back.*4\).*\(16, 16, 3\)"),
        (wrong(image_front=np.zeros((WIDTH, WIDTH, 3), np.float32)), "image_front.*float32.*uint8"),
        (wrong(image_front=np.zeros((1, WIDTH, WIDTH, 3), np.uint8)), r"image_front.*\(1, 16, 16, 3\)"),
        ({"image_front": np.zeros((WIDTH, WIDTH, 3), np.uint8)}, "no image 'image_back'"),
    ],
)
def test_images_that_do_not_fit_are_refused(subject: Agent, images: dict[str, np.ndarray], said: str) -> None:
    policy = AgentPolicy(subject, SCHEMA)
    with pytest.raises(UserError, match=said):
        policy.act(policy.initial(), images)


@pytest.mark.filterwarnings("error")
def test_images_may_be_read_only_or_views(subject: Agent) -> None:
    policy, images = AgentPolicy(subject, SCHEMA), observation()
    views = {name: image[::-1].copy()[::-1] for name, image in images.items()}  # mirrored twice: the same numbers
    for image in views.values():
        image.flags.writeable = False
    expected = policy.act(policy.initial(), images)[0]
    np.testing.assert_array_equal(policy.act(policy.initial(), views)[0], expected)


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_images_than_of_environments_is_refused(subject: Agent, count: int) -> None:
    # One image for two environments would be broadcast without a word.
    policy = AgentPolicy(subject, SCHEMA)
    with pytest.raises(UserError, match=rf"\({count}, 16, 16, 3\).*2"):
        policy.act(policy.initial(2), observation(count=count))


def damage(module: torch.nn.Module, value: float = float("nan")) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("explore", [False, True])
def test_where_one_policy_is_damaged_the_other_acts(subject: Agent, frozen: bool, explore: bool) -> None:
    for name, other in (("offline_actor", 1), ("actor", 0)):
        made = deepcopy(subject)
        damage(getattr(made, name))
        policy = AgentPolicy(made, SCHEMA, explore, frozen=frozen)
        action, carry = policy.act(policy.initial(9), observation(count=9))
        assert np.isfinite(action).all() and (carry.diagnostics["chosen"] == other).all()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("explore", [False, True])
@pytest.mark.parametrize("part", ["model", "reward_critic", "cost_critic", "actors"])
def test_no_action_that_is_not_finite_leaves_the_policy(subject: Agent, part: str, explore: bool, frozen: bool) -> None:
    for name in ("offline_actor", "actor") if part == "actors" else (part,):
        damage(getattr(subject, name))
    policy = AgentPolicy(subject, SCHEMA, explore, frozen=frozen)
    with pytest.raises(UserError, match="fake/Tiny-v0 finds no action that is safe.*nan"):
        policy.act(policy.initial(), observation())
