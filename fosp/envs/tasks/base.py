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

    @property
    def id(self) -> str:
        """The id under which Gymnasium knows the task."""
        return f"fosp/{self.name}-v0"

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

    def achieved(self, world: World) -> bool:
        """Whether the goal is reached in the present state."""
        raise NotImplementedError

    def after_cost(self, world: World, magnitudes: Mapping[str, float]) -> None:
        """What happens by itself each frame between its cost and a new goal, such as a timer.

        ``magnitudes`` are those of the frame's cost terms, before they become indicators; only terms that count.
        """

    def new_goal(self, world: World, random: RandomState) -> None:
        """Choose the next goal and move it there. Raises ``LayoutError`` if there is no place."""
        raise NotImplementedError
