"""Tables for the terminal that more than one verb shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table


def show(renderable: Any) -> None:
    Console().print(renderable)


def dataset_table(path: str | os.PathLike[str]) -> Table:
    """What a dataset holds, by behaviour."""
    from fosp.data.inspect import show as look

    overview = look(path)
    facts = overview.facts()
    header, rows = overview.table()
    table = Table(title=facts.pop("dataset"), caption="\n".join(f"{k}: {v}" for k, v in facts.items()))
    table.caption_justify = "left"
    for column in header:
        table.add_column(column, justify="left" if column == header[0] else "right")
    for row in rows:
        table.add_row(*row)
    return table


def learning_table(run: str | os.PathLike[str]) -> Table:
    """What was done while learning, beside what the frozen policy did on the same layouts."""
    from fosp.training.log import Run

    folder = Run(run)
    learned = {row["seed"]: row for row in folder.rows("episodes.jsonl")}
    frozen = {row["seed"]: row for row in folder.rows("frozen.jsonl")}
    both = [seed for seed in learned if seed in frozen]
    table = Table(title=f"while learning, on {len(both)} layouts ({Path(run)})")
    for column in ("", "return", "cost", "steps in violation", "online policy acted"):
        table.add_column(column, justify="left" if not column else "right")
    for name, rows in (("learning", learned), ("frozen policy", frozen)):
        picked = [rows[seed] for seed in both]
        if not picked:
            continue
        acted = [row["chosen_online"] for row in picked if row.get("chosen_online") is not None]
        table.add_row(
            name,
            f"{np.mean([row['return'] for row in picked]):.2f}",
            f"{np.mean([row['cost'] for row in picked]):.1f}",
            f"{sum(row['violation_steps'] for row in picked):.0f}",
            f"{np.mean(acted):.0%}" if acted else "-",
        )
    return table
