"""fosp verify"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Options:
    """Check a checkpoint's files and run its recorded score again: does it hold on this machine?"""

    checkpoint: tyro.conf.Positional[Path]
    """Run folder or checkpoint."""
    suite: str | None = None
    """Hash of the suite whose score is run again; none is the first recorded."""
    workers: int | None = None
    """Processes; none is one per core."""
    json: bool = False
    """Print the result as JSON."""


def run(options: Options) -> int:
    """0 where the score holds, 1 where it does not."""
    from fosp import api

    result = api.verify(options.checkpoint, suite=options.suite, workers=options.workers)
    if options.json:
        import json

        print(json.dumps(result))
    else:
        for key in ("return", "cost"):
            then, now = result["recorded"][key], result["found"][key]
            word = "within" if result["within"][key] else "NOT within"
            interval = f"{then['mean']:.2f} [{then['low']:.2f}, {then['high']:.2f}]"
            print(f"{key}: {now['mean']:.2f} here, {word} the recorded {interval}")
        print(f"{result['identical']} of {result['episodes']} episodes are identical")
        print("the recorded score holds here" if result["holds"] else "the recorded score does NOT hold here")
    return 0 if result["holds"] else 1
