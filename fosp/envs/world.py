"""One compiled model and its state, by name. Knows where things are, not what is good or bad.

The model is compiled once; a new layout only moves bodies in it, which takes microseconds instead of a compile.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.random import RandomState

from fosp.envs.agents import AGENTS, Agent
from fosp.envs.layout import XY, Layout
from fosp.envs.scene import build, quaternion_z
from fosp.envs.tasks.base import Task

PHYSICS_STEPS = 10  # per frame


class World:
    """Model, state and the stored layout (the xy of everything, as the drawing of new goals sees it)."""

    def __init__(self, task: Task) -> None:
        self.agent: Agent = AGENTS[task.agent]
        self.model = build(task)
        self.data = mujoco.MjData(self.model)
        self.layout: Layout = {}
        self.rotations: dict[str, float] = {}
        names = [n for n, _ in task.keepouts()]
        self.body = {name: self.model.body(name).id for name in names}
        self._of_kind = {o.kind: np.array([self.body[n] for n in o.names], dtype=int) for o in task.objects}
        self._height = {name: float(self.model.body_pos[i, 2]) for name, i in self.body.items()}
        self._free_qpos, self._free_dof = self._free_joints()
        self._geom_kind = {o.kind: self._geom_mask(self._of_kind[o.kind]) for o in task.objects}
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

    def _geom_mask(self, bodies: np.ndarray) -> np.ndarray:
        return np.isin(self.model.geom_bodyid, bodies)  # (ngeom,) bool

    # ---- changing the state -------------------------------------------------------------------------------------

    def place(self, layout: Layout, rotations: dict[str, float]) -> None:
        """Put everything to its start: at rest, time 0."""
        self.layout, self.rotations = dict(layout), dict(rotations)
        for name, (x, y) in layout.items():
            body, position = self.body[name], (x, y, self._height[name])
            rotation = quaternion_z(rotations[name])
            self.model.body_pos[body], self.model.body_quat[body] = position, rotation
            if body in self._free_qpos:
                at = self._free_qpos[body]
                self.model.qpos0[at : at + 7] = (*position, *rotation)
        mujoco.mj_resetData(self.model, self.data)
        self.forward()

    def move(self, name: str, xy: XY) -> None:
        """Put something that has no joint elsewhere, and remember it in the layout."""
        self.layout[name] = xy
        self.model.body_pos[self.body[name], :2] = xy
        self.forward()

    def forward(self) -> None:
        """Bring everything derived from the state up to date."""
        mujoco.mj_forward(self.model, self.data)
        # MuJoCo 2.3 did this by itself, later versions do not; it decides where the solver starts in the next step.
        self.data.qacc_warmstart[:] = self.data.qacc

    def advance(self, control: np.ndarray, random: RandomState) -> None:
        """One frame: 10 physics steps with the same control, shape (A,)."""
        self.data.ctrl[:] = control
        # The number of steps is a draw that always gives 10, but it consumes one number of the stream.
        mujoco.mj_step(self.model, self.data, int(random.binomial(PHYSICS_STEPS, 1.0)))
        self.forward()

    def refresh_layout(self) -> None:
        """Store where everything is now; new goals keep away from these places."""
        for name, body in self.body.items():
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
        matrix = self.data.xmat[self._agent_id]
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
        return self.data.xpos[self._of_kind[kind]]

    def free_velocities(self, kind: str) -> np.ndarray:
        """Linear velocities of the body frames of objects with a free joint, (count, 3), m/s."""
        at = [self._free_dof[int(body)] for body in self._of_kind[kind]]
        return np.stack([self.data.qvel[i : i + 3] for i in at]) if at else np.zeros((0, 3))

    def agent_contacts(self, kind: str) -> int:
        """Number of active contacts between the agent and objects of a kind."""
        pairs = self.data.contact.geom[: self.data.ncon]  # (ncon, 2)
        if len(pairs) == 0:
            return 0
        agent, other = self._geom_agent[pairs], self._geom_kind[kind][pairs]
        return int(np.sum((agent[:, 0] & other[:, 1]) | (agent[:, 1] & other[:, 0])))
