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


def learning_summary(run: str | os.PathLike[str]) -> dict[str, Any]:
    """What was done while learning and what the frozen policy did on the same layouts: paired statistics of cost."""
    from fosp.evaluation.document import make_document
    from fosp.training.log import Run

    folder = Run(run)
    learned = {row["seed"]: row for row in folder.rows("episodes.jsonl")}
    frozen = {row["seed"]: row for row in folder.rows("frozen.jsonl")}
    both = [seed for seed in learned if seed in frozen]
    if not both:
        return {"layouts": 0}
    policies = [
        {"label": label, "meta": {}, "episodes": [rows[seed] for seed in both]}
        for label, rows in (("frozen", frozen), ("learning", learned))
    ]
    document = make_document(policies, task="", cost_limit=0.0)
    acted = [learned[seed]["chosen_online"] for seed in both if learned[seed].get("chosen_online") is not None]
    return {
        "layouts": len(both),
        "online_policy_acted": float(np.mean(acted)) if acted else None,
        "violation_steps": {p["label"]: int(sum(e["violation_steps"] for e in p["episodes"])) for p in policies},
        **{p["label"]: {k: p["summary"][k] for k in ("return", "cost")} for p in document["policies"]},
        "difference": {k: document["comparisons"][0][k] for k in ("return", "cost")},
    }


def learning_table(run: str | os.PathLike[str]) -> Table:
    """``learning_summary`` for the terminal."""
    from fosp.evaluation.table import number
    from fosp.types import several

    found = learning_summary(run)
    table = Table(title=f"while learning, on {several(found['layouts'], 'layouts')} ({Path(run)})")
    for column in ("", "return", "cost", "steps in violation"):
        table.add_column(column, justify="right" if column else "left")
    if found["layouts"]:
        for name in ("frozen", "learning"):
            row = found[name]
            table.add_row(name, number(row["return"]), number(row["cost"]), str(found["violation_steps"][name]))
        gain, risk = (number(found["difference"][key], sign=True) for key in ("return", "cost"))
        table.add_row("difference", gain, risk, "")
        if found["online_policy_acted"] is not None:
            table.caption = f"the online policy acted in {found['online_policy_acted']:.0%} of the steps"
    return table
