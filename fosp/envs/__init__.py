"""The world: tasks, what is good, what is unsafe, and how it looks.

Importing this registers the tasks with Gymnasium.
"""

from __future__ import annotations

import os
import sys
from typing import Any

# MuJoCo reads this once, at its import. Without a display its default on Linux cannot draw.
if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("MUJOCO_GL", "egl")

# Mesa's software renderer otherwise shares every picture among threads. On pictures as small as these they wait for
# each other more than they draw, and several environments side by side get into each other's way.
os.environ.setdefault("LP_NUM_THREADS", "0")

from fosp.types import UserError

try:
    import mujoco  # noqa: F401
except Exception as _error:  # of many kinds: it loads the GL libraries that MUJOCO_GL names
    raise UserError(
        f"MuJoCo cannot be loaded with MUJOCO_GL={os.environ.get('MUJOCO_GL') or '(unset)'} "
        f"({type(_error).__name__}: {_error}); set MUJOCO_GL to egl, osmesa or glfw, whichever is installed."
    ) from _error

from fosp.envs.adapter import from_safety_gymnasium
from fosp.envs.env import CAMERAS, SafetyEnv
from fosp.envs.suites import SCENARIOS, SUITES, Scenario, Suite, find_scenario, suite_hash
from fosp.envs.tasks import TASKS, Task, find_task
from fosp.envs.vector import make_vec
from fosp.plugin import register


def make(task: str, **options: Any) -> SafetyEnv:
    """The environment of a task without Gymnasium's wrappers; options as of ``SafetyEnv``.

    Raises: ``UserError`` for an unknown task, scenario or value.
    """
    return SafetyEnv(task=task, **options)


register()  # where the package is not installed but only on the path, Gymnasium has not called it

__all__ = [
    "CAMERAS",
    "SCENARIOS",
    "SUITES",
    "TASKS",
    "SafetyEnv",
    "Scenario",
    "Suite",
    "Task",
    "find_scenario",
    "find_task",
    "from_safety_gymnasium",
    "make",
    "make_vec",
    "suite_hash",
]
