"""The arena that all tasks share: physics options, floor, light, cameras, and the compiled model.

Sizes, colours and solver settings restate the Safety-Gymnasium arena (git main of 2023, MuJoCo 2.3.3), so that states,
rewards and images can be compared number by number. Lengths in metres, times in seconds, angles in radians.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np

from fosp.envs.agents import AGENTS
from fosp.envs.look import Look
from fosp.envs.tasks.base import Task

#: Half side of the drawn floor; beyond it one sees black.
FLOOR_HALF = 3.5
#: The cameras through which every agent sees.
EYES = ("vision", "vision_back")
#: Fixed by the original rather than computed from the layout: it sets the near and far planes of every camera.
EXTENT, MEAN_SIZE = 3.96, 0.23


def build(task: Task) -> mujoco.MjModel:
    """Compile the model of a task with every movable thing at the origin; ``World.place`` moves them at each reset."""
    agent = AGENTS[task.agent]
    spec = mujoco.MjSpec()
    spec.modelname = task.name
    spec.option.timestep = agent.timestep
    _restore_old_physics(spec)
    spec.visual.quality.shadowsize = 0  # nothing casts a shadow, and the map would take 64 MB
    spec.stat.extent, spec.stat.meansize = EXTENT, MEAN_SIZE
    _set_contact_defaults(spec, density=agent.density)
    _add_sky(spec)
    _add_floor_and_light(spec, task.look)
    _add_fixed_cameras(spec)
    agent.add(spec)
    _set_eyes(spec, task.look)
    # The order of bodies is the order of qpos: what moves comes before what is only placed.
    for objects in sorted(task.objects, key=lambda o: not o.free):
        objects.add(spec)
    return spec.compile()


def _restore_old_physics(spec: mujoco.MjSpec) -> None:
    """Switch off what MuJoCo 3 added by default, so that one step agrees with MuJoCo 2.3.3 to rounding."""
    bits = mujoco.mjtDisableBit
    flags = int(bits.mjDSBL_NATIVECCD) | int(getattr(bits, "mjDSBL_ISLAND", 0))
    # Islands and multi-contact convex collision became defaults, hence something to disable, only in later 3.x.
    flags |= int(getattr(bits, "mjDSBL_MULTICCD", 0))
    spec.option.disableflags = flags


def _set_contact_defaults(spec: mujoco.MjSpec, density: float) -> None:
    """condim 6 holds for every geom, and the agent's density for each that does not say its own."""
    spec.default.geom.condim = 6
    spec.default.geom.density = density


def _add_sky(spec: mujoco.MjSpec) -> None:
    """The median colour of the original's photographs of stars, (1, 1, 0) of 255: a little nearer than black."""
    colour = (1.5 / 255, 1.5 / 255, 0.0)  # rounded down
    sky, flat = mujoco.mjtTexture.mjTEXTURE_SKYBOX, mujoco.mjtBuiltin.mjBUILTIN_FLAT
    spec.add_texture(name="sky", type=sky, builtin=flat, width=8, height=8, rgb1=colour, rgb2=colour)


def _add_floor_and_light(spec: mujoco.MjSpec, look: Look) -> None:
    spec.add_texture(
        name="floor",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        width=100,  # texels, which hold 2 squares
        height=100,
        rgb1=look.floor_dark,
        rgb2=look.floor_light,
    )
    repeat = (look.floor_repeat, look.floor_repeat)
    material = spec.add_material(
        name="floor", reflectance=0.1, shininess=0.1, specular=0.1, texrepeat=repeat, texuniform=False
    )
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "floor"
    spec.worldbody.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=(FLOOR_HALF, FLOOR_HALF, 0.1),
        material="floor",
        rgba=(1, 1, 1, 1),
    )
    types = getattr(mujoco, "mjtLightType", None)  # since 3.3.3
    spec.worldbody.add_light(
        name="light",
        **({"type": types.mjLIGHT_DIRECTIONAL} if types else {"directional": True}),
        pos=(0, 0, 0.5),
        dir=look.light_direction,
        diffuse=look.light_diffuse,
        ambient=look.light_ambient,
        specular=(0, 0, 0),
        cutoff=100,
        exponent=1,
        castshadow=False,
    )


def _add_fixed_cameras(spec: mujoco.MjSpec) -> None:
    """World cameras that look towards +y, 45 degrees down."""
    quaternion = (math.cos(math.pi / 8), math.sin(math.pi / 8), 0.0, 0.0)
    for name, distance in (("fixednear", 2.0), ("fixedfar", 5.0), ("fixedfar++", 10.0)):
        spec.worldbody.add_camera(name=name, pos=(0, -distance, distance), quat=quaternion, fovy=45)


def _set_eyes(spec: mujoco.MjSpec, look: Look) -> None:
    """Move, turn and widen the cameras through which the robot sees, from the pose that its agent gave them."""
    for camera in map(spec.camera, EYES):
        camera.fovy = look.camera_fovy
        axes = np.array(camera.alt.xyaxes)
        right, up = axes[:3], axes[3:] / np.linalg.norm(axes[3:])
        gaze = np.cross(up, right)
        ahead = np.array([gaze[0], gaze[1], 0.0]) / np.hypot(gaze[0], gaze[1])
        camera.pos = camera.pos + look.camera_ahead * ahead + (0.0, 0.0, look.camera_up)
        if look.camera_pitch:  # else the axes stay as they are written, to the last bit
            up = math.cos(look.camera_pitch) * up + math.sin(look.camera_pitch) * gaze
            camera.alt.xyaxes = [*right, *up]
