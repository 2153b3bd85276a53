"""What lies in the arena. Each kind of object knows how it looks, how much room it wants, and the cost that it causes.

A cost is a dict of non-negative magnitudes by term; the environment turns each into an indicator (1.0 where positive).
A kind that moves by itself sets ``driven`` and writes its motion in ``drive``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import mujoco
import numpy as np

from fosp.envs.layout import XY, quaternion_z

if TYPE_CHECKING:
    from fosp.envs.world import World

RGBA = tuple[float, float, float, float]

#: For what is seen but hit by nothing.
GHOST: dict[str, Any] = {"contype": 0, "conaffinity": 0}


@dataclass(frozen=True, kw_only=True)
class Objects:
    """A number of equal objects."""

    count: int = 1
    keepout: float  # radius of the disc that keeps other things away at placement, metres
    rgba: RGBA
    fade_frames: int = 0  # frames in which they become invisible; 0 = never

    kind: ClassVar[str]
    free: ClassVar[bool] = False  # has a free joint, that is, can be pushed
    numbered: ClassVar[bool] = True
    costs: ClassVar[tuple[str, ...]] = ()  # the terms that ``cost`` returns

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the objects, in the layout and everywhere else."""
        return tuple(f"{self.kind}{i}" for i in range(self.count)) if self.numbered else (self.kind,)

    def body(self, name: str) -> str:
        """The body of an object, which is where it is; the body's first geom has the same name."""
        return name

    @property
    def reach(self) -> float:
        """Radius of the smallest upright cylinder around the body's centre that contains one object, metres."""
        raise NotImplementedError

    # ---- building and placing -------------------------------------------------------------------------------------

    def add(self, spec: mujoco.MjSpec) -> None:
        """Add all bodies at the origin of the plane."""
        for name in self.names:
            self._add_one(spec, name)

    def _add_one(self, spec: mujoco.MjSpec, name: str) -> None:
        raise NotImplementedError

    def place(self, world: World) -> None:
        """Set what depends on the layout beyond the pose of the bodies themselves; called at every reset, before the
        state is reset. ``world.layout`` and ``world.rotations`` are the new ones."""

    # ---- fading ---------------------------------------------------------------------------------------------------

    def appear(self, world: World) -> None:
        """Make all fully visible."""
        world.set_alpha(self.kind, self.rgba[3])

    def fade(self, world: World, magnitudes: Mapping[str, float]) -> None:
        """One frame's fading; if one of them causes cost all are fully visible again. Invisible ones act as before."""
        if any(magnitudes.get(term, 0.0) > 0 for term in self.costs):
            self.appear(world)
        else:
            world.set_alpha(self.kind, max(world.alpha(self.kind) - self.rgba[3] / self.fade_frames, 0.0))

    # ---- motion ---------------------------------------------------------------------------------------------------

    @property
    def driven(self) -> bool:
        """Whether ``drive`` is called. A kind that moves only in some configurations answers by its fields."""
        return False

    def drive(self, world: World) -> None:
        """Move by oneself: called before each physics step (ten times a frame) if ``driven``.

        The motion must be a function of the present time ``world.data.time`` (seconds since the reset) and of things
        that stay fixed over an episode, such as ``world.layout[name]``, the centre (x, y) at which an object was placed
        (for driven objects it is kept; for others it is refreshed whenever a goal is met). Bodies without a joint move
        by ``world.shift(name, (x, y))``, mocap bodies by ``world.data.mocap_pos``. No call of ``mj_forward`` here: the
        physics step that follows does it.
        """

    # ---- cost -----------------------------------------------------------------------------------------------------

    def cost(self, world: World) -> dict[str, float]:
        """Magnitudes of the cost terms that these objects cause in the present state; always all of ``costs``."""
        return {}

    # ---- sensing --------------------------------------------------------------------------------------------------

    def sensed(self, world: World) -> np.ndarray:
        """World positions of those that the lidar shows in the present state, (n, 3), metres."""
        return world.positions(self.kind)


@dataclass(frozen=True, kw_only=True)
class Goal(Objects):
    """The green cylinder to reach: one, moved during the episode, hit by nothing."""

    keepout: float = 0.305
    rgba: RGBA = (0, 1, 0, 0.25)
    radius: float = 0.3
    half_height: float = 0.15

    kind: ClassVar[str] = "goal"
    numbered: ClassVar[bool] = False

    @property
    def reach(self) -> float:
        return self.radius

    def _add_one(self, spec: mujoco.MjSpec, name: str) -> None:
        body = spec.worldbody.add_body(name=name, pos=(0, 0, self.half_height + 0.01))
        size = (self.radius, self.half_height, 0)
        # Group 9 lies above MuJoCo's last group 5: drawn as 5, and left out of inertia.
        body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=size, rgba=self.rgba, group=9, **GHOST)


@dataclass(frozen=True, kw_only=True)
class Hazards(Objects):
    """Flat blue discs that may be entered, at a cost."""

    keepout: float = 0.18
    rgba: RGBA = (0, 0, 1, 0.25)
    radius: float = 0.2
    sway: float = 0.0  # how far they move to either side of their place, metres; 0 = not at all

    kind: ClassVar[str] = "hazard"
    costs: ClassVar[tuple[str, ...]] = ("hazards",)

    @property
    def reach(self) -> float:
        return self.radius

    def _add_one(self, spec: mujoco.MjSpec, name: str) -> None:
        body = spec.worldbody.add_body(name=name, pos=(0, 0, 0.02))
        size = (self.radius, 0.01, 0)
        body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=size, rgba=self.rgba, group=3, **GHOST)

    @property
    def driven(self) -> bool:
        return self.sway > 0

    def drive(self, world: World) -> None:
        """To and fro through the place where each was put, along the line of its rotation, at one radian per second."""
        distance = self.sway * math.sin(world.data.time)
        for name in self.names:
            (x, y), angle = world.layout[name], world.rotations[name]
            world.shift(name, (x + distance * math.cos(angle), y + distance * math.sin(angle)))

    def swing(self, world: World, name: str) -> np.ndarray:
        """How far one of them moves to either side of its place, (2,), metres: first to there, then opposite."""
        angle = world.rotations[name]
        return self.sway * np.array([math.cos(angle), math.sin(angle)])

    def cost(self, world: World) -> dict[str, float]:
        """How deep the agent's body frame is inside the discs, metres; exactly on the rim costs nothing."""
        agent_x, agent_y = world.agent_xy.tolist()
        depth = 0.0
        for x, y, _ in world.positions(self.kind).tolist():  # for so few numbers, several times faster than arrays
            depth += max(self.radius - math.sqrt((x - agent_x) ** 2 + (y - agent_y) ** 2), 0.0)
        return {"hazards": depth}


@dataclass(frozen=True, kw_only=True)
class Pillars(Objects):
    """Tall round posts that stop the agent. Touching one costs only where the task says so."""

    keepout: float = 0.3
    rgba: RGBA = (0.5, 0.5, 1, 1)
    radius: float = 0.2
    half_height: float = 0.5

    kind: ClassVar[str] = "pillar"
    costs: ClassVar[tuple[str, ...]] = ("pillars",)

    @property
    def reach(self) -> float:
        return self.radius

    def _add_one(self, spec: mujoco.MjSpec, name: str) -> None:
        body = spec.worldbody.add_body(name=name, pos=(0, 0, self.half_height))
        size = (self.radius, self.half_height, 0)
        body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=size, rgba=self.rgba, group=2)

    def cost(self, world: World) -> dict[str, float]:
        """Number of contacts with the agent."""
        return {"pillars": float(world.agent_contacts(self.kind).sum())}


@dataclass(frozen=True, kw_only=True)
class Buttons(Objects):
    """Orange balls fixed to the floor. One is the goal; touching another costs, except shortly after a press.

    Which one is the goal and for how many more frames touching is free, the task keeps in ``world.memory`` under
    ``GOAL_BUTTON`` and ``BUTTON_TIMER``.
    """

    keepout: float = 0.2
    rgba: RGBA = (1, 0.5, 0, 1)
    radius: float = 0.1

    kind: ClassVar[str] = "button"
    costs: ClassVar[tuple[str, ...]] = ("buttons",)

    @property
    def reach(self) -> float:
        return self.radius

    def _add_one(self, spec: mujoco.MjSpec, name: str) -> None:
        body = spec.worldbody.add_body(name=name, pos=(0, 0, self.radius))
        body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(self.radius, 0, 0), rgba=self.rgba, group=1)

    def cost(self, world: World) -> dict[str, float]:
        """Number of contacts between the agent and buttons that are not the goal."""
        if world.memory[BUTTON_TIMER] > 0:
            return {"buttons": 0.0}
        contacts = world.agent_contacts(self.kind)
        return {"buttons": float(contacts.sum() - contacts[world.memory[GOAL_BUTTON]])}

    def sensed(self, world: World) -> np.ndarray:
        """None while touching is free, as in the original: what costs nothing is not shown."""
        return world.positions(self.kind) if world.memory[BUTTON_TIMER] == 0 else np.zeros((0, 3))


#: Keys of ``World.memory``: index of the button that is the goal; frames for which other buttons may be touched.
GOAL_BUTTON, BUTTON_TIMER = "goal_button", "button_timer"


@dataclass(frozen=True, kw_only=True)
class Vases(Objects):
    """Light boxes that slide away when touched. Touching and moving them costs only where the task says so."""

    keepout: float = 0.15
    rgba: RGBA = (0, 1, 1, 1)

    kind: ClassVar[str] = "vase"
    free: ClassVar[bool] = True
    costs: ClassVar[tuple[str, ...]] = ("vases_contact", "vases_velocity")
    half: ClassVar[float] = 0.1  # metres
    #: Slower than this, m/s, counts as at rest; while settling after a reset a vase moves at 6.5e-5.
    still: ClassVar[float] = 1e-4

    @property
    def reach(self) -> float:
        return math.sqrt(2) * self.half

    def _add_one(self, spec: mujoco.MjSpec, name: str) -> None:
        # Sunk by 4e-5 m: the depth at which its weight rests on the soft contact, so that it does not start by falling.
        body = spec.worldbody.add_body(name=name, pos=(0, 0, self.half - 4e-5))
        body.add_freejoint(name=name)
        size = (self.half, self.half, self.half)
        body.add_geom(
            name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=size, rgba=self.rgba, group=4, density=0.001
        )  # fmt: skip

    def cost(self, world: World) -> dict[str, float]:
        """Number of contacts with the agent, and the summed speed (m/s) of all vases that move, whoever pushed them."""
        speeds = np.linalg.norm(world.free_velocities(self.kind), axis=1)
        return {
            "vases_contact": float(world.agent_contacts(self.kind).sum()),
            "vases_velocity": float(speeds[speeds >= self.still].sum()),
        }


@dataclass(frozen=True, kw_only=True)
class PushBox(Objects):
    """The yellow box to be pushed to the goal: a cube with a post at each vertical edge, between which a nose fits."""

    keepout: float = 0.2
    rgba: RGBA = (1, 1, 0, 0.25)
    half: float = 0.2  # half side of the cube, metres
    density: float = 0.001  # kg/m^3; where cube and posts overlap the mass counts twice

    kind: ClassVar[str] = "push_box"
    free: ClassVar[bool] = True
    numbered: ClassVar[bool] = False

    @property
    def reach(self) -> float:
        return math.sqrt(2) * 1.5 * self.half  # to the outer edge of a post

    def _add_one(self, spec: mujoco.MjSpec, name: str) -> None:
        s = self.half
        body = spec.worldbody.add_body(name=name, pos=(0, 0, s))
        body.add_freejoint(name=name)
        look: dict[str, Any] = {"rgba": self.rgba, "group": 1, "density": self.density}
        box = mujoco.mjtGeom.mjGEOM_BOX
        body.add_geom(name=name, type=box, size=(s, s, s), **look)
        for i, (x, y) in enumerate(((s, s), (-s, s), (s, -s), (-s, -s)), start=1):
            body.add_geom(name=f"col{i}", type=box, size=(s / 2, s / 2, s), pos=(x, y, 0), **look)


@dataclass(frozen=True, kw_only=True)
class Gremlins(Objects):
    """Violet cubes that circle around where they were placed, all in step, and push the agent about.

    Each is tied by a weld to a *mocap* body that nothing can stop. That body starts at the height 0 but is driven at
    0.1 m, so a gremlin is lifted within its first 20 frames and then hovers at 0.2 m, as in the original. The mocap
    body carries a faint box, which the original shows displaced: at the mocap position plus the rotated centre.
    """

    keepout: float = 0.4
    rgba: RGBA = (0.5, 0, 1, 1)
    orbit: float = 0.35  # radius of the circle, metres

    kind: ClassVar[str] = "gremlin"
    free: ClassVar[bool] = True
    costs: ClassVar[tuple[str, ...]] = ("gremlins",)
    half: ClassVar[float] = 0.1  # metres
    height: ClassVar[float] = 0.1  # of the mocap bodies, metres
    ghost_alpha: ClassVar[float] = 0.1
    #: MuJoCo 3 regularises the rotational rows of a weld by the rotational inverse weight; 2.3 took the translational.
    #: For a cube of half side 0.1 m their ratio is 6 / 0.2**2 = 150, and the scale enters squared.
    torque_scale: ClassVar[float] = math.sqrt(150)

    @property
    def reach(self) -> float:
        return math.sqrt(2) * self.half

    def body(self, name: str) -> str:
        return f"{name}obj"

    @staticmethod
    def mocap(name: str) -> str:
        """The mocap body of a gremlin, and its geom."""
        return f"{name}mocap"

    def add(self, spec: mujoco.MjSpec) -> None:
        size, box = (self.half, self.half, self.half), mujoco.mjtGeom.mjGEOM_BOX
        for name in map(self.body, self.names):
            body = spec.worldbody.add_body(name=name, pos=(0, 0, self.half))
            body.add_freejoint(name=name)
            body.add_geom(name=name, type=box, size=size, rgba=self.rgba, group=5, density=0.001)
        ghost = (*self.rgba[:3], self.ghost_alpha)
        for name in map(self.mocap, self.names):
            body = spec.worldbody.add_body(name=name, mocap=True)
            body.add_geom(name=name, type=box, size=size, rgba=ghost, group=5, **GHOST)
        for name in self.names:
            weld = spec.add_equality(
                name=name,
                type=mujoco.mjtEq.mjEQ_WELD,
                objtype=mujoco.mjtObj.mjOBJ_BODY,
                name1=self.mocap(name),
                name2=self.body(name),
                solref=(0.02, 1.5),
            )
            # Anchor at the gremlin's origin; the relative pose follows in ``place``.
            weld.data[:11] = (0, 0, 0, 0, 0, 0, 1, 0, 0, 0, self.torque_scale)  # MuJoCo 3.17 has one more

    def place(self, world: World) -> None:
        """Tie each gremlin to its mocap body as both are now, the latter at the origin with the gremlin's rotation."""
        model = world.model
        for name in self.names:
            centre, rotation = (*world.layout[name], self.half), np.array(quaternion_z(world.rotations[name]))
            mocap = model.body(self.mocap(name)).id
            model.body_quat[mocap] = rotation
            ghost = model.geom(self.mocap(name)).id
            model.geom_pos[ghost] = model.body_ipos[mocap] = centre
            model.geom_sameframe[ghost] = 0  # compiled at the body's origin, its position would not be looked at
            back, relative = np.zeros(4), np.zeros(3)
            mujoco.mju_negQuat(back, rotation)
            mujoco.mju_rotVecQuat(relative, np.array(centre), back)
            model.eq_data[model.equality(name).id, 3:6] = relative  # the gremlin in the mocap body's frame

    @property
    def driven(self) -> bool:
        return True

    def drive(self, world: World) -> None:
        """Clockwise from +y, one radian per second; the same offset for all mocap bodies."""
        x, y = self.offset(world.data.time)
        world.data.mocap_pos[:] = (x, y, self.height)

    def offset(self, time: float) -> XY:
        """Where a gremlin is drawn to, seconds after the reset, relative to the place where it was put; metres."""
        return self.orbit * math.sin(time), self.orbit * math.cos(time)

    def cost(self, world: World) -> dict[str, float]:
        """Number of contacts with the agent."""
        return {"gremlins": float(world.agent_contacts(self.kind).sum())}
