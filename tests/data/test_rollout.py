from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_world import SCHEMA, CountingPolicy, FakeBehaviour, FakeEnv

from fosp.data.collect import rollout
from fosp.data.episode import validate
from fosp.types import UserError


def test_rows_follow_the_picture_of_time() -> None:
    (episode,) = rollout(CountingPolicy(), [FakeEnv()], [2], info={"scenario": "dark"})
    validate(episode, SCHEMA)
    steps = 7  # 5 + 2 % 4
    t = np.arange(steps + 1)
    # the image of row t shows time t; the action of row t is the one chosen after seeing it
    np.testing.assert_array_equal(episode.images["image_front"][:, 0, 0, 1], t)
    np.testing.assert_array_equal(episode.images["image_back"][:, 0, 0, 2], 1)
    np.testing.assert_allclose(episode.action[:-1], np.stack([t[:-1] / 100, np.full(steps, 0.02)], 1), rtol=1e-6)
    np.testing.assert_array_equal(episode.action[-1], 0)  # placeholder
    # the reward of row t + 1 is caused by the action of row t: 100 * (t / 100) + (t + 1)
    np.testing.assert_allclose(episode.reward, np.concatenate([[0], 2 * t[1:] - 1]), rtol=1e-6)
    assert episode.info == {"scenario": "dark", "task": SCHEMA.task, "seed": 2, "goals": 1}
    assert episode.is_last[-1] and not episode.is_terminal.any()  # a time limit is a truncation


def test_termination_is_marked() -> None:
    (episode,) = rollout(CountingPolicy(), [FakeEnv(terminates=True)], [0])
    assert episode.is_terminal.tolist() == [False] * 5 + [True]


def test_diagnostics_stand_beside_the_row_they_speak_of() -> None:
    (episode,) = rollout(CountingPolicy(), [FakeEnv()], [0])
    np.testing.assert_array_equal(episode.diagnostics["seen_t"], [0, 1, 2, 3, 4, np.nan])
    np.testing.assert_array_equal(episode.diagnostics["chosen"], [0, 1, 0, 1, 0, 0])  # whole numbers: repeated
    np.testing.assert_array_equal(episode.diagnostics["shared"], [7, 7, 7, 7, 7, np.nan])


def test_lockstep_with_different_lengths_resets_only_the_finished_rows() -> None:
    envs = [FakeEnv(), FakeEnv(), FakeEnv()]
    seeds = [3, 0, 1, 2, 4]  # 8, 5, 6, 7, 5 steps
    episodes = list(rollout(CountingPolicy(), envs, seeds))
    assert [env.resets for env in envs] == [[3], [0, 2], [1, 4]]
    assert [episode.info["seed"] for episode in episodes] == [0, 1, 3, 4, 2]  # in the order in which they end
    for episode in episodes:
        (alone,) = rollout(CountingPolicy(), [FakeEnv()], [episode.info["seed"]])
        np.testing.assert_array_equal(episode.action, alone.action)  # the carry began anew, and saw its own images
        np.testing.assert_array_equal(episode.reward, alone.reward)
        np.testing.assert_array_equal(episode.images["image_front"], alone.images["image_front"])
        np.testing.assert_array_equal(episode.diagnostics["seen_t"], alone.diagnostics["seen_t"])


class SeededPolicy(CountingPolicy):
    """Writes down the seeds that it is told for each row."""

    seeded = True

    def __init__(self) -> None:
        self.told: list[list[int]] = []

    def initial(self, batch: int | None = None, seeds: Any = None) -> Any:
        return self._noting(super().initial(batch), seeds)

    def _noting(self, carry: Any, seeds: Any) -> Any:
        self.told.append(list(seeds))
        carry.reset = lambda mask, seeds: self._noting(type(carry)(np.where(mask, 0, carry.count)), seeds)
        return carry

    def act(self, carry: Any, observation: Any) -> Any:
        after: Any
        action, after = super().act(carry, observation)
        after.reset = lambda mask, seeds: self._noting(type(after)(np.where(mask, 0, after.count)), seeds)
        return action, after


def test_a_seeded_policy_is_told_the_seeds_of_the_episodes() -> None:
    policy = SeededPolicy()
    list(rollout(policy, [FakeEnv(), FakeEnv()], [3, 0, 2]))  # 8, 5 and 7 steps
    assert policy.told == [[3, 0], [3, 2]]


def test_episodes_come_as_soon_as_they_end() -> None:
    envs = [FakeEnv(), FakeEnv()]
    episodes = rollout(CountingPolicy(), envs, [0, 3])
    next(episodes)
    assert envs[1].t <= 5  # the longer one has not been run to its end


def test_on_step_is_told_how_many_environments_moved() -> None:
    moved: list[int] = []
    episodes = rollout(CountingPolicy(), [FakeEnv(), FakeEnv()], [0, 3], on_step=moved.append)  # 5 and 8 steps
    next(episodes)
    assert moved == [2, 2, 2, 2]  # the fifth step is still going on
    next(episodes)
    assert list(episodes) == [] and moved == [2] * 5 + [1] * 3


def test_privileged_policies_see_the_state_of_each_environment() -> None:
    envs = [FakeEnv(), FakeEnv()]
    episodes = list(rollout(FakeBehaviour("unsafe"), envs, [0, 1, 2, 3]))  # the behaviour checks its count against t
    assert sorted(episode.info["seed"] for episode in episodes) == [0, 1, 2, 3]
    for episode in episodes:
        validate(episode, SCHEMA)
        violations = [t + 1 for t in range(len(episode) - 1) if t % 3 == 2]  # cost arrives one row after the action
        assert np.flatnonzero(episode.cost).tolist() == violations
        assert episode.cost_terms["vases"].tolist() == episode.cost.tolist() and not episode.cost_terms["hazards"].any()


def test_without_images_the_policy_still_sees() -> None:
    (episode,) = rollout(CountingPolicy(), [FakeEnv()], [2], keep_images=False)
    assert episode.images == {} and episode.action[0, 1] == np.float32(0.02)


def test_more_environments_than_seeds_and_no_seed_at_all() -> None:
    envs = [FakeEnv(), FakeEnv(), FakeEnv()]
    assert len(list(rollout(CountingPolicy(), envs, [5]))) == 1
    assert [env.resets for env in envs] == [[5], [], []]
    assert list(rollout(CountingPolicy(), envs, [])) == []
    with pytest.raises(ValueError, match="at least one environment"):
        list(rollout(CountingPolicy(), [], [1]))


def test_actions_are_recorded_as_executed() -> None:
    class Wild(CountingPolicy):
        def act(self, carry, observation):
            return np.array([[5.0, -3.0]]), carry

    (episode,) = rollout(Wild(), [FakeEnv()], [0])
    np.testing.assert_array_equal(episode.action[:-1], [[1, -1]] * 5)


def test_policy_of_another_action_size_is_told() -> None:
    class Other(CountingPolicy):
        def act(self, carry, observation):
            return np.zeros((1, 7)), carry

    with pytest.raises(UserError, match=r"shape \(7,\), but fake/Line-v0 takes \(2,\)"):
        list(rollout(Other(), [FakeEnv()], [0]))


def test_an_action_that_is_not_finite_reaches_no_environment() -> None:
    class Broken(CountingPolicy):
        def act(self, carry: Any, observation: Any) -> Any:
            action, carry = super().act(carry, observation)
            return np.where(carry.count[:, None] > 2, np.nan, action), carry

    env = FakeEnv()
    with pytest.raises(UserError, match=r"\[nan, nan\] at layout 3"):
        list(rollout(Broken(), [env], [3]))
    assert env.t == 2
