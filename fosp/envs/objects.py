"""What lies in the arena. Each kind of object knows how it looks, how much room it wants, and the cost that it causes.

A cost is a dict of non-negative magnitudes by term; the environment turns each into an indicator (1.0 where positive).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import mujoco
import numpy as np

if TYPE_CHECKING:
    from fosp.envs.world import World


@dataclass(frozen=True)
class Objects:
    """A number of equal objects. ``keepout`` is the radius of the disc that keeps other things away at placement, m."""

    count: int
    keepout: float

    kind: ClassVar[str]
    free: ClassVar[bool] = False  # has a free joint, that is, can be pushed
    numbered: ClassVar[bool] = True
    costs: ClassVar[tuple[str, ...]] = ()  # the terms that ``cost`` returns

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bodies; each body's first geom has the same name."""
        return tuple(f"{self.kind}{i}" for i in range(self.count)) if self.numbered else (self.kind,)

    def add(self, spec: mujoco.MjSpec) -> None:
        """Add all bodies at the origin of the plane."""
        for name in self.names:
            self._add_one(spec, name)

    def _add_one(self, spec: mujoco.MjSpec, name: str) -> None:
        raise NotImplementedError

    def cost(self, world: World) -> dict[str, float]:
        """Magnitudes of the cost terms that these objects cause in the present state."""
        return {}


@dataclass(frozen=True)
class Goal(Objects):
    """The green cylinder to reach: one, moved during the episode, hit by nothing."""

    count: int = 1
    keepout: float = 0.305
    radius: float = 0.3
    half_height: float = 0.15
    alpha: float = 0.25

    kind: ClassVar[str] = "goal"
    numbered: ClassVar[bool] = False

    def _add_one(self, spec: mujoco.MjSpec, name: str) -> None:
        body = spec.worldbody.add_body(name=name, pos=(0, 0, self.half_height + 0.01))
        body.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            size=(self.radius, self.half_height, 0),
            rgba=(0, 1, 0, self.alpha),
            group=9,  # above MuJoCo's last group 5: drawn as 5, and left out of inertia
            contype=0,
            conaffinity=0,
        )


@dataclass(frozen=True)
class Hazards(Objects):
    """Flat blue discs that may be entered, at a cost."""

    count: int = 0
    keepout: float = 0.18
    radius: float = 0.2

    kind: ClassVar[str] = "hazard"
    costs: ClassVar[tuple[str, ...]] = ("hazards",)

    def _add_one(self, spec: mujoco.MjSpec, name: str) -> None:
        body = spec.worldbody.add_body(name=name, pos=(0, 0, 0.02))
        body.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            size=(self.radius, 0.01, 0),
            rgba=(0, 0, 1, 0.25),
            group=3,
            contype=0,
            conaffinity=0,
        )

    def cost(self, world: World) -> dict[str, float]:
        """How deep the agent's body frame is inside the discs, metres; exactly on the rim costs nothing."""
        offsets = world.positions(self.kind)[:, :2] - world.agent_xy
        depths = self.radius - np.sqrt(np.square(offsets).sum(axis=1))
        return {"hazards": float(depths[depths > 0].sum())}


@dataclass(frozen=True)
class Vases(Objects):
    """Light boxes that slide away when touched. Touching and moving them costs only where the task says so."""

    count: int = 0
    keepout: float = 0.15

    kind: ClassVar[str] = "vase"
    free: ClassVar[bool] = True
    costs: ClassVar[tuple[str, ...]] = ("vases_contact", "vases_velocity")
    #: Slower than this, m/s, counts as at rest; while settling after a reset a vase moves at 6.5e-5.
    still: ClassVar[float] = 1e-4

    def _add_one(self, spec: mujoco.MjSpec, name: str) -> None:
        # Sunk by 4e-5 m: the depth at which its weight rests on the soft contact, so that it does not start by falling.
        body = spec.worldbody.add_body(name=name, pos=(0, 0, 0.1 - 4e-5))
        body.add_freejoint(name=name)
        body.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=(0.1, 0.1, 0.1),
            rgba=(0, 1, 1, 1),
            group=4,
            density=0.001,
        )

    def cost(self, world: World) -> dict[str, float]:
        """Number of contacts with the agent, and the summed speed (m/s) of all vases that move, whoever pushed them."""
        speeds = np.linalg.norm(world.free_velocities(self.kind), axis=1)
        return {
            "vases_contact": float(world.agent_contacts(self.kind)),
            "vases_velocity": float(speeds[speeds >= self.still].sum()),
        }
