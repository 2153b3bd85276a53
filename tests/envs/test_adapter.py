"""The adapter for the original Safety-Gymnasium, run on a stand-in with its interface."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from original import AutoReset, FiveValues, Original, RandomPolicy, Wrapper

from fosp.data.collect import Job, collect
from fosp.envs import from_safety_gymnasium, make
from fosp.evaluation.evaluate import evaluate
from fosp.types import HELD_OUT_SEEDS, UserError

ONE_CAMERA = "<mujoco><worldbody><camera name='vision'/></worldbody></mujoco>"
TERMS = ("buttons", "hazards", "gremlins")


def toward_goal(state: Mapping[str, Any]) -> np.ndarray:
    """Turn to the goal and push: meets goals, and what lies in between."""
    offset = state["goal_xy"] - state["agent_xy"]
    error = math.remainder(math.atan2(offset[1], offset[0]) - state["agent_yaw"], 2 * math.pi)
    return np.array([math.cos(error), 3 * error])


@pytest.mark.parametrize(("task", "steps"), [("SafetyPointButton1", 80), ("SafetyPointGoal2", 60)])
def test_it_equals_the_same_task_of_this_package(task: str, steps: int) -> None:
    twin, adapted = make(task), from_safety_gymnasium(Wrapper(Original(task)))
    seen = {"cost": 0.0, "goal_met": 0.0}
    ours, theirs = twin.reset(seed=3), adapted.reset(seed=3)
    for _ in range(steps):
        assert all(np.array_equal(ours[0][name], theirs[0][name]) for name in ours[0])
        assert ours[1:-1] == theirs[1:-1]
        assert theirs[-1] == {key: value for key, value in ours[-1].items() if not key.startswith("reward_")}
        assert adapted.observation_space.contains(theirs[0])
        seen = {key: value + theirs[-1][key] for key, value in seen.items()}
        action = toward_goal(twin.privileged())
        ours, theirs = twin.step(action), adapted.step(action)
    assert seen["cost"] >= 5 and seen["goal_met"] >= 1
    twin.close()
    adapted.close()


def test_the_schema_is_that_of_the_twin_but_for_the_name() -> None:
    ours = make("SafetyPointGoal1", action_repeat=3).schema().to_json()
    theirs = from_safety_gymnasium(Original("SafetyPointGoal1"), action_repeat=3).schema().to_json()
    assert theirs.pop("task") == "safety_gymnasium/SafetyPointGoal1-v0" and ours.pop("task")
    assert ours == theirs
    named = from_safety_gymnasium(Original("SafetyPointGoal1"), task="fosp/SafetyPointGoal1-v0", image_size=32)
    assert named.schema().task == "fosp/SafetyPointGoal1-v0"
    assert named.schema().cameras == {"image_front": (32, 32, 3), "image_back": (32, 32, 3)}


def test_gymnasium_finds_nothing_wrong() -> None:
    check_env(from_safety_gymnasium(Original()), skip_render_check=True)


def test_a_part_of_the_cost_that_is_absent_counts_as_zero_and_keys_stay_the_same() -> None:
    original = Original()
    env = from_safety_gymnasium(original, action_repeat=1)
    _, info = env.reset(seed=0)
    keys = set(info)
    assert keys == {"cost", "goal_met", "frames", *(f"cost_{term}" for term in TERMS)}
    told = []
    for _ in range(12):
        told.append("cost_buttons" in original.step(np.zeros(2))[-1])
        info = env.step(np.zeros(2))[-1]
        assert set(info) == keys and all(isinstance(value, (int, float)) for value in info.values())
    assert told == [False] * 5 + [True] * 7  # the timer runs for ten frames


def test_reward_and_cost_are_summed_over_the_frames_of_a_step() -> None:
    env = from_safety_gymnasium(Original(extra={"cost_hazards": 1.0}), action_repeat=5)
    env.reset(seed=0)
    info = env.step(np.ones(2))[-1]
    assert info["frames"] == 5 and info["cost_hazards"] == 5


def test_the_time_limit_is_a_truncation_and_the_last_step_may_be_shorter() -> None:
    env = from_safety_gymnasium(Original(limit=10))
    assert env.schema().max_steps == 3
    env.reset(seed=0)
    steps = [env.step(np.zeros(2)) for _ in range(3)]
    assert [step[-1]["frames"] for step in steps] == [4, 4, 2]
    assert [step[2:4] for step in steps] == [(False, False), (False, False), (False, True)]
    with pytest.raises(AssertionError, match="must be reset"):
        env.step(np.zeros(2))
    env.reset()
    assert env.step(np.zeros(2))[-1]["frames"] == 4


def test_a_termination_ends_the_step_at_once() -> None:
    env = from_safety_gymnasium(Original(dies=6))
    env.reset(seed=0)
    env.step(np.zeros(2))
    _, _, terminated, truncated, info = env.step(np.zeros(2))
    assert terminated and not truncated and info["frames"] == 2


def test_a_failed_simulation_counts_in_the_cost_alone() -> None:
    env = from_safety_gymnasium(Original(extra={"cost_exception": 1.0}), action_repeat=1)
    _, info = env.reset(seed=0)
    assert set(env.step(np.zeros(2))[-1]) == set(info)


def test_seeds_are_passed_on_and_without_one_the_stream_goes_on() -> None:
    original = Original()
    env = from_safety_gymnasium(original)
    env.reset(seed=5)
    env.reset()
    assert original.resets == [None, 5, None]
    env.close()
    assert original.closed


def test_actions_are_clipped_and_checked() -> None:
    env = from_safety_gymnasium(Original())
    env.reset(seed=0)
    env.step(np.array([7.0, -7.0]))  # the stand-in refuses what lies outside
    for wrong in (np.zeros(3), np.array([0.0, math.nan])):
        with pytest.raises(ValueError, match="2,"):
            env.step(wrong)


def test_images_have_memory_of_their_own() -> None:
    env = from_safety_gymnasium(Original())
    first, _ = env.reset(seed=0)
    before = {name: image.copy() for name, image in first.items()}
    env.step(np.ones(2))
    assert all(np.array_equal(first[name], before[name]) for name in before)


def test_datasets_are_collected_and_policies_evaluated(tmp_path: Path) -> None:
    def make_env() -> Any:
        return from_safety_gymnasium(Original(limit=12))

    def make_policy(*_: object, **options: Any) -> RandomPolicy:
        return RandomPolicy(options.get("seed", 0))

    store = collect(tmp_path / "log", make_env, make_policy, [Job(0, "any", 0.0), Job(1, "any", 0.0)], workers=0)
    assert store.schema.task == "safety_gymnasium/SafetyPointButton1-v0" and store.schema.cost_terms == TERMS
    episode = store.episode(0)
    assert len(episode) == 4 and episode.is_last[-1] and not episode.is_terminal.any()
    assert set(episode.cost_terms) == set(TERMS) and episode.images["image_back"].shape == (4, 64, 64, 3)
    document = evaluate(
        [("random", make_policy, {})], make_env, [HELD_OUT_SEEDS[0]], task=store.schema.task, cost_limit=1.0, workers=0
    )
    assert document["policies"][0]["episodes"][0]["steps"] == 3


# ---- what it does not take -----------------------------------------------------------------------------------------


def first_step(env: Any, **options: Any) -> None:
    adapted = from_safety_gymnasium(env, **options)
    adapted.reset(seed=0)
    for _ in range(3):
        adapted.step(np.zeros(2))


def drawn_before() -> Original:
    original = Original()
    original.reset()
    original.task.render(256, 256, "rgb_array", "vision", {})
    return original


class Old(Original):
    """As 1.0.0, which has no camera ``vision_back``."""

    def reset(self, **options: Any) -> Any:
        result = super().reset(**options)
        self.task.model = mujoco.MjModel.from_xml_string(ONE_CAMERA)
        return result


@pytest.mark.parametrize(
    ("env", "options", "sentence"),
    [
        (lambda: make("SafetyPointGoal1"), {}, "'SafetyEnv' is no environment of Safety-Gymnasium"),
        (lambda: FiveValues(Original()), {}, "returned 5 values"),
        (lambda: AutoReset(Original(limit=6)), {}, "autoreset=False"),
        (drawn_before, {}, r"shape \(256, 256, 3\) where image_size is 64"),
        (Old, {}, "no camera 'vision_back' but vision; .*git main"),
        (Original, {"cost_terms": ("hazards",)}, "reports 'cost_.*', but cost_terms is hazards"),
        (Original, {"action_repeat": 0}, "action_repeat is 0"),
        (Original, {"image_size": 0}, "image_size 0"),
    ],
)
def test_other_environments_are_refused_with_a_sentence(env: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        first_step(env(), **options)


def test_a_task_without_a_twin_needs_its_cost_terms() -> None:
    original = Original("SafetyPointGoal1")
    original.spec.id = "SafetyDoggoRun0-v0"
    with pytest.raises(UserError, match="SafetyDoggoRun0-v0' has no twin here"):
        from_safety_gymnasium(original)
    schema = from_safety_gymnasium(original, cost_terms=("hazards",)).schema()
    assert schema.cost_terms == ("hazards",) and schema.mirror == ()
