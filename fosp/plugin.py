"""Makes ``gymnasium.make("fosp/...")`` work without importing anything first: Gymnasium calls this as its plug-in.

Gymnasium calls it for every program that imports it, and MuJoCo is slow to import: so the names are read from the
files of agents and tasks, which are not imported. A test holds that they are the names of the registry.
"""

from __future__ import annotations

import ast
from pathlib import Path

_ENVS = Path(__file__).parent / "envs"


def _names(file: Path, constant: str) -> list[str]:
    """The strings of a tuple, or the keys of a dictionary, that a module calls ``constant``; none without it."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == constant:
            value = getattr(node, "value", None)
            return [ast.literal_eval(name) for name in getattr(value, "keys", None) or getattr(value, "elts", ())]
    return []


AGENTS = tuple(_names(_ENVS / "agents.py", "AGENTS"))
FAMILIES = tuple(name for file in sorted((_ENVS / "tasks").glob("*.py")) for name in _names(file, "FAMILIES"))
TASKS = tuple(f"fosp/Safety{agent}{family}{level}-v0" for agent in AGENTS for family in FAMILIES for level in range(3))


def lidar_id(task: str) -> str:
    """The id of a task with the state observation, for example "fosp/SafetyPointGoal1Lidar-v0"."""
    return task.replace("-v", "Lidar-v")


def register() -> None:
    import gymnasium

    options = {task: {"task": task} for task in TASKS}
    options |= {lidar_id(task): {"task": task, "observation": "lidar"} for task in TASKS}
    for name, kwargs in options.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                id=name,
                entry_point="fosp.envs.env:SafetyEnv",
                vector_entry_point="fosp.envs.vector:make_vec",
                kwargs=kwargs,
            )
