"""fosp data inspect"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Options:
    """Draw a dataset: return against cost, violations over time, actions, frames before violations."""

    data: tyro.conf.Positional[Path]
    """Folder of the dataset."""
    out: Path | None = None
    """Folder for the pictures; none is DATA/pictures."""


def run(options: Options) -> int:
    from fosp.data.inspect import inspect

    for path in inspect(options.data, options.out or options.data / "pictures"):
        print(path)
    return 0
