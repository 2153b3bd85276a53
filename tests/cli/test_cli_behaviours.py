"""`fosp behaviours`: rows are what was played, they are kept, and a rerun goes on with what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fosp.cli import behaviours
from fosp.cli.main import main
from fosp.envs import make, render
from fosp.envs.scripted import make_behaviour

QUICK = ("SafetyPointGoal1", "--episodes", "2", "--workers", "0")


def test_a_row_is_what_was_played_and_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(render, "_use_context")
    row = behaviours.measure(("SafetyPointGoal1", "unsafe"), None, range(900_000, 900_002))
    env, behaviour = make("SafetyPointGoal1"), make_behaviour("unsafe")
    totals = []
    for seed in (900_000, 900_001):
        env.start(seed)
        carry, total = behaviour.initial(), np.zeros(3)
        for _ in range(250):
            action, carry = behaviour.act(carry, env.privileged())
            reward, _, _, info = env.advance(action)
            total += (reward, info["cost"], info["goal_met"])
        totals.append(total)
    for key, values in zip(("return", "cost", "goals"), np.array(totals).T, strict=True):
        assert row[key]["mean"] == pytest.approx(values.mean(), rel=1e-6)
        assert [episode[key] for episode in row["episodes"]] == pytest.approx(values, rel=1e-6)
    assert row["terms"] == {"hazards": row["cost"]["mean"]} and row["processor_seconds"] > 0


def test_a_rerun_measures_only_what_the_file_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, played, stop_at = tmp_path / "new" / "table.json", [], ["random"]
    original = behaviours.measure

    def watched(job: behaviours.Job, scenario: str | None, seeds: range) -> object:
        if job[1] in stop_at:
            raise KeyboardInterrupt
        played.append(job[1])
        return original(job, scenario, seeds)

    monkeypatch.setattr(behaviours, "measure", watched)
    assert main(["behaviours", *QUICK, "--json", str(path)]) == 130
    assert [row["behaviour"] for row in json.loads(path.read_text())["rows"]] == played == ["safe", "unsafe"]
    stop_at.clear()
    assert main(["behaviours", *QUICK, "--json", str(path)]) == 0
    assert played == ["safe", "unsafe", "random"]
    rows = json.loads(path.read_text())["rows"]
    assert [row["behaviour"] for row in rows] == ["safe", "unsafe", "random"]
    printed = capsys.readouterr().out
    for row in rows:
        (line,) = (line for line in printed.splitlines() if f" {row['behaviour']} " in line and "[" in line)
        assert f"{row['return']['mean']:.1f} [" in line and f"{row['cost']['mean']:.1f} [" in line
        assert f" {100 * row['return']['mean'] / rows[1]['return']['mean']:.0f} " in line


def test_rows_of_other_layouts_or_other_code_do_not_mix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.json"
    first = ["behaviours", *QUICK, "--behaviours", "unsafe", "--json", str(path)]
    assert main(first) == 0
    assert main([*first, "--seed", "5"]) == 2
    assert "was made with seed 900000, not 5" in capsys.readouterr().err
    monkeypatch.setattr(behaviours, "_code", lambda: "other")
    assert main(first) == 2
    assert "not 'other'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["SafetyPointGaol1"], "SafetyPointGoal1"),
        (["--behaviours", "sage"], "safe"),
        (["--episodes", "0"], "--episodes 0 must be at least 1"),
        (["--seed", "2000000"], "layout seed 2000000 must lie in 0..999999"),
        (["--seed", "999990"], "layout seed 1000039"),
        (["--workers", "-1"], "--workers -1"),
        (["SafetyPointGoal0", "--scenario", "moving"], "none"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["behaviours", *words]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.json"
    path.write_text("[1]")
    assert main(["behaviours", *QUICK, "--json", str(path)]) == 2
    assert "holds no rows" in capsys.readouterr().err and path.read_text() == "[1]"
