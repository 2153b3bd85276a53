"""What a simple driver meets, on any version of MuJoCo: return, cost and goals are distributed as on 3.3.7.

Later versions compute contacts and friction a little differently, and both agents are chaotic, so single episodes part
within seconds. What a method is judged by must not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fosp.envs import make

STEPS = 120
#: More make the test sharper: `FOSP_LAYOUTS=60 pytest tests/envs/test_task_distributions.py`.
LAYOUTS = int(os.environ.get("FOSP_LAYOUTS", "4"))
#: Task -> mean over 60 layouts (seeds 100-159) of return, cost, goals met and metres driven, and their standard
#: deviations between layouts, as measured on MuJoCo 3.3.7.
REFERENCE: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "SafetyPointGoal1": ((10.36, 22.98, 4.87, 9.47), (0.87, 19.34, 0.81, 0.71)),
    "SafetyPointButton1": ((9.58, 123.67, 5.13, 5.79), (3.85, 113.23, 2.42, 2.16)),
    "SafetyCarGoal2": ((10.97, 69.63, 4.25, 7.5), (1.04, 53.76, 0.88, 1.05)),
    "SafetyPointGoal2": ((11.02, 78.42, 4.17, 10.14), (0.99, 46.34, 0.76, 0.78)),
    "SafetyPointPush1": ((-5.77, 0.95, 0.08, 11.31), (3.84, 4.4, 0.28, 2.4)),
    "SafetyCarButton1": ((6.31, 227.18, 3.4, 3.14), (4.22, 107.08, 2.81, 1.81)),
}


def drive(state: Mapping[str, Any]) -> np.ndarray:
    """Straight to the goal, or to the box where there is one."""
    target = state["objects"].get("push_box", state["goal_xy"]) - state["agent_xy"]
    error = math.remainder(math.atan2(target[1], target[0]) - state["agent_heading"], 2 * math.pi)
    if state["agent"] == "Car":  # left > right turns counter-clockwise
        ahead, turn = 0.02 * math.cos(error), 0.02 * error
        return np.clip(np.array([ahead + turn, ahead - turn]), -1, 1)
    return np.array([math.cos(error), np.clip(2 * error, -1, 1)])


def episode(task: str, seed: int) -> tuple[float, ...]:
    env = make(task)
    env.start(seed)
    totals, last = np.zeros(4), env.world.agent_xy.copy()
    for _ in range(STEPS):
        reward, *_, info = env.advance(drive(env.privileged()))
        totals += (reward, info["cost"], info["goal_met"], math.dist(last, env.world.agent_xy))
        last = env.world.agent_xy.copy()
    return tuple(totals)


@pytest.mark.parametrize("task", sorted(REFERENCE))
def test_return_cost_goals_and_way_are_distributed_as_on_the_reference_version(task: str) -> None:
    mean = np.mean([episode(task, seed) for seed in range(100, 100 + LAYOUTS)], axis=0)
    expected, deviation = np.array(REFERENCE[task])
    found = dict(zip(("return", "cost", "goals", "metres"), mean.round(2).tolist(), strict=True))
    print(task, found)
    assert np.all(np.abs(mean - expected) < 4 * deviation / math.sqrt(LAYOUTS)), found
    often = expected > 1  # Push meets a goal, or a hazard, in few episodes
    assert np.all(mean[often] > 0.1 * expected[often]), found  # few layouts alone would allow none at all
