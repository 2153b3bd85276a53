"""Which exceptions are sentences, and which are bugs."""

from __future__ import annotations

import errno
import os

import pytest

from fosp.cli.errors import explain
from fosp.types import UserError, unknown


def full(name: str | None = None) -> OSError:
    return (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        if name
        else OSError(errno.ENOSPC, "No space left on device")
    )


def raised(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("--seed is 'x'"), 2, ["--seed is 'x'"]),
        (raised(UserError("D: the disk is full; 3 episodes are kept"), full("D")), 1, ["3 episodes are kept"]),
        (KeyboardInterrupt(), 130, ["stopped", "rerun the same command"]),
        (full("a/b"), 1, ["disk is full", "'a/b'"]),
        (full(), 1, ["disk is full;"]),
        (OSError(errno.EDQUOT, "over quota", "a"), 1, ["disk is full", "'a'"]),
        (raised(RuntimeError("cannot save"), full("m.safetensors")), 1, ["disk is full", "m.safetensors"]),
        (
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            1,
            ["disk is full"],
        ),
        (OSError(errno.EFBIG, "File too large", "a.bin"), 1, ["'a.bin'", "ulimit -f"]),
        (RuntimeError("Error while serializing: I/O error: File too large (os error 27)"), 1, ["ulimit -f"]),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 2, ["'/root/x'", "permission denied"]),
        (OSError(errno.EROFS, "Read-only file system", b"/media/x"), 2, ["'/media/x'", "read-only"]),
    ],
)
def test_a_sentence_and_its_code(error: BaseException, code: int, words: list[str]) -> None:
    told = explain(error)
    assert told is not None
    assert told[1] == code
    for word in words:
        assert word in told[0]


@pytest.mark.parametrize(
    "error", [ValueError("x"), FileNotFoundError(errno.ENOENT, "No such file", "x"), MemoryError()]
)
def test_everything_else_is_a_bug(error: BaseException) -> None:
    assert explain(error) is None


def test_an_error_that_is_its_own_context_ends() -> None:
    error, other = ValueError("a"), ValueError("b")
    error.__context__, other.__context__ = other, error
    assert explain(error) is None


def test_the_error_for_an_unknown_name_gives_the_nearest_or_all() -> None:
    assert str(unknown("task", "gaol", ["goal", "push"])) == "unknown task 'gaol'; did you mean 'goal'?"
    assert str(unknown("task", "xyz", ["push", "goal"])) == "unknown task 'xyz'; choose from goal, push"
    assert "there are none" in str(unknown("task", "x", []))
