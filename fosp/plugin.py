"""Makes ``gymnasium.make("fosp/...")`` work without importing anything first: Gymnasium calls this as its plug-in.

Only names stand here, because Gymnasium calls it for every program that imports it, and MuJoCo is slow to import. A
test holds that they are the names of the registry.
"""

from __future__ import annotations

TASKS = ("fosp/SafetyPointGoal1-v0",)


def register() -> None:
    import gymnasium

    for task in TASKS:
        if task not in gymnasium.registry:
            gymnasium.register(id=task, entry_point="fosp.envs.env:SafetyEnv", kwargs={"task": task})
