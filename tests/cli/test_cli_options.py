"""From words to a dataclass of options; every mistake names the option, the value and what would be right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from fosp.cli.options import parse
from fosp.types import UserError


@dataclass(frozen=True)
class Options:
    """Collects a log."""

    task: str
    """the task"""
    out: Path = Path("runs/x")
    checkpoint: tuple[Path, ...] = ()
    seed: int = 0
    mode: Literal["fast", "faithful"] = "fast"
    cost_limit: float | None = None
    json: bool = False
    set: tuple[str, ...] = ()
    runs: Annotated[tuple[str, ...], tyro.conf.Positional] = ()


def test_words_become_options() -> None:
    words = "a b --task T --checkpoint c/1 c/2 --cost-limit 3 --json --mode faithful --out=o --set x.y=1"
    assert parse(Options, words.split(), "fosp collect") == Options(
        task="T",
        out=Path("o"),
        checkpoint=(Path("c/1"), Path("c/2")),
        mode="faithful",
        cost_limit=3.0,
        json=True,
        set=("x.y=1",),
        runs=("a", "b"),
    )


def test_an_option_with_several_values_may_be_repeated() -> None:
    words = "--set a=1 b=2 --task T --set=c=3 --checkpoint x --json --checkpoint y --set d=4 --task U"
    found = parse(Options, words.split(), "fosp collect")
    assert found.set == ("a=1", "b=2", "c=3", "d=4")
    assert found.checkpoint == (Path("x"), Path("y"))
    assert found.task == "U"  # an option with one value: the last counts
    assert found.json


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--task T --sede 3", ["'--sede'", "'--seed'"]),
        ("--task T --sede=3", ["'--sede'", "'--seed'"]),
        ("--taks T", ["'--taks'", "'--task'"]),
        ("--task T --cost_limti 3", ["'--cost-limit'"]),
        ("", ["fosp collect needs --task", "--help"]),
        ("--task", ["--task", "lacks its value", "a text"]),
        ("--task T --seed", ["--seed", "lacks its value", "a whole number"]),
        ("--task T --seed x", ["--seed", "'x'", "a whole number"]),
        ("--task T --seed=1.5 --json", ["--seed", "'1.5'", "a whole number"]),
        ("--task T --cost-limit x --json", ["--cost-limit", "'x'", "a number or none"]),
        ("--task T --mode fats", ["--mode", "'fats'", "'fast'"]),
    ],
)
def test_a_mistake_is_one_sentence(words: str, expected: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse(Options, words.split(), "fosp collect")
    message = str(caught.value)
    assert "\n" not in message
    for part in expected:
        assert part in message


def test_without_tyros_hook_its_own_message_appears_with_the_same_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fosp.cli.options._tyro_errors", None)
    with pytest.raises(SystemExit) as stop:
        parse(Options, ["--task", "T", "--sede", "3"], "fosp collect")
    assert stop.value.code == 2
    assert "--sede" in capsys.readouterr().err
