"""Configuration: how a tree of frozen dataclasses is overridden, written, read and compared.

Each component has a small frozen dataclass beside it; this file puts them together and knows nothing of what they do. A
field is a bool, int, float, str, None, a ``Literal`` or union of those, a tuple of those, a ``dict[str, <those>]``
whose keys are fixed by its default, or another such dataclass. Three ways in, each over the one before: a preset, a
YAML file, overrides ``a.b=c``. Every value is checked against its field's type, every key against the fields there are.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from fosp.types import UserError

C = TypeVar("C")  # a frozen dataclass


class _Text(str):
    """What was typed after ``key=``: not yet a value, not even a str.

    In ``str | None`` the text "none" means None, while the str "none" of a YAML file, where None has a spelling of its
    own, is a str.
    """


TRUE = ("true", "yes", "on", "1")
FALSE = ("false", "no", "off", "0")


class _Dumper(yaml.SafeDumper):
    """One key a line, but a tuple on the line of its key; odd characters escaped (PyYAML folds U+0085 into a space)."""

    def list_in_line(self, data: list[Any]) -> yaml.Node:
        return self.represent_sequence(self.DEFAULT_SEQUENCE_TAG, data, flow_style=True)

    def exact_str(self, data: str) -> yaml.Node:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')


_Dumper.add_representer(list, _Dumper.list_in_line)
_Dumper.add_representer(str, _Dumper.exact_str)


def override(config: C, assignments: Sequence[str]) -> C:
    """A copy of ``config`` in which every ``"a.b=value"`` holds; of two for one key the later wins.

    All are applied at once, so that a dataclass which checks its fields together sees only the final state. Raises
    UserError for a key that does not exist (names the nearest) and for a value that the field's type does not allow.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key.strip():
            raise UserError(f"override {assignment!r} is not of the form key=value, for example seed=1")
        _put(changes, key.strip().split("."), _Text(text), assignment)
    return from_tree(config, changes)


def _put(tree: dict[str, Any], path: list[str], text: str, assignment: str) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise UserError(f"override {assignment!r} gives a part of what another override sets as a whole")
    if isinstance(tree.get(path[-1]), dict):
        raise UserError(f"override {assignment!r} sets as a whole what another override gives a part of")
    tree[path[-1]] = text


def to_tree(config: Any) -> dict[str, Any]:
    """Nested dicts of plain values (tuples become lists), ready for YAML or JSON."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return to_tree(value)
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_tree(base: C, tree: Mapping[str, Any], source: str = "") -> C:
    """``base`` with the values of a nested dict put over it; keys that the dict lacks keep the value of ``base``.

    A str is parsed where the field is something else, because YAML reads ``1e-4`` as a str. ``source`` names the file
    in messages. Raises UserError as ``override`` does.
    """
    try:
        return _merge(base, tree, "", tuple(flatten(base)))
    except UserError as error:
        raise UserError(f"{source}: {error}") if source else error from None


def to_yaml(config: Any) -> str:
    """The whole configuration as YAML; ``from_yaml`` gives back an equal one."""
    return yaml.dump(to_tree(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def from_yaml(text: str, base: C, source: str = "config") -> C:
    """``base`` with the values of a YAML text put over it, ``source`` being the file's name for messages."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"{source}: not valid YAML{where}: {getattr(error, 'problem', None) or error}") from None
    if tree is None:
        return base
    if not isinstance(tree, Mapping):
        raise UserError(f"{source}: holds a {type(tree).__name__} where keys with values are expected")
    return from_tree(base, tree, source)


def load(path: str | os.PathLike[str], base: C) -> C:
    """``from_yaml`` of a file. Raises UserError where it cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise UserError(f"cannot read the configuration file {str(path)!r}: {reason}") from None
    return from_yaml(text, base, str(path))


def flatten(config: Any) -> dict[str, Any]:
    """Every leaf under its dotted key, in the order of the fields."""
    leaves: dict[str, Any] = {}
    for key, value in _items(config):
        if _is_group(value):
            leaves.update({f"{key}.{rest}": leaf for rest, leaf in flatten(value).items()})
        else:
            leaves[key] = value
    return leaves


def diff(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (value in ``a``, value in ``b``) where they differ; None stands for a key that one lacks."""
    left, right = flatten(a), flatten(b)
    keys = [*left, *(key for key in right if key not in left)]
    return {
        key: (left.get(key), right.get(key))
        for key in keys
        if (key in left) != (key in right) or left.get(key) != right.get(key)
    }


def _is_group(value: Any) -> bool:
    return isinstance(value, Mapping) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _items(group: Any) -> list[tuple[str, Any]]:
    if isinstance(group, Mapping):
        return list(group.items())
    return [(field.name, getattr(group, field.name)) for field in dataclasses.fields(group)]


def _merge(base: Any, tree: Mapping[str, Any], prefix: str, known: Sequence[str], declared: Any = None) -> Any:
    """``base``, a dataclass or a dict of leaves, with ``tree`` put over it.

    ``known`` are all dotted keys there are, for hints; ``declared`` is the annotation of ``base`` where it is a dict.
    """
    current = dict(_items(base))
    kinds = dict.fromkeys(current, typing.get_args(declared)[1]) if declared else _hints(type(base))
    changes: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if name not in current:
            raise UserError(f"unknown key {key!r}{_nearest_key(key, known)}")
        if not _is_group(current[name]):
            changes[name] = _check(key, value, kinds[name])
        elif isinstance(value, Mapping):
            is_dict = isinstance(current[name], Mapping)
            changes[name] = _merge(current[name], value, f"{key}.", known, kinds[name] if is_dict else None)
        else:
            first = next(iter(flatten(current[name])), "key")
            raise UserError(f"{key} is a group and cannot be {value!r}; set one of its keys, such as {key}.{first}")
    return _build(base, changes, prefix)


def _build(base: Any, changes: dict[str, Any], prefix: str) -> Any:
    if isinstance(base, Mapping):
        return {**base, **changes}
    try:
        return dataclasses.replace(base, **changes) if changes else base
    except ValueError as error:  # what a dataclass says in __post_init__ of values that do not go together
        given = ", ".join(f"{prefix}{name}={value!r}" for name, value in changes.items() if not _is_group(value))
        raise UserError(f"{given or prefix.rstrip('.')}: {error}") from None


def _nearest_key(key: str, known: Sequence[str]) -> str:
    """A hint: the key with the same last part somewhere else in the tree, else the one spelled most alike."""
    leaf = key.rpartition(".")[2]
    alike = [k for k in known if k.rpartition(".")[2] == leaf] or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if not alike:
        by_leaf = {k.rpartition(".")[2]: k for k in known}
        alike = [by_leaf[m] for m in difflib.get_close_matches(leaf, list(by_leaf), n=1, cutoff=0.5)]
    return f"; did you mean {alike[0]!r}?" if alike else ""


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _check(key: str, value: Any, kind: Any) -> Any:
    try:
        return _convert(value, kind)
    except ValueError:
        raise UserError(f"{key} cannot be {value!r}; expected {_describe(kind)}") from None


def _members(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a union, narrowest first, so that "1" becomes an int and "x" a str."""
    if typing.get_origin(kind) not in (Union, types.UnionType):
        return (kind,)
    order = [types.NoneType, bool, int, float]
    return tuple(sorted(typing.get_args(kind), key=lambda k: order.index(k) if k in order else len(order) + (k is str)))


def _convert(value: Any, kind: Any) -> Any:
    """``value`` as ``kind``; a str is parsed unless a str is asked for. Raises ValueError where it does not fit."""
    origin = typing.get_origin(kind)
    members = _members(kind)
    if len(members) > 1:
        return _convert_union(value, members)
    if origin is Literal:
        return _convert_literal(value, typing.get_args(kind))
    if origin is tuple or kind is tuple:
        return _convert_tuple(value, typing.get_args(kind))
    if kind in _SCALARS:
        return _SCALARS[kind](value)
    raise TypeError(f"a configuration field may not be of type {kind!r}")


def _convert_union(value: Any, members: tuple[Any, ...]) -> Any:
    # A value that already has a member's type is not to be taken for another: the str "1" of a YAML file stays a str,
    # while the text 1 of the command line goes to the narrowest member that can read it.
    for kind in members:
        if type(value) is kind:
            return value
    for kind in members:
        try:
            return _convert(value, kind)
        except ValueError:
            continue
    raise ValueError


def _convert_literal(value: Any, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    for choice in choices:
        if isinstance(value, str) and str(choice).lower() == value.strip().lower():
            return choice
    raise ValueError


def _convert_tuple(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, str):
        text = value.strip()
        if text[:1] + text[-1:] in ("()", "[]"):
            text = text[1:-1]
        value = [type(value)(part.strip()) for part in text.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    elif len(kinds) != len(value):
        raise ValueError
    return tuple(_convert(item, kind) for item, kind in zip(value, kinds, strict=True))


def _to_none(value: Any) -> None:
    if value is not None and not (isinstance(value, str) and value.strip().lower() in ("none", "null", "~")):
        raise ValueError


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else None
    if word not in TRUE + FALSE:
        raise ValueError
    return word in TRUE


def _to_int(value: Any) -> int:
    if isinstance(value, str):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError
    return value


def _to_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    number = float(value)
    if math.isnan(number):  # never meant, and unequal to itself, so no comparison of configurations would hold
        raise ValueError
    return number


def _to_str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return str(value)  # a _Text becomes a plain str, which YAML can write


_SCALARS: dict[Any, Any] = {
    types.NoneType: _to_none,
    bool: _to_bool,
    int: _to_int,
    float: _to_float,
    str: _to_str,
}

_WORDS: dict[Any, str] = {
    types.NoneType: "none",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
}


def _describe(kind: Any) -> str:
    members = _members(kind)
    if len(members) > 1:
        return " or ".join(_describe(member) for member in reversed(members))
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(str(choice) for choice in arguments)
    if typing.get_origin(kind) is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"any number of values, each {_describe(arguments[0])}, separated by commas"
        return f"{len(arguments)} values separated by commas"
    return _WORDS[kind]
