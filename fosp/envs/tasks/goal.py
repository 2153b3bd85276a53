"""Goal: drive to the green cylinder; on arrival another one appears somewhere else.

Levels 1 and 2 add hazards and vases. In level 1 the single vase costs nothing, in level 2 touching or moving one does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from numpy.random import RandomState

from fosp.envs.layout import sample_position
from fosp.envs.objects import Goal, Hazards, Vases
from fosp.envs.tasks.base import Task

if TYPE_CHECKING:
    from fosp.envs.world import World

#: Closer than this to the goal's centre counts as arrived, metres.
ARRIVED = 0.3


@dataclass(frozen=True)
class GoalTask(Task):
    """Reward: progress towards the goal in metres, plus 1 on arrival."""

    rewards: ClassVar[tuple[str, ...]] = ("distance", "goal")

    def distances(self, world: World) -> dict[str, float]:
        return {"distance": math.dist(world.position("goal")[:2], world.agent_xy)}

    def achieved(self, world: World) -> bool:
        return self.distances(world)["distance"] <= ARRIVED

    def new_goal(self, world: World, random: RandomState) -> None:
        xy = sample_position(random, "goal", dict(self.keepouts()), world.layout, self.extent)
        world.move("goal", xy)


def levels(agent: str) -> list[GoalTask]:
    """The levels of the task for one agent."""
    return [
        GoalTask(
            name=f"Safety{agent}Goal1",
            agent=agent,
            extent=1.5,
            objects=(Goal(), Hazards(count=8), Vases(count=1)),
            costs=("hazards",),
        ),
    ]
