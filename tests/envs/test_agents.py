"""The agents move as their constants and docstrings say."""

from __future__ import annotations

import numpy as np
import pytest

from fosp.envs import SafetyEnv, make
from fosp.envs.agents import AGENTS

NAMES = sorted(AGENTS)
#: Full thrust ahead, and full turn counter-clockwise.
AHEAD = {"Point": (1.0, 0.0), "Car": (1.0, 1.0)}
TURN = {"Point": (0.0, 1.0), "Car": (1.0, -1.0)}


def start(name: str) -> SafetyEnv:
    """The agent in the middle of a large empty floor."""
    env = make(f"Safety{name}Goal0", action_repeat=1)
    env.start(0)
    env.world.place({"agent": (0.0, 0.0), "goal": (90.0, 90.0)}, {"agent": 0.7, "goal": 0.0})
    return env


def drive(env: SafetyEnv, action: tuple[float, ...], seconds: float = 6.0) -> np.ndarray:
    """Mean velocity (x, y) and yaw rate over the second half of the time, (3,)."""
    rates = []
    for _ in range(round(seconds / env.step_seconds)):
        env.advance(np.array(action))
        state = env.privileged()
        rates.append((*state["agent_velocity_xy"], state["agent_yaw_rate"]))
    return np.mean(rates[len(rates) // 2 :], axis=0)


@pytest.mark.parametrize("name", NAMES)
def test_ahead_is_where_the_nose_points_and_the_top_speed_is_reached(name: str) -> None:
    env = start(name)
    start_state = env.privileged()
    heading = start_state["agent_heading"]
    velocity = drive(env, AHEAD[name])
    assert velocity[:2] @ (np.cos(heading), np.sin(heading)) == pytest.approx(start_state["agent_top_speed"], rel=0.05)
    assert abs(env.privileged()["agent_heading"] - heading) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_the_top_turn_is_reached_counter_clockwise(name: str) -> None:
    env = start(name)
    assert drive(env, TURN[name])[2] == pytest.approx(env.privileged()["agent_top_turn"], rel=0.1)
    assert np.linalg.norm(env.world.agent_xy) < 0.3


@pytest.mark.parametrize("name", NAMES)
def test_the_reach_is_that_of_the_outermost_edge(name: str) -> None:
    env = start(name)
    model, data = env.world.model, env.world.data
    corners = []
    for geom in env.world.agent.geoms:
        i = model.geom(geom).id
        size = model.geom_size[i].copy()
        if model.geom_type[i] == 5:  # a cylinder: radius and half length
            size = np.array([size[0], size[0], size[1]])
        elif model.geom_type[i] == 2:  # a ball
            corners.append(np.linalg.norm(data.geom_xpos[i][:2]) + size[0])
            continue
        signs = np.stack(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T
        points = data.geom_xpos[i] + (signs * size) @ data.geom_xmat[i].reshape(3, 3).T
        corners.append(np.linalg.norm(points[:, :2], axis=1).max())
    assert max(corners) == pytest.approx(env.world.agent.reach, abs=1e-4)


@pytest.mark.parametrize("task", ["SafetyPointGoal1", "SafetyPointPush1"])
def test_the_mirrored_world_is_as_the_signs_say(task: str) -> None:
    env = make(task, action_repeat=1)
    env.start(0)
    signs = env.schema().mirror
    assert len(signs) == 2
    layout, rotations = dict(env.world.layout), dict(env.world.rotations)
    paths = []
    for mirror in (1.0, -1.0):
        env.world.place(
            {name: (x, mirror * y) for name, (x, y) in layout.items()},
            {name: mirror * angle for name, angle in rotations.items()},
        )
        path = []
        for action in np.random.default_rng(0).uniform(-1, 1, (8, 2)):
            env.advance(action if mirror > 0 else action * signs)
            path.append((*(env.world.agent_xy * (1.0, mirror)), mirror * env.world.agent_yaw))
        paths.append(np.array(path))
    assert np.ptp(paths[0][:, 0]) > 1e-3 and np.allclose(paths[0], paths[1], atol=1e-6)


def test_what_cannot_be_mirrored_by_signs_says_so() -> None:
    assert make("SafetyCarGoal1").schema().mirror == ()  # its wheels change places
    assert make("SafetyPointButton1").schema().mirror == ()  # its gremlins circle clockwise
    assert make("SafetyPointButton0").schema().mirror == make("SafetyPointFadingHard2").schema().mirror == (1.0, -1.0)
