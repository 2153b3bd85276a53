"""One compiled model and its state, by name. Knows where things are, not what is good or bad.

The model is compiled once; a new layout only moves bodies in it, which takes microseconds instead of a compile.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.random import RandomState

from fosp.envs.agents import AGENTS, Agent
from fosp.envs.layout import XY, Layout, quaternion_z
from fosp.envs.scene import build
from fosp.envs.tasks.base import Task

PHYSICS_STEPS = 10  # per frame
_VELOCITY = int(mujoco.mjtStage.mjSTAGE_VEL)


def _rows(bodies: np.ndarray) -> slice:
    """The bodies of a kind, (count,), which ``scene.build`` makes one after the other."""
    first, last = (int(bodies[0]), int(bodies[-1])) if len(bodies) else (0, -1)
    if (np.diff(bodies) != 1).any():
        raise ValueError(f"bodies {bodies} do not follow each other")
    return slice(first, last + 1)


class World:
    """Model, state and the stored layout (the xy of everything, as the drawing of new goals sees it)."""

    def __init__(self, task: Task) -> None:
        self.agent: Agent = AGENTS[task.agent]
        self.model = build(task)
        self.data = mujoco.MjData(self.model)
        self.layout: Layout = {}
        self.rotations: dict[str, float] = {}
        #: What the task remembers within an episode, by name; see the task. Emptied at each reset.
        self.memory: dict[str, int] = {}
        self.body = {"agent": self.model.body("agent").id}
        self.body |= {name: self.model.body(o.body(name)).id for o in task.objects for name in o.names}
        self._of_kind = {o.kind: np.array([self.body[n] for n in o.names], dtype=int) for o in task.objects}
        self._rows = {kind: _rows(bodies) for kind, bodies in self._of_kind.items()}
        self._height = {name: float(self.model.body_pos[i, 2]) for name, i in self.body.items()}
        self._free_qpos, self._free_dof = self._free_joints()
        self._objects = task.objects
        #: The geoms of each kind that are seen and hit: those of the objects' bodies.
        self._geoms = {kind: np.flatnonzero(np.isin(self.model.geom_bodyid, b)) for kind, b in self._of_kind.items()}
        self._driven = tuple(o for o in task.objects if o.driven)
        self._keep_place = {name for o in self._driven for name in o.names}
        self._geom_agent = np.isin(np.arange(self.model.ngeom), [self.model.geom(g).id for g in self.agent.geoms])
        self._agent_id = self.body["agent"]

    def _free_joints(self) -> tuple[dict[int, int], dict[int, int]]:
        """Addresses of the free joints in qpos and qvel, by body."""
        m = self.model
        free = [j for j in range(m.njnt) if m.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE]
        return (
            {int(m.jnt_bodyid[j]): int(m.jnt_qposadr[j]) for j in free},
            {int(m.jnt_bodyid[j]): int(m.jnt_dofadr[j]) for j in free},
        )

    # ---- changing the state -------------------------------------------------------------------------------------

    def place(self, layout: Layout, rotations: dict[str, float]) -> None:
        """Put everything to its start: at rest, time 0."""
        self.layout, self.rotations, self.memory = dict(layout), dict(rotations), {}
        for name, (x, y) in layout.items():
            body, position = self.body[name], (x, y, self._height[name])
            rotation = quaternion_z(rotations[name])
            self.model.body_pos[body], self.model.body_quat[body] = position, rotation
            if body in self._free_qpos:
                at = self._free_qpos[body]
                self.model.qpos0[at : at + 7] = (*position, *rotation)
        for objects in self._objects:
            objects.place(self)
        mujoco.mj_resetData(self.model, self.data)
        self.forward()

    def shift(self, name: str, xy: XY) -> None:
        """Put something that has no joint elsewhere; it counts from the next physics step or ``forward`` on."""
        self.model.body_pos[self.body[name], :2] = xy

    def move(self, name: str, xy: XY) -> None:
        """Put something that has no joint elsewhere at once. The layout stays."""
        self.shift(name, xy)
        self.forward()

    def set_alpha(self, kind: str, alpha: float) -> None:
        """Change the opacity of all objects of a kind, 0..1."""
        self.model.geom_rgba[self._geoms[kind], 3] = alpha

    def forward(self, again: bool = False) -> None:
        """Bring everything derived from the state up to date.

        ``again``: nothing has changed since the last call, so only the solver goes on from its last result. The
        original calls ``mj_forward`` several times in one state, which refines where the solver starts in the next.
        """
        if again:
            mujoco.mj_forwardSkip(self.model, self.data, _VELOCITY, 0)
        else:
            mujoco.mj_forward(self.model, self.data)
        # MuJoCo 2.3 did this by itself, later versions do not; it decides where the solver starts in the next step.
        self.data.qacc_warmstart[:] = self.data.qacc

    def advance(self, control: np.ndarray, random: RandomState) -> None:
        """One frame: 10 physics steps with the same control, shape (A,)."""
        # The number of steps is a draw that always gives 10, but it consumes one number of the stream.
        self.step(control, int(random.binomial(PHYSICS_STEPS, 1.0)))
        self.forward()

    def step(self, control: np.ndarray, count: int) -> None:
        """Physics steps with the same control, shape (A,), and nothing else."""
        self.data.ctrl[:] = control
        if not self._driven:
            mujoco.mj_step(self.model, self.data, count)
            return
        for _ in range(count):
            for objects in self._driven:
                objects.drive(self)
            mujoco.mj_step(self.model, self.data)

    def refresh_layout(self) -> None:
        """Store where everything is now; new goals keep away from these places.

        What moves by itself keeps the place around which it moves.
        """
        for name, body in self.body.items():
            if name not in self._keep_place:
                x, y, _ = self.data.xpos[body]
                self.layout[name] = (float(x), float(y))

    # ---- reading the state --------------------------------------------------------------------------------------

    @property
    def agent_xy(self) -> np.ndarray:
        """World position of the agent's body frame, (2,), metres. A view of the state."""
        return self.data.xpos[self._agent_id, :2]

    @property
    def agent_yaw(self) -> float:
        """Direction of the agent's x axis, radians in (-pi, pi]."""
        return self.yaw("agent")

    def yaw(self, name: str) -> float:
        """Direction of a body's x axis, radians in (-pi, pi]."""
        matrix = self.data.xmat[self.body[name]]
        return float(np.arctan2(matrix[3], matrix[0]))

    def agent_velocity(self) -> np.ndarray:
        """Velocity of the agent's body frame in world axes: angular then linear, (6,), rad/s and m/s."""
        velocity = np.zeros(6)
        mujoco.mj_objectVelocity(self.model, self.data, mujoco.mjtObj.mjOBJ_XBODY, self._agent_id, velocity, 0)
        return velocity

    def position(self, name: str) -> np.ndarray:
        """World position of a body, (3,), metres. A view of the state."""
        return self.data.xpos[self.body[name]]

    def positions(self, kind: str) -> np.ndarray:
        """World positions of all objects of a kind, (count, 3), metres. A copy."""
        return self.data.xpos[self._rows[kind]].copy()

    def alpha(self, kind: str) -> float:
        """Opacity of the objects of a kind, 0..1."""
        return float(self.model.geom_rgba[self._geoms[kind][0], 3])

    def velocity(self, name: str) -> np.ndarray:
        """Horizontal velocity of something with a free joint, (2,), m/s."""
        at = self._free_dof[self.body[name]]
        return self.data.qvel[at : at + 2].copy()

    def free_velocities(self, kind: str) -> np.ndarray:
        """Linear velocities of the body frames of objects with a free joint, (count, 3), m/s."""
        at = [self._free_dof[int(body)] for body in self._of_kind[kind]]
        return np.stack([self.data.qvel[i : i + 3] for i in at]) if at else np.zeros((0, 3))

    def agent_contacts(self, kind: str) -> np.ndarray:
        """Number of active contacts between the agent and each object of a kind, (count,)."""
        bodies = self._of_kind[kind]
        pairs = self.data.contact.geom[: self.data.ncon]  # (ncon, 2)
        touched = pairs[:, ::-1][self._geom_agent[pairs]]  # the other geom of each contact of the agent
        return (self.model.geom_bodyid[touched][:, None] == bodies).sum(axis=0)
