"""fosp report"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Options:
    """One HTML page about run folders: what was learned from what, how safe it is, and how it looks."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, and folders that `fosp evaluate --out` wrote."""
    out: Path = Path("report.html")
    """The page."""
    title: str | None = None
    """Its title."""


def run(options: Options) -> int:
    from fosp import api

    print(api.write_report(options.runs, options.out, title=options.title))
    return 0
