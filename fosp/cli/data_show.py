"""fosp data show"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Options:
    """List what a dataset holds."""

    data: tyro.conf.Positional[Path]
    """Folder of the dataset."""
    check: bool = False
    """Also compare every episode with its hash."""


def run(options: Options) -> int:
    from fosp.cli.tables import dataset_table, show
    from fosp.data.store import Store

    if options.check:
        with Store.open(options.data) as store:
            store.verify()
    show(dataset_table(options.data))
    return 0
