"""A contact sheet of suites: one row per task, one frame per scenario, as people and as the robot see it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fosp.envs.env import SafetyEnv
from fosp.envs.suites import Trial
from fosp.envs.tasks import find_task

#: Frames for which the robot stands still before its picture is taken: by then what moves has moved and what fades is
#: half way (easy) or nearly gone (hard).
WAIT = 60
#: Of the picture from `fixedfar`, the part in which things lie, as shares of its side: left, right, top, bottom.
CROP = (0.14, 0.86, 0.16, 0.88)
DOTS = 100  # per inch
CELL, GAP, LEFT, TOP, BOTTOM = 150, 6, 34, 26, 26  # pixels


def contact_sheet(trials: Sequence[Trial]) -> Figure:
    """A figure with a row per task and a column per scenario, in the order in which they first come.

    Each frame shows one of the trial's layouts: the first on which, in the task as it is, the robot sees its goal.
    """
    tasks, scenarios = _unique(t.task for t in trials), _unique(t.scenario for t in trials)
    width = LEFT + len(scenarios) * (CELL + GAP)
    height = TOP + len(tasks) * 2 * (CELL + GAP) + BOTTOM
    figure = Figure(figsize=(width / DOTS, height / DOTS), dpi=DOTS)

    def write(x: float, y: float, text: str, size: int, **how: Any) -> None:
        figure.text(x / width, 1 - y / height, text, fontsize=size, va="center", **how)

    for column, scenario in enumerate(scenarios):
        write(LEFT + column * (CELL + GAP) + CELL / 2, TOP / 2, scenario, 8, ha="center", weight="bold")
    for row, task in enumerate(tasks):
        name = find_task(task).name
        write(LEFT / 2, TOP + (2 * row + 1) * (CELL + GAP), name, 9, ha="center", weight="bold", rotation=90)
    for trial in trials:
        x = LEFT + scenarios.index(trial.scenario) * (CELL + GAP)
        for below, image in enumerate(frames(trial)):
            y = TOP + (2 * tasks.index(trial.task) + below) * (CELL + GAP) - (GAP - 1) * below
            axes = figure.add_axes((x / width, 1 - (y + CELL) / height, CELL / width, CELL / height))
            axes.imshow(image, interpolation="lanczos")
            axes.set_axis_off()
    words = f"{WAIT} frames after the start, the robot standing still; above from outside, below its own front camera"
    write(LEFT, height - BOTTOM / 2, words, 8, ha="left")
    return figure


def frames(trial: Trial) -> list[np.ndarray]:
    """From outside and from the robot's front camera, uint8 (W, W, 3) each."""
    env = SafetyEnv(trial.task, scenario=trial.scenario, image_size=2 * CELL, quality="faithful", action_repeat=WAIT)
    env.start(_telling_seed(trial))
    env.advance(np.zeros(env.action_space.shape or ()))
    size = round(2 * CELL / (CROP[1] - CROP[0]))
    left, right, top, bottom = (round(size * share) for share in CROP)
    outside = env.picture("fixedfar", size)[top:bottom, left:right]
    inside = env.observe()["image_front"]
    env.close()
    return [outside, inside]


def _telling_seed(trial: Trial) -> int:
    """The first layout with the goal in front of the robot and near; the first of all where there is none."""
    env = SafetyEnv(trial.task)
    for seed in trial.seeds:
        env.start(seed)
        state = env.privileged()
        x, y = state["goal_xy"] - state["agent_xy"]
        if np.hypot(x, y) < 1.8 and np.cos(np.arctan2(y, x) - state["agent_heading"]) > np.cos(0.5):
            return seed
    return trial.seeds[0]


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
