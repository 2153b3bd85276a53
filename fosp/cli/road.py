"""The whole road as one sequence of resumable steps; the demo is one road, a study is several."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fosp import api
from fosp.evaluation.document import load as load_document

TASK = "fosp/SafetyPointGoal1-v0"


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


def drive(plan: Plan, out: Path, seed: int, tell: Callable[[str], None], device: str = "auto") -> dict[str, float]:
    """Collect, pretrain, clone, fine-tune, evaluate, report in ``out``. Returns the seconds that each step took.

    What is done already is not done again, so a road that was interrupted goes on where it stopped.
    """
    steps: dict[str, Callable[[], Any]] = {
        "collect": lambda: api.collect(plan.task, out / "log", episodes=plan.episodes, seed=10_000 * seed).close(),
        "pretrain": lambda: api.pretrain(
            out / "log", out / "offline", preset=plan.preset, overrides=(f"seed={seed}", *plan.pretrain), device=device
        ),
        "cloning": lambda: api.pretrain(
            out / "log", out / "cloning", preset=plan.preset, overrides=(f"seed={seed}", *plan.cloning),
            method="cloning", model_from=out / "offline", device=device,
        ),
        "finetune": lambda: api.finetune(
            out / "offline", out / "finetuned", scenario=plan.scenario, overrides=plan.finetune, seed=seed,
            device=device,
        ),
        "evaluate": lambda: _evaluate(plan, out),
        "report": lambda: api.write_report(
            [out / "offline", out / "cloning", out / "finetuned", out], out / "report.html", title=_title(plan)
        ),
    }  # fmt: skip
    ledger = out / "road.json"
    out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = json.loads(ledger.read_text()) if ledger.exists() else {}
    for number, (name, step) in enumerate(steps.items(), 1):
        if name in seconds and name != "report":
            tell(f"[{number}/{len(steps)}] {name}: done before")
            continue
        tell(f"[{number}/{len(steps)}] {name}")
        began = time.perf_counter()
        step()
        seconds[name] = round(time.perf_counter() - began, 1)
        ledger.write_text(json.dumps(seconds, indent=1) + "\n")
    return seconds


def _title(plan: Plan) -> str:
    return f"{plan.task.split('/')[-1].removesuffix('-v0')}: from a log to a safe policy, and on to {plan.scenario}"


def _evaluate(plan: Plan, out: Path) -> None:
    """Always on the same layouts, whatever the seed of the road, so that roads can be joined in one table."""
    common = {"episodes": plan.layouts, "cost_limit": plan.cost_limit, "out": out, "record": plan.record}
    offline, tuned = out / "offline", out / "finetuned"
    # Differences are of each policy against those named before it.
    api.evaluate({"cloning": out / "cloning", "offline": offline}, task=plan.task, **common)
    api.evaluate({"offline": offline, "fine-tuned": tuned}, task=plan.task, scenario=plan.scenario, **common)


def documents(out: Path, scenarios: Sequence[str]) -> list[dict[str, Any]]:
    """The evaluation documents of a road."""
    return [load_document(out / "evaluation" / f"{name}.json") for name in scenarios]
