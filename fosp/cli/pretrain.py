"""fosp pretrain"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Learn a world model, critics, reachability and a safe policy from a log. No environment is touched.

    On several GPUs or machines: torchrun --nproc-per-node 2 -m fosp pretrain ...
    """

    data: Path
    """Folder of the dataset."""
    out: Path
    """Run folder; where it holds the same run, that goes on."""
    preset: str = "laptop"
    """Sizes to start from: laptop, tiny, small or paper."""
    config: Path | None = None
    """YAML file whose values are put over the preset."""
    set: tuple[str, ...] = ()
    """Values put over both, such as agent.horizon=10 training.minutes=30."""
    method: str = "fosp"
    """fosp, or the baseline cloning."""
    model_from: Path | None = None
    """Take the trained world model of this checkpoint, frozen, and learn only what to do (training.latent_updates)."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ... or auto."""
    precision: str | None = None
    """float32, bfloat16, or auto: bfloat16 where the hardware has it; none is what the configuration says."""
    compile: bool = False
    """Compile what computes losses, which takes a minute or more; on a GPU this is the default."""
    no_compile: bool = False
    """Do not compile on a GPU either."""


def run(options: Options) -> int:
    from fosp import api
    from fosp.cli.options import one_of
    from fosp.parallel import leads

    values = vars(options).copy()
    values["compile"] = one_of(values, "compile", "no_compile")
    path = api.pretrain(values.pop("data"), values.pop("out"), overrides=values.pop("set"), **values)
    if leads():
        print(path)
    return 0
