"""The frame of the command: finding verbs, one sentence for each mistake, exit codes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from fosp.cli import main as frame
from fosp.cli.main import VERBS, Verb, dispatch, find, main
from fosp.types import UserError

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Options:
    """Does what the test wants."""

    name: str
    """what to do"""


def run(options: Options) -> int:
    if options.name == "mistake":
        raise UserError("--data x\n  is not a dataset")
    if options.name == "stop":
        raise KeyboardInterrupt
    if options.name == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a/metrics.jsonl")
    if options.name == "bug":
        raise ZeroDivisionError("a bug")
    if options.name == "pipe":
        raise BrokenPipeError
    print(f"did {options.name}")
    return 3


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Verb]:
    table = {
        "act": Verb(__name__, "act once"),
        "data show": Verb(__name__, "list"),
        "data inspect": Verb(__name__, "draw"),
    }
    monkeypatch.setattr(frame, "VERBS", table)
    return table


def fosp(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "fosp", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        (["act", "--name", "x"], "act"),
        (["data", "show", "x"], "data show"),
        (["data"], None),
        (["data", "--help"], None),
    ],
)
def test_a_verb_is_found(verbs: dict[str, Verb], words: list[str], verb: str | None) -> None:
    assert find(words, verbs) == verb


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["atc"], ["unknown verb 'atc'", "'act'"]),
        (["zzzzz"], ["unknown verb 'zzzzz'", "act, data"]),
        (["data", "shwo"], ["'data'", "'shwo'", "'show'"]),
        (["--name", "x"], ["'--name'", "before the verb"]),
        (["act", "--nmae", "x"], ["unknown option '--nmae'", "'--name'"]),
        (["act"], ["fosp act needs --name"]),
    ],
)
def test_an_unknown_word_is_answered_with_the_nearest(
    verbs: dict[str, Verb], words: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fosp: ")
    assert captured.err.count("\n") == 1
    for part in expected:
        assert part in captured.err


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("mistake", 2, "fosp: --data x is not a dataset\n"),
        ("stop", 130, "fosp: stopped; rerun the same command to go on\n"),
        (
            "full",
            1,
            "fosp: the disk is full while writing 'runs/a/metrics.jsonl'; make room and rerun the same command",
        ),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_a_code(
    verbs: dict[str, Verb], name: str, code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["act", "--name", name]) == code
    error = capsys.readouterr().err
    assert error.startswith(sentence)
    assert error.count("\n") == 1


def test_a_bug_keeps_its_traceback(verbs: dict[str, Verb]) -> None:
    with pytest.raises(ZeroDivisionError):
        main(["act", "--name", "bug"])


def test_the_code_of_a_verb_passes_through(verbs: dict[str, Verb], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["act", "--name", "x"]) == 3
    assert capsys.readouterr().out == "did x\n"


def test_help_lists_the_verbs_and_the_options(verbs: dict[str, Verb], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "act once" in capsys.readouterr().out
    assert main(["data"]) == 0
    listed = capsys.readouterr().out
    assert "data inspect" in listed
    assert "act once" not in listed
    assert main(["act", "--help"]) == 0
    assert "what to do" in capsys.readouterr().out


def test_every_verb_of_the_table_has_options_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name, verb in VERBS.items():
        assert dispatch_help(name) == 0, name
        assert verb.help and "\n" not in verb.help
        assert f"usage: fosp {name}" in capsys.readouterr().out


def dispatch_help(verb: str) -> int:
    try:
        return dispatch([*verb.split(), "--help"])
    except SystemExit as stop:
        return int(stop.code or 0)


def test_the_list_of_verbs_comes_at_once_because_nothing_heavy_is_imported() -> None:
    """0.7 s is asked for; what makes it slow are these imports, and those can be tested without a clock."""
    code = (
        "import sys; from fosp.cli.main import main; main(['--help']); "
        "print([m for m in ('torch', 'mujoco', 'gymnasium', 'matplotlib', 'tyro') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    began = time.monotonic()
    assert fosp("--help").returncode == 0
    assert time.monotonic() - began < 5  # a loaded machine; 0.2 s on an idle one


def test_the_process_ends_with_the_code_and_writes_mistakes_to_stderr() -> None:
    done = fosp("versoin")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "fosp: unknown verb 'versoin'; did you mean 'version'?\n"
    done = fosp("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert "mujoco" in done.stdout


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m fosp version | true"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
