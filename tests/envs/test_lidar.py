"""The state observation: agreement with the original's, number by number, and the contract of every registered task."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import lidar_rows
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st
from lidar_rows import Rows
from packaging.version import Version

from fosp.envs import TASKS, SafetyEnv, make, render
from fosp.envs.lidar import BINS, RANGE, ring
from fosp.plugin import lidar_id
from fosp.types import UserError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # env_checker's hints about spaces

ROOT = Path(__file__).parents[2]
MORE = os.environ.get("FOSP_PARITY_DIR")
RECORDED = lidar_rows.read() | ({p.stem: lidar_rows.cut(p) for p in sorted(Path(MORE).glob("*.npz"))} if MORE else {})
#: Later versions compute contact forces a little differently, which only the accelerometer feels.
NEW_PHYSICS = Version(mujoco.__version__) >= Version("3.4")
WIDTH = 2 * np.pi / BINS  # of a sector, radians


# ---- the original --------------------------------------------------------------------------------------------------


@pytest.fixture(params=sorted(RECORDED))
def recorded(request: pytest.FixtureRequest) -> tuple[SafetyEnv, Rows, int]:
    """An environment on the layout of a recording, with the rows of it."""
    task, _, seed = request.param.partition("_seed")
    return make(task, observation="lidar", action_repeat=1), RECORDED[request.param], int(seed)


def agree(env: SafetyEnv, ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> bool:
    error = np.abs(ours - theirs)
    if NEW_PHYSICS:
        assert env.reader is not None
        error[env.reader.parts["accelerometer"]] = 0
    return ours.shape == theirs.shape and bool(error.max() < tolerance)


def test_recorded_observations_are_met_at_reset_and_in_the_last_state(recorded: tuple[SafetyEnv, Rows, int]) -> None:
    env, rows, seed = recorded
    observation, _ = env.reset(seed=seed)
    assert agree(env, observation, rows["obs_reset"], 1e-12)
    lidar_rows.restore(env, rows, 1)
    assert agree(env, env.observe(), rows["obs_last"], 1e-12)


def test_the_last_recorded_step_ends_in_the_recorded_observation(recorded: tuple[SafetyEnv, Rows, int]) -> None:
    env, rows, seed = recorded
    env.reset(seed=seed)
    lidar_rows.restore(env, rows, 0)
    observation, *_ = env.step(rows["action"])
    assert agree(env, observation, rows["obs_last"], 1e-3 if NEW_PHYSICS else 1e-9)


def test_the_recordings_contain_what_they_are_to_test() -> None:
    names = {name.partition("_")[0] for name in lidar_rows.read()}
    assert names == {
        "SafetyPointGoal1", "SafetyPointGoal2", "SafetyPointButton1", "SafetyPointPush1", "SafetyPointFadingEasy1",
        "SafetyPointFadingHard2", "SafetyCarGoal1", "SafetyCarGoal2", "SafetyCarButton1",
    }  # fmt: skip
    hidden = [rows["button_timer"] for rows in RECORDED.values() if "button_timer" in rows]
    assert hidden and all(timer[1] == 0 for timer in hidden)  # at reset it runs: the buttons are both shown and hidden
    tilted = [rows["obs_last"] for name, rows in RECORDED.items() if "Car" in name]
    assert any(not np.array_equal(row[15:24], np.eye(3).ravel()) for row in tilted)


# ---- the ring ------------------------------------------------------------------------------------------------------


def polar(distance: float, angle: float) -> np.ndarray:
    return np.array([[distance * np.cos(angle), distance * np.sin(angle)]])


def test_a_thing_shows_in_its_sector_and_weaker_in_the_neighbours() -> None:
    expected = np.zeros(BINS)
    expected[[1, 2, 3]] = 0.75 * 0.5, 0.5, 0.25 * 0.5  # a quarter of the sector's width past its border to sector 1
    assert np.allclose(ring(polar(RANGE / 2, 2.25 * WIDTH)), expected)


def test_the_ring_is_closed() -> None:
    expected = np.zeros(BINS)
    expected[[BINS - 2, BINS - 1, 0]] = 0.5, 1.0, 0.5
    assert np.allclose(ring(polar(0.0, 0.0) + polar(1e-12, -0.5 * WIDTH)), expected)
    assert np.isfinite(ring(polar(1.0, -1e-17))).all()  # an angle that rounds to the full circle


def test_of_several_things_each_sector_shows_the_nearest() -> None:
    a, b = polar(1.0, 0.3), polar(2.0, 0.35)
    assert np.array_equal(ring(np.vstack([a, b])), np.maximum(ring(a), ring(b)))
    assert ring(np.vstack([b, a]))[0] == pytest.approx(2 / 3)
    assert not ring(np.zeros((0, 2))).any() and not ring(polar(RANGE, 1.0)).any()


@given(st.floats(0.01, 4), st.floats(-10, 10), st.integers(0, BINS - 1))
def test_turning_by_a_sector_shifts_the_ring(distance: float, angle: float, sectors: int) -> None:
    turned = ring(polar(distance, angle + sectors * WIDTH))
    assert np.allclose(np.roll(ring(polar(distance, angle)), sectors), turned, atol=1e-6)


@given(st.floats(0, 4), st.floats(-10, 10))
def test_readings_lie_in_their_range_and_do_not_jump(distance: float, angle: float) -> None:
    here, beside = ring(polar(distance, angle)), ring(polar(distance, angle + 1e-6))
    assert (here >= 0).all() and (here <= 1).all()
    assert np.abs(np.sort(here) - np.sort(beside)).max() < 1e-5 or distance < 1e-3


# ---- every registered task -----------------------------------------------------------------------------------------


@pytest.fixture(params=sorted(TASKS), scope="module")
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def env(task: str) -> Iterator[SafetyEnv]:
    env = make(task, observation="lidar")
    yield env
    env.close()


def play(env: SafetyEnv, seed: int, count: int) -> list[tuple[np.ndarray, float, bool, bool, dict[str, float]]]:
    actions = np.random.default_rng(seed).uniform(-1, 1, (count, 2))
    observation, info = env.reset(seed=seed)
    return [(observation, 0.0, False, False, info), *(env.step(action) for action in actions)]


def test_observations_fit_their_space_and_its_parts(env: SafetyEnv) -> None:
    assert env.reader is not None
    sensors = 24 if env.task.agent == "Car" else 12
    kinds = [f"{objects.kind}_lidar" for objects in env.task.objects]
    assert env.observation_space.shape == (sensors + BINS * len(kinds),)
    assert list(env.reader.parts)[:4] == ["accelerometer", "velocimeter", "gyro", "magnetometer"]
    assert list(env.reader.parts)[-len(kinds) :] == kinds
    ends = [part.stop for part in env.reader.parts.values()]
    assert ends[-1] == sensors + BINS * len(kinds)
    assert [part.start for part in env.reader.parts.values()] == [0, *ends[:-1]]
    assert env.schema().cameras == {}
    for observation, *_ in play(env, 0, 5):
        assert env.observation_space.contains(observation) and np.isfinite(observation).all()


def test_same_seed_same_trajectory_other_seed_another(env: SafetyEnv) -> None:
    first, again, other = play(env, 3, 5), play(env, 3, 5), play(env, 4, 5)
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a[0], b[0]) and a[1:] == b[1:]
    assert not np.array_equal(first[0][0], other[0][0])


def test_every_part_changes_with_time_or_place(env: SafetyEnv) -> None:
    assert env.reader is not None
    rows = np.stack([observation for seed in range(3) for observation, *_ in play(env, seed, 4)])
    for name, part in env.reader.parts.items():
        assert np.ptp(rows[:, part], axis=0).max() > 1e-3, name


def test_successive_observations_share_no_memory(env: SafetyEnv) -> None:
    arrays = [observation for observation, *_ in play(env, 0, 2)]
    before = [array.copy() for array in arrays]
    env.step(np.array([1.0, 1.0]))
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[i + 1 :])


def test_gymnasium_makes_the_lidar_id_and_finds_nothing_wrong(task: str) -> None:
    env = gymnasium.make(lidar_id(task))
    assert isinstance(env.unwrapped, SafetyEnv) and env.unwrapped.task.id == task
    assert env.unwrapped.reader is not None
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_nothing_is_drawn(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something was drawn")

    for name in ("_use_context", "_create_context"):
        monkeypatch.setattr(render, name, refuse)
    monkeypatch.setattr(mujoco, "MjrContext", refuse)
    env = make(task, observation="lidar")
    env.reset(seed=0)
    env.step(np.zeros(2))
    env.close()
    with pytest.raises(AssertionError, match="drawn"):
        make(task).reset(seed=0)  # the alarm works


def test_a_process_that_observes_states_opens_no_gl_context() -> None:
    code = """
import gymnasium, fosp.envs, mujoco.egl
from fosp.envs import render
env = gymnasium.make("fosp/SafetyPointGoal1Lidar-v0")
env.reset(seed=0)
env.step(env.action_space.sample())
print(mujoco.egl.EGL_DISPLAY, hasattr(render._contexts, "context"))
fosp.envs.make("SafetyPointGoal1").reset(seed=0)
print(mujoco.egl.EGL_DISPLAY is None, hasattr(render._contexts, "context"))
"""
    variables = {**os.environ, "MUJOCO_GL": "egl", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=True)
    assert done.stdout.split() == ["None", "False", "False", "True"]


@pytest.mark.parametrize("task", ["fosp/SafetyPointGoal1-v0", "fosp/SafetyCarButton2-v0"])
def test_vector_environments_agree_with_single_ones(task: str) -> None:
    vector: Any = gymnasium.make_vec(lidar_id(task), num_envs=2, vectorization_mode="sync")
    singles = [make(task, observation="lidar") for _ in range(2)]
    ours, _ = vector.reset(seed=[7, 8])
    theirs = [env.reset(seed=seed)[0] for env, seed in zip(singles, (7, 8), strict=True)]
    for actions in np.random.default_rng(0).uniform(-1, 1, (4, 2, 2)):
        assert np.array_equal(ours, np.stack(theirs))
        ours, rewards, *_, infos = vector.step(actions)
        steps = [env.step(action) for env, action in zip(singles, actions, strict=True)]
        theirs = [step[0] for step in steps]
        assert rewards.tolist() == [step[1] for step in steps]
        assert infos["cost"].tolist() == [step[-1]["cost"] for step in steps]
    vector.close()


# ---- beside the images ---------------------------------------------------------------------------------------------


def test_reward_cost_and_layout_are_those_of_the_image_environment() -> None:
    states, images = make("SafetyCarButton1", observation="lidar"), make("SafetyCarButton1")
    for ours, theirs in zip(play(states, 1, 8), play(images, 1, 8), strict=True):
        assert ours[1:] == theirs[1:]
    assert states.layout() == images.layout()
    images.close()


def test_the_model_of_the_image_environment_carries_no_sensors() -> None:
    assert make("SafetyCarGoal2").world.model.nsensor == 0


def test_unknown_observations_are_refused() -> None:
    with pytest.raises(UserError, match="'radar' but must be one of images, lidar"):
        make("SafetyPointGoal1", observation="radar")


def test_more_objects_do_not_change_the_shape() -> None:
    env = make("SafetyPointGoal1", observation="lidar", scenario="more-hazards")
    assert env.observation_space.shape == (60,) and env.reset(seed=0)[0].shape == (60,)


def test_a_task_without_a_kind_has_no_ring_for_it() -> None:
    task = TASKS["fosp/SafetyPointGoal2-v0"]
    env = make(replace(task, objects=task.objects[:2], costs=("hazards",)), observation="lidar")  # type: ignore[arg-type]
    assert env.reset(seed=0)[0].shape == (12 + 2 * BINS,)
