"""An evaluation document as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fosp.types import several

_COLOURS = {"yes": "green", "no": "red", "not enough episodes": "yellow"}


def format_table(document: Mapping[str, Any]) -> Table:
    """One row per policy: return, cost, shares, worst costs and the verdict, each with its 95 % interval."""
    runs = f"{document['runs']} runs on " if "runs" in document else ""
    where = document["scenario"] or "usual layouts"
    layouts = several(len(document["seeds"]), f"{document['layouts']} layouts")
    table = Table(title=f"{document['task']}, {where}: {runs}{layouts}")
    table.add_column("policy")
    for name in ("return", "cost", "over limit", "steps in violation", "worst 10 % cost"):
        table.add_column(name, justify="right")
    table.add_column(f"cost within {document['cost_limit']:g}?")
    for policy in document["policies"]:
        summary, answer = policy["summary"], document["verdicts"][policy["label"]]["answer"]
        table.add_row(
            policy["label"],
            number(summary["return"]),
            number(summary["cost"]),
            number(summary["over_limit"], percent=True),
            number(summary["violation_steps"], percent=True),
            number(summary["worst_cost"]),
            Text(answer, style=_COLOURS[answer]),
        )
    return table


def format_comparisons(document: Mapping[str, Any]) -> Table:
    """One row per pair of policies: differences on the same layouts; a star where the interval excludes zero."""
    table = Table(title="paired differences on the same layouts (* = 95 % interval excludes zero)")
    table.add_column("difference")
    for name in ("return", "cost", "cost lowered by"):
        table.add_column(name, justify="right")
    for pair in document["comparisons"]:
        star = {name: " *" if pair["excludes_zero"][name] else "" for name in ("return", "cost")}
        table.add_row(
            f"{pair['a']} - {pair['b']}",
            number(pair["return"], sign=True) + star["return"],
            number(pair["cost"], sign=True) + star["cost"],
            number(pair["cost_reduction"], percent=True),
        )
    return table


def format_document(document: Mapping[str, Any]) -> Group:
    """The table of policies, the paired differences, and each verdict in words."""
    sentences = [Text(f"{label}: {v['answer']}. {v['sentence']}") for label, v in document["verdicts"].items()]
    pairs = [format_comparisons(document)] if document["comparisons"] else []
    return Group(format_table(document), *pairs, *sentences)


def number(value: Mapping[str, Any], *, percent: bool = False, sign: bool = False) -> str:
    """'12.3 [10.1, 14.5]', or '-' where there is no such number."""
    if value["mean"] is None:
        return "-"
    scale, digits = (100.0, 0) if percent else (1.0, 1)
    text = f"{scale * value['mean']:{'+' if sign else ''}.{digits}f}" + (" %" if percent else "")
    if value["low"] is None or value["high"] is None:
        return text
    return f"{text} [{scale * value['low']:.{digits}f}, {scale * value['high']:.{digits}f}]"
