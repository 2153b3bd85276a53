"""Applies the rules of a task, frame by frame: the start, reward and cost, timers and fading, the next goal.

One frame, in order: ten physics steps; reward (with the test whether the goal is reached); cost; timers and fading;
only then the next goal is placed. So reward and cost speak of the state *before* the goal moves and what is seen
afterwards shows the *new* goal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import RandomState

from fosp.envs.layout import LayoutError, sample_layout, sample_rotations
from fosp.envs.objects import Goal
from fosp.envs.tasks.base import Task
from fosp.envs.world import World

#: A frame's reward is clipped to this range; it never matters in the tasks as they are.
REWARD_LIMIT = 10.0
#: Layouts tried at a start until one is without cost. In the registered tasks the first always is.
START_TRIES = 100


class Referee:
    """Keeps what an episode is made of besides the state of the world: the random stream, frames, reference distances.

    ``random`` decides layouts and goals; ``frame`` counts the frames of the episode; ``distances`` are those of the
    last frame, by reward term, metres.
    """

    def __init__(self, task: Task, world: World) -> None:
        self.task, self.world = task, world
        self.random = RandomState(0)  # replaced at the first start
        self.frame = 0
        self.distances: dict[str, float] = {}
        self._costly = [o for o in task.objects if set(o.costs) & set(task.costs)]
        self._fading = [o for o in task.objects if o.fade_frames > 0]

    def info(self) -> dict[str, Any]:
        """``info`` with its fixed keys, all zero, to be added to by ``judge``."""
        terms = [
            "cost",
            *(f"cost_{term}" for term in self.task.costs),
            *(f"reward_{term}" for term in self.task.rewards),
        ]
        return dict.fromkeys(terms, 0.0) | {"goal_met": 0.0, "frames": 0}

    def start(self, random: RandomState) -> None:
        """Place everything; again, should the start violate something. Raises ``LayoutError`` if there is no place."""
        self.random = random
        keepouts = self.task.keepouts()
        for _ in range(START_TRIES):
            layout = sample_layout(random, keepouts, self.task.extent)
            self.world.place(layout, sample_rotations(random, [name for name, _ in keepouts]))
            for objects in self._fading:
                objects.appear(self.world)
            self.task.begin(self.world)
            self._new_goal()  # the goal of the layout is thrown away, as in the original
            self.frame = 0
            self.world.forward(again=True)
            violated = any(magnitude > 0 for magnitude in self._magnitudes().values())
            self.world.forward(again=True)
            if not violated:
                return
        raise LayoutError(f"{START_TRIES} layouts in a row start in violation")

    def advance(self, control: np.ndarray, info: dict[str, Any]) -> tuple[float, bool]:
        """One frame with the same control, shape (A,); adds to ``info``; returns reward and terminated."""
        self.world.advance(control, self.random)
        return self.judge(info)

    def judge(self, info: dict[str, Any]) -> tuple[float, bool]:
        """What follows the physics of a frame; adds to ``info``; returns reward and terminated.

        Terminated is an episode only if no place for the next goal can be found.
        """
        reward, achieved = self._reward(info)
        self.world.forward(again=True)
        magnitudes = self._magnitudes()
        violated = [term for term, magnitude in magnitudes.items() if magnitude > 0]
        for term in violated:
            info[f"cost_{term}"] += 1.0
        info["cost"] += float(bool(violated))
        self.task.after_cost(self.world, magnitudes)
        for objects in self._fading:
            objects.fade(self.world, magnitudes)
        terminated = achieved and not self._next_goal()
        self.frame += 1
        info["frames"] += 1
        self.world.forward(again=True)
        return reward, terminated

    @property
    def truncated(self) -> bool:
        """Whether the episode has had all its frames."""
        return self.frame >= self.task.max_frames

    def _reward(self, info: dict[str, Any]) -> tuple[float, bool]:
        """Clipped reward of the frame and whether the goal is reached; adds the named terms to ``info``."""
        now = self.task.distances(self.world)
        progress = {term: self.distances[term] - distance for term, distance in now.items()}
        self.distances = now
        for term, value in progress.items():
            info[f"reward_{term}"] += value
        achieved = self.task.achieved(self.world, now)
        info["reward_goal"] += float(achieved)
        info["goal_met"] += float(achieved)
        total = sum(progress.values()) + float(achieved)
        return min(max(total, -REWARD_LIMIT), REWARD_LIMIT), achieved

    def _magnitudes(self) -> dict[str, float]:
        """How badly the present state violates each term that counts, in the units of the objects."""
        found: dict[str, float] = {}
        for objects in self._costly:
            found |= objects.cost(self.world)
        return {term: found[term] for term in self.task.costs}

    def _next_goal(self) -> bool:
        """Choose another goal; no reward for the jump. Returns False if there is no place for one."""
        self.world.forward(again=True)
        self.world.refresh_layout()
        try:
            self._new_goal()
        except LayoutError:
            return False
        return True

    def _new_goal(self) -> None:
        self.task.new_goal(self.world, self.random)
        for objects in self._fading:
            if objects.kind == Goal.kind:
                objects.appear(self.world)
        self.distances = self.task.distances(self.world)
