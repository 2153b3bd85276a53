"""How a task looks: light, floor and the robot's eyes. Nothing here changes what happens, only what is seen of it.

The defaults restate Safety-Gymnasium. Colours of objects stand with the objects (``rgba``).
"""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """Part of a task's configuration, hence of its hash. Colours in 0..1, lengths in metres.

    The eyes move only within the robot's plane of symmetry: a world seen through a mirror stays one that it could see.
    """

    light_direction: RGB = (0.0, 0.0, -1.0)  # in which the light of the only lamp shines, world axes
    light_diffuse: RGB = (1.0, 1.0, 1.0)
    light_ambient: RGB = (0.0, 0.0, 0.0)
    floor_dark: RGB = (0.859, 0.843, 0.765)
    floor_light: RGB = (0.949, 0.914, 0.855)
    floor_repeat: int = 10  # pairs of squares along a side of the floor of 7 m: squares of 0.35 m
    camera_ahead: float = 0.0  # how far each eye is moved to where it looks (horizontally)
    camera_up: float = 0.0  # and upwards
    camera_pitch: float = 0.0  # by how much it is turned downwards, radians
    camera_fovy: float = 90.0  # field of view, degrees
