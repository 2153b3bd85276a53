"""Scenarios and suites: named changes of a task, the layouts on which they are met, and the hash that pins both.

A scenario is one small function from a task to a changed task, see ``fosp.envs.modifications``. A suite is a list of
(task, scenario, seeds); its seeds are held out, that is, nothing may be collected or learned on their layouts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches

from fosp.envs import modifications
from fosp.envs.tasks import Task, find_task
from fosp.types import HELD_OUT_SEEDS, UserError

#: Part of every hash: raise it when the meaning of a configuration changes although its numbers do not.
SUITE_VERSION = 2
#: The tasks on which the FOSP paper reports.
PAPER_TASKS = ("SafetyPointGoal1", "SafetyPointButton1", "SafetyCarGoal2", "SafetyPointGoal2", "SafetyPointPush1")
#: Layouts of a suite, as many as `fosp evaluate` takes where nothing else is asked for: so the hashes are the same.
LAYOUTS = 20


@dataclass(frozen=True)
class Scenario:
    """A named change of a task. ``change`` returns a new task and leaves the given one alone."""

    name: str
    text: str
    change: Callable[[Task], Task]


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("nominal", "the task as it is", modifications.unchanged),
        Scenario("held-out", "new layouts of the task as it is", modifications.unchanged),
        Scenario("more-hazards", "half as many hazards again", modifications.more_hazards),
        Scenario("larger-hazards", "hazards of one and a half times the radius", modifications.larger_hazards),
        Scenario("moving", "hazards sway by 0.35 m to either side of their place", modifications.moving),
        Scenario("recoloured", "goal and hazards exchange their colours", modifications.recoloured),
        Scenario("lighting-texture", "dim, warm light from one side; another floor", modifications.lighting_texture),
        Scenario("camera-shift", "cameras 1 cm and 3 degrees off, with narrower lenses", modifications.camera_shift),
        Scenario("fading-easy", "the goal fades in 150 frames (level 2: hazards too)", modifications.fading_easy),
        Scenario("fading-hard", "the goal fades in 75 frames (level 2: hazards, vases too)", modifications.fading_hard),
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
    """16 hexadecimal digits that change when the configuration of the task or any seed changes, and only then.

    What a class does is not hashed, so a class of one's own counts by its name: give it another when it does otherwise.
    """
    base = find_task(task) if isinstance(task, str) else task
    changed = find_scenario(scenario).change(base)
    content = {
        "version": SUITE_VERSION,
        "task": asdict(changed),
        "kinds": [o.kind for o in changed.objects],
        "seeds": [int(seed) for seed in seeds],
    }
    own = [type(part) for part in (changed, *changed.objects) if not type(part).__module__.startswith("fosp.envs.")]
    if own:
        content["classes"] = [f"{kind.__module__}.{kind.__qualname__}" for kind in own]
    return _digest(content)


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, default=float)  # NumPy's numbers are no floats
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Trial:
    """One task, changed in one way, on some layouts: what one evaluation runs."""

    task: str
    scenario: str
    seeds: Sequence[int]

    @property
    def hash(self) -> str:
        """That of ``suite_hash``, which every result and every score in a checkpoint carries."""
        return suite_hash(self.task, self.scenario, self.seeds)


@dataclass(frozen=True)
class Suite:
    """A named list of trials."""

    name: str
    trials: tuple[Trial, ...]

    def __post_init__(self) -> None:
        for trial in self.trials:
            used = [seed for seed in trial.seeds if seed not in HELD_OUT_SEEDS]
            if used:
                raise UserError(
                    f"suite '{self.name}' has the layout seed {used[0]}, which others may learn on; use "
                    f"{HELD_OUT_SEEDS[0]} to {HELD_OUT_SEEDS[-1]}"
                )

    @property
    def hash(self) -> str:
        """Changes when any trial does, or their order."""
        return _digest([trial.hash for trial in self.trials])


def make_suite(
    scenario: str, tasks: Iterable[str] = PAPER_TASKS, seeds: Sequence[int] = HELD_OUT_SEEDS[:LAYOUTS]
) -> Suite:
    """One scenario in several tasks on the same layouts. Raises ``UserError`` where it does not fit one of them."""
    found, bases = find_scenario(scenario), [find_task(task) for task in tasks]
    for base in bases:
        found.change(base)
    return Suite(found.name, tuple(Trial(base.id, found.name, seeds) for base in bases))


#: Name -> suite: each scenario but "nominal", whose held-out layouts are the suite "held-out", in the paper's tasks.
SUITES: dict[str, Suite] = {name: make_suite(name) for name in SCENARIOS if name != "nominal"}
