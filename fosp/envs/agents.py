"""The bodies that act. One entry of ``AGENTS`` per agent; a new agent is one class and one entry.

"Agent position" in every formula is the world position of the frame of the body ``agent``, not its centre of mass; yaw
is the direction of its x axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import mujoco

RED = (0.7412, 0.0431, 0.1843, 1.0)
BLUE = (0.0039, 0.1529, 0.3961, 1.0)


class Agent(Protocol):
    """What the scene and the environment need to know of an agent."""

    @property
    def timestep(self) -> float:
        """Seconds of one physics step."""
        ...

    @property
    def density(self) -> float:
        """kg/m^3; also holds for every object that does not set its own."""
        ...

    @property
    def height(self) -> float:
        """z of the agent's body frame at the start, metres."""
        ...

    @property
    def geoms(self) -> tuple[str, ...]:
        """Names of the geoms whose contacts count as the agent's."""
        ...

    @property
    def mirror(self) -> tuple[float, ...]:
        """Signs of the action in a mirrored world; empty where no change of signs mirrors the robot's motion."""
        ...

    @property
    def nose(self) -> float:
        """Direction in which it drives forward, as an angle from its x axis, radians."""
        ...

    @property
    def reach(self) -> float:
        """Radius of the smallest upright cylinder around the body frame that contains it, metres."""
        ...

    @property
    def top_speed(self) -> float:
        """Mean speed at full thrust straight ahead, m/s (measured)."""
        ...

    @property
    def top_turn(self) -> float:
        """Mean yaw rate at a full turn on the spot, rad/s (measured)."""
        ...

    def add(self, spec: mujoco.MjSpec) -> None:
        """Add the body ``agent`` with its cameras and actuators (no sensors: nobody reads them and each costs time)."""
        ...


def add_cameras(body: mujoco.MjsBody, height: float, front: tuple[float, float], pitch: float = 0.4) -> None:
    """The cameras every agent carries: ``vision`` (pitched down by atan(pitch)), ``vision_back`` (level), ``track``.

    Parameters: ``height`` of both eyes above the body frame, ``front`` = unit vector (x, y) of the nose.
    """
    fx, fy = front
    eyes = (
        ("vision", (fy, -fx, 0.0), (pitch * fx, pitch * fy, 1.0)),
        ("vision_back", (-fy, fx, 0.0), (0.0, 0.0, 1.0)),
    )
    for name, right, up in eyes:
        camera = body.add_camera(name=name, pos=(0, 0, height), fovy=90)
        camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
        camera.alt.xyaxes = [*right, *up]  # of the image
    # In mode "track" only the offset in world axes matters and that is the same for every start yaw: 2 m towards +y and
    # 2 m up, looking back and down. So the camera is written once for yaw 0 and never moved.
    track = body.add_camera(name="track", pos=(0, 2, 2), fovy=45, mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACK)
    track.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    track.alt.xyaxes = [-1, 0, 0, 0, -1, 1]


@dataclass(frozen=True)
class Point:
    """A ball with a nose that slides on the floor: push along the nose, turn about the vertical.

    Both motors saturate at 0.05 of their range of 1, so the Point is almost bang-bang: 0.015 N of push (free terminal
    speed 1.5 m/s) for any first action above 0.05, and a yaw rate of up to 3 rad/s. qpos[0:2] is the displacement in
    the frame of the *start* yaw, not world xy.
    """

    timestep: float = 0.002
    density: float = 1.0
    height: float = 0.1
    geoms: tuple[str, ...] = ("agent", "pointarrow")
    mirror: tuple[float, ...] = (1.0, -1.0)  # the same push, the opposite turn
    nose: float = 0.0
    reach: float = 0.1582  # the nose's edge, at (0.15, 0.05)
    top_speed: float = 1.5
    top_turn: float = 3.0

    def add(self, spec: mujoco.MjSpec) -> None:
        body = spec.worldbody.add_body(name="agent", pos=(0, 0, self.height))
        slide, hinge = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
        body.add_joint(name="x", type=slide, axis=(1, 0, 0), damping=0.01)
        body.add_joint(name="y", type=slide, axis=(0, 1, 0), damping=0.01)
        body.add_joint(name="z", type=hinge, axis=(0, 0, 1), damping=0.005)
        body.add_geom(
            name="agent", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.1, 0, 0), friction=(1, 0.01, 0.01), rgba=RED
        )
        body.add_geom(
            name="pointarrow", type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.05, 0.05, 0.05), pos=(0.1, 0, 0), rgba=BLUE
        )
        body.add_site(name="agent", size=(0.032, 0.005, 0.005), rgba=(1, 0, 0, 0.1))
        add_cameras(body, height=0.15, front=(1.0, 0.0))
        self._add_motors(spec)

    @staticmethod
    def _add_motors(spec: mujoco.MjSpec) -> None:
        limits = {"ctrllimited": True, "ctrlrange": (-1, 1), "forcelimited": True, "forcerange": (-0.05, 0.05)}
        gear = (0.3, 0, 0, 0, 0, 0)
        spec.add_actuator(name="x", target="agent", trntype=mujoco.mjtTrn.mjTRN_SITE, gear=gear, **limits)
        turn = spec.add_actuator(name="z", target="z", trntype=mujoco.mjtTrn.mjTRN_JOINTINPARENT, gear=gear, **limits)
        turn.biastype, turn.biasprm[2] = mujoco.mjtBias.mjBIAS_AFFINE, -1.0  # force = control - velocity


@dataclass(frozen=True)
class Car:
    """Two driven wheels and a passive caster ball under the nose, which points to local -y.

    Actions are the torques of the wheels ``left`` and ``right``; both positive drives forward. The body named ``left``
    lies at local -x, which is the driver's right-hand side: left > right turns counter-clockwise. The motors saturate
    at 0.02 of their range of 1. In a mirror the wheels change places, which signs of the action cannot express.
    """

    timestep: float = 0.004
    density: float = 5.0
    height: float = 0.1
    geoms: tuple[str, ...] = (
        "agent", "back_bumper", "back_connector", "front_bumper", "front_connector", "left", "right", "rear",
    )  # fmt: skip
    mirror: tuple[float, ...] = ()
    nose: float = -math.pi / 2
    reach: float = 0.2157  # the outer edges of the driven wheels, at (0.155, 0.15)
    top_speed: float = 0.78
    top_turn: float = 1.3

    def add(self, spec: mujoco.MjSpec) -> None:
        box, body = mujoco.mjtGeom.mjGEOM_BOX, spec.worldbody.add_body(name="agent", pos=(0, 0, self.height))
        body.add_freejoint(name="agent")
        body.add_geom(name="agent", type=box, size=(0.1, 0.1, 0.05), rgba=RED)
        for name, size, position in (
            ("back_bumper", (0.1, 0.01, 0.05), (0, 0.15, 0)),
            ("back_connector", (0.01, 0.025, 0.03), (0, 0.125, 0)),
            ("front_bumper", (0.05, 0.01, 0.05), (0, -0.165, 0)),
            ("front_connector", (0.05, 0.03, 0.01), (0, -0.13, 0.04)),
        ):
            body.add_geom(name=name, type=box, size=size, pos=position, rgba=BLUE)
        body.add_site(name="agent", size=(0.032, 0.005, 0.005))
        self._add_wheels(spec, body)
        add_cameras(body, height=0.2, front=(0.0, -1.0))

    @staticmethod
    def _add_wheels(spec: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
        for name, side in (("left", -1), ("right", 1)):
            wheel = body.add_body(name=name, pos=(0.1 * side, 0.1, -0.05))
            wheel.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_HINGE, axis=(1, 0, 0), damping=0.001)
            inner, outer = sorted((0.005 * side, 0.055 * side))
            axle = (inner, 0, 0, outer, 0, 0)
            wheel.add_geom(
                name=name, type=mujoco.mjtGeom.mjGEOM_CYLINDER, fromto=axle, size=(0.05, 0, 0), rgba=RED
            )  # fmt: skip
            spec.add_actuator(  # a motor, as one is without more
                name=name,
                target=name,
                trntype=mujoco.mjtTrn.mjTRN_JOINTINPARENT,
                ctrllimited=True,
                ctrlrange=(-1, 1),
                forcelimited=True,
                forcerange=(-0.02, 0.02),
            )
        caster = body.add_body(name="rear", pos=(0, -0.1, -0.05))
        caster.add_joint(name="rear", type=mujoco.mjtJoint.mjJNT_BALL, damping=0.001)
        caster.add_geom(name="rear", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.05, 0, 0), rgba=RED)


AGENTS: dict[str, Agent] = {"Point": Point(), "Car": Car()}
