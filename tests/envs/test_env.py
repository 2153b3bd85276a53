"""The contract that every registered task keeps, whatever its objects."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from fosp.envs import CAMERAS, TASKS, SafetyEnv, make, render
from fosp.envs.objects import Goal, Hazards, Vases
from fosp.envs.render import Painter
from fosp.envs.scripted import make_behaviour
from fosp.types import UserError

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # env_checker's hints about spaces


@pytest.fixture(params=sorted(TASKS), scope="module")
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def env(task: str) -> Iterator[SafetyEnv]:
    env = make(task)
    yield env
    env.close()


def actions(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 2)).astype(np.float32)


def play(env: SafetyEnv, seed: int, count: int) -> list[tuple[Any, ...]]:
    """Reset and steps as (observation, reward, terminated, truncated, info)."""
    observation, info = env.reset(seed=seed)
    return [(observation, 0.0, False, False, info), *(env.step(action) for action in actions(count))]


# ---- interface -----------------------------------------------------------------------------------------------------


def test_gymnasium_finds_nothing_wrong(task: str) -> None:
    env = gymnasium.make(task, render_mode="rgb_array")
    check_env(env.unwrapped)
    env.reset(seed=0)
    picture = env.render()
    assert isinstance(picture, np.ndarray) and picture.shape == (256, 256, 3)
    env.close()


def test_observations_fit_their_space_and_the_schema(env: SafetyEnv) -> None:
    schema = env.schema()
    assert set(schema.cameras) == {"image_front", "image_back"}
    assert env.action_space.shape == (schema.action_size,)
    assert schema.task == env.task.id and schema.max_steps == 250 and schema.action_repeat == 4
    for observation, reward, _, _, _ in play(env, 0, 5):
        assert env.observation_space.contains(observation)
        assert {name: image.shape for name, image in observation.items()} == schema.cameras
        assert isinstance(reward, float) and np.isfinite(reward)


def test_info_has_the_same_keys_and_types_at_reset_and_at_every_step(env: SafetyEnv) -> None:
    infos = [info for *_, info in play(env, 1, 5)]
    terms = {f"cost_{term}" for term in env.task.costs} | {f"reward_{term}" for term in env.task.rewards}
    for info in infos:
        assert set(info) == {"cost", "goal_met", "frames"} | terms
        assert all(isinstance(value, (int, float)) and np.isfinite(value) for value in info.values())
    assert [info["frames"] for info in infos] == [0, 4, 4, 4, 4, 4]


def test_cost_is_zero_at_reset_on_many_layouts(env: SafetyEnv) -> None:
    for seed in range(100):
        info = env.start(seed)
        assert info["cost"] == 0 and not any(info[f"cost_{term}"] for term in env.task.costs)


def test_same_seed_same_trajectory_other_seed_another(env: SafetyEnv) -> None:
    first, again, other = play(env, 3, 6), play(env, 3, 6), play(env, 4, 6)
    for a, b in zip(first, again, strict=True):
        assert all(np.array_equal(a[0][name], b[0][name]) for name in CAMERAS)
        assert a[1:] == b[1:]
    assert not np.array_equal(first[-1][0]["image_front"], other[-1][0]["image_front"])


def test_without_a_seed_the_stream_goes_on(env: SafetyEnv) -> None:
    env.start(5)
    first = env.layout()
    env.start()
    second = env.layout()
    env.start(5)
    env.start()
    assert first != second and env.layout() == second


def test_successive_observations_share_no_memory(env: SafetyEnv) -> None:
    arrays = [image for observation, *_ in play(env, 0, 3) for image in observation.values()]
    before = [array.copy() for array in arrays]
    for i, array in enumerate(arrays):
        assert array.flags.owndata and array.flags.writeable
        assert not any(np.shares_memory(array, other) for other in arrays[i + 1 :])
    env.step(np.array([1.0, 1.0]))
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


def test_every_camera_sees_the_world_move(env: SafetyEnv) -> None:
    observations = [observation for observation, *_ in play(env, 0, 20)]
    for name in CAMERAS:
        frames = np.stack([observation[name] for observation in observations]).astype(float)
        assert frames.std(axis=0).mean() > 1, f"{name} is constant over time"
        assert frames[0].std() > 5, f"{name} is constant over its pixels"


def test_episodes_are_truncated_at_1000_frames_and_never_terminated(env: SafetyEnv) -> None:
    env.start(0)
    ends = [env.advance(action)[1:3] for action in actions(250)]
    assert not any(terminated for terminated, _ in ends)
    assert [truncated for _, truncated in ends] == [False] * 249 + [True]


def test_a_last_step_is_shorter_where_the_repeat_does_not_divide_1000(task: str) -> None:
    env = make(task, action_repeat=300)
    assert env.schema().max_steps == 4
    env.start(0)
    steps = [env.advance(np.zeros(2)) for _ in range(4)]
    assert [info["frames"] for *_, info in steps] == [300, 300, 300, 100]
    assert [truncated for _, _, truncated, _ in steps] == [False, False, False, True]


def test_a_repeated_action_adds_up_the_frames(task: str) -> None:
    single, repeated = make(task, action_repeat=1), make(task, action_repeat=4)
    behaviour = make_behaviour("unsafe")
    single.start(2)
    repeated.start(2)
    carry = behaviour.initial()
    for _ in range(60):
        action, carry = behaviour.act(carry, repeated.privileged())
        reward, *_, info = repeated.advance(action)
        frames = [single.advance(action) for _ in range(4)]
        assert reward == pytest.approx(sum(frame[0] for frame in frames), abs=1e-12)
        for key in info:
            assert info[key] == pytest.approx(sum(frame[3][key] for frame in frames), abs=1e-12), key
        assert reward == pytest.approx(sum(info[f"reward_{term}"] for term in repeated.task.rewards), abs=1e-12)


def test_actions_are_clipped_and_bad_ones_refused(env: SafetyEnv) -> None:
    env.start(0)
    inside = env.advance(np.array([1.0, -1.0]))[0]
    env.start(0)
    assert env.advance(np.array([7.0, -3.0]))[0] == inside
    for bad in (np.zeros(3), np.array([np.nan, 0.0]), np.zeros((1, 2))):
        with pytest.raises(ValueError, match="finite numbers"):
            env.advance(bad)


def test_everything_in_the_model_has_a_name(env: SafetyEnv) -> None:
    model = env.world.model
    for kind, count in (("body", model.nbody), ("geom", model.ngeom), ("camera", model.ncam), ("joint", model.njnt)):
        names = [getattr(model, kind)(i).name for i in range(count)]
        assert all(names) and len(set(names)) == count, kind


def test_a_reset_moves_things_without_compiling(env: SafetyEnv) -> None:
    model = env.world.model
    env.start(0)
    assert env.world.model is model
    positions = env.layout()
    env.start(1)
    assert all(env.layout()[name] != xy for name, xy in positions.items())


# ---- cost and reward -----------------------------------------------------------------------------------------------


def test_driving_straight_to_the_goal_reaches_every_cost_term_and_goals(task: str) -> None:
    env, behaviour, totals = make(task), make_behaviour("unsafe"), {}
    for seed in range(4):
        env.start(seed)
        carry, done = behaviour.initial(), False
        while not done:
            action, carry = behaviour.act(carry, env.privileged())
            *_, done, info = env.advance(action)
            for key, value in info.items():
                totals[key] = totals.get(key, 0) + value
    assert totals["goal_met"] >= 12
    for term in env.task.costs:
        assert totals[f"cost_{term}"] > 0, term
    assert totals["cost"] <= totals["frames"] == 4000


def at_hazard(env: SafetyEnv, distance: float) -> float:
    """The cost magnitude with the agent at this distance from one hazard, far from the others."""
    env.start(0)
    for name in env.world.body:
        if name.startswith("hazard") and name != "hazard0":
            env.world.move(name, (50.0, 50.0))
    x, y = env.world.agent_xy
    env.world.move("hazard0", (x + distance, y))
    hazards = env.task.find(Hazards)
    assert hazards is not None
    return hazards.cost(env.world)["hazards"]


@pytest.mark.parametrize("scenario", [None, "larger-hazards"])
def test_a_hazard_costs_inside_its_radius_only(scenario: str | None) -> None:
    env = make("SafetyPointGoal1", scenario=scenario)
    radius = 0.3 if scenario else 0.2
    assert at_hazard(env, radius - 1e-4) == pytest.approx(1e-4)
    assert at_hazard(env, radius + 1e-4) == 0
    assert at_hazard(env, 0.05) == pytest.approx(radius - 0.05)


def test_vases_cost_when_touched_and_while_they_move_but_only_where_the_task_says_so() -> None:
    free = make("SafetyPointGoal1")
    costly = SafetyEnv(replace(free.task, costs=("hazards", "vases_contact", "vases_velocity")))
    contacts, velocities = [], []
    for env in (free, costly):
        env.start(0)
        yaw = env.privileged()["agent_yaw"]
        x, y = env.world.agent_xy
        at = env.world.model.joint("vase0").qposadr[0]
        env.world.data.qpos[at : at + 2] = (x + 0.6 * np.cos(yaw), y + 0.6 * np.sin(yaw))
        env.world.forward()
        for _ in range(25):
            *_, info = env.advance(np.array([1.0, 0.0]))
            if env is free:
                assert "cost_vases_contact" not in info and info["cost"] == info["cost_hazards"]
            else:
                contacts.append(info["cost_vases_contact"])
                velocities.append(info["cost_vases_velocity"])
                assert info["cost"] >= max(contacts[-1], velocities[-1])
    assert contacts[0] == velocities[0] == 0 and max(contacts) > 0 and max(velocities) == 4
    assert sum(velocities) > sum(contacts)  # it slides on after the touch


def test_the_bonus_comes_on_arrival_and_the_next_goal_stands_elsewhere() -> None:
    env = make("SafetyPointGoal1", action_repeat=1)
    env.start(0)
    x, y = env.world.agent_xy
    env.world.move("goal", (x + 0.25, y))
    reward, _, _, info = env.advance(np.zeros(2))
    assert info["goal_met"] == 1 and info["reward_goal"] == 1
    assert np.linalg.norm(env.privileged()["goal_xy"] - env.privileged()["agent_xy"]) >= 0.4 + 0.305
    reward, _, _, info = env.advance(np.zeros(2))
    assert info["goal_met"] == 0 and abs(reward) < 0.01  # the jump of the goal is not rewarded


# ---- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", ["fast", "faithful"])
def test_every_kind_of_object_is_visible(task: str, quality: str) -> None:
    env = make(task, quality=quality)
    changed = {objects.kind: dict.fromkeys(CAMERAS, 0) for objects in env.task.objects}
    for seed in range(6):
        observation, _ = env.reset(seed=seed)
        for objects in env.task.objects:
            geoms = [env.world.model.geom(name).id for name in objects.names]
            alpha = env.world.model.geom_rgba[geoms, 3].copy()
            env.world.model.geom_rgba[geoms, 3] = 0
            without = env.observe()
            env.world.model.geom_rgba[geoms, 3] = alpha
            for name in CAMERAS:
                difference = np.abs(observation[name].astype(int) - without[name]).max(axis=-1)
                changed[objects.kind][name] += int((difference > 10).sum())
    env.close()
    for kind, pixels in changed.items():
        assert all(count > 20 for count in pixels.values()), (kind, pixels)


@pytest.mark.parametrize("quality", ["fast", "faithful"])
def test_the_floor_of_the_image_is_below(task: str, quality: str) -> None:
    env = make(task, quality=quality)
    observation, _ = env.reset(seed=0)
    for name, image in observation.items():
        assert image[:8].mean() < 40 and image[-24:].mean() > 80, f"{name} is upside down"
    env.close()


def test_drawing_only_what_is_in_view_changes_no_pixel() -> None:
    env = make("SafetyPointGoal1", quality="faithful")
    renderer = mujoco.Renderer(env.world.model, 64, 64)
    option = mujoco.MjvOption()
    option.geomgroup[:] = 1
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        for name, camera in CAMERAS.items():
            renderer.update_scene(env.world.data, camera, option)
            everything = renderer.render()
            alone = Painter(env.world.model, (camera,), 64, "faithful").paint(env.world.data)[0]
            assert np.array_equal(everything, alone), (seed, name)
            # The second image of a buffer lies at another place in it, which rounds some values the other way.
            assert np.abs(everything.astype(int) - observation[name]).max() <= 3
    renderer.close()
    env.close()


def test_environments_side_by_side_do_not_disturb_each_other() -> None:
    alone = make("SafetyPointGoal1")
    expected = [step[0]["image_front"] for step in play(alone, 7, 3)]
    alone.close()
    first, second = make("SafetyPointGoal1"), make("SafetyPointGoal1", scenario="more-hazards", quality="faithful")
    got = [first.reset(seed=7)[0]["image_front"]]
    second.reset(seed=8)
    for action in actions(3):
        got.append(first.step(action)[0]["image_front"])
        second.step(action)
        second.picture("track", 100)
    second.close()
    assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))
    assert np.array_equal(first.observe()["image_front"], expected[-1])
    first.close()
    assert np.array_equal(first.observe()["image_front"], expected[-1])  # drawing again after close starts anew


@pytest.mark.parametrize("camera", ["fixedfar", "fixednear", "track", "vision"])
def test_pictures_for_people_have_the_size_that_was_asked_for(camera: str) -> None:
    env = make("SafetyPointGoal1")
    env.reset(seed=0)
    picture = env.picture(camera, 96)
    assert picture.shape == (96, 96, 3) and picture.dtype == np.uint8 and picture.std() > 10
    assert env.render() is None
    env.close()


def test_image_size_and_privileged_state() -> None:
    env = make("SafetyPointGoal1", image_size=32)
    observation, _ = env.reset(seed=0)
    assert observation["image_back"].shape == (32, 32, 3)
    env.advance(np.array([1.0, 0.0]))
    before = env.privileged()
    env.advance(np.array([1.0, 0.3]))
    state = env.privileged()
    moved = (state["agent_xy"] - before["agent_xy"]) / env.step_seconds
    mean = (state["agent_velocity_xy"] + before["agent_velocity_xy"]) / 2
    assert np.allclose(moved, mean, atol=0.03) and np.linalg.norm(mean) > 0.2
    assert state["agent_yaw_rate"] == pytest.approx(0.3 * 3.16, rel=0.05)
    assert set(state["objects"]) == {f"hazard{i}" for i in range(8)} | {"vase0"}
    assert state["hazard_radius"] == 0.2 and state["step_seconds"] == pytest.approx(0.08)
    env.close()


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "SafetyPointGaol1"}, "SafetyPointGoal1"),
        ({"scenario": "more-hazard"}, "more-hazards"),
        ({"quality": "best"}, "fast, faithful"),
        ({"action_repeat": 0}, "1..1000"),
        ({"image_size": 0}, "1..4096"),
        ({"render_mode": "human"}, "rgb_array"),
    ],
)
def test_mistakes_are_named_with_what_would_be_right(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(**({"task": "SafetyPointGoal1"} | options))


def test_an_unknown_camera_is_refused_rather_than_replaced_by_a_free_one() -> None:
    env = make("SafetyPointGoal1")
    env.reset(seed=0)
    with pytest.raises(UserError, match="fixedfar"):
        env.picture("fixdfar")


def test_the_renderer_does_not_depend_on_who_imports_mujoco_first() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "DISPLAY")}
    code = "import mujoco, fosp.envs; print(fosp.envs.make('SafetyPointGoal1').reset(seed=0)[0]['image_front'].mean())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and float(done.stdout) > 10, done.stderr


def test_a_machine_that_cannot_draw_gets_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no EGL")

    monkeypatch.setattr(render, "_contexts", type(render._contexts)())
    monkeypatch.setattr(render, "_context_class", lambda: broken)
    with pytest.raises(UserError, match=r"MUJOCO_GL=.* cannot draw .*no EGL.*doctor"):
        make("SafetyPointGoal1").reset(seed=0)


def test_a_child_forked_after_drawing_gets_a_sentence_instead_of_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_drawing_process", 1)
    with pytest.raises(UserError, match="spawn"):
        make("SafetyPointGoal1").reset(seed=0)


def test_a_goal_without_hazards_can_be_configured() -> None:
    env = SafetyEnv(replace(TASKS["fosp/SafetyPointGoal1-v0"], objects=(Goal(), Vases(count=2)), costs=()))
    info = env.start(0)
    assert set(info) == {"cost", "reward_distance", "reward_goal", "goal_met", "frames"}
    assert env.privileged()["hazard_radius"] == 0 and set(env.privileged()["objects"]) == {"vase0", "vase1"}
