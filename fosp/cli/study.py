"""fosp study"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from fosp.cli.road import Plan, documents, drive

STUDIES = {
    "pointgoal1": Plan(
        episodes=300,
        scenario="larger-hazards",
        preset="laptop",
        pretrain=(
            "model.depth=16",
            "training.updates=7000",
            "training.latent_updates=1500",
            "agent.constraint.penalty=0.1",
            "agent.constraint.step=1e-3",
        ),
        cloning=("training.latent_updates=3000",),
        finetune=("online.episodes=60", "online.updates_per_step=0.08"),
        layouts=40,
    ),
}


@dataclass(frozen=True)
class Options:
    """The whole road at full length over several seeds: each seed has its own log, learning and held-out layouts."""

    name: tyro.conf.Positional[str]
    """Which study: pointgoal1."""
    out: Path = Path("runs/study")
    """Folder for everything; a rerun goes on where the last one stopped."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the roads."""
    results: Path | None = None
    """Folder that gets the tables and pages, small enough to be committed; none is OUT/results."""
    pretrain: tuple[str, ...] = ()
    """Values put over the study's own for pretraining, such as training.updates=4000; the result says so."""
    finetune: tuple[str, ...] = ()
    """The same for fine-tuning, such as online.episodes=100."""
    device: str = "auto"
    """cpu, cuda or auto."""


def run(options: Options) -> int:
    from fosp.cli.progress import duration_text
    from fosp.cli.tables import learning_summary
    from fosp.evaluation.document import seed_table
    from fosp.types import unknown

    if options.name not in STUDIES:
        raise unknown("study", options.name, STUDIES)
    base = STUDIES[options.name]
    plan = replace(base, pretrain=base.pretrain + options.pretrain, finetune=base.finetune + options.finetune)
    scenarios = ("nominal", plan.scenario)
    results = options.results or options.out / "results"
    results.mkdir(parents=True, exist_ok=True)
    done: list[list[dict[str, Any]]] = []
    learning: list[dict[str, Any]] = []
    for seed in options.seeds:
        folder = options.out / f"seed-{seed}"
        seconds = drive(plan, folder, seed, print, options.device)
        print(f"seed {seed}: {duration_text(sum(seconds.values()))}")
        done.append(documents(folder, scenarios))
        learning.append({"seed": seed, "seconds": seconds, **learning_summary(folder / "finetuned")})
        shutil.copy(folder / "report.html", results / f"report-seed-{seed}.html")
    tables = {name: seed_table([found[i] for found in done]) for i, name in enumerate(scenarios)}
    about = {"plan": vars(plan), "seeds": list(options.seeds), "tables": tables, "learning": learning}
    (results / "study.json").write_text(json.dumps(about, indent=1) + "\n")
    text = _markdown(options.name, tables, learning)
    (results / "README.md").write_text(text)
    print(text)
    return 0


def _markdown(name: str, tables: dict[str, Any], learning: list[dict[str, Any]]) -> str:
    """The tables of a study as a page: means over runs and layouts with 95 % intervals that resample both."""
    from fosp.evaluation.table import number

    lines = [f"# Study {name}", ""]
    for scenario, table in tables.items():
        layouts = len(table["seeds"])
        about = f"{table['runs']} runs, {layouts} held-out layouts each (suite {table['suite_hash']})"
        lines += [f"## {scenario}: {about}", ""]
        lines += ["| policy | return | cost | episodes over the limit | worst 10 % cost |", "|---|---|---|---|---|"]
        for policy in table["policies"]:
            row = policy["summary"]
            cells = [number(row["return"]), number(row["cost"]), number(row["over_limit"], percent=True)]
            lines.append(f"| {policy['label']} | {' | '.join(cells)} | {number(row['worst_cost'])} |")
        lines.append("")
        for pair in table["comparisons"]:
            gain, risk = number(pair["return"], sign=True), number(pair["cost"], sign=True)
            cut = number(pair["cost_reduction"], percent=True)
            lines.append(f"* {pair['a']} minus {pair['b']}: return {gain}, cost {risk} (reduction {cut})")
        lines += [f"* {label}: {said['sentence']}" for label, said in table["verdicts"].items()]
        lines.append("")
    lines += ["## While fine-tuning, against the frozen policy on the same layouts", ""]
    lines += ["| seed | layouts | cost, learning | cost, frozen | difference | return difference |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in learning:
        pair = [number(row["learning"]["cost"]), number(row["frozen"]["cost"])]
        change = [number(row["difference"][key], sign=True) for key in ("cost", "return")]
        lines.append(f"| {row['seed']} | {row['layouts']} | {' | '.join(pair + change)} |")
    return "\n".join(lines) + "\n"
