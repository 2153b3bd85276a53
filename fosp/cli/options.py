"""From the words after a verb to its dataclass of options, with every mistake told in one sentence."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import tyro

from fosp.types import UserError, unknown

O = TypeVar("O")  # noqa: E741  a frozen dataclass of options

try:  # tyro calls this module unstable: without it its own message appears, in a box, with the same exit code
    from tyro import _errors as _tyro_errors
except ImportError:
    _tyro_errors = None

_WORDS = {"INT": "a whole number", "FLOAT": "a number", "{None}": "none", "PATH": "a path", "STR": "a text"}


def parse(options: type[O], words: Sequence[str], prog: str) -> O:
    """An instance of ``options`` filled from the command line ``words``; the help calls it ``prog`` ("fosp collect").

    Raises UserError where the words do not fit, SystemExit(0) after printing the help.
    """
    words = _join_repeats(options, words)

    def tell(event: Any) -> None:
        sentence = _sentence(event, options, words)
        if sentence is not None:
            raise sentence

    watch = _tyro_errors.on_parse_error(tell) if _tyro_errors else contextlib.nullcontext()
    with watch:
        return tyro.cli(options, args=words, prog=prog, config=(tyro.conf.FlagCreatePairsOff,))


def one_of(values: dict[str, Any], yes: str, no: str) -> bool | None:
    """What a pair of flags says, both taken out of ``values``; None where neither is given, UserError for both."""
    chosen, refused = values.pop(yes), values.pop(no)
    if chosen and refused:
        raise UserError(f"{_flag(yes)} and {_flag(no)} are given; leave one of them out")
    return True if chosen else False if refused else None


def _join_repeats(options: type, words: Sequence[str]) -> list[str]:
    """``--set a=1 --set b=2`` as ``--set a=1 b=2`` for every option that takes several values.

    tyro would keep the last occurrence only and drop the others without a word.
    """
    segments: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            several = flag in _flags_with_several(options)
            segments.append([flag, value] if several and equals else [word])
        else:
            segments[-1].append(word)
    joined: dict[str, list[str]] = {}
    for segment in segments[1:]:
        if segment[0] in joined:
            joined[segment[0]] += segment[1:]
            segment.clear()
        elif segment[0] in _flags_with_several(options):
            joined[segment[0]] = segment
    return [word for segment in segments for word in segment]


def _flags_with_several(options: type) -> set[str]:
    hints = get_type_hints(options)
    several = {name for name, hint in hints.items() if tuple in (get_origin(hint), *map(get_origin, get_args(hint)))}
    return _flags(options) & {_flag(name) for name in several}


def _flags(options: type) -> set[str]:
    """What begins with -- and is known."""
    (marker,) = tyro.conf.Positional[int].__metadata__  # type: ignore[attr-defined]
    hints = get_type_hints(options, include_extras=True)
    return {
        _flag(name) for name, hint in hints.items() if get_origin(hint) is not Annotated or marker not in get_args(hint)
    }


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _sentence(event: Any, options: type, words: list[str]) -> UserError | None:
    kind = type(event).__name__
    if kind == "UnrecognizedArgs":
        return _unrecognized(event.tokens, options)
    if kind == "MissingArgs":
        if event.unrecognized_tokens:  # most likely the missing one, misspelt
            return _unrecognized(event.unrecognized_tokens, options)
        names = ", ".join(_name(missing.arg) for missing in event.missing_arguments)
        return UserError(f"{event.prog} needs {names}; see {event.prog} --help")
    if kind == "InvalidChoice":
        return unknown(f"value of {_name(event.argument)}", event.value, event.choices)
    if kind == "BadValue" and event.offending_value is None:
        return UserError(f"{_name(event.argument)} lacks its value, {_expected(event.argument)}")
    if kind == "InstantiationFailure":
        if event.argument is None:
            return UserError(f"{event.prog}: {event.message}")
        given = _given(event.argument, words)
        return UserError(f"{_name(event.argument)} cannot be {given}; expected {_expected(event.argument)}")
    return None  # tyro's own words


def _unrecognized(tokens: Sequence[str], options: type) -> UserError:
    word = tokens[0]
    if not word.startswith("-"):
        return UserError(f"unexpected word {word!r}; options begin with --")
    return unknown("option", word.partition("=")[0], _flags(options) | {"--help"})


def _name(argument: Any) -> str:
    if argument.is_positional():
        return str(argument.field.intern_name).upper()
    return str(argument.lowered.name_or_flags[-1])


def _expected(argument: Any) -> str:
    """The placeholder of the help, put into words: ``{None}|FLOAT`` is "a number or none"."""
    text = str(argument.lowered.metavar or "a value")
    if several := re.fullmatch(r"\[(.+) \[\1 \.\.\.\]\]", text):
        return f"{_WORDS.get(several[1], several[1])}, or several"
    kinds = re.split(r"\|(?![^{]*\})", text)
    return " or ".join(_WORDS.get(kind, kind) for kind in reversed(kinds))


def _given(argument: Any, words: list[str]) -> str:
    """What was typed for an argument, up to the next option; the event itself does not say."""
    for flag in argument.lowered.name_or_flags:
        for i, word in enumerate(words):
            if word.startswith(f"{flag}="):
                return repr(word.partition("=")[2])
            if word == flag:
                rest = words[i + 1 :]
                end = next((j for j, w in enumerate(rest) if w.startswith("--")), len(rest))
                return repr(" ".join(rest[:end]))
    return "what was given"
