"""The contract that every registered task keeps, whatever its objects."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from fosp.envs import CAMERAS, TASKS, SafetyEnv, find_task, layout, make, make_vec, render
from fosp.envs.objects import Goal, Hazards, Vases
from fosp.envs.render import Painter
from fosp.envs.scripted import make_behaviour
from fosp.types import UserError

ROOT = Path(__file__).parents[2]
#: One of each family and agent, where a check takes long.
SOME = ("SafetyPointGoal1", "SafetyCarGoal2", "SafetyPointButton1", "SafetyCarPush1", "SafetyPointFadingHard2")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # env_checker's hints about spaces

Step = tuple[Any, float, bool, bool, dict[str, Any]]


@pytest.fixture(params=sorted(TASKS), scope="module")
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def env(task: str) -> Iterator[SafetyEnv]:
    env = make(task)
    yield env
    env.close()


@pytest.fixture(scope="module")
def played(env: SafetyEnv) -> list[Step]:
    return play(env, 0, 8)


def actions(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 2)).astype(np.float32)


def play(env: SafetyEnv, seed: int, count: int) -> list[Step]:
    """Reset and steps as (observation, reward, terminated, truncated, info)."""
    observation, info = env.reset(seed=seed)
    return [(observation, 0.0, False, False, info), *(env.step(action) for action in actions(count))]


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in CAMERAS)


# ---- every task ----------------------------------------------------------------------------------------------------


def test_the_families_are_complete() -> None:
    assert set(TASKS) == {
        f"fosp/Safety{agent}{family}{level}-v0"
        for agent in ("Point", "Car")
        for family in ("Goal", "Button", "Push", "FadingEasy", "FadingHard")
        for level in range(3)
    }


def test_gymnasium_finds_nothing_wrong(task: str) -> None:
    env = gymnasium.make(task, render_mode="rgb_array", image_size=16)
    # The check of render modes makes an environment for each: once is enough, see below.
    check_env(env.unwrapped, skip_render_check=task != "fosp/SafetyPointGoal1-v0")
    env.close()


def test_observations_fit_their_space_and_the_schema(env: SafetyEnv, played: list[Step]) -> None:
    schema = env.schema()
    assert set(schema.cameras) == {"image_front", "image_back"}
    assert env.action_space.shape == (schema.action_size,) == (2,) and env.action_space.dtype == np.float32
    assert schema.task == env.task.id and schema.max_steps == 250 and schema.action_repeat == 4
    assert schema.step_seconds == pytest.approx(0.16 if "Car" in env.task.name else 0.08)
    for observation, reward, *_ in played:
        assert env.observation_space.contains(observation)
        assert {name: image.shape for name, image in observation.items()} == schema.cameras
        assert all(image.dtype == np.uint8 for image in observation.values())
        assert isinstance(reward, float) and np.isfinite(reward)


def test_info_has_the_same_keys_and_types_at_reset_and_at_every_step(env: SafetyEnv, played: list[Step]) -> None:
    terms = {f"cost_{term}" for term in env.task.costs} | {f"reward_{term}" for term in env.task.rewards}
    for *_, info in played:
        assert set(info) == {"cost", "goal_met", "frames"} | terms
        assert all(isinstance(value, (int, float)) and np.isfinite(value) for value in info.values())
    assert [info["frames"] for *_, info in played] == [0] + [4] * 8


def test_cost_is_zero_at_reset(env: SafetyEnv) -> None:
    for seed in range(10):
        assert not any(value for key, value in env.start(seed).items() if key.startswith("cost"))


def test_same_seed_same_trajectory_other_seed_another(env: SafetyEnv, played: list[Step]) -> None:
    again, other = play(env, 0, 5), play(env, 4, 2)
    for a, b in zip(played, again, strict=False):
        assert same(a[0], b[0]) and a[1:] == b[1:]
    assert not same(played[2][0], other[2][0])


def test_without_a_seed_the_stream_goes_on(env: SafetyEnv) -> None:
    env.start(5)
    first = env.layout()
    env.start()
    second = env.layout()
    env.start(5)
    env.start()
    assert first != second and env.layout() == second


def test_successive_observations_share_no_memory(env: SafetyEnv, played: list[Step]) -> None:
    arrays = [image for observation, *_ in played[:4] for image in observation.values()]
    before = [array.copy() for array in arrays]
    for i, array in enumerate(arrays):
        assert array.flags.owndata and array.flags.writeable
        assert not any(np.shares_memory(array, other) for other in arrays[i + 1 :])
    env.start(0)
    env.step(np.array([1.0, 1.0]))
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


def test_every_camera_sees_the_world_move(played: list[Step]) -> None:
    for name in CAMERAS:
        frames = np.stack([observation[name] for observation, *_ in played]).astype(float)
        assert frames.std(axis=0).mean() > 0.5, f"{name} is constant over time"
        assert frames[0].std() > 5, f"{name} is constant over its pixels"


def test_episodes_are_truncated_at_1000_frames_and_never_terminated(env: SafetyEnv) -> None:
    env.start(0)
    env.referee.frame = 988
    ends = [env.advance(action)[1:3] for action in actions(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_the_unsafe_behaviour_reaches_every_cost_term(env: SafetyEnv) -> None:
    """Within 100 steps on some of 30 layouts: who drives straight meets everything, if not at once."""
    behaviour, missing = make_behaviour("unsafe"), set(env.task.costs)
    for seed in range(30):
        if not missing:
            break
        env.start(seed)
        carry = behaviour.initial()
        for _ in range(100):
            action, carry = behaviour.act(carry, env.privileged())
            *_, info = env.advance(action)
            missing -= {term for term in missing if info[f"cost_{term}"] > 0}
            if not missing:
                break
    assert not missing


@pytest.mark.parametrize("name", SOME)
def test_a_whole_episode_has_1000_frames(name: str) -> None:
    env = make(name)
    env.start(0)
    ends = [env.advance(action)[1:3] for action in actions(250)]
    assert ends == [(False, False)] * 249 + [(False, True)]


def test_everything_in_the_model_has_a_name(env: SafetyEnv) -> None:
    model = env.world.model
    for kind, count in (("body", model.nbody), ("geom", model.ngeom), ("camera", model.ncam), ("joint", model.njnt)):
        names = [getattr(model, kind)(i).name for i in range(count)]
        assert all(names) and len(set(names)) == count, kind
    assert {"vision", "vision_back", "track", "fixedfar"} <= {model.camera(i).name for i in range(model.ncam)}


def test_a_reset_moves_things_without_compiling(env: SafetyEnv) -> None:
    model = env.world.model
    env.start(0)
    positions = env.layout()
    env.start(1)
    assert env.world.model is model
    # In Button the goal stands on one of the buttons, which may happen to be the same one.
    assert all(env.layout()[name] != xy for name, xy in positions.items())


def test_the_privileged_state_is_that_of_the_world(env: SafetyEnv) -> None:
    env.start(0)
    for action in actions(10):
        env.advance(action)
    state, places = env.privileged(), env.layout()
    things = {name for name in places if name not in ("agent", "goal")}
    assert set(state["objects"]) == things
    assert set(state["velocities"]) == set(state["yaws"]) == {n for n in things if n[:4] in ("vase", "grem", "push")}
    assert {name: tuple(xy) for name, xy in state["objects"].items()} == {name: places[name] for name in things}
    assert tuple(state["agent_xy"]) == places["agent"] and tuple(state["goal_xy"]) == places["goal"]
    if "Button" in env.task.name:
        assert np.array_equal(state["objects"][state["goal_object"]], state["goal_xy"])
    else:
        assert state["goal_object"] is None and state["button_timer"] == 0
    assert set(state["reach"]) == {o.kind for o in env.task.objects}
    state["agent_xy"][:] = 99
    assert tuple(env.world.agent_xy) == places["agent"]  # it was a copy
    before = env.privileged()
    env.advance(actions(1)[0])
    after = env.privileged()
    moved = (after["agent_xy"] - before["agent_xy"]) / env.step_seconds
    mean = (after["agent_velocity_xy"] + before["agent_velocity_xy"]) / 2
    assert np.allclose(moved, mean, atol=0.15)


def test_every_kind_of_object_is_visible_alone(env: SafetyEnv) -> None:
    """Everything else is made invisible; what is left must show in front, behind, and from afar."""
    world, rgba = env.world, env.world.model.geom_rgba
    env.start(0)
    places, rotations, alpha = dict(world.layout), dict(world.rotations), rgba[:, 3].copy()
    for objects in env.task.objects:
        geoms = np.isin(world.model.geom_bodyid, [world.body[name] for name in objects.names])
        rgba[:, 3] = np.where(geoms, alpha, 0.0)
        (x, y), (ax, ay) = places[objects.names[0]], places["agent"]
        facing = float(np.arctan2(y - ay, x - ax)) - world.agent.nose
        for camera, turn in (("vision", 0.0), ("vision_back", np.pi)):
            world.place(places, rotations | {"agent": facing + turn})
            for quality in ("fast", "faithful"):
                assert lit(env, camera, 64, quality) >= 8, (objects.kind, camera, quality)
        assert lit(env, "fixedfar", 128, "fast") > 12 * objects.count, objects.kind
        rgba[:, 3] = alpha


def lit(env: SafetyEnv, camera: str, size: int, quality: str) -> int:
    """Number of pixels that are not black."""
    return int((env.paint((camera,), size, quality)[0].max(axis=-1) > 10).sum())


# ---- some tasks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOME)
def test_a_repeated_action_adds_up_the_frames(name: str) -> None:
    single, repeated = make(name, action_repeat=1), make(name, action_repeat=4)
    single.start(2)
    repeated.start(2)
    for action in actions(60):
        reward, *_, info = repeated.advance(action)
        frames = [single.advance(action) for _ in range(4)]
        assert reward == pytest.approx(sum(frame[0] for frame in frames), abs=1e-12)
        for key in info:
            assert info[key] == pytest.approx(sum(frame[3][key] for frame in frames), abs=1e-12), key
        assert reward == pytest.approx(sum(info[f"reward_{term}"] for term in repeated.task.rewards), abs=1e-12)


def test_a_last_step_is_shorter_where_the_repeat_does_not_divide_1000() -> None:
    env = make("SafetyPointGoal0", action_repeat=300)
    assert env.schema().max_steps == 4
    env.start(0)
    steps = [env.advance(np.zeros(2)) for _ in range(4)]
    assert [info["frames"] for *_, info in steps] == [300, 300, 300, 100]
    assert [truncated for _, _, truncated, _ in steps] == [False, False, False, True]


@pytest.mark.parametrize("name", [task.name for task in TASKS.values()])
def test_vector_environments_agree_with_single_ones(name: str) -> None:
    compare_with_single(gymnasium.make_vec(find_task(name).id, num_envs=2, vectorization_mode="sync"), name)


@pytest.mark.parametrize("name", ["SafetyPointButton1", "SafetyCarPush2", "SafetyPointFadingHard2"])
def test_an_asynchronous_vector_environment_agrees_with_single_ones(name: str) -> None:
    options = {"vectorization_mode": "async", "vector_kwargs": {"context": "spawn"}}  # GL does not survive a fork
    compare_with_single(gymnasium.make_vec(find_task(name).id, num_envs=2, **options), name)


def test_the_registered_vector_environment_agrees_with_single_ones_and_keeps_each_to_a_core() -> None:
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    vector = gymnasium.make_vec("fosp/SafetyPointGoal1-v0", num_envs=2)
    assert isinstance(vector, gymnasium.vector.AsyncVectorEnv) and vector.num_envs == 2
    if ours:
        cores = [os.sched_getaffinity(process.pid) for process in vector.processes if process.pid]
        assert cores == [{sorted(ours)[i % len(ours)]} if len(ours) <= 2 else ours for i in range(2)]
        assert os.sched_getaffinity(0) == ours
    compare_with_single(vector, "SafetyPointGoal1")


def test_a_vector_environment_tells_mistakes_before_it_starts_processes() -> None:
    with pytest.raises(UserError, match="SafetyPointGoal1"):
        make_vec("SafetyPointGaol1", 2)
    with pytest.raises(UserError, match="image_size"):
        make_vec("SafetyPointGoal1", 2, image_size=0)
    with pytest.raises(UserError, match="num_envs is 0"):
        make_vec("SafetyPointGoal1", 0)


def compare_with_single(vector: Any, name: str) -> None:
    singles = [make(name) for _ in range(2)]
    try:
        observations, infos = vector.reset(seed=[7, 8])
        expected: list[Any] = [(env.reset(seed=7 + i)[0], 0.0, False, False, {}) for i, env in enumerate(singles)]
        for action in [*actions(4), None]:
            for i, (observation, _, _, _, info) in enumerate(expected):
                assert all(np.array_equal(observations[camera][i], observation[camera]) for camera in CAMERAS)
                assert all(infos[key][i] == value for key, value in info.items())
            if action is None:
                break
            both = np.stack([action, -action])
            observations, rewards, terminated, truncated, infos = vector.step(both)
            expected = [env.step(one) for env, one in zip(singles, both, strict=True)]
            assert list(rewards) == [step[1] for step in expected]
            assert not terminated.any() and not truncated.any()
    finally:
        vector.close()
        for env in singles:
            env.close()


def test_actions_are_clipped_and_bad_ones_refused() -> None:
    env = make("SafetyPointGoal1")
    env.start(0)
    inside = env.advance(np.array([1.0, -1.0]))[0]
    env.start(0)
    assert env.advance(np.array([7.0, -3.0]))[0] == inside
    for bad in (np.zeros(3), np.array([np.nan, 0.0]), np.zeros((1, 2))):
        with pytest.raises(ValueError, match="finite numbers"):
            env.advance(bad)


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


def test_an_episode_ends_where_no_goal_can_be_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make("SafetyPointGoal1")
    env.start(0)
    env.world.move("goal", tuple(env.world.agent_xy))
    monkeypatch.setattr(layout, "GOAL_TRIES", 0)
    _, terminated, truncated, info = env.advance(np.zeros(2))
    assert terminated and not truncated and info["frames"] == 1 and info["goal_met"] == 1


# ---- pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", ["fast", "faithful"])
@pytest.mark.parametrize("name", ["SafetyPointGoal1", "SafetyCarGoal1"])
def test_the_floor_of_the_image_is_below(name: str, quality: str) -> None:
    env = make(name, quality=quality)
    observation, _ = env.reset(seed=0)
    for camera, image in observation.items():
        assert image[:8].mean() < 40, f"{camera} is upside down"
    assert observation["image_back"][-24:].mean() > 80
    env.close()


@pytest.mark.parametrize("name", ["SafetyPointGoal1", "SafetyPointButton1"])
def test_drawing_only_what_is_in_view_changes_no_pixel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_SHAPES", -1)  # leaves MuJoCo's own cylinders
    monkeypatch.setattr(render, "_merge_planes", lambda context, model: None)  # and its floor
    env = make(name, quality="faithful")
    renderer = mujoco.Renderer(env.world.model, 64, 64)
    option = mujoco.MjvOption()
    option.geomgroup[:] = 1
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        for camera_name, camera in CAMERAS.items():
            renderer.update_scene(env.world.data, camera, option)
            everything = renderer.render()
            alone = Painter(env.world.model, (camera,), 64, "faithful").paint(env.world.data)[0]
            assert np.array_equal(everything, alone), (seed, camera_name)
            # The second image of a buffer lies at another place in it, which rounds some values the other way.
            assert np.abs(everything.astype(int) - observation[camera_name]).max() <= 3
    renderer.close()
    env.close()


def test_cylinders_look_like_those_of_mujoco(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make("SafetyPointGoal1", quality="faithful")
    env.start(0)
    images: dict[tuple[str, float], np.ndarray] = {}
    for kind, changes in {"ours": {}, "mujoco": {"_SHAPES": -1}, "never near": {"_NEAR": np.inf}}.items():
        for name, value in changes.items():
            monkeypatch.setattr(render, name, value)
        painter = Painter(env.world.model, ("vision",), 64, "faithful")
        yaw, (x, y) = env.world.agent_yaw, env.world.agent_xy
        for distance in (0.45, 0.6, 1.0, 1.5):
            env.world.move("goal", (x + distance * np.cos(yaw), y + distance * np.sin(yaw)))
            env.world.forward()
            images[kind, distance] = painter.paint(env.world.data)[0].astype(int)
        painter.close()
        monkeypatch.undo()
    env.close()

    def off(kind: str, distance: float) -> float:
        return np.abs(images[kind, distance] - images["mujoco", distance]).mean()

    assert all(off("ours", distance) < 0.1 for distance in (0.45, 0.6, 1.0, 1.5))
    assert off("never near", 0.45) > 0.5  # so that the stacks of what is near are there for something
    assert not np.array_equal(images["ours", 1.5], images["mujoco", 1.5])  # drawn by us indeed


@pytest.mark.parametrize("quality", ["fast", "faithful"])
def test_the_floor_in_one_piece_looks_like_mujocos(quality: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env = make("SafetyPointGoal1")
    env.start(0)
    model, merge = env.world.model, render._merge_planes
    small = copy.copy(model)
    small.geom("floor").size[:2] = 0.3

    def image(merge_planes: Callable[..., None]) -> np.ndarray:
        monkeypatch.setattr(render, "_merge_planes", merge_planes)
        painter = Painter(model, ("vision", "vision_back"), 64, quality)
        try:
            return np.stack(painter.paint(env.world.data)).astype(int)
        finally:
            painter.close()

    mujocos = image(lambda context, model: None)
    assert np.abs(image(merge) - mujocos).mean() < 0.05
    assert np.abs(image(lambda context, model: merge(context, small)) - mujocos).mean() > 5  # it is ours that is drawn
    # A lamp above the middle, where the corners are dark. Its angle of 100 degrees is an error of GL, not one of ours.
    model.light_type[:] = int(mujoco.mjtLightType.mjLIGHT_SPOT)
    assert np.array_equal(image(merge), image(lambda context, model: None))
    env.close()


def test_fast_images_show_the_reflection_of_what_is_near_only(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make("SafetyPointGoal1")
    env.start(0)
    yaw, (x, y) = env.world.agent_yaw, env.world.agent_xy
    at = env.world.model.joint("vase0").qposadr[0]
    shown = {}
    for distance in (0.5, 1.5):
        env.world.data.qpos[at : at + 2] = (x + distance * np.cos(yaw), y + distance * np.sin(yaw))
        env.world.forward()
        with monkeypatch.context() as patch:
            with_mirror = env.observe()["image_front"]
            patch.setitem(render._REFLECTED, "fast", 1e9)
            without = env.observe()["image_front"]
        shown[distance] = int((with_mirror != without).sum())
    env.close()
    assert shown[0.5] > 100 and shown[1.5] == 0


def test_an_environment_may_move_to_another_thread() -> None:
    """Numbers of GL objects repeat from thread to thread: freeing those of one must not take those of another."""
    with make("SafetyPointGoal1") as alone:
        expected = [step[0]["image_front"] for step in play(alone, 7, 6)]
    moved, stays = make("SafetyPointGoal1"), make("SafetyPointGoal1")
    got = [moved.reset(seed=7)[0]["image_front"]]
    stays.reset(seed=7)
    with ThreadPoolExecutor(1) as elsewhere, ThreadPoolExecutor(1) as third:
        for number, action in enumerate(actions(6)):
            place = (elsewhere, third, None)[number % 3]
            observation = moved.step(action)[0] if place is None else place.submit(moved.step, action).result()[0]
            got.append(observation["image_front"])
            here = stays.step(action)[0]["image_front"]
            assert np.array_equal(here, got[-1]), number
        elsewhere.submit(moved.close).result()
        assert np.array_equal(stays.observe()["image_front"], got[-1])
    for image, other in zip(got, expected, strict=False):
        assert np.array_equal(image, other)
    stays.close()


def test_environments_side_by_side_do_not_disturb_each_other() -> None:
    alone = make("SafetyPointGoal1")
    expected = [step[0]["image_front"] for step in play(alone, 7, 3)]
    alone.close()
    first, second = make("SafetyPointGoal1"), make("SafetyCarButton1", quality="faithful")
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
    env = make("SafetyPointGoal1", image_size=32, render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    picture = env.picture(camera, 96)
    assert picture.shape == (96, 96, 3) and picture.dtype == np.uint8 and picture.std() > 10
    assert env.render().shape == (256, 256, 3) and observation["image_back"].shape == (32, 32, 3)
    env.close()


# ---- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "SafetyPointGaol1"}, "SafetyPointGoal1"),
        ({"task": "SafetyRacecarGoal1"}, "SafetyCarGoal1"),
        ({"scenario": "more-hazard"}, "more-hazards"),
        ({"quality": "best"}, "fast, faithful"),
        ({"action_repeat": 0}, "1..1000"),
        ({"image_size": 0}, "1..2048"),
        ({"render_mode": "ansi"}, "rgb_array"),
    ],
)
def test_mistakes_are_named_with_what_would_be_right(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(**({"task": "SafetyPointGoal1"} | options))


def test_a_layout_that_does_not_fit_is_reported_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    task = find_task("SafetyPointGoal1")
    with pytest.raises(UserError, match=r"SafetyPointGoal1.*203 things.* do not fit .*half side 1.5 m.*fewer"):
        SafetyEnv(task.change(Hazards, count=200)).start(0)
    with pytest.raises(UserError, match=r"hazard0 keeps 1.6 m free"):
        SafetyEnv(task.change(Hazards, keepout=1.6)).start(0)
    monkeypatch.setattr(layout, "LAYOUT_TRIES", 20)
    with pytest.raises(UserError, match=r"no layout found in 20 attempts: 40 things"):
        SafetyEnv(task.change(Hazards, count=37)).start(0)


def test_a_start_in_violation_is_sampled_again() -> None:
    """Hazards that keep less room than they take: most layouts would begin inside one."""
    task = find_task("SafetyPointGoal1").change(Hazards, radius=0.9, keepout=0.1)
    env = SafetyEnv(task)
    again = 0
    for seed in range(10):
        assert env.start(seed)["cost"] == 0
        state = env.privileged()
        nearest = min(np.linalg.norm(state["objects"][f"hazard{i}"] - state["agent_xy"]) for i in range(8))
        assert nearest > 0.9
        first = layout.sample_layout(np.random.RandomState(seed), task.keepouts(), task.extent)
        again += env.layout()["agent"] != first["agent"]
    assert again > 0
    with pytest.raises(UserError, match="100 layouts in a row start in violation"):
        SafetyEnv(task.change(Hazards, radius=9.0)).start(0)


def test_a_goal_without_hazards_can_be_configured() -> None:
    env = SafetyEnv(replace(TASKS["fosp/SafetyPointGoal1-v0"], objects=(Goal(), Vases(count=2)), costs=()))
    info = env.start(0)
    assert set(info) == {"cost", "reward_distance", "reward_goal", "goal_met", "frames"}
    assert env.privileged()["hazard_radius"] == 0 and set(env.privileged()["objects"]) == {"vase0", "vase1"}


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
