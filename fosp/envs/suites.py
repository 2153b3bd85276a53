"""Scenarios: named changes of a task's configuration, and the hash that pins a suite of layouts.

A scenario is one small function from a task to a changed task. It does not touch rewards, costs or cameras, so results
on two scenarios of one task can be compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from difflib import get_close_matches

from fosp.envs.objects import Hazards
from fosp.envs.tasks import Task, find_task
from fosp.types import UserError

#: Part of every hash: raise it when the meaning of a configuration changes although its numbers do not.
SUITE_VERSION = 1


@dataclass(frozen=True)
class Scenario:
    """A named change of a task. ``change`` returns a new task and leaves the given one alone."""

    name: str
    text: str
    change: Callable[[Task], Task]


def _nominal(task: Task) -> Task:
    return task


def _hazards(task: Task, scenario: str) -> Hazards:
    hazards = task.find(Hazards)
    if not isinstance(hazards, Hazards):
        raise UserError(f"Scenario '{scenario}' changes hazards, but task '{task.name}' has none.")
    return hazards


def _more_hazards(task: Task) -> Task:
    return task.change(Hazards, count=_hazards(task, "more-hazards").count * 3 // 2)


def _larger_hazards(task: Task) -> Task:
    hazards = _hazards(task, "larger-hazards")
    radius = hazards.radius * 1.5
    return task.change(Hazards, radius=radius, keepout=hazards.keepout * 1.5)


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("nominal", "the task as it is", _nominal),
        Scenario("more-hazards", "half as many hazards again (12 instead of 8)", _more_hazards),
        Scenario(
            "larger-hazards", "hazards of one and a half times the radius (0.3 m instead of 0.2 m)", _larger_hazards
        ),
    )
}


def find_scenario(name: str | Scenario | None) -> Scenario:
    """The scenario of a name; None means "nominal". Raises ``UserError`` that names the nearest scenario."""
    if isinstance(name, Scenario):
        return name
    found = SCENARIOS.get("nominal" if name is None else name)
    if found is None:
        near = get_close_matches(str(name), SCENARIOS, n=1, cutoff=0.0)
        raise UserError(f"There is no scenario '{name}'; the nearest is '{near[0]}'.")
    return found


def suite_hash(task: str | Task, scenario: str | Scenario | None, seeds: Iterable[int]) -> str:
    """16 hexadecimal digits that change when the configuration of the task or any seed changes, and only then."""
    base = find_task(task) if isinstance(task, str) else task
    changed = find_scenario(scenario).change(base)
    content = {
        "version": SUITE_VERSION,
        "task": asdict(changed),
        "kinds": [o.kind for o in changed.objects],
        "seeds": [int(seed) for seed in seeds],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
