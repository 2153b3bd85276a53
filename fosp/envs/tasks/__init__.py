"""The registry of tasks. A new family is one file here: a tuple ``FAMILIES`` of its names, and ``levels(agent)``."""

from __future__ import annotations

import importlib
import pkgutil
from difflib import get_close_matches

from fosp.envs.agents import AGENTS
from fosp.envs.tasks.base import Task
from fosp.types import UserError

_modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
#: Gymnasium id -> task.
TASKS: dict[str, Task] = {
    task.id: task
    for agent in AGENTS
    for module in _modules
    if hasattr(module, "FAMILIES")
    for task in module.levels(agent)
}


def find_task(name: str) -> Task:
    """The task of a Gymnasium id ("fosp/SafetyPointGoal1-v0") or a short name ("SafetyPointGoal1").

    Raises: ``UserError`` that names the nearest task.
    """
    short = {task.name: task for task in TASKS.values()}
    found = TASKS.get(name) or short.get(name)
    if found is None:
        near = get_close_matches(name, [*short, *TASKS], n=1, cutoff=0.0)
        raise UserError(f"There is no task '{name}'; the nearest is '{near[0]}'.")
    return found


__all__ = ["TASKS", "Task", "find_task"]
