"""Documents made from rows, several runs joined, and both as tables for the terminal."""

from __future__ import annotations

import numpy as np
import pytest
from rich.console import Console

from fosp.evaluation.document import make_document, seed_table
from fosp.evaluation.table import format_document, number
from fosp.types import UserError

SEEDS = list(range(2_000_000, 2_000_012))


def rows(returns, costs, seeds=SEEDS):
    values = zip(seeds, np.broadcast_to(returns, len(seeds)), np.broadcast_to(costs, len(seeds)), strict=True)
    return [
        {"seed": s, "return": float(r), "cost": float(c), "violation_steps": int(c > 0), "steps": 10, "goals": 1.0}
        for s, r, c in values
    ]


def document(run: int = 0, **options):
    policies = [
        {"label": "before", "meta": {"kind": "pretrain", "run": run}, "episodes": rows(10 + run, np.arange(12) % 3)},
        {"label": "after", "meta": {"kind": "finetune", "run": run}, "episodes": rows(11 + run, 0)},
    ]
    return make_document(policies, **{"task": "t", "cost_limit": 2.0, **options})


def test_rows_of_other_layouts_are_refused():
    policies = [{"label": "a", "episodes": rows(1, 1)}, {"label": "b", "episodes": rows(1, 1)[::-1]}]
    with pytest.raises(UserError, match="'a' and 'b' were not run on the same layouts"):
        make_document(policies, task="t", cost_limit=1.0)


def test_rows_that_fine_tuning_writes_need_no_goals():
    online = [{k: v for k, v in row.items() if k != "goals"} for row in rows(1, 1, range(1_000_000, 1_000_012))]
    made = make_document([{"label": "online", "episodes": online}], task="t", cost_limit=1.0)
    assert made["layouts"] == "online"
    assert made["policies"][0]["summary"]["goals"]["mean"] == 0.0


def test_seed_table_is_the_mean_over_runs_and_layouts():
    table = seed_table([document(run) for run in range(3)])
    before, after = table["policies"]
    assert table["runs"] == 3
    assert before["summary"]["return"]["mean"] == pytest.approx(11.0)
    assert before["summary"]["cost"]["mean"] == pytest.approx(1.0)
    assert before["summary"]["with_violation"]["count"] == 3 * 8
    assert [run["return"]["mean"] for run in before["runs"]] == [10.0, 11.0, 12.0]
    assert before["meta"] == {"kind": "pretrain"}  # the number of the run differs
    assert after["summary"]["with_violation"]["high"] > 0.1  # nothing seen is not a proof that nothing happens


def test_differences_are_paired_by_run():
    """Runs differ by 1 in return, both policies alike: the difference is exactly 1, without an interval around it."""
    (pair,) = seed_table([document(run) for run in range(3)])["comparisons"]
    assert pair["return"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 36}
    assert pair["cost_reduction"]["mean"] == 1.0


@pytest.mark.parametrize(
    ("name", "value"), [("task", "u"), ("scenario", "s"), ("cost_limit", 3.0), ("suite_hash", "x")]
)
def test_only_like_is_joined(name, value):
    with pytest.raises(UserError, match=f"evaluation 2 differs from the first in {name}"):
        seed_table([document(), document(**{name: value})])


def test_other_policies_are_not_joined():
    other = document()
    other["policies"] = other["policies"][:1]
    with pytest.raises(UserError, match="other policies than before, after"):
        seed_table([document(), other])
    with pytest.raises(UserError, match="none was given"):
        seed_table([])


@pytest.mark.parametrize("made", [document(), seed_table([document(0), document(1)])])
def test_terminal_tables_show_every_policy_and_answer(made):
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(format_document(made))
    text = console.export_text()
    for words in ("before", "after", "after - before", "over limit", "worst 10 % cost", "12 held-out layouts"):
        assert words in text
    for label, verdict in made["verdicts"].items():
        assert f"{label}: {verdict['answer']}" in text


def test_numbers_of_the_terminal():
    assert number({"mean": 1.25, "low": 1.0, "high": 2.0}) == "1.2 [1.0, 2.0]"
    assert number({"mean": 0.256, "low": 0.1, "high": 0.5}, percent=True) == "26 % [10, 50]"
    assert number({"mean": 1.0, "low": None, "high": None}, sign=True) == "+1.0"
    assert number({"mean": None, "low": None, "high": None}) == "-"
