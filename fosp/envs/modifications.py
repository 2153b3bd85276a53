"""What can be different where a policy is used: small functions from a task to a changed task.

None of them touches rewards, costs, the agent or the length of an episode, so results of one task can be compared
across them; and none draws random numbers, so with the same number and keepout of objects a seed means the same layout.
Each raises ``UserError`` for a task that it does not fit. Write your own in the same way.
"""

from __future__ import annotations

import math
from dataclasses import replace

from fosp.envs.objects import Goal, Hazards
from fosp.envs.tasks.base import Task
from fosp.envs.tasks.fading import VARIANTS
from fosp.types import UserError

#: How many times as many hazards, and how many times their radius.
MORE, LARGER = 1.5, 1.5
#: Share of the arena that the keepout discs may cover: layouts are then found in few attempts (at most about 150 in the
#: mean, in Button). A task that is fuller by itself stays as full as it is.
FULL = 0.43
#: Hazards sway by this to either side, metres, which makes them as fast as the gremlins of Button: 0.35 m/s.
SWAY = 0.35


def unchanged(task: Task) -> Task:
    """The task as it is."""
    return task


def more_hazards(task: Task) -> Task:
    hazards = _hazards(task, "more-hazards")
    count = int(hazards.count * MORE)
    return task.change(Hazards, count=count, keepout=_keepout(task, count, hazards.keepout))


def larger_hazards(task: Task) -> Task:
    hazards = _hazards(task, "larger-hazards")
    keepout = _keepout(task, hazards.count, hazards.keepout * LARGER)
    return task.change(Hazards, radius=hazards.radius * LARGER, keepout=keepout)


def moving(task: Task) -> Task:
    """Hazards sway; gremlins circle as before. Mirror images of the motion are as likely as the motion itself."""
    _hazards(task, "moving")
    return task.change(Hazards, sway=SWAY)


def recoloured(task: Task) -> Task:
    """Goal and hazards exchange their colours, not their opacity: what was safe to head for now looks unsafe."""
    hazards, goal = _hazards(task, "recoloured"), task.find(Goal)
    if goal is None:
        raise UserError(f"Scenario 'recoloured' changes the goal, but task '{task.name}' has none.")
    changed = task.change(Goal, rgba=(*hazards.rgba[:3], goal.rgba[3]))
    return changed.change(Hazards, rgba=(*goal.rgba[:3], hazards.rgba[3]))


def lighting_texture(task: Task) -> Task:
    """Less light, warmer and from low on one side; a floor of other colours with squares of twice the size."""
    look = replace(
        task.look,
        light_direction=(-0.7, 0.5, -0.5),
        light_diffuse=(0.9, 0.8, 0.6),
        light_ambient=(0.15, 0.15, 0.2),
        floor_dark=(0.45, 0.50, 0.42),
        floor_light=(0.62, 0.66, 0.58),
        floor_repeat=5,
    )
    return replace(task, look=look)


def camera_shift(task: Task) -> Task:
    """Both cameras 1 cm too far ahead and too high, 3 degrees down, with lenses of 84 instead of 90 degrees."""
    look = replace(
        task.look,
        camera_ahead=task.look.camera_ahead + 0.01,
        camera_up=task.look.camera_up + 0.01,
        camera_pitch=task.look.camera_pitch + math.radians(3),
        camera_fovy=task.look.camera_fovy - 6.0,
    )
    return replace(task, look=look)


def fading_easy(task: Task) -> Task:
    return _fading(task, "Easy")


def fading_hard(task: Task) -> Task:
    return _fading(task, "Hard")


def _fading(task: Task, variant: str) -> Task:
    """The rule of the Fading tasks for a task of any family: below level 2 only the goal fades."""
    frames, at_level_2 = VARIANTS[variant]
    faded = task
    for kind in at_level_2 if task.name.endswith("2") else (Goal,):
        faded = faded.change(kind, fade_frames=frames)
    if faded == task:
        raise UserError(f"Scenario 'fading-{variant.lower()}' changes nothing in task '{task.name}', which fades so.")
    return faded


def _hazards(task: Task, scenario: str) -> Hazards:
    hazards = task.find(Hazards)
    if hazards is None:
        raise UserError(f"Scenario '{scenario}' changes hazards, but task '{task.name}' has none.")
    return hazards


def _keepout(task: Task, count: int, wanted: float) -> float:
    """Keepout radius for ``count`` hazards: the wanted one or, to the millimetre, what all other things leave."""
    arena, hazards = (2 * task.extent) ** 2, _hazards(task, "")
    covered = math.pi * sum(radius**2 for _, radius in task.keepouts())
    room = max(FULL * arena, covered) - (covered - math.pi * hazards.count * hazards.keepout**2)
    return min(wanted, round(math.sqrt(room / (math.pi * count)), 3))
