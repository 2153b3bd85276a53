"""The whole road as resumable steps; the demo is one road, a study is several."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fosp import api
from fosp.evaluation.document import load as load_document
from fosp.types import UserError

TASK = "fosp/SafetyPointGoal1-v0"
#: What a road can compare, in the order in which one process learns it: the last step of each, and its run folder.
METHODS = {"cloning": ("cloning", "cloning"), "fosp": ("finetune", "finetuned")}


@dataclass(frozen=True)
class Plan:
    """What one road does, all but its seed."""

    episodes: int  # of the log
    scenario: str  # where it is fine-tuned, which the log never showed
    preset: str
    pretrain: tuple[str, ...] = ()  # overrides
    cloning: tuple[str, ...] = ()
    finetune: tuple[str, ...] = ()
    layouts: int = 20  # held-out layouts of the evaluation
    cost_limit: float = 10.0
    record: int = 1  # recorded rollouts of each policy, for the report
    task: str = TASK


@dataclass(frozen=True)
class Road:
    """A plan with a seed and a folder, which holds both in ``plan.json``.

    What is done already stands in ``road.json`` there, with the seconds it took.
    """

    plan: Plan
    out: Path
    seed: int
    device: str = "auto"
    methods: tuple[str, ...] = tuple(METHODS)

    def __str__(self) -> str:
        return f"{short(self.plan.task)} seed {self.seed}"

    @property
    def needs(self) -> Mapping[str, tuple[str, ...]]:
        """Each step, in the order in which one process takes them, and those that must be done before it."""
        ends = tuple(step for method, (step, _) in METHODS.items() if method in self.methods)
        # All learn from the world model of "pretrain".
        learning = {"pretrain": ("collect",), **dict.fromkeys(ends, ("pretrain",))}
        return {"collect": (), **learning, "evaluate": ends, "report": ("evaluate",)}

    def step(self, name: str, workers: int | None = None) -> float:
        """Take a step, or the rest of it; returns the seconds that it took. ``workers``: processes that may act.

        What a step took that was stopped is remembered, unless the process was killed.
        """
        take = {
            "collect": self._collect,
            "pretrain": self._pretrain,
            "cloning": self._clone,
            "finetune": self._finetune,
            "evaluate": self._evaluate,
            "report": self._report,
        }[name]
        unfinished = self.out / f".{name}.seconds"
        before = json.loads(unfinished.read_text()) if unfinished.exists() else 0.0
        began = time.perf_counter()
        try:
            take(workers)
        except BaseException:
            if self.out.is_dir():
                _write(unfinished, round(before + time.perf_counter() - began, 1))
            raise
        unfinished.unlink(missing_ok=True)
        return round(before + time.perf_counter() - began, 1)

    def begin(self) -> None:
        """Make the folder, or go on with it. UserError where it holds another plan or seed: nothing would be redone."""
        self.out.mkdir(parents=True, exist_ok=True)
        file = self.out / "plan.json"
        now = json.loads(json.dumps({"seed": self.seed, **vars(self.plan)}))
        held = json.loads(file.read_text()) if file.exists() else {} if self.seconds else now
        for name, value in now.items():
            if held.get(name) != value:
                raise UserError(
                    f"--out {self.out} holds another road: {name} is {held.get(name, 'unknown')!r} there and {value!r} "
                    "here; give the same options to go on with it, or another folder"
                )
        _write(file, now)

    @property
    def seconds(self) -> dict[str, float]:
        """What each step took that is done."""
        ledger = self.out / "road.json"
        return json.loads(ledger.read_text()) if ledger.exists() else {}

    def done(self, name: str) -> bool:
        """Whether nothing is left of a step. The report is always written again, and what compares other methods."""
        if name not in self.seconds or name == "report":
            return False
        return name != "evaluate" or self._found() == {s: list(named) for s, named in self.compared.items()}

    def note(self, name: str, seconds: float) -> None:
        """The step is done."""
        self.out.mkdir(parents=True, exist_ok=True)
        _write(self.out / "road.json", {**self.seconds, name: seconds})

    @property
    def compared(self) -> dict[str, dict[str, Path]]:
        """Scenario -> label -> run: what is evaluated. Differences are of each policy against those named before it."""
        nominal: dict[str, Path] = {}
        if "cloning" in self.methods:
            nominal["cloning"] = self.out / "cloning"
        if "fosp" not in self.methods:
            return {"nominal": nominal}
        offline, tuned = self.out / "offline", self.out / "finetuned"
        return {
            "nominal": {**nominal, "offline": offline},
            self.plan.scenario: {"offline": offline, "fine-tuned": tuned},
        }

    def documents(self) -> dict[str, dict[str, Any]]:
        """Scenario -> evaluation document."""
        return {scenario: load_document(self._document(scenario)) for scenario in self.compared}

    def _document(self, scenario: str) -> Path:
        return self.out / "evaluation" / f"{scenario}.json"

    def _found(self) -> dict[str, list[str]]:
        """Scenario -> labels of the evaluations that are there."""
        files = {scenario: self._document(scenario) for scenario in self.compared}
        documents = {scenario: load_document(file) for scenario, file in files.items() if file.exists()}
        return {scenario: [p["label"] for p in found["policies"]] for scenario, found in documents.items()}

    def _collect(self, workers: int | None) -> None:
        plan, layout = self.plan, 10_000 * self.seed
        api.collect(plan.task, self.out / "log", episodes=plan.episodes, seed=layout, workers=workers).close()

    def _pretrain(self, _: int | None) -> None:
        overrides = (f"seed={self.seed}", *self.plan.pretrain)
        api.pretrain(
            self.out / "log", self.out / "offline", preset=self.plan.preset, overrides=overrides, device=self.device
        )

    def _clone(self, _: int | None) -> None:
        overrides = (f"seed={self.seed}", *self.plan.cloning)
        api.pretrain(
            self.out / "log", self.out / "cloning", preset=self.plan.preset, overrides=overrides, method="cloning",
            model_from=self.out / "offline", device=self.device,
        )  # fmt: skip

    def _finetune(self, workers: int | None) -> None:
        plan = self.plan
        api.finetune(
            self.out / "offline", self.out / "finetuned", scenario=plan.scenario, overrides=plan.finetune,
            seed=self.seed, device=self.device, workers=workers,
        )  # fmt: skip

    def _evaluate(self, workers: int | None) -> None:
        """Always on the same layouts, whatever the seed of the road, so that roads can be joined in one table."""
        plan = self.plan
        for scenario, runs in self.compared.items():
            api.evaluate(
                runs, task=plan.task, scenario=None if scenario == "nominal" else scenario, episodes=plan.layouts,
                cost_limit=plan.cost_limit, out=self.out, record=plan.record, workers=workers,
            )  # fmt: skip

    def _report(self, _: int | None) -> None:
        learned = [folder for method, (_, folder) in METHODS.items() if method in self.methods]
        runs = [self.out / name for name in ("offline", *learned)]
        title = f"{short(self.plan.task)}: from a log to a safe policy, and on to {self.plan.scenario}"
        api.write_report([*runs, self.out], self.out / "report.html", title=title)


def _write(file: Path, document: Mapping[str, Any] | float) -> None:
    """Write under a temporary name and rename: whenever the process dies, the file is the old one or the new one."""
    temporary = file.with_name(f"{file.name}.tmp")
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    temporary.replace(file)


def short(task: str) -> str:
    """The id of a task without what all ids share."""
    return task.split("/")[-1].removesuffix("-v0")


def drive(road: Road, tell: Callable[[str], None]) -> dict[str, float]:
    """Take the steps of a road in this process. Returns the seconds that each took.

    What is done already is not done again, so a road that was interrupted goes on where it stopped.
    """
    road.begin()  # what cannot be a folder is told before anything is done
    for number, name in enumerate(road.needs, 1):
        count = f"[{number}/{len(road.needs)}] {name}"
        if road.done(name):
            tell(f"{count}: done before")
            continue
        tell(count)
        road.note(name, road.step(name))
    return road.seconds
