"""Holds the table of who may import whom: the rooms of the package, and the libraries that a room must not know."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fosp"

SIMULATORS = {"mujoco", "gymnasium"}
LEARNING = {"torch", "tensorboard", "safetensors"}


@dataclass(frozen=True)
class Room:
    """What a room may import of the others, and which libraries it must not import at all."""

    rooms: frozenset[str]
    never: frozenset[str] = frozenset()
    #: Its files must not import each other either (but may share what stands in the room's __init__).
    strangers: bool = False


def room(rooms: str = "", never: set[str] | None = None, strangers: bool = False) -> Room:
    return Room(frozenset(rooms.split()), frozenset(never or ()), strangers)


ROOMS = {
    "types": room(never=SIMULATORS | LEARNING),
    "plugin": room(never=LEARNING | {"mujoco"}),  # names only, for Gymnasium
    "envs": room("types plugin", never=LEARNING),
    "data": room("types", never=LEARNING | {"mujoco"}),
    "nets": room(never=SIMULATORS),
    "world_model": room("types nets", never=SIMULATORS),
    "parallel": room("types", never=SIMULATORS),  # one object, an argument of agent and training
    "agent": room("types nets world_model parallel", never=SIMULATORS),
    "baselines": room("types nets world_model agent", never=SIMULATORS, strangers=True),
    "training": room("types data parallel", never=SIMULATORS),
    "evaluation": room("types data", never={"mujoco"}),
    "report": room("types", never=SIMULATORS | LEARNING),  # of types only UserError
    "robot": room("types data", never={"mujoco"}),
    "config": room("types", never=SIMULATORS | LEARNING),  # the mechanism, which knows no component
    # The dataclasses of the components stand beside them, so their files are imported; nothing else of them is used.
    "presets": room("types config envs data nets world_model agent baselines training evaluation"),
}
#: The top knows everything, itself included: the functions of the road, and the command around them.
TOP = {"api", "cli"}
ROOMS |= {name: Room(frozenset(ROOMS) | TOP) for name in TOP}
#: The doors of the package: they may name anything.
DOORS = {"__init__", "__main__"}


def imports(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything that a file imports, inside functions and for types alone too.

    ``from a import b`` gives a.b, since b may be a module.
    """
    here = [package.name, *path.relative_to(package).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value)


def violations(package: Path) -> list[str]:
    """One line for each import that the table forbids, and for each room that it does not list."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        name = parts[0]
        if name in DOORS:
            continue
        if name not in ROOMS:
            found.append(f"{path}: the room {name!r} is not in the table")
            continue
        for line, target in imports(path, package):
            reason = forbidden(name, parts, target, package.name)
            if reason:
                found.append(f"{path}:{line}: {reason}")
    return found


def forbidden(name: str, parts: tuple[str, ...], target: str, package: str) -> str:
    """Why the file ``parts`` of the room ``name`` may not import ``target``; empty where it may."""
    words = target.split(".")
    if words[0] != package:
        return f"{name} must not know {words[0]}" if words[0] in ROOMS[name].never else ""
    if len(words) == 1 or words[1] not in ROOMS:
        return "" if name in TOP else f"{name} must not import the whole package ({target})"
    if words[1] == name:
        stranger = ROOMS[name].strangers and len(words) > 2 and words[2] != parts[-1] and parts[-1] != "__init__"
        return f"files of {name} must not import each other ({target})" if stranger else ""
    return "" if words[1] in ROOMS[name].rooms else f"{name} must not import {words[1]} ({target})"


def test_every_import_is_one_that_the_table_allows() -> None:
    assert violations(PACKAGE) == []


def test_below_the_top_no_two_rooms_can_import_each_other() -> None:
    below = {name: row.rooms for name, row in ROOMS.items() if name not in TOP}
    assert not TOP & set().union(*below.values())
    TopologicalSorter(below).prepare()  # raises CycleError


@pytest.mark.parametrize(
    ("file", "code", "reason"),
    [
        ("agent/critics.py", "from fosp.envs import make", "agent must not import envs"),
        ("agent/critics.py", "from fosp import data", "agent must not import data"),
        ("agent/critics.py", "import fosp.training.clock as c", "agent must not import training"),
        ("agent/critics.py", "def f():\n    from ..envs.tasks import goal", "agent must not import envs"),
        ("agent/deep/er.py", "from ...envs import make", "agent must not import envs"),
        ("agent/critics.py", "import fosp", "agent must not import the whole package"),
        ("agent/critics.py", "import mujoco.viewer", "agent must not know mujoco"),
        ("envs/env.py", "from torch import nn", "envs must not know torch"),
        ("envs/env.py", "from fosp.data.store import Store", "envs must not import data"),
        ("data/store.py", "import importlib\nimportlib.import_module('torch')", "data must not know torch"),
        ("data/collect.py", "import mujoco", "data must not know mujoco"),
        ("nets/layers.py", "from fosp.types import Batch", "nets must not import types"),
        ("world_model/loss.py", "from fosp.agent.actor import Actor", "world_model must not import agent"),
        ("training/offline.py", "if True:\n    import gymnasium", "training must not know gymnasium"),
        ("training/offline.py", "from fosp.agent import agent", "training must not import agent"),
        ("evaluation/evaluate.py", "from fosp.training.checkpoint import load", "evaluation must not import training"),
        ("report/page.py", "import torch", "report must not know torch"),
        ("report/page.py", "from fosp.evaluation import statistics", "report must not import evaluation"),
        ("baselines/a.py", "from fosp.baselines.b import x", "files of baselines must not import each other"),
        ("baselines/a.py", "from .b import x", "files of baselines must not import each other"),
        ("training/offline.py", "from fosp.api import collect", "training must not import api"),
        ("config.py", "from fosp.agent.agent import AgentConfig", "config must not import agent"),
        ("presets.py", "from fosp.cli.main import main", "presets must not import cli"),
        ("kitchen/sink.py", "", "'kitchen' is not in the table"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, file: str, code: str, reason: str) -> None:
    path = tmp_path / "fosp" / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
    (found,) = violations(tmp_path / "fosp")
    assert reason in found
    assert file in found


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("agent/critics.py", "import torch\nfrom fosp.types import Batch\nfrom fosp.world_model.rssm import RSSM"),
        ("agent/critics.py", "from .returns import f\nfrom fosp.agent import actor\nfrom ..types import Schema"),
        ("envs/env.py", "import mujoco, gymnasium\nfrom fosp.types import UserError"),
        ("baselines/__init__.py", "from fosp.baselines import a"),
        ("cli/wire.py", "import torch\nimport fosp\nfrom fosp.envs import make\nfrom fosp.agent.agent import Agent"),
        ("__init__.py", "from fosp.cli.wire import load_policy"),
        ("torchlike/../data/x.py", "import torch_not_really"),
    ],
)
def test_an_allowed_import_is_left_alone(tmp_path: Path, file: str, code: str) -> None:
    path = (tmp_path / "fosp" / file).resolve()
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert violations(tmp_path / "fosp") == []
