"""What a task is: a frozen configuration plus the few functions in which tasks differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from numpy.random import RandomState

from fosp.envs.look import Look
from fosp.envs.objects import Objects

if TYPE_CHECKING:
    from fosp.envs.world import World

Kind = TypeVar("Kind", bound=Objects)

#: Cost term -> when a frame costs 1, in words.
_COSTLY = {
    "hazards": "with its middle inside a blue disc (hazard)",
    "pillars": "touching a blue post (pillar)",
    "buttons": "touching a button that is not the goal",
    "vases_contact": "touching a cyan box (vase)",
    "vases_velocity": "while a cyan box (vase) slides",
    "gremlins": "touching a purple box that circles about (gremlin)",
}


@dataclass(frozen=True)
class Task:
    """Which agent, which objects, what is good (reward terms) and what is unsafe (cost terms).

    ``objects`` stand in the order in which the layout draws them: placed ones first, then those that can be pushed.
    """

    name: str  # e.g. "SafetyPointGoal1"
    agent: str  # key of AGENTS
    extent: float  # half side of the square in which things are placed, metres
    objects: tuple[Objects, ...]
    costs: tuple[str, ...]  # names of the cost terms that count; other magnitudes are ignored
    max_frames: int = 1000  # frames after which an episode is truncated
    agent_keepout: float = 0.4  # metres
    look: Look = Look()

    #: Names of the reward terms: those of ``distances``, and "goal" for the bonus.
    rewards: ClassVar[tuple[str, ...]]
    #: What the agent is to do, for people who do not know the task: a sentence.
    purpose: ClassVar[str]

    @property
    def id(self) -> str:
        """The id under which Gymnasium knows the task."""
        return f"fosp/{self.name}-v0"

    @property
    def text(self) -> str:
        """The task in a few sentences, for a report."""
        reasons = " or ".join(_COSTLY[name] for name in self.costs)
        cost = f"A frame that the robot spends {reasons} costs 1." if reasons else "Nothing costs anything."
        return f"{self.purpose} It sees only what its cameras show. {cost}"

    def keepouts(self) -> list[tuple[str, float]]:
        """(name, keepout radius) of everything that is placed, in drawing order."""
        return [("agent", self.agent_keepout)] + [(n, o.keepout) for o in self.objects for n in o.names]

    def find(self, kind: type[Kind]) -> Kind | None:
        """The objects of one class, or None where the task has none."""
        return next((o for o in self.objects if isinstance(o, kind)), None)

    def change(self, kind: type[Objects], **fields: Any) -> Self:
        """A copy with some fields of one class of objects replaced."""
        return replace(self, objects=tuple(replace(o, **fields) if isinstance(o, kind) else o for o in self.objects))

    # ---- what a family of tasks defines, in the order in which the environment calls it ---------------------------

    def begin(self, world: World) -> None:
        """Set what the task remembers in ``world.memory``; everything has been placed but the first goal."""

    def distances(self, world: World) -> dict[str, float]:
        """Distances in metres whose decrease over a frame is rewarded one to one, by reward term."""
        raise NotImplementedError

    def achieved(self, world: World, distances: Mapping[str, float]) -> bool:
        """Whether the goal is reached in the present state, whose ``distances`` are known already."""
        raise NotImplementedError

    def after_cost(self, world: World, magnitudes: Mapping[str, float]) -> None:
        """What happens by itself each frame between its cost and a new goal, such as a timer.

        ``magnitudes`` are those of the frame's cost terms, before they become indicators; only terms that count.
        """

    def new_goal(self, world: World, random: RandomState) -> None:
        """Choose the next goal and move it there. Raises ``LayoutError`` if there is no place."""
        raise NotImplementedError
