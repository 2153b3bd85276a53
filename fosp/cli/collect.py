"""fosp collect"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Write a log of episodes, by scripted behaviours or by a trained policy."""

    task: str
    """Registered task, for example SafetyPointGoal1."""
    out: Path
    """Folder of the dataset; where it exists, what is missing is added."""
    episodes: int = 150
    """How many episodes, one layout each."""
    seed: int = 0
    """Layout seed of the first episode; the others follow."""
    scenario: str | None = None
    """Named change of the task; none is the task as it is."""
    behaviours: tuple[str, ...] = ("unsafe", "safe", "random")
    """Scripted behaviours, in turn."""
    noises: tuple[float, ...] = (0.0, 0.2, 0.4)
    """Noise levels of the scripted behaviours, in turn."""
    checkpoint: Path | None = None
    """Let this trained policy act instead of the scripted behaviours."""
    quality: str = "fast"
    """Rendering: fast or faithful."""
    workers: int | None = None
    """Processes; none is one per core."""


def run(options: Options) -> int:
    from fosp import api
    from fosp.cli.tables import dataset_table, show
    from fosp.envs import find_task

    values = vars(options).copy()
    task, out = find_task(values.pop("task")).id, values.pop("out")
    with api.collect(task, out, **values) as store:
        show(dataset_table(store.path))
    return 0
