"""Makes ``gymnasium.make("fosp/...")`` work without importing anything first: Gymnasium calls this as its plug-in.

Only names stand here, because Gymnasium calls it for every program that imports it, and MuJoCo is slow to import. A
test holds that they are the names of the registry.
"""

from __future__ import annotations

AGENTS = ("Point", "Car")
FAMILIES = ("Goal", "Button", "Push", "FadingEasy", "FadingHard")
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
