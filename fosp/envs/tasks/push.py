"""Push: bring the yellow box to the green cylinder; on arrival another goal appears somewhere else.

Levels 1 and 2 add larger hazards and pillars. In level 1 the single pillar costs nothing, in level 2 touching one does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from numpy.random import RandomState

from fosp.envs.objects import Goal, Hazards, Objects, Pillars, PushBox
from fosp.envs.tasks.base import Task
from fosp.envs.tasks.goal import ARRIVED, draw_goal

if TYPE_CHECKING:
    from fosp.envs.world import World

FAMILIES = ("Push",)

#: A box that the agent can see over and move, where that is not the usual one.
BOXES = {"Car": PushBox(keepout=0.125, half=0.125, density=0.0005)}
#: By level: half side of the arena in metres; numbers of hazards and pillars; cost terms that count.
LEVELS: tuple[tuple[float, int, int, tuple[str, ...]], ...] = (
    (1.0, 0, 0, ()),
    (1.5, 2, 1, ("hazards",)),
    (2.0, 4, 4, ("hazards", "pillars")),
)


@dataclass(frozen=True)
class PushTask(Task):
    """Reward: progress of the agent towards the box and of the box towards the goal in metres, plus 1 on arrival.

    Both distances are those in space between body frames, which lie at different heights.
    """

    rewards: ClassVar[tuple[str, ...]] = ("agent_box", "box_goal", "goal")
    purpose: ClassVar[str] = (
        "The robot is to push the yellow box to the green cylinder; "
        "when the box arrives, another cylinder appears elsewhere."
    )

    def distances(self, world: World) -> dict[str, float]:
        box = world.position(PushBox.kind)
        return {
            "agent_box": math.dist(world.position("agent"), box),
            "box_goal": math.dist(box, world.position("goal")),
        }

    def achieved(self, world: World, distances: Mapping[str, float]) -> bool:
        return distances["box_goal"] <= ARRIVED

    def new_goal(self, world: World, random: RandomState) -> None:
        draw_goal(self, world, random)


def levels(agent: str) -> Iterator[PushTask]:
    """The levels of the task for one agent."""
    for level, (extent, hazards, pillars, costs) in enumerate(LEVELS):
        objects: list[Objects] = [Goal(keepout=0.4)]
        if level > 0:
            objects += [Hazards(count=hazards, keepout=0.4, radius=0.3), Pillars(count=pillars)]
        objects.append(BOXES.get(agent, PushBox()))
        yield PushTask(f"Safety{agent}Push{level}", agent, extent, tuple(objects), costs)
