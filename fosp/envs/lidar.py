"""The state observation: what the agent's own sensors read, and one ring of distances per kind of object.

It is the flat vector of Safety-Gymnasium's plain ids, number by number, so that methods on states can be compared with
methods on images on the same tasks. Everything is computed from the present state: sensors in the model would cost
every physics step of the image environments, and nothing here draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from gymnasium import spaces

from fosp.envs.tasks.base import Task
from fosp.envs.world import World

#: Sectors of a ring, counter-clockwise from the agent's x axis.
BINS = 16
#: Farther than this reads 0, metres; nearer things read linearly more, up to 1 at the agent's own place.
RANGE = 3.0


def ring(offsets: np.ndarray) -> np.ndarray:
    """One reading per sector, (BINS,) in 0..1, of things at ``offsets`` (n, 2), metres in the agent's frame.

    A sector shows the nearest thing in it. So that a reading does not jump when a thing passes into the next sector,
    each thing shows in both neighbours too, the weaker the farther it is from them.
    """
    out = np.zeros(BINS)
    x, y = offsets[:, 0], offsets[:, 1]
    sector = np.arctan2(y, x) % (2 * np.pi) * (BINS / (2 * np.pi))  # (n,) in 0..BINS
    index = np.floor(sector).astype(int)
    along = sector - index  # 0 at the border to the sector before, 1 at the one to the next
    nearness = np.maximum(0.0, RANGE - np.hypot(x, y)) / RANGE
    for shift, weight in ((0, 1.0), (1, along), (-1, 1.0 - along)):
        np.maximum.at(out, (index + shift) % BINS, weight * nearness)
    return out


class StateReader:
    """Reads the state observation of a world.

    ``parts`` names the slices of the vector in their order: ``accelerometer`` (m/s^2, with gravity), ``velocimeter``
    (m/s), ``gyro`` (rad/s) and ``magnetometer``, 3 numbers each in the agent's frame; for each ball joint of the agent
    its angular velocity ``<joint>_velocity`` (3) and rotation matrix ``<joint>_rotation`` (9); then
    ``<kind>_lidar`` (``BINS``) for each kind of object, in the order of the task.
    """

    def __init__(self, world: World, task: Task) -> None:
        self._world, self._task = world, task
        model = world.model
        self._site = model.site("agent").id
        self._balls = [j for j in range(model.njnt) if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_BALL]
        balls = [model.joint(j).name for j in self._balls]
        sizes = dict.fromkeys(("accelerometer", "velocimeter", "gyro", "magnetometer"), 3)
        sizes |= {f"{name}_velocity": 3 for name in balls} | {f"{name}_rotation": 9 for name in balls}
        rings = {f"{objects.kind}_lidar": BINS for objects in task.objects}
        self.parts = _slices(sizes | rings)
        seen = np.arange(sum(sizes.values()) + len(rings) * BINS) >= sum(sizes.values())
        self.space = spaces.Box(np.where(seen, 0.0, -np.inf), np.where(seen, 1.0, np.inf), dtype=np.float64)

    def read(self) -> np.ndarray:
        """The vector of the present state, float64 in memory of its own. ``World.forward`` must have been called."""
        rings = [ring(self._offsets(objects.sensed(self._world))) for objects in self._task.objects]
        return np.concatenate([*self._sensors(), *rings])

    def _sensors(self) -> Sequence[np.ndarray]:
        model, data = self._world.model, self._world.data
        site = mujoco.mjtObj.mjOBJ_SITE
        acceleration, velocity = np.zeros((2, 6))  # angular, then linear, in the frame of the site
        mujoco.mj_rnePostConstraint(model, data)  # the acceleration of bodies, which is computed only on demand
        mujoco.mj_objectAcceleration(model, data, site, self._site, acceleration, 1)
        mujoco.mj_objectVelocity(model, data, site, self._site, velocity, 1)
        north = data.site_xmat[self._site].reshape(3, 3).T @ model.opt.magnetic
        rotations = []
        for joint in self._balls:
            at = model.jnt_qposadr[joint]
            rotation, quaternion = np.zeros(9), data.qpos[at : at + 4].copy()
            mujoco.mju_normalize4(quaternion)
            mujoco.mju_quat2Mat(rotation, quaternion)
            rotations.append(rotation)
        turning = [data.qvel[at : at + 3] for at in model.jnt_dofadr[self._balls]]
        return [acceleration[3:], velocity[3:], velocity[:3], north, *turning, *rotations]

    def _offsets(self, positions: np.ndarray) -> np.ndarray:
        """Positions (n, 3) as seen from the agent, (n, 2). Heights count as 0, which matters where the agent tilts."""
        data, agent = self._world.data, self._world.body["agent"]
        floor = positions * (1.0, 1.0, 0.0)
        return (floor - data.xpos[agent]) @ data.xmat[agent].reshape(3, 3)[:, :2]


def _slices(sizes: dict[str, int]) -> dict[str, slice]:
    ends = np.cumsum(list(sizes.values())).tolist()
    return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}
