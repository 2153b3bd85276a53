"""fosp finetune"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Fine-tune an offline policy where it is deployed: it and a new one propose actions, the critics choose."""

    checkpoint: Path
    """Run folder or checkpoint of the offline policy."""
    out: Path
    """Run folder; where it holds the same run, that goes on."""
    task: str | None = None
    """Registered task; none is that of the checkpoint."""
    scenario: str | None = None
    """Named change of the task that the log does not contain."""
    data: Path | None = None
    """The log, where it is not at its old place."""
    config: Path | None = None
    """YAML file whose values are put over the checkpoint's configuration."""
    set: tuple[str, ...] = ()
    """Values put over both, such as online.episodes=100."""
    seed: int = 0
    """Chooses the layouts and the random numbers of acting."""
    quality: str = "fast"
    """Rendering: fast or faithful."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ... or auto."""
    precision: str | None = None
    """float32, bfloat16, or auto: bfloat16 where the hardware has it; none is what the configuration says."""
    compile: bool = False
    """Compile what computes losses, which takes a minute or more; on a GPU this is the default."""
    no_compile: bool = False
    """Do not compile on a GPU either."""
    no_compare: bool = False
    """Do not run the frozen offline policy on the same layouts afterwards."""
    workers: int | None = None
    """Processes for that; none is one per core."""


def run(options: Options) -> int:
    from fosp import api
    from fosp.cli.options import one_of
    from fosp.cli.tables import learning_table, show

    values = vars(options).copy()
    values["compile"] = one_of(values, "compile", "no_compile")
    checkpoint, out = values.pop("checkpoint"), values.pop("out")
    compare = not values.pop("no_compare")
    path = api.finetune(checkpoint, out, overrides=values.pop("set"), compare=compare, **values)
    if compare:
        show(learning_table(out))
    print(path)
    return 0
